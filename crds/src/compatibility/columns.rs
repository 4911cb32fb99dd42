//! Attributes, relationships and lists of parts.

use super::{Audience, BREAKS_ALL, BREAKS_WRITERS, Comparison, INFORMS_THOSE_WHO_READ, Place, WARNS_THOSE_WHO_READ, breaks, inform, warns};
use crate::resolved::{Column, ColumnKind, EntityReference, OnDelete, PartShape};

/// What a column has become: the one of its member, or else the one that was it.
pub(super) fn counterpart<'c>(column: &Column, old: &[Column], new: &'c [Column]) -> Option<&'c Column> {
    new.iter().find(|other| other.member == column.member).or_else(|| {
        let was_it =
            |other: &&Column| other.renamed_from.as_ref() == Some(&column.name) && !old.iter().any(|former| former.member == other.member);
        new.iter().find(was_it)
    })
}

/// Where a column stands in the DataModel.
pub(super) fn place_of(place: &Place, column: &Column) -> Place {
    match &column.kind {
        ColumnKind::Attribute { .. } => place.below("attributes").below(&column.member),
        ColumnKind::Relationship { relationship, .. } => place.below("relationships").below(relationship),
        ColumnKind::Parts { .. } => place.below("parts").below(&column.member),
    }
}

fn kind(column: &Column) -> &'static str {
    match &column.kind {
        ColumnKind::Attribute { .. } => "attribute",
        ColumnKind::Relationship { .. } => "relationship",
        ColumnKind::Parts { .. } => "list of parts",
    }
}

impl Comparison {
    /// The columns of an entity or of a part; `place` is the entity or the list.
    pub(super) fn columns(&mut self, place: &Place, old: &[Column], new: &[Column]) {
        for column in old {
            match counterpart(column, old, new) {
                Some(other) => self.column(&place_of(place, other), column, other),
                None => self.add(
                    &place_of(place, column),
                    format!("the {} {} is gone", kind(column), column.member),
                    &BREAKS_ALL,
                    "keep it until nobody reads or writes it; where it has another name now, say renamedFrom",
                ),
            }
        }
        for column in new {
            if !old.iter().any(|former| counterpart(former, old, new).is_some_and(|other| other.member == column.member)) {
                self.new_column(&place_of(place, column), column);
            }
        }
    }

    fn new_column(&mut self, place: &Place, column: &Column) {
        let (kind, member) = (kind(column), &column.member);
        if column.required && column.default.is_none() {
            self.add(
                place,
                format!("the {kind} {member} is new and required: who writes new objects without it is refused"),
                &[breaks(Audience::Writers), inform(Audience::Readers), inform(Audience::Subscribers)],
                "give it a default, or make it required when everybody writes it",
            );
        } else {
            self.add(
                place,
                format!("the {kind} {member} is new"),
                &INFORMS_THOSE_WHO_READ,
                "let those who replace objects by PUT keep it: what they leave out becomes null or its default",
            );
        }
    }

    fn column(&mut self, place: &Place, old: &Column, new: &Column) {
        if old.member != new.member {
            self.add(
                place,
                format!("{} is called {}", old.member, new.member),
                &BREAKS_ALL,
                "where both names are needed for a while, add the new one beside the old one and fill both; take the old one away at last",
            );
        }
        let mut same_kind = true;
        match (&old.kind, &new.kind) {
            (ColumnKind::Attribute { value_type }, ColumnKind::Attribute { value_type: new_type }) => {
                self.value_type(place, value_type, new_type);
            }
            (
                ColumnKind::Relationship { target, on_delete, .. },
                ColumnKind::Relationship { target: new_target, on_delete: new_on_delete, .. },
            ) => {
                self.target(place, target, new_target);
                self.on_delete(place, *on_delete, *new_on_delete);
            }
            (
                ColumnKind::Parts { part, min_items, max_items },
                ColumnKind::Parts { part: new_part, min_items: new_min_items, max_items: new_max_items },
            ) => {
                self.at_least(place, "minItems", *min_items, *new_min_items);
                self.at_most(place, "maxItems", *max_items, *new_max_items);
                self.part(place, part, new_part);
            }
            _ => {
                same_kind = false;
                self.add(
                    place,
                    format!("{} is the {} {}, and was the {} {}", new.member, kind(new), new.member, kind(old), old.member),
                    &BREAKS_ALL,
                    "give it another name, and take the former one away when nobody uses it",
                );
            }
        }
        // How many parts are needed says whether they are required.
        if same_kind && !matches!(new.kind, ColumnKind::Parts { .. }) {
            self.required(place, old, new);
            self.default_value(place, old, new);
        }
        if old.classification != new.classification {
            let said = |column: &Column| column.classification.clone().unwrap_or_else(|| "none".to_owned());
            self.add(
                &place.below("classification"),
                format!("the classification is {}, and was {}", said(new), said(old)),
                &[inform(Audience::Readers), inform(Audience::Subscribers)],
                "look at the policies that name it",
            );
        }
    }

