//! Columns: their types, defaults, `NOT NULL`, and the parts in them.

use serde_json::Value;

use super::renames::renames;
use super::{Filled, Planner};
use crate::shape::{ColumnShape, PartMemberShape, SqlType};
use crate::sql::type_name;
use crate::step::{FormerValues, Hazard, HazardClass, Phase, Step};

/// What a change of type does to the values there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TypeChange {
    /// Nothing: each value is as good in the new type, and no row is touched.
    InPlace,
    /// Each value is written anew, none is lost.
    Rewrites,
    /// Each value is read and refused where it does not fit.
    MayFail,
    /// Values are cut.
    LosesData,
}

fn type_change(from: &SqlType, to: &SqlType) -> TypeChange {
    use SqlType::{Bigint, Boolean, Bytea, Date, Enumeration, Jsonb, Numeric, NumericOf, Text, Timestamptz, Uuid, Varchar};
    use TypeChange::{InPlace, LosesData, MayFail, Rewrites};
    match (from, to) {
        (from, to) if from == to => InPlace,
        (Varchar(_), Text) => InPlace,
        (Varchar(from), Varchar(to)) if from <= to => InPlace,
        (NumericOf { .. }, Numeric) => InPlace,
        (NumericOf { precision: from, scale: from_scale }, NumericOf { precision: to, scale: to_scale }) => {
            let whole_digits_stay = to.saturating_sub(*to_scale) >= from.saturating_sub(*from_scale);
            match (whole_digits_stay, to_scale.cmp(from_scale)) {
                (_, std::cmp::Ordering::Less) => LosesData,
                (false, _) => MayFail,
                (true, std::cmp::Ordering::Equal) => InPlace,
                (true, std::cmp::Ordering::Greater) => Rewrites,
            }
        }
        (Numeric, NumericOf { .. }) | (Numeric | NumericOf { .. }, Bigint) | (Timestamptz, Date) => LosesData,
        (Bigint, Numeric) | (Date, Timestamptz) => Rewrites,
        (Bigint, NumericOf { precision, scale }) if precision - scale.min(precision) >= 19 => Rewrites,
        (Jsonb, Text) => MayFail,
        (Bigint | Numeric | NumericOf { .. } | Uuid | Boolean | Date | Timestamptz | Bytea | Enumeration { .. }, Text) => Rewrites,
        (_, Jsonb) if *from != Bytea => Rewrites,
        _ => MayFail,
    }
}

