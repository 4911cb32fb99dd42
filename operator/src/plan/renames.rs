//! Renames of tables and columns, as `renamedFrom` declares them.

use std::collections::BTreeSet;

use super::Planner;
use crate::shape::{Rule, TableShape};
use crate::step::{FormerValues, Hazard, Step};

impl Planner<'_> {
    // The shape as it is takes the new names; constraints and indexes keep theirs until they are compared.
    pub(super) fn rename_tables_and_columns(&mut self) -> Vec<(Step, Vec<Hazard>)> {
        let mut steps = Vec::new();
        let there = self.now.tables.iter().map(|table| table.name.clone()).collect();
        let wanted = self.wanted.tables.iter().map(|table| (table.name.clone(), table.renamed_from.clone())).collect();
        for (from, to) in renames(there, wanted) {
            self.rename_table(&from, &to);
            let of_history = self.rename_history(&to);
            steps.push((Step::RenameTable { table: from, to }, Vec::new()));
            steps.extend(of_history.into_iter().map(|step| (step, Vec::new())));
        }
        for table in self.wanted.tables.clone() {
            let Some(now) = self.now.tables.iter().find(|now| now.name == table.name) else { continue };
            let there = now.columns.iter().map(|column| column.name.clone()).collect();
            let wanted = table.columns.iter().map(|column| (column.name.clone(), column.renamed_from.clone())).collect();
            for (from, to) in renames(there, wanted) {
                self.rename_column(&table.name, &from, &to);
                steps.push((Step::RenameColumn { table: table.name.clone(), column: from.clone(), to: to.clone() }, Vec::new()));
                steps.extend(self.change_history(&table.name, &from, FormerValues::Renamed(to)));
            }
        }
        steps
    }

    fn rename_table(&mut self, from: &str, to: &str) {
        if let Some(rows) = self.rows.remove(from) {
            self.rows.insert(to.to_owned(), rows);
        }
        let schema = self.now.schema.clone();
        for table in &mut self.now.tables {
            if table.name == from {
                to.clone_into(&mut table.name);
            }
            for constraint in &mut table.constraints {
                if let Rule::Reference { schema: target, table: referred, .. } = &mut constraint.rule
                    && *target == schema
                    && referred == from
                {
                    to.clone_into(referred);
                }
            }
            for (target, referred) in part_targets(table) {
                if *target == schema && referred == from {
                    to.clone_into(referred);
                }
            }
        }
        for view in self.now.views.iter_mut().filter(|view| view.owner == from) {
            to.clone_into(&mut view.owner);
        }
    }

    fn rename_column(&mut self, table: &str, from: &str, to: &str) {
        let Some(now) = self.now.tables.iter_mut().find(|now| now.name == table) else { return };
        let columns = now.columns.iter_mut().filter(|column| column.name == from);
        columns.for_each(|column| to.clone_into(&mut column.name));
        now.constraints.iter_mut().for_each(|constraint| constraint.rule.rename_column(from, to));
        let indexed = now.indexes.iter_mut().flat_map(|index| &mut index.columns).filter(|column| *column == from);
        indexed.for_each(|column| to.clone_into(column));
        for view in self.now.views.iter_mut().filter(|view| view.owner == table && view.column == from) {
            to.clone_into(&mut view.column);
        }
    }
}

fn part_targets(table: &mut TableShape) -> impl Iterator<Item = &mut (String, String)> {
    table.columns.iter_mut().flat_map(|column| &mut column.parts).filter_map(|member| member.target.as_mut())
}

// The renames to make, each to a name that is free by then: only where the former name is there and the new one is not. No name is moved twice.
pub(super) fn renames(mut there: BTreeSet<String>, wanted: Vec<(String, Option<String>)>) -> Vec<(String, String)> {
    let mut renames: Vec<(String, String)> = Vec::new();
    loop {
        let next = wanted.iter().find_map(|(to, from)| {
            let from = from.as_ref().filter(|from| there.contains(*from) && !there.contains(to))?;
            let moved = renames.iter().any(|(_, moved)| moved == from);
            (!moved).then(|| (from.clone(), to.clone()))
        });
        let Some((from, to)) = next else { return renames };
        there.remove(&from);
        there.insert(to.clone());
        renames.push((from, to));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn renamed(there: &[&str], wanted: &[(&str, Option<&str>)]) -> Vec<(String, String)> {
        let there = there.iter().map(|name| (*name).to_owned()).collect();
        renames(there, wanted.iter().map(|(to, from)| ((*to).to_owned(), from.map(str::to_owned))).collect())
    }

    #[test]
    fn a_rename_is_made_once_and_chains_find_their_order() {
        let pair = |from: &str, to: &str| (from.to_owned(), to.to_owned());
        assert_eq!(renamed(&["a"], &[("b", Some("a"))]), [pair("a", "b")]);
        assert_eq!(renamed(&["b"], &[("b", Some("a"))]), []);
        assert_eq!(renamed(&["b"], &[("b", Some("a")), ("a", None)]), []);
        assert_eq!(renamed(&["a", "b"], &[("b", Some("a")), ("c", Some("b"))]), [pair("b", "c"), pair("a", "b")]);
        assert_eq!(renamed(&["a"], &[("b", Some("a")), ("c", Some("b"))]), [pair("a", "b")]);
        assert_eq!(renamed(&["a", "b"], &[("a", Some("b")), ("b", Some("a"))]), []);
    }
}
