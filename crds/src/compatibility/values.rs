//! Types and limits of values.

use std::fmt::Display;

use super::{Audience, BREAKS_ALL, BREAKS_WRITERS, Comparison, INFORMS_THOSE_WHO_READ, Place, WARNS_THOSE_WHO_READ, breaks, inform, warns};
use crate::resolved::{Column, ColumnKind, ValueType};

/// The type's name and the values of a column that is an enumeration.
pub(super) fn enumeration_of(column: &Column) -> Option<(&str, &[String])> {
    match &column.kind {
        ColumnKind::Attribute { value_type: ValueType::Enumeration { type_name, values, .. } } => Some((type_name, values)),
        _ => None,
    }
}

fn name(value_type: &ValueType) -> &str {
    match value_type {
        ValueType::String { .. } => "string",
        ValueType::Uuid => "uuid",
        ValueType::Integer { .. } => "integer",
        ValueType::Decimal { .. } => "decimal",
        ValueType::Boolean => "boolean",
        ValueType::Date => "date",
        ValueType::DateTime => "dateTime",
        ValueType::Json => "json",
        ValueType::Binary { .. } => "binary",
        ValueType::Enumeration { enumeration, .. } => enumeration,
    }
}

// Whether every JSON value of the one is a value of the other.
fn takes_all_of(wider: &ValueType, narrower: &ValueType) -> bool {
    use ValueType::{Date, DateTime, Decimal, Enumeration, Integer, Json, String, Uuid};
    match wider {
        Json => true,
        Decimal { precision: None, minimum: None, maximum: None, .. } => matches!(narrower, Integer { .. }),
        String { min_length: None | Some(0), max_length: None, pattern: None } => {
            matches!(narrower, Enumeration { .. } | Uuid | Date | DateTime)
        }
        _ => false,
    }
}

// Which way a limit moved.
enum Moved<T> {
    Tighter(Option<T>, T),
    Looser(T, Option<T>),
}

fn upper<T: PartialOrd>(old: Option<T>, new: Option<T>) -> Option<Moved<T>> {
    match (old, new) {
        (Some(old), Some(new)) if new < old => Some(Moved::Tighter(Some(old), new)),
        (None, Some(new)) => Some(Moved::Tighter(None, new)),
        (Some(old), new) if new.as_ref().is_none_or(|new| *new > old) => Some(Moved::Looser(old, new)),
        _ => None,
    }
}

fn lower<T: PartialOrd>(old: Option<T>, new: Option<T>) -> Option<Moved<T>> {
    match (old, new) {
        (Some(old), Some(new)) if new > old => Some(Moved::Tighter(Some(old), new)),
        (None, Some(new)) => Some(Moved::Tighter(None, new)),
        (Some(old), new) if new.as_ref().is_none_or(|new| *new < old) => Some(Moved::Looser(old, new)),
        _ => None,
    }
}

impl Comparison {
    pub(super) fn value_type(&mut self, place: &Place, old: &ValueType, new: &ValueType) {
        match (old, new) {
            (
                ValueType::String { min_length, max_length, pattern },
                ValueType::String { min_length: new_min_length, max_length: new_max_length, pattern: new_pattern },
            ) => {
                let positive = |length: &Option<u32>| length.filter(|length| *length > 0);
                self.limit(place, "minLength", lower(positive(min_length), positive(new_min_length)));
                self.limit(place, "maxLength", upper(*max_length, *new_max_length));
                self.pattern(&place.below("pattern"), pattern.as_deref(), new_pattern.as_deref());
            }
            (ValueType::Integer { minimum, maximum }, ValueType::Integer { minimum: new_minimum, maximum: new_maximum }) => {
                self.limit(place, "minimum", lower(*minimum, *new_minimum));
                self.limit(place, "maximum", upper(*maximum, *new_maximum));
            }
            (
                ValueType::Decimal { precision, scale, minimum, maximum },
                ValueType::Decimal { precision: new_precision, scale: new_scale, minimum: new_minimum, maximum: new_maximum },
            ) => {
                let digits = |precision: &Option<u32>, scale: &Option<u32>| {
                    let behind = precision.map(|_| scale.unwrap_or(0));
                    (precision.map(|precision| precision.saturating_sub(behind.unwrap_or(0))), behind)
                };
                let ((whole, behind), (new_whole, new_behind)) = (digits(precision, scale), digits(new_precision, new_scale));
                self.limit(place, "precision", upper(whole, new_whole));
                self.limit(place, "scale", upper(behind, new_behind));
                self.limit(place, "minimum", lower(*minimum, *new_minimum));
                self.limit(place, "maximum", upper(*maximum, *new_maximum));
            }
            (ValueType::Binary { max_length }, ValueType::Binary { max_length: new_max_length }) => {
                self.limit(place, "maxLength", upper(*max_length, *new_max_length));
            }
            (
                ValueType::Enumeration { schema, type_name, values, .. },
                ValueType::Enumeration { schema: new_schema, type_name: new_type_name, values: new_values, .. },
            ) => {
                // The values of the same enumeration are compared once, where it is declared.
                if (schema, type_name) != (new_schema, new_type_name) {
                    self.enumeration_values(place, values, new_values, false);
                }
            }
            (old, new) if std::mem::discriminant(old) == std::mem::discriminant(new) => {}
            (old, new) => self.other_type(place, old, new),
        }
    }

