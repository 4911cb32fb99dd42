//! What the differences between two versions of models mean to those who rely on them: readers and writers of the object API, and subscribers to
//! events. Pure; descriptions and the order of attributes are no difference.

mod columns;
mod entities;
mod values;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use serde::Serialize;

use crate::resolved::{Entity, EntityReference, Model};

/// Who relies on a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Audience {
    /// They read objects from the API, and filter and sort them.
    Readers,
    /// They write objects.
    Writers,
    /// They get events.
    Subscribers,
}

/// What a difference means to them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Severity {
    /// It is good to know.
    Information,
    /// It may break who did not think of it.
    Warning,
    /// It breaks what worked.
    Breaking,
}

/// What a difference means to one of the audiences.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Effect {
    /// Who.
    pub audience: Audience,
    /// How much.
    pub severity: Severity,
}

/// A difference between two versions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// Where: a JSON Pointer with names in the place of numbers, beginning with the model's: `/retail/entities/Sale/attributes/total/maximum`.
    pub path: String,
    /// What is otherwise, in words.
    pub change: String,
    /// The worst of its effects.
    pub severity: Severity,
    /// What it means to whom; those it does not touch are not here.
    pub effects: Vec<Effect>,
    /// What to do about it.
    pub advice: String,
}

impl Difference {
    /// What it means to an audience; nothing where it does not touch it.
    pub fn effect_on(&self, audience: Audience) -> Option<Severity> {
        self.effects.iter().find(|effect| effect.audience == audience).map(|effect| effect.severity)
    }
}

/// The differences from one version of models to another, the worst first, otherwise in the models' order. Models are matched by name, what is in
/// them by name or by `renamedFrom`.
pub fn compare(old: &[Model], new: &[Model]) -> Vec<Difference> {
    let mut comparison = Comparison { renamed: renamed_entities(old, new), found: Vec::new() };
    for model in old {
        match new.iter().find(|other| other.name == model.name) {
            Some(other) => comparison.model(model, other),
            None => comparison.add(
                &Place::model(&model.name),
                format!("the model {} is gone, with {}", model.name, count(model.entities.len(), "entity", "entities")),
                &BREAKS_ALL,
                "keep it until nobody uses it; a model that is renamed is another one",
            ),
        }
    }
    for model in new.iter().filter(|model| !old.iter().any(|other| other.name == model.name)) {
        comparison.add(
            &Place::model(&model.name),
            format!("the model {} is new, with {}", model.name, count(model.entities.len(), "entity", "entities")),
            &[inform(Audience::Readers)],
            "nothing",
        );
    }
    let mut found = comparison.found;
    found.sort_by_key(|difference| std::cmp::Reverse(difference.severity));
    found
}

fn count(number: usize, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

const fn breaks(audience: Audience) -> Effect {
    Effect { audience, severity: Severity::Breaking }
}

const fn warns(audience: Audience) -> Effect {
    Effect { audience, severity: Severity::Warning }
}

const fn inform(audience: Audience) -> Effect {
    Effect { audience, severity: Severity::Information }
}

const BREAKS_ALL: [Effect; 3] = [breaks(Audience::Readers), breaks(Audience::Writers), breaks(Audience::Subscribers)];
const BREAKS_WRITERS: [Effect; 1] = [breaks(Audience::Writers)];
const BREAKS_SUBSCRIBERS: [Effect; 1] = [breaks(Audience::Subscribers)];
const INFORMS_THOSE_WHO_READ: [Effect; 2] = [inform(Audience::Readers), inform(Audience::Subscribers)];
const WARNS_THOSE_WHO_READ: [Effect; 2] = [warns(Audience::Readers), warns(Audience::Subscribers)];

/// Where something is: a JSON Pointer.
#[derive(Clone, Debug)]
struct Place(String);

impl Place {
    fn model(name: &str) -> Self {
        Self(String::new()).below(name)
    }

    fn below(&self, name: &str) -> Self {
        Self(format!("{}/{}", self.0, name.replace('~', "~0").replace('/', "~1")))
    }
}

struct Comparison {
    // Model and former name of entities: their names now.
    renamed: BTreeMap<(String, String), String>,
    found: Vec<Difference>,
}

impl Comparison {
    fn add(&mut self, place: &Place, change: impl Into<String>, effects: &[Effect], advice: impl Into<String>) {
        let severity = effects.iter().map(|effect| effect.severity).max().unwrap_or(Severity::Information);
        self.found.push(Difference {
            path: place.0.clone(),
            change: change.into(),
            severity,
            effects: effects.to_vec(),
            advice: advice.into(),
        });
    }

    fn is_same_entity(&self, old: &EntityReference, new: &EntityReference) -> bool {
        old.model == new.model
            && (old.entity == new.entity || self.renamed.get(&(old.model.clone(), old.entity.clone())) == Some(&new.entity))
    }

    fn model(&mut self, old: &Model, new: &Model) {
        let place = Place::model(&new.name);
        if old.namespace != new.namespace {
            self.add(
                &place.below("namespace"),
                format!("the namespace is {}, and was {}: the stream is {}", new.namespace, old.namespace, new.stream),
                &BREAKS_SUBSCRIBERS,
                "let subscribers follow both streams until the former one has no new events",
            );
        }
        for enumeration in &old.enumerations {
            if let Some(other) = new.enumerations.iter().find(|other| other.name == enumeration.name) {
                let place = place.below("enumerations").below(&enumeration.name);
                let routes =
                    [old, new].into_iter().flat_map(|model| &model.entities).any(|entity| routes_by(entity, &enumeration.type_name));
                self.enumeration_values(&place, &enumeration.values, &other.values, routes);
            }
        }
        for entity in &old.entities {
            match counterpart(entity, old, new) {
                Some(other) => self.entity(&place, entity, other),
                None => self.add(
                    &place.below("entities").below(&entity.name),
                    format!("the entity {} is gone, with its path {}", entity.name, entity.path),
                    &BREAKS_ALL,
                    "keep it until nobody reads, writes or follows it; where it has another name now, say renamedFrom",
                ),
            }
        }
        for entity in &new.entities {
            if !old.entities.iter().any(|former| counterpart(former, old, new).is_some_and(|other| other.name == entity.name)) {
                self.add(
                    &place.below("entities").below(&entity.name),
                    format!("the entity {} is new, at the path {}", entity.name, entity.path),
                    &[inform(Audience::Readers)],
                    "nothing",
                );
            }
        }
    }
}

// What an entity has become: the one of its name, or else the one that was it.
fn counterpart<'m>(entity: &Entity, old: &Model, new: &'m Model) -> Option<&'m Entity> {
    new.entity(&entity.name).or_else(|| {
        let was_it = |other: &&Entity| other.renamed_from_table.as_ref() == Some(&entity.table) && old.entity(&other.name).is_none();
        new.entities.iter().find(was_it)
    })
}

fn renamed_entities(old: &[Model], new: &[Model]) -> BTreeMap<(String, String), String> {
    let mut renamed = BTreeMap::new();
    for model in old {
        let Some(other) = new.iter().find(|other| other.name == model.name) else { continue };
        for entity in &model.entities {
            if let Some(now) = counterpart(entity, model, other).filter(|now| now.name != entity.name) {
                renamed.insert((model.name.clone(), entity.name.clone()), now.name.clone());
            }
        }
    }
    renamed
}

fn routes_by(entity: &Entity, type_name: &str) -> bool {
    let column = entity.routing.as_deref().and_then(|routing| entity.by_column(routing));
    column.is_some_and(|column| values::enumeration_of(column).is_some_and(|(name, _)| name == type_name))
}
