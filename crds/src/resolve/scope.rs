//! Which entities and enumerations a model's names stand for: its own and the imported ones.

use std::collections::BTreeMap;

use super::naming::{did_you_mean, list};
use crate::data_model::{Entity, Enumeration, Import};
use crate::fault::Faults;
use crate::resolved::{self, ColumnKind, EntityReference, ValueType};
use crate::{DEFAULT_PLATFORM, DataModel, names};

/// A model among all models of its platform.
pub(super) struct Scopes<'a> {
    pub(super) model: &'a DataModel,
    all: &'a BTreeMap<&'a str, &'a DataModel>,
}

/// An entity as declared, and where.
#[derive(Clone, Copy)]
pub(super) struct Declared<'a> {
    pub(super) model: &'a DataModel,
    pub(super) index: usize,
    pub(super) entity: &'a Entity,
}

impl Declared<'_> {
    pub(super) fn path(&self) -> String {
        format!("spec.entities[{}]", self.index)
    }

    pub(super) fn model_name(&self) -> &str {
        self.model.metadata.name.as_deref().unwrap_or_default()
    }

    pub(super) fn is(&self, other: &Declared<'_>) -> bool {
        std::ptr::eq(self.entity, other.entity)
    }

    pub(super) fn reference(&self) -> EntityReference {
        EntityReference {
            model: self.model_name().to_owned(),
            schema: names::snake_case(self.model_name()),
            entity: self.entity.name.clone(),
            table: names::snake_case(&self.entity.name),
        }
    }
}

impl<'a> Scopes<'a> {
    pub(super) fn new(model: &'a DataModel, all: &'a BTreeMap<&'a str, &'a DataModel>) -> Self {
        Self { model, all }
    }

    /// The entity that `name` stands for in `model`.
    pub(super) fn entity(&self, model: &'a DataModel, name: &str) -> Option<Declared<'a>> {
        own_entity(model, name).or_else(|| {
            let import = model.spec.imports.iter().find(|import| import.entities.iter().any(|entity| entity == name))?;
            own_entity(self.all.get(import.model.as_str())?, name)
        })
    }

    /// The enumeration that `name` stands for in `model`, and the name of the model that declares it.
    pub(super) fn enumeration(&self, model: &'a DataModel, name: &str) -> Option<(&'a str, &'a Enumeration)> {
        let own = |model: &'a DataModel| {
            let found = model.spec.enumerations.iter().find(|enumeration| enumeration.name == name)?;
            Some((model.metadata.name.as_deref().unwrap_or_default(), found))
        };
        own(model).or_else(|| {
            let import = model.spec.imports.iter().find(|import| import.enumerations.iter().any(|taken| taken == name))?;
            own(self.all.get(import.model.as_str())?)
        })
    }

    /// Notes that no entity of that name is at hand, and what to do.
    pub(super) fn unknown_entity(&self, name: &str, path: &str, faults: &mut Faults) {
        if let Some(model) = self.model_with(|model| own_entity(model, name).is_some()) {
            faults.add(path, format!("there is no entity {name:?} here, but model {model:?} has it: import it under spec.imports"));
            return;
        }
        let own = self.model.spec.entities.iter().map(|entity| entity.name.as_str());
        let imported = self.model.spec.imports.iter().flat_map(|import| import.entities.iter().map(String::as_str));
        let near = did_you_mean(name, own.chain(imported));
        faults.add(path, format!("there is no entity {name:?} in this model or among its imports{near}"));
    }

