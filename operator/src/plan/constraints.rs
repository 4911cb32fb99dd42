//! Constraints and indexes. They are matched by what they say, so that a rename of a table or column is a rename of its constraints.

use std::collections::BTreeSet;

use super::{Filled, Planner};
use crate::shape::{ConstraintShape, IndexShape, Rule};
use crate::step::{Phase, Step};

/// What of the constraints there goes, and so may tell that the rows meet what comes in its place.
pub(super) struct Relations {
    dropped: Vec<(String, ConstraintShape)>,
}

// A rename among the names of a schema's indexes and constraints.
enum NameOf {
    Constraint(String),
    Index,
}

impl Planner<'_> {
    pub(super) fn drop_constraints_and_indexes(&mut self) -> Relations {
        let mut dropped = Vec::new();
        let mut renamed = Vec::new();
        let mut drops = Vec::new();
        let mut tables = std::mem::take(&mut self.now.tables);
        for table in &mut tables {
            let (constraints, indexes, primary_key) = match self.wanted_table(&table.name) {
                Some(wanted) => (wanted.constraints, wanted.indexes, wanted.primary_key),
                None => (Vec::new(), Vec::new(), table.primary_key.clone()),
            };
            let goes = self.wanted_table(&table.name).is_none();
            if table.primary_key != primary_key {
                renamed.push((NameOf::Constraint(table.name.clone()), table.primary_key.clone(), primary_key.clone()));
                table.primary_key = primary_key;
            }
            let matched =
                pair(&table.constraints, &constraints, |there, wanted| self.same_rule(&there.rule, &wanted.rule), |one| &one.name);
            for (there, wanted) in std::mem::take(&mut table.constraints).into_iter().zip(matched) {
                match wanted {
                    Some(wanted) => {
                        if there.name != wanted.name {
                            renamed.push((NameOf::Constraint(table.name.clone()), there.name, wanted.name.clone()));
                        }
                        table.constraints.push(wanted);
                    }
                    // What a dropped table has goes with it, but its references may stand in the way of others that go.
                    None => {
                        if !goes || matches!(there.rule, Rule::Reference { .. }) {
                            drops.push(Step::DropConstraint { table: table.name.clone(), constraint: there.name.clone() });
                        }
                        dropped.push((table.name.clone(), there));
                    }
                }
            }
            let same = |there: &IndexShape, wanted: &IndexShape| there.columns == wanted.columns && there.unique == wanted.unique;
            let matched = pair(&table.indexes, &indexes, same, |index| &index.name);
            for (there, wanted) in std::mem::take(&mut table.indexes).into_iter().zip(matched) {
                match wanted {
                    Some(wanted) => {
                        if there.name != wanted.name {
                            renamed.push((NameOf::Index, there.name, wanted.name.clone()));
                        }
                        table.indexes.push(wanted);
                    }
                    None if !goes => drops.push(Step::DropIndex { index: there.name }),
                    None => {}
                }
            }
        }
        self.now.tables = tables;
        drops.into_iter().for_each(|step| self.safe(step));
        self.rename_constraints(renamed);
        Relations { dropped }
    }

    // In an order in which each new name is free. A ring of names is opened by a passing one.
    fn rename_constraints(&mut self, mut renamed: Vec<(NameOf, String, String)>) {
        while !renamed.is_empty() {
            let taken: BTreeSet<&String> = renamed.iter().map(|(_, from, _)| from).collect();
            let free = renamed.iter().position(|(_, _, to)| !taken.contains(to));
            let (what, from, to) = match free {
                Some(index) => renamed.remove(index),
                None => {
                    let (what, from, to) = renamed.remove(0);
                    let passing = autonomy_crds::names::shortened(format!("passing__{from}"));
                    self.rename(&what, from, passing.clone());
                    renamed.push((what, passing, to));
                    continue;
                }
            };
            self.rename(&what, from, to);
        }
    }

    fn rename(&mut self, what: &NameOf, from: String, to: String) {
        self.safe(match what {
            NameOf::Constraint(table) => Step::RenameConstraint { table: table.clone(), constraint: from, to },
            NameOf::Index => Step::RenameIndex { index: from, to },
        });
    }

    // A reference follows its table by itself when that is renamed in another model.
    fn same_rule(&self, there: &Rule, wanted: &Rule) -> bool {
        if let (
            Rule::Reference { column, schema, table, on_delete },
            Rule::Reference { column: wanted_column, schema: wanted_schema, table: wanted_table, on_delete: wanted_on_delete },
        ) = (there, wanted)
        {
            return column == wanted_column
                && on_delete == wanted_on_delete
                && schema == wanted_schema
                && self.is_same_table(schema, table, wanted_table);
        }
        there == wanted
    }

    fn is_same_table(&self, schema: &str, there: &str, wanted: &str) -> bool {
        there == wanted || self.facts.renamed.get(&(schema.to_owned(), there.to_owned())).is_some_and(|now| now == wanted)
    }

    pub(super) fn add_constraints_and_indexes(&mut self, relations: Relations) {
        let wanted = self.wanted.tables.clone();
        for references in [false, true] {
            for table in &wanted {
                for constraint in &table.constraints {
                    let is_reference = matches!(constraint.rule, Rule::Reference { .. });
                    if is_reference == references && !self.has_constraint(&table.name, &constraint.name) {
                        self.add_constraint(&table.name, constraint, &relations);
                    }
                }
            }
        }
        for table in &wanted {
            for index in &table.indexes {
                let there = self.now.tables.iter().find(|now| now.name == table.name);
                if there.is_none_or(|there| there.indexes.iter().all(|there| there.name != index.name)) {
                    self.add_index(&table.name, index);
                }
            }
        }
    }

    fn has_constraint(&self, table: &str, constraint: &str) -> bool {
        let table = self.now.tables.iter().find(|now| now.name == table);
        table.is_some_and(|table| table.constraints.iter().any(|there| there.name == constraint))
    }

    fn add_constraint(&mut self, table: &str, constraint: &ConstraintShape, relations: &Relations) {
        // A new table is made with all but its references.
        if self.new_tables.contains(table) && !matches!(constraint.rule, Rule::Reference { .. }) {
            return;
        }
        let (known, what) = match &constraint.rule {
            Rule::Unique(columns) => return self.add_unique(table, constraint, &columns.clone()),
            Rule::Reference { column, table: target, .. } => (
                self.is_null(table, column) || self.was_referring(table, &constraint.rule, relations),
                format!("{table}.{column} becomes a reference to {target}; it fails where the object referred to is not there"),
            ),
            Rule::Check(check) => {
                let words = check.in_words();
                let was_narrower = relations
                    .dropped
                    .iter()
                    .any(|(of, there)| of == table && matches!(&there.rule, Rule::Check(before) if check.allows_all_of(before)));
                // The default of a new column is checked against its own limits when the model is resolved; a comparison is not.
                let single = constraint.rule.columns().len() == 1;
                let new = constraint.rule.columns().iter().any(|column| self.is_null(table, column))
                    || single && constraint.rule.columns().iter().any(|column| self.is_new_column(table, column));
                (was_narrower || new, format!("it must hold in {table} that {words}; it fails where it does not"))
            }
        };
        let mut hazards = Vec::new();
        if !known {
            hazards.extend(self.fails(table, what));
            hazards.extend(self.blocks(table, &format!("checking {}", constraint.name)));
        }
        let later = known && !self.rows(table).few();
        let step = Step::AddConstraint { table: table.to_owned(), constraint: constraint.clone(), validated: !later };
        self.add(Phase::Together, step, hazards);
        if later {
            let step = Step::ValidateConstraint { table: table.to_owned(), constraint: constraint.name.clone() };
            self.add(Phase::After, step, Vec::new());
        }
    }

    fn add_unique(&mut self, table: &str, constraint: &ConstraintShape, columns: &[String]) {
        let hazards = self.hazards_of_uniqueness(table, columns);
        let step = Step::AddConstraint { table: table.to_owned(), constraint: constraint.clone(), validated: true };
        self.add(Phase::Together, step, hazards);
    }

    fn hazards_of_uniqueness(&self, table: &str, columns: &[String]) -> Vec<crate::step::Hazard> {
        let mut hazards = Vec::new();
        // NULLs never equal one another.
        if !columns.iter().any(|column| self.is_null(table, column)) {
            let reason = format!("{} in {table} must differ between objects; it fails where two agree", columns.join(", "));
            hazards.extend(self.fails(table, reason));
        }
        hazards.extend(self.blocks(table, &format!("the unique index on {}", columns.join(", "))));
        hazards
    }

    fn add_index(&mut self, table: &str, index: &IndexShape) {
        if index.unique {
            let hazards = self.hazards_of_uniqueness(table, &index.columns);
            let step = Step::CreateIndex { table: table.to_owned(), index: index.clone(), concurrently: false };
            return self.add(Phase::Together, step, hazards);
        }
        let concurrently = !self.rows(table).few();
        let phase = if concurrently { Phase::After } else { Phase::Together };
        self.add(phase, Step::CreateIndex { table: table.to_owned(), index: index.clone(), concurrently }, Vec::new());
    }

    // Whether a column is new and NULL in every row there.
    fn is_null(&self, table: &str, column: &str) -> bool {
        self.new_columns.get(&(table.to_owned(), column.to_owned())) == Some(&Filled::WithNull)
    }

    fn is_new_column(&self, table: &str, column: &str) -> bool {
        self.new_columns.contains_key(&(table.to_owned(), column.to_owned()))
    }

    // Whether the column was a reference to the same table before, with another rule of deletion.
    fn was_referring(&self, table: &str, rule: &Rule, relations: &Relations) -> bool {
        let Rule::Reference { column, schema, table: target, .. } = rule else { return false };
        relations.dropped.iter().any(|(of, there)| match &there.rule {
            Rule::Reference { column: same, schema: same_schema, table: former, .. } => {
                of == table && same == column && same_schema == schema && self.is_same_table(schema, former, target)
            }
            _ => false,
        })
    }
}

// For each of `there` the wanted one that is the same: of the same name where there is one, and each only once.
fn pair<T: Clone>(there: &[T], wanted: &[T], same: impl Fn(&T, &T) -> bool, name: impl Fn(&T) -> &String) -> Vec<Option<T>> {
    let mut left: Vec<&T> = wanted.iter().collect();
    let mut pairs: Vec<Option<T>> = vec![None; there.len()];
    for by_name in [true, false] {
        for (one, pair) in there.iter().zip(&mut pairs) {
            if pair.is_some() {
                continue;
            }
            if let Some(index) = left.iter().position(|wanted| same(one, wanted) && (!by_name || name(one) == name(wanted))) {
                *pair = Some(left.remove(index).clone());
            }
        }
    }
    pairs
}
