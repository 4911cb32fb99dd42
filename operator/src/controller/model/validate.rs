//! Whether a DataModel can be put into effect: its own faults, then whether the catalog has what it imports.

use autonomy_crds::resolve::resolve;
use autonomy_crds::{DataModel, Model};

use super::ModelError;
use super::dereference::Dereferenced;

/// Resolves the model; pure.
pub fn validate(model: &DataModel, from: &Dereferenced) -> Result<Model, ModelError> {
    let resolved = resolve(model, &from.imports).map_err(ModelError::Invalid)?;
    for import in &model.spec.imports {
        let Some(entry) = from.catalog.get(&import.model) else {
            return Err(ModelError::ImportNotReady(format!("DataModel {}", import.model)));
        };
        let there = &entry.model;
        // An abstract entity has no table: it is in the importing model by its attributes.
        let declared = from.imports.get(&import.model);
        let has_table = |name: &str| {
            declared.is_none_or(|declared| {
                declared.spec.entities.iter().any(|entity| entity.name == name && !entity.is_abstract && entity.part_of.is_none())
            })
        };
        let missing = import.entities.iter().find(|name| has_table(name) && !there.entities.iter().any(|entity| entity.name == **name));
        if let Some(missing) = missing {
            return Err(ModelError::ImportNotReady(format!("entity {missing} of DataModel {}", import.model)));
        }
    }
    if let Some(entry) = from.catalog.get(&from.name).filter(|entry| entry.model.namespace != from.namespace) {
        return Err(ModelError::NameTaken { name: from.name.clone(), namespace: entry.model.namespace.clone() });
    }
    Ok(resolved)
}