    fn required(&mut self, place: &Place, old: &Column, new: &Column) {
        let place = place.below("required");
        match (old.required, new.required) {
            (false, true) => self.add(
                &place,
                format!("{} must have a value: who writes none, or null, is refused", new.member),
                &BREAKS_WRITERS,
                "fill the objects without one, and make it required when everybody writes it",
            ),
            (true, false) => self.add(
                &place,
                format!("{} need not have a value: null may come", new.member),
                &WARNS_THOSE_WHO_READ,
                "let readers and subscribers take null before the first object has it",
            ),
            _ => {}
        }
    }

    fn default_value(&mut self, place: &Place, old: &Column, new: &Column) {
        let place = place.below("default");
        let member = &new.member;
        match (&old.default, &new.default) {
            (Some(_), None) if new.required => self.add(
                &place,
                format!("{member} is required and has no default any more: who writes new objects without it is refused"),
                &BREAKS_WRITERS,
                "take the default away when everybody writes a value",
            ),
            (Some(old), None) => {
                let change = format!("new objects without {member} have null in the place of {old}");
                self.add(&place, change, &[warns(Audience::Writers)], "let those who rely on it write the value");
            }
            (None, Some(new)) => {
                self.add(&place, format!("new objects without {member} have {new}"), &[inform(Audience::Writers)], "nothing");
            }
            (Some(old), Some(new)) if old != new => {
                let change = format!("new objects without {member} have {new} in the place of {old}");
                self.add(&place, change, &[warns(Audience::Writers)], "let those who rely on the former one write it");
            }
            _ => {}
        }
    }

    fn target(&mut self, place: &Place, old: &EntityReference, new: &EntityReference) {
        if !self.is_same_entity(old, new) {
            self.add(
                &place.below("target"),
                format!("it refers to {} of {}, and referred to {} of {}", new.entity, new.model, old.entity, old.model),
                &BREAKS_ALL,
                "declare a relationship of another name beside it, fill both, and take the former one away when nobody uses it",
            );
        }
    }

    fn on_delete(&mut self, place: &Place, old: OnDelete, new: OnDelete) {
        if old == new {
            return;
        }
        let place = place.below("onDelete");
        let (change, effects, advice) = match new {
            OnDelete::Restrict => (
                "an object that is referred to can't be deleted any more",
                BREAKS_WRITERS.to_vec(),
                "let those who delete it delete, or change, first what refers to it",
            ),
            OnDelete::Cascade => (
                "what refers to a deleted object is deleted with it",
                vec![warns(Audience::Writers), warns(Audience::Subscribers)],
                "see that nobody deletes what is referred to and counts on the rest to stay",
            ),
            OnDelete::SetNull => (
                "the reference becomes null when the object referred to is deleted",
                vec![warns(Audience::Readers), warns(Audience::Subscribers)],
                "let readers and subscribers take null",
            ),
        };
        self.add(&place, change, &effects, advice);
    }

    fn part(&mut self, place: &Place, old: &PartShape, new: &PartShape) {
        if old.view != new.view {
            self.add(
                &place.below("entity"),
                format!("the parts are of {}, and were of {}: their view in SQL is {}", new.name, old.name, new.view),
                &[warns(Audience::Readers)],
                "look for those who read the view",
            );
        }
        self.columns(place, &old.columns, &new.columns);
    }
}