    fn other_type(&mut self, place: &Place, old: &ValueType, new: &ValueType) {
        let change = format!("the type is {}, and was {}", name(new), name(old));
        let advice = "add an attribute of the new type beside it, fill both, and take the old one away when nobody uses it";
        let effects = if takes_all_of(new, old) {
            vec![breaks(Audience::Readers), breaks(Audience::Subscribers), inform(Audience::Writers)]
        } else if takes_all_of(old, new) {
            vec![breaks(Audience::Writers), warns(Audience::Readers), inform(Audience::Subscribers)]
        } else {
            BREAKS_ALL.to_vec()
        };
        self.add(&place.below("type"), change, &effects, advice);
    }

    pub(super) fn at_least(&mut self, place: &Place, limit: &str, old: u32, new: u32) {
        let some = |number: u32| Some(number).filter(|number| *number > 0);
        self.limit(place, limit, lower(some(old), some(new)));
    }

    pub(super) fn at_most(&mut self, place: &Place, limit: &str, old: u32, new: u32) {
        self.limit(place, limit, upper(Some(old), Some(new)));
    }

    fn limit<T: Display>(&mut self, place: &Place, limit: &str, moved: Option<Moved<T>>) {
        let what = match limit {
            "precision" => "the digits before the point: at most",
            "scale" => "the digits behind the point: at most",
            other => other,
        };
        let place = place.below(limit);
        let none = |number: Option<T>| number.map_or_else(|| "no limit".to_owned(), |number| number.to_string());
        match moved {
            Some(Moved::Tighter(old, new)) => self.add(
                &place,
                format!("{what} {new} in the place of {}: what lies beyond it is refused", none(old)),
                &BREAKS_WRITERS,
                "look for values beyond it, tell those who write them, and tighten it when there are none any more",
            ),
            Some(Moved::Looser(old, new)) => self.add(
                &place,
                format!("{what} {} in the place of {old}", none(new)),
                &INFORMS_THOSE_WHO_READ,
                "see that readers have room for such values",
            ),
            None => {}
        }
    }

    fn pattern(&mut self, place: &Place, old: Option<&str>, new: Option<&str>) {
        match (old, new) {
            (old, new) if old == new => {}
            (Some(old), None) => {
                let change = format!("the pattern {old} is gone: any string is taken");
                self.add(place, change, &INFORMS_THOSE_WHO_READ, "see that readers take such values");
            }
            (_, Some(new)) => self.add(
                place,
                format!(
                    "the pattern is {new}{}: what was taken may be refused",
                    old.map(|old| format!(", and was {old}")).unwrap_or_default()
                ),
                &[breaks(Audience::Writers), inform(Audience::Readers), inform(Audience::Subscribers)],
                "look for values that it does not match, and tell those who write them",
            ),
            (None, None) => {}
        }
    }

    /// Values of an enumeration; `routes` where they are in subjects.
    pub(super) fn enumeration_values(&mut self, place: &Place, old: &[String], new: &[String], routes: bool) {
        let values = place.below("values");
        for value in old.iter().filter(|value| !new.contains(value)) {
            let mut effects = vec![breaks(Audience::Writers), warns(Audience::Readers)];
            if routes {
                effects.push(warns(Audience::Subscribers));
            }
            self.add(
                &values.below(value),
                format!("the value {value} is gone: who writes it, or filters by it, is refused"),
                &effects,
                "change the objects that have it, and take it away when nobody writes it any more",
            );
        }
        for value in new.iter().filter(|value| !old.contains(value)) {
            self.add(
                &values.below(value),
                format!("the value {value} is new: who knows the others alone may fail at it"),
                &WARNS_THOSE_WHO_READ,
                "let readers and subscribers take values that they don't know before the first object has it",
            );
        }
        let kept: Vec<&String> = old.iter().filter(|value| new.contains(value)).collect();
        let kept_now: Vec<&String> = new.iter().filter(|value| old.contains(value)).collect();
        if kept != kept_now {
            self.add(
                &values,
                "the values are in another order, by which lists are sorted and compared",
                &[warns(Audience::Readers)],
                "look for readers who sort by it or compare with lt and gt",
            );
        }
    }
}