    /// The name of another model that `has` what is looked for.
    pub(super) fn model_with(&self, has: impl Fn(&'a DataModel) -> bool) -> Option<&'a str> {
        self.all.iter().find(|(_, model)| !std::ptr::eq(**model, self.model) && has(model)).map(|(name, _)| *name)
    }

    /// The models that the resolved entities need: the declared imports, and those that come in through what is inherited.
    pub(super) fn imports<'e>(&self, entities: impl Iterator<Item = &'e resolved::Entity>) -> Vec<String> {
        let own = self.model.metadata.name.as_deref().unwrap_or_default();
        let mut imports: Vec<String> = Vec::new();
        let mut add = |model: &str| {
            if model != own && !imports.iter().any(|import| import == model) {
                imports.push(model.to_owned());
            }
        };
        self.model.spec.imports.iter().for_each(|import| add(&import.model));
        let by_schema: BTreeMap<String, &str> = self.all.keys().map(|name| (names::snake_case(name), *name)).collect();
        for entity in entities {
            for column in every_column(&entity.columns) {
                match &column.kind {
                    ColumnKind::Relationship { target, .. } => add(&target.model),
                    ColumnKind::Attribute { value_type: ValueType::Enumeration { schema, .. } } => {
                        if let Some(model) = by_schema.get(schema) {
                            add(model);
                        }
                    }
                    _ => {}
                }
            }
        }
        imports
    }

    /// Checks the imports.
    pub(super) fn check(&self, faults: &mut Faults) {
        let imports = &self.model.spec.imports;
        for (index, import) in imports.iter().enumerate() {
            let path = format!("spec.imports[{index}]");
            if imports[..index].iter().any(|earlier| earlier.model == import.model) {
                faults.add(format!("{path}.model"), format!("model {:?} is imported twice; make one import of the two", import.model));
            }
            if import.entities.is_empty() && import.enumerations.is_empty() {
                faults.add(&path, format!("nothing is taken from model {:?}: name its entities or enumerations", import.model));
            }
            self.check_import(import, &path, faults);
        }
    }

    fn check_import(&self, import: &Import, path: &str, faults: &mut Faults) {
        let own = self.model.metadata.name.as_deref().unwrap_or_default();
        let model_path = format!("{path}.model");
        if import.model == own {
            faults.add(model_path, "a model can't import itself; its own entities are known without an import");
            return;
        }
        let Some(other) = self.all.get(import.model.as_str()).copied() else {
            let others = || self.all.keys().copied().filter(|name| *name != own);
            let near = did_you_mean(&import.model, others());
            faults.add(model_path, format!("there is no DataModel {:?}{near}; there are: {}", import.model, list(others())));
            return;
        };
        if platform(other) != platform(self.model) {
            let message = format!(
                "model {:?} is on platform {:?} and this one on {:?}; only models of one platform can import one another",
                import.model,
                platform(other),
                platform(self.model)
            );
            faults.add(&model_path, message);
        }
        if let Some(cycle) = self.cycle_from(&import.model, own) {
            faults.add(&model_path, format!("the imports go in a circle: {own} → {}; take one of them away", cycle.join(" → ")));
        }
        for (index, name) in import.entities.iter().enumerate() {
            let path = format!("{path}.entities[{index}]");
            if import.entities[..index].contains(name) {
                faults.add(&path, format!("{name:?} is imported twice"));
            }
            self.check_imported_name(import, name, &path, faults);
            match own_entity(other, name) {
                Some(found) if found.entity.part_of.is_some() => {
                    faults.add(path, format!("{name:?} is the shape of a part; only its owner can use it"));
                }
                Some(_) => {}
                None => {
                    let near = did_you_mean(name, other.spec.entities.iter().map(|entity| entity.name.as_str()));
                    faults.add(path, format!("model {:?} declares no entity {name:?}{near}", import.model));
                }
            }
        }
        for (index, name) in import.enumerations.iter().enumerate() {
            let path = format!("{path}.enumerations[{index}]");
            if import.enumerations[..index].contains(name) {
                faults.add(&path, format!("{name:?} is imported twice"));
            }
            self.check_imported_name(import, name, &path, faults);
            if !other.spec.enumerations.iter().any(|enumeration| &enumeration.name == name) {
                let near = did_you_mean(name, other.spec.enumerations.iter().map(|enumeration| enumeration.name.as_str()));
                faults.add(path, format!("model {:?} declares no enumeration {name:?}{near}", import.model));
            }
        }
    }

    // What a name stands for must be clear within the model.
    fn check_imported_name(&self, import: &Import, name: &str, path: &str, faults: &mut Faults) {
        let spec = &self.model.spec;
        if spec.entities.iter().any(|entity| entity.name == name) || spec.enumerations.iter().any(|enumeration| enumeration.name == name) {
            faults.add(path, format!("this model declares a {name:?} of its own; rename that one or take the import away"));
        }
        let earlier = spec.imports.iter().take_while(|other| !std::ptr::eq(*other, import));
        for other in earlier.filter(|other| other.model != import.model) {
            if other.entities.iter().chain(&other.enumerations).any(|taken| taken == name) {
                faults.add(path, format!("{name:?} is imported from model {:?} too; take one of the imports away", other.model));
            }
        }
    }

    // The way from `from` back to `to` along imports.
    fn cycle_from(&self, from: &'a str, to: &str) -> Option<Vec<&'a str>> {
        let mut seen: Vec<&str> = vec![from];
        let mut ways: Vec<Vec<&'a str>> = vec![vec![from]];
        while let Some(way) = ways.pop() {
            let model = way.last().and_then(|last| self.all.get(last))?;
            for import in &model.spec.imports {
                let mut further = way.clone();
                further.push(&import.model);
                if import.model == to {
                    return Some(further);
                }
                if self.all.contains_key(import.model.as_str()) && !seen.contains(&import.model.as_str()) {
                    seen.push(&import.model);
                    ways.push(further);
                }
            }
        }
        None
    }
}

/// The columns and, with them, the members of the parts among them.
pub(super) fn every_column(columns: &[resolved::Column]) -> impl Iterator<Item = &resolved::Column> {
    columns.iter().flat_map(|column| {
        let members = match &column.kind {
            ColumnKind::Parts { part, .. } => part.columns.as_slice(),
            _ => &[],
        };
        std::iter::once(column).chain(members)
    })
}

fn own_entity<'a>(model: &'a DataModel, name: &str) -> Option<Declared<'a>> {
    let (index, entity) = model.spec.entities.iter().enumerate().find(|(_, entity)| entity.name == name)?;
    Some(Declared { model, index, entity })
}

fn platform(model: &DataModel) -> &str {
    model.spec.platform.as_deref().unwrap_or(DEFAULT_PLATFORM)
}
