//! The planner: from the model that the catalog has to the one wanted, as typed steps with their hazards. Pure.
//!
//! What is safe and what is not:
//! - New entities, attributes, relationships, enumeration values, descriptions, wider types, looser limits and renames by `renamedFrom` are safe.
//! - What takes data away (an attribute, an entity, digits behind the point) is hazardous whatever the table holds: also an empty table's
//!   attribute is part of an API that somebody may use.
//! - What the rows there may not meet (`required`, `unique`, a limit, a narrower type) is hazardous unless the table is empty.
//! - What reads or rewrites a whole table while others wait is hazardous from [`SMALL_TABLE`](crate::facts::SMALL_TABLE) rows on. Where PostgreSQL
//!   can do it without blocking (an index; a check or reference that all rows are known to meet), it runs after the transaction instead.
//! - Former versions are kept from the change on that asks for it, which is safe; not to keep them any more loses those there. They follow renames
//!   and types of columns, so that they can be read with the rows; what does not fit a new type is set aside.
//!
//! `renamedFrom` stays in a model after the rename is done: it means something only while the former name is there and the new one is not. Two
//! names can't be swapped in one step.

mod columns;
mod constraints;
mod enumerations;
mod history;
mod renames;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use autonomy_crds::Model;
use sha2::{Digest, Sha256};

use crate::facts::{Facts, Rows};
use crate::shape::{Shape, TableShape, ViewShape};
use crate::sql;
use crate::step::{Described, Hazard, HazardClass, Phase, Step};

/// How a model's schema becomes the one wanted.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// The model that the plan starts from; none where there is none yet.
    pub current: Option<Model>,
    /// The model that it leads to.
    pub wanted: Model,
    /// The steps, in order.
    pub steps: Vec<PlannedStep>,
}

/// A step with when it runs and what is dangerous about it.
#[derive(Clone, Debug, PartialEq)]
pub struct PlannedStep {
    /// When it runs.
    pub phase: Phase,
    /// What it does.
    pub step: Step,
    /// What is dangerous about it; nothing where it is safe.
    pub hazards: Vec<Hazard>,
}

impl Plan {
    /// Whether there is nothing to do: the wanted model is the current one. A plan without steps may still change the catalog (a path, a
    /// subject's routing).
    pub fn is_empty(&self) -> bool {
        self.current.as_ref() == Some(&self.wanted)
    }

    /// Every hazard of every step.
    pub fn hazards(&self) -> impl Iterator<Item = &Hazard> {
        self.steps.iter().flat_map(|planned| &planned.hazards)
    }

    /// Whether no step is hazardous.
    pub fn is_safe(&self) -> bool {
        self.hazards().next().is_none()
    }

    /// The SQL of the steps of a phase, in order, without semicolons.
    pub fn statements(&self, phase: Phase) -> Vec<String> {
        let steps = self.steps.iter().filter(|planned| planned.phase == phase);
        steps.flat_map(|planned| sql::statements(&self.wanted.schema, &planned.step)).collect()
    }

    /// The sha256 (hex) of the plan's SQL with its phases. The same plan has the same one, whoever makes it and whenever.
    pub fn sha256(&self) -> String {
        let mut hash = Sha256::new();
        for phase in [Phase::Before, Phase::Together, Phase::After] {
            for statement in self.statements(phase) {
                hash.update(statement.as_bytes());
                hash.update(b";\n");
            }
            hash.update(b"\n");
        }
        hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// The plan as SQL, with phases and hazards as comments.
impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut phase = None;
        let mut steps: Vec<&PlannedStep> = self.steps.iter().collect();
        steps.sort_by_key(|planned| planned.phase);
        for planned in steps {
            if phase != Some(planned.phase) {
                phase = Some(planned.phase);
                f.write_str(match planned.phase {
                    Phase::Before => "-- before, in a transaction of its own\n",
                    Phase::Together => "-- in one transaction, with the catalog\n",
                    Phase::After => "-- after, beside running readers and writers\n",
                })?;
            }
            for hazard in &planned.hazards {
                writeln!(f, "-- {}: {}", hazard.class, hazard.reason)?;
            }
            for statement in sql::statements(&self.wanted.schema, &planned.step) {
                writeln!(f, "{statement};")?;
            }
        }
        Ok(())
    }
}

/// Plans the way from `current` to `wanted`.
pub fn plan(current: Option<&Model>, wanted: &Model, facts: &Facts) -> Plan {
    let steps = Planner::new(current, wanted, facts).run();
    Plan { current: current.cloned(), wanted: wanted.clone(), steps }
}

// `now` is the shape as the steps planned so far leave it.
struct Planner<'a> {
    now: Shape,
    wanted: Shape,
    facts: &'a Facts,
    rows: BTreeMap<String, Rows>,
    is_new: bool,
    steps: Vec<PlannedStep>,
    // Tables and columns that this plan makes, and whether the rows there get a value in such a column.
    new_tables: BTreeSet<String>,
    new_columns: BTreeMap<(String, String), Filled>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Filled {
    WithNull,
    WithDefault,
}

impl<'a> Planner<'a> {
    fn new(current: Option<&Model>, wanted: &Model, facts: &'a Facts) -> Self {
        let wanted = Shape::of(wanted);
        let nothing = Shape { comment: None, enumerations: Vec::new(), tables: Vec::new(), views: Vec::new(), ..wanted.clone() };
        Self {
            now: current.map_or(nothing, Shape::of),
            wanted,
            facts,
            rows: facts.rows.clone(),
            is_new: current.is_none(),
            steps: Vec::new(),
            new_tables: BTreeSet::new(),
            new_columns: BTreeMap::new(),
        }
    }

