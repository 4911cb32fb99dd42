//! Enumeration types.

use serde_json::Value;

use super::Planner;
use crate::shape::{EnumerationShape, SqlType};
use crate::step::{FormerValues, Hazard, HazardClass, Phase, Step};

impl Planner<'_> {
    pub(super) fn make_enumerations(&mut self) {
        for enumeration in self.wanted.enumerations.clone() {
            match self.now.enumerations.iter().position(|there| there.name == enumeration.name) {
                None => {
                    self.now.enumerations.push(EnumerationShape { comment: None, ..enumeration.clone() });
                    self.safe(Step::CreateEnumeration(enumeration));
                }
                Some(index) if grows(&self.now.enumerations[index].values, &enumeration.values) => {
                    self.add_values(index, &enumeration);
                }
                Some(_) => {}
            }
        }
    }

    fn add_values(&mut self, index: usize, enumeration: &EnumerationShape) {
        let there = std::mem::replace(&mut self.now.enumerations[index].values, enumeration.values.clone());
        // All of them in one phase, so that they stand in the order wanted.
        let is_new_default = enumeration.values.iter().any(|value| !there.contains(value) && self.is_default(enumeration, value));
        let phase = if is_new_default { Phase::Before } else { Phase::Together };
        for (place, value) in enumeration.values.iter().enumerate() {
            if there.contains(value) {
                continue;
            }
            let before = enumeration.values[place..].iter().find(|later| there.contains(later)).cloned();
            let step = Step::AddEnumerationValue { enumeration: enumeration.name.clone(), value: value.clone(), before };
            self.add(phase, step, Vec::new());
        }
    }

    fn is_default(&self, enumeration: &EnumerationShape, value: &str) -> bool {
        let columns = self.wanted.tables.iter().flat_map(|table| &table.columns);
        columns
            .filter(|column| self.has_type(&column.sql_type, enumeration))
            .any(|column| column.default.as_ref().and_then(Value::as_str) == Some(value))
    }

    fn has_type(&self, sql_type: &SqlType, enumeration: &EnumerationShape) -> bool {
        matches!(sql_type, SqlType::Enumeration { schema, name } if *schema == self.wanted.schema && *name == enumeration.name)
    }

    // Whether the type will be made anew under the same name.
    pub(super) fn is_replaced(&self, sql_type: &SqlType) -> bool {
        self.now.enumerations.iter().any(|there| {
            self.has_type(sql_type, there)
                && self.wanted.enumerations.iter().any(|wanted| wanted.name == there.name && !grows(&there.values, &wanted.values))
        })
    }

    pub(super) fn replace_enumerations(&mut self) {
        for enumeration in self.wanted.enumerations.clone() {
            let Some(index) = self.now.enumerations.iter().position(|there| there.name == enumeration.name) else { continue };
            let there = self.now.enumerations[index].values.clone();
            if grows(&there, &enumeration.values) {
                continue;
            }
            let removed: Vec<&str> = there.iter().filter(|value| !enumeration.values.contains(value)).map(String::as_str).collect();
            let reason = if removed.is_empty() {
                format!("the values of enumeration {} are put in another order, which rewrites every table that uses it", enumeration.name)
            } else {
                let removed = removed.join(", ");
                format!("enumeration {} loses the values {removed}; it fails where an object has one of them", enumeration.name)
            };
            let fewer = !removed.is_empty();
            let class = if fewer { HazardClass::MayFail } else { HazardClass::MayBlock };
            let columns = self.columns_to_convert(&enumeration);
            self.now.enumerations[index] = EnumerationShape { comment: None, ..enumeration.clone() };
            let to = SqlType::Enumeration { schema: self.wanted.schema.clone(), name: enumeration.name.clone() };
            let of_history = columns.iter().filter(|_| fewer).filter_map(|(table, column, _)| {
                self.change_history(table, column, FormerValues::Converted { from: SqlType::Text, to: to.clone() })
            });
            let of_history: Vec<(Step, Vec<Hazard>)> = of_history.collect();
            self.add(Phase::Together, Step::ReplaceEnumeration { enumeration, columns }, vec![Hazard { class, reason }]);
            of_history.into_iter().for_each(|(step, hazards)| self.add(Phase::Together, step, hazards));
        }
    }

    // The columns as they are that have the type; from here on they have the default wanted.
    fn columns_to_convert(&mut self, enumeration: &EnumerationShape) -> Vec<(String, String, Option<Value>)> {
        let mut columns = Vec::new();
        let wanted = self.wanted.clone();
        let schema = wanted.schema.clone();
        for table in &mut self.now.tables {
            let wanted_table = wanted.tables.iter().find(|wanted| wanted.name == table.name);
            for column in &mut table.columns {
                if column.sql_type != (SqlType::Enumeration { schema: schema.clone(), name: enumeration.name.clone() }) {
                    continue;
                }
                let wanted = wanted_table.and_then(|table| table.column(&column.name));
                column.default = wanted.filter(|wanted| wanted.sql_type == column.sql_type).and_then(|wanted| wanted.default.clone());
                columns.push((table.name.clone(), column.name.clone(), column.default.clone()));
            }
        }
        columns
    }

    pub(super) fn drop_enumerations(&mut self) {
        let enumerations = std::mem::take(&mut self.now.enumerations);
        let (kept, dropped): (Vec<_>, Vec<_>) =
            enumerations.into_iter().partition(|there| self.wanted.enumerations.iter().any(|wanted| wanted.name == there.name));
        self.now.enumerations = kept;
        for enumeration in dropped {
            let reason = format!("enumeration {} is dropped; it fails while another model's table uses it", enumeration.name);
            let hazard = Hazard { class: HazardClass::MayFail, reason };
            self.add(Phase::Together, Step::DropEnumeration { enumeration: enumeration.name }, vec![hazard]);
        }
    }
}

// Whether the values there are among the wanted ones, in the same order.
fn grows(there: &[String], wanted: &[String]) -> bool {
    let mut rest = wanted.iter();
    there.iter().all(|value| rest.any(|next| next == value))
}