impl Planner<'_> {
    pub(super) fn change_columns(&mut self) {
        for table in self.wanted.tables.clone() {
            let Some(index) = self.now.tables.iter().position(|now| now.name == table.name) else { continue };
            let there = std::mem::take(&mut self.now.tables[index].columns);
            for column in &there {
                if table.column(&column.name).is_none() {
                    self.drop_column(&table.name, column);
                }
            }
            let mut columns = Vec::with_capacity(table.columns.len());
            for wanted in &table.columns {
                let comment = match there.iter().find(|column| column.name == wanted.name) {
                    Some(column) => {
                        self.change_column(&table.name, column, wanted);
                        column.comment.clone()
                    }
                    None => {
                        self.add_column(&table.name, wanted);
                        None
                    }
                };
                columns.push(ColumnShape { comment, ..wanted.clone() });
            }
            self.now.tables[index].columns = columns;
        }
    }

    fn drop_column(&mut self, table: &str, column: &ColumnShape) {
        let of_history = self.change_history(table, &column.name, FormerValues::Dropped);
        let more = if of_history.is_some() { ", those of former versions too" } else { "" };
        let reason = format!("column {table}.{} is dropped with all its values{more}", column.name);
        let step = Step::DropColumn { table: table.to_owned(), column: column.name.clone() };
        self.add(Phase::Together, step, vec![Hazard { class: HazardClass::LosesData, reason }]);
        if let Some((step, hazards)) = of_history {
            self.add(Phase::Together, step, hazards);
        }
    }

    // A constant default costs no rewrite: PostgreSQL keeps it beside the rows there.
    fn add_column(&mut self, table: &str, column: &ColumnShape) {
        let filled = if column.default.is_some() { Filled::WithDefault } else { Filled::WithNull };
        self.new_columns.insert((table.to_owned(), column.name.clone()), filled);
        let reason = format!("the objects in {table} have no value for the required {}; give it a default", column.name);
        let hazard = if column.required && filled == Filled::WithNull { self.fails(table, reason) } else { None };
        let step = Step::AddColumn { table: table.to_owned(), column: column.clone() };
        self.add(Phase::Together, step, hazard.into_iter().collect());
    }

    fn change_column(&mut self, table: &str, now: &ColumnShape, wanted: &ColumnShape) {
        let name = format!("{table}.{}", wanted.name);
        let set_default = |default: Option<Value>, sql_type: &SqlType| Step::SetDefault {
            table: table.to_owned(),
            column: wanted.name.clone(),
            sql_type: sql_type.clone(),
            default,
        };
        let mut default = now.default.clone();
        if now.sql_type != wanted.sql_type {
            if default.take().is_some() {
                self.safe(set_default(None, &now.sql_type));
            }
            self.change_type(table, now, wanted);
        }
        if default != wanted.default {
            self.safe(set_default(wanted.default.clone(), &wanted.sql_type));
        }
        if now.required != wanted.required {
            let reason = format!("{name} becomes required; it fails where an object has no value");
            let mut hazards = Vec::new();
            if wanted.required {
                hazards.extend(self.fails(table, reason));
                hazards.extend(self.blocks(table, &format!("seeing that each {name} has a value")));
            }
            let step = Step::SetRequired { table: table.to_owned(), column: wanted.name.clone(), required: wanted.required };
            self.add(Phase::Together, step, hazards);
        }
        if !now.parts.is_empty() && !wanted.parts.is_empty() {
            self.change_parts(table, now, wanted);
        }
    }

    fn change_type(&mut self, table: &str, now: &ColumnShape, wanted: &ColumnShape) {
        let name = format!("{table}.{}", wanted.name);
        let types = format!("from {} to {}", type_name(&now.sql_type), type_name(&wanted.sql_type));
        let mut hazards = Vec::new();
        let change = type_change(&now.sql_type, &wanted.sql_type);
        match change {
            TypeChange::InPlace => {}
            TypeChange::Rewrites => hazards.extend(self.blocks(table, &format!("changing {name} {types}"))),
            TypeChange::MayFail => {
                hazards.extend(self.fails(table, format!("{name} changes {types}; it fails where a value does not fit")));
                hazards.extend(self.blocks(table, &format!("changing {name} {types}")));
            }
            TypeChange::LosesData => {
                let reason = format!("{name} changes {types}, which cuts values that do not fit");
                hazards.push(Hazard { class: HazardClass::LosesData, reason });
            }
        }
        let step = Step::ChangeType {
            table: table.to_owned(),
            column: wanted.name.clone(),
            from: now.sql_type.clone(),
            to: wanted.sql_type.clone(),
        };
        self.add(Phase::Together, step, hazards);
        if change != TypeChange::InPlace {
            let change = FormerValues::Converted { from: now.sql_type.clone(), to: wanted.sql_type.clone() };
            if let Some((step, hazards)) = self.change_history(table, &wanted.name, change) {
                self.add(Phase::Together, step, hazards);
            }
        }
    }

    // Stored parts are rewritten only where their members are renamed, go, or come with a default. A new member without one is simply not there
    // in stored parts, and NULL in the view.
    fn change_parts(&mut self, table: &str, now: &ColumnShape, wanted: &ColumnShape) {
        let there = now.parts.iter().map(|member| member.column.clone()).collect();
        let asked = wanted.parts.iter().map(|member| (member.column.clone(), member.renamed_from.clone())).collect();
        let moves = renames(there, asked);
        let former = |member: &PartMemberShape| {
            let column = moves.iter().find(|(_, to)| *to == member.column).map_or(&member.column, |(from, _)| from);
            // A name that was moved away is another member's now.
            let moved_away = *column == member.column && moves.iter().any(|(from, _)| *from == member.column);
            now.parts.iter().find(|there| there.column == *column && !moved_away)
        };
        let (mut renamed, mut added, mut changed, mut without) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for member in &wanted.parts {
            match former(member) {
                Some(before) => {
                    if before.member != member.member {
                        renamed.push((before.member.clone(), member.member.clone()));
                    }
                    if self.narrows(before, member) {
                        changed.push(member.member.clone());
                    }
                }
                None => match &member.default {
                    Some(default) => added.push((member.member.clone(), default.clone())),
                    None if member.required => without.push(member.member.clone()),
                    None => {}
                },
            }
        }
        let stays = |there: &PartMemberShape| wanted.parts.iter().any(|member| former(member).is_some_and(|former| former == there));
        let removed: Vec<String> = now.parts.iter().filter(|there| !stays(there)).map(|there| there.member.clone()).collect();
        if [renamed.len(), added.len(), changed.len(), removed.len(), without.len()] == [0; 5] {
            return;
        }
        let hazards = self.hazards_of_parts(table, &wanted.name, &changed, &removed, &without, !renamed.is_empty() || !added.is_empty());
        changed.extend(without);
        let step = Step::ChangeParts { table: table.to_owned(), column: wanted.name.clone(), renamed, removed, added, changed };
        self.add(Phase::Together, step, hazards);
    }

    fn hazards_of_parts(
        &self,
        table: &str,
        column: &str,
        changed: &[String],
        removed: &[String],
        without: &[String],
        rewrites: bool,
    ) -> Vec<Hazard> {
        let mut hazards = Vec::new();
        if !removed.is_empty() {
            let reason = format!("the parts in {table}.{column} lose {}", removed.join(", "));
            hazards.push(Hazard { class: HazardClass::LosesData, reason });
        }
        if !changed.is_empty() {
            let reason = format!("the parts stored in {table}.{column} may not meet what {} is to be", changed.join(", "));
            hazards.extend(self.fails(table, reason));
        }
        if !without.is_empty() {
            let reason = format!("the parts stored in {table}.{column} have no value for the required {}", without.join(", "));
            hazards.extend(self.fails(table, reason));
        }
        if rewrites || !removed.is_empty() {
            hazards.extend(self.blocks(table, &format!("rewriting the parts in {table}.{column}, with an event for each object,")));
        }
        hazards
    }

    // Whether a stored value of the member may not be one any more.
    fn narrows(&self, before: &PartMemberShape, member: &PartMemberShape) -> bool {
        let fits = match type_change(&before.sql_type, &member.sql_type) {
            TypeChange::InPlace => true,
            // Both are JSON numbers.
            TypeChange::Rewrites => {
                matches!(before.sql_type, SqlType::Bigint | SqlType::NumericOf { .. })
                    && matches!(member.sql_type, SqlType::Numeric | SqlType::NumericOf { .. })
            }
            _ => false,
        };
        let limits_allow = match (&member.limits, &before.limits) {
            (None, _) => true,
            (Some(wanted), Some(there)) => {
                let mut there = there.clone();
                there.rename_column(&before.column, &member.column);
                wanted.allows_all_of(&there)
            }
            (Some(_), None) => false,
        };
        let same_target = member.target.as_ref().is_none_or(|target| {
            before
                .target
                .as_ref()
                .is_some_and(|there| there == target || there.0 == target.0 && self.facts.renamed.get(there) == Some(&target.1))
        });
        let required = member.required && !before.required;
        !fits || !limits_allow || !same_target || required
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_widen_in_place_and_narrow_with_care() {
        let numeric = |precision, scale| SqlType::NumericOf { precision, scale };
        assert_eq!(type_change(&SqlType::Varchar(10), &SqlType::Varchar(20)), TypeChange::InPlace);
        assert_eq!(type_change(&SqlType::Varchar(10), &SqlType::Text), TypeChange::InPlace);
        assert_eq!(type_change(&SqlType::Varchar(20), &SqlType::Varchar(10)), TypeChange::MayFail);
        assert_eq!(type_change(&SqlType::Text, &SqlType::Varchar(10)), TypeChange::MayFail);
        assert_eq!(type_change(&numeric(10, 2), &numeric(12, 2)), TypeChange::InPlace);
        assert_eq!(type_change(&numeric(10, 2), &numeric(12, 4)), TypeChange::Rewrites);
        assert_eq!(type_change(&numeric(10, 2), &numeric(10, 4)), TypeChange::MayFail);
        assert_eq!(type_change(&numeric(10, 4), &numeric(12, 2)), TypeChange::LosesData);
        assert_eq!(type_change(&SqlType::Bigint, &SqlType::Numeric), TypeChange::Rewrites);
        assert_eq!(type_change(&SqlType::Numeric, &SqlType::Bigint), TypeChange::LosesData);
        assert_eq!(type_change(&SqlType::Text, &SqlType::Bigint), TypeChange::MayFail);
    }
}