    fn run(mut self) -> Vec<PlannedStep> {
        if self.is_new {
            self.safe(Step::CreateSchema { reader: self.wanted.reader.clone(), writer: self.wanted.writer.clone() });
        }
        let renames = self.rename_tables_and_columns();
        self.drop_views();
        renames.into_iter().for_each(|(step, hazards)| self.add(Phase::Together, step, hazards));
        self.make_enumerations();
        let relations = self.drop_constraints_and_indexes();
        self.drop_tables();
        self.replace_enumerations();
        self.change_columns();
        self.create_tables();
        self.keep_histories();
        self.add_constraints_and_indexes(relations);
        self.create_views();
        self.drop_enumerations();
        self.describe();
        self.steps
    }

    fn safe(&mut self, step: Step) {
        self.add(Phase::Together, step, Vec::new());
    }

    fn add(&mut self, phase: Phase, step: Step, hazards: Vec<Hazard>) {
        self.steps.push(PlannedStep { phase, step, hazards });
    }

    fn rows(&self, table: &str) -> Rows {
        if self.new_tables.contains(table) {
            return Rows::Counted(0);
        }
        self.rows.get(table).copied().unwrap_or(Rows::Many)
    }

    // The hazard of reading or rewriting a table while others wait.
    fn blocks(&self, table: &str, doing: &str) -> Option<Hazard> {
        (!self.rows(table).few()).then(|| Hazard {
            class: HazardClass::MayBlock,
            reason: format!("{doing} reads or rewrites all of table {table}, which is large, while others wait"),
        })
    }

    // The hazard of rows that do not meet what comes.
    fn fails(&self, table: &str, reason: String) -> Option<Hazard> {
        (!self.rows(table).none()).then_some(Hazard { class: HazardClass::MayFail, reason })
    }

    fn wanted_table(&self, name: &str) -> Option<TableShape> {
        self.wanted.tables.iter().find(|table| table.name == name).cloned()
    }

    fn has_table_now(&self, name: &str) -> bool {
        self.now.tables.iter().any(|table| table.name == name)
    }

    fn drop_views(&mut self) {
        let (kept, dropped): (Vec<ViewShape>, Vec<ViewShape>) = std::mem::take(&mut self.now.views).into_iter().partition(|view| {
            let same = self.wanted.views.iter().any(|wanted| ViewShape { comment: view.comment.clone(), ..wanted.clone() } == *view);
            same && !view.members.iter().any(|(_, _, sql_type)| self.is_replaced(sql_type))
        });
        self.now.views = kept;
        dropped.into_iter().for_each(|view| self.safe(Step::DropView { view: view.name }));
    }

    fn create_views(&mut self) {
        for view in self.wanted.views.clone() {
            if !self.now.views.iter().any(|there| there.name == view.name) {
                let (reader, writer) = (self.wanted.reader.clone(), self.wanted.writer.clone());
                self.now.views.push(ViewShape { comment: None, ..view.clone() });
                self.safe(Step::CreateView { view, reader, writer });
            }
        }
    }

    fn drop_tables(&mut self) {
        let tables = std::mem::take(&mut self.now.tables);
        let (kept, dropped): (Vec<_>, Vec<_>) = tables.into_iter().partition(|table| self.wanted_table(&table.name).is_some());
        self.now.tables = kept;
        for table in dropped {
            let reason = format!("table {} is dropped with all its rows, and its path and events with it", table.name);
            let hazard = Hazard { class: HazardClass::LosesData, reason };
            self.add(Phase::Together, Step::DropTable { table: table.name }, vec![hazard]);
            if let Some(history) = table.history {
                self.drop_history(history.table);
            }
        }
    }

    fn create_tables(&mut self) {
        for table in self.wanted.tables.clone() {
            if self.has_table_now(&table.name) {
                continue;
            }
            self.new_tables.insert(table.name.clone());
            let (reader, writer) = (self.wanted.reader.clone(), self.wanted.writer.clone());
            self.safe(Step::CreateTable { table: table.clone(), reader, writer });
            let without_comments = table.columns.iter().cloned().map(|mut column| {
                column.comment = None;
                column
            });
            self.now.tables.push(TableShape {
                columns: without_comments.collect(),
                comment: None,
                constraints: Vec::new(),
                indexes: Vec::new(),
                history: None,
                ..table
            });
        }
    }

    fn describe(&mut self) {
        let (now, wanted) = (self.now.clone(), self.wanted.clone());
        let mut changes = vec![(Described::Schema, now.comment, wanted.comment)];
        for enumeration in wanted.enumerations {
            let before = now.enumerations.iter().find(|there| there.name == enumeration.name).and_then(|there| there.comment.clone());
            changes.push((Described::Enumeration(enumeration.name), before, enumeration.comment));
        }
        for table in wanted.tables {
            let there = now.tables.iter().find(|there| there.name == table.name);
            changes.push((Described::Table(table.name.clone()), there.and_then(|there| there.comment.clone()), table.comment));
            for column in table.columns {
                let before = there.and_then(|there| there.column(&column.name)).and_then(|column| column.comment.clone());
                changes.push((Described::Column(table.name.clone(), column.name), before, column.comment));
            }
        }
        for view in wanted.views {
            let before = now.views.iter().find(|there| there.name == view.name).and_then(|there| there.comment.clone());
            changes.push((Described::View(view.name), before, view.comment));
        }
        for (what, before, text) in changes {
            if before != text {
                self.safe(Step::Describe { what, text });
            }
        }
    }
}
