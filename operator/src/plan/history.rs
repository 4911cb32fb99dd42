//! Former versions: the tables that hold them, the triggers that fill those, and the form of what is kept.

use super::Planner;
use crate::shape::HistoryShape;
use crate::step::{FormerValues, Hazard, HazardClass, Phase, Step};

impl Planner<'_> {
    /// The steps by which former versions follow their table to its new name, which it has already. The triggers name where they write, and
    /// a later step of the same plan may change rows.
    pub(super) fn rename_history(&mut self, table: &str) -> Vec<Step> {
        let wanted = self.wanted_table(table).and_then(|wanted| wanted.history);
        let Some(now) = self.now.tables.iter_mut().find(|now| now.name == table) else { return Vec::new() };
        let (Some(there), Some(wanted)) = (now.history.clone(), wanted) else { return Vec::new() };
        let renamed = HistoryShape { updates: there.updates, ..wanted };
        if renamed == there {
            return Vec::new();
        }
        now.history = Some(renamed.clone());
        if let Some(rows) = self.rows.remove(&there.table) {
            self.rows.insert(renamed.table.clone(), rows);
        }
        vec![
            Step::RenameTable { table: there.table, to: renamed.table.clone() },
            Step::RenameConstraint { table: renamed.table.clone(), constraint: there.primary_key, to: renamed.primary_key.clone() },
            Step::RenameIndex { index: there.index, to: renamed.index.clone() },
            Step::KeepHistory { table: table.to_owned(), history: Some(renamed) },
        ]
    }

    /// The step that changes a column's values in former versions, where the table has some and keeps them.
    pub(super) fn change_history(&self, table: &str, column: &str, change: FormerValues) -> Option<(Step, Vec<Hazard>)> {
        let history = self.now.tables.iter().find(|now| now.name == table).and_then(|now| now.history.as_ref())?.table.clone();
        self.wanted_table(table)?.history?;
        let hazards = self.blocks(&history, &format!("changing {column} in the former versions of {table}"));
        Some((Step::ChangeHistory { history, column: column.to_owned(), change }, hazards.into_iter().collect()))
    }

    /// Begins to keep former versions, or ends it, where the table says otherwise than before.
    pub(super) fn keep_histories(&mut self) {
        let tables = self.wanted.tables.clone();
        let there = |planner: &Self, name: &str| planner.now.tables.iter().find(|now| now.name == name).and_then(|now| now.history.clone());
        // What goes makes room for names first.
        for table in tables.iter().filter(|table| table.history.is_none()) {
            if let Some(history) = there(self, &table.name) {
                self.safe(Step::KeepHistory { table: table.name.clone(), history: None });
                self.drop_history(history.table);
            }
        }
        for table in tables {
            let now = there(self, &table.name);
            let Some(wanted) = table.history.filter(|wanted| now.as_ref() != Some(wanted)) else { continue };
            if now.is_none() {
                let (reader, writer) = (self.wanted.reader.clone(), self.wanted.writer.clone());
                self.safe(Step::CreateHistory { history: wanted.clone(), reader, writer });
            }
            self.safe(Step::KeepHistory { table: table.name, history: Some(wanted) });
        }
    }

    pub(super) fn drop_history(&mut self, history: String) {
        let reason = format!("table {history} is dropped with all former versions of objects in it");
        let hazard = Hazard { class: HazardClass::LosesData, reason };
        self.add(Phase::Together, Step::DropTable { table: history }, vec![hazard]);
    }
}
