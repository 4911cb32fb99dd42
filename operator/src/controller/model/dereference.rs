//! What a DataModel refers to: its platform's database, the DataModels that it imports, and what the catalog has of them.

use std::collections::BTreeMap;
use std::sync::Arc;

use autonomy_crds::DataModel;
use kube::runtime::reflector::ObjectRef;

use super::super::connections::Connection;
use super::super::context::Context;
use super::{ModelError, named};
use crate::catalog::Catalog;
use crate::streams::StreamSettings;

/// A model with what it refers to.
pub struct Dereferenced {
    pub namespace: String,
    pub name: String,
    pub connection: Connection,
    pub catalog: Arc<Catalog>,
    /// The DataModels that it imports, and those that these import, by name.
    pub imports: BTreeMap<String, DataModel>,
    pub streams: StreamSettings,
}

/// Reads it all; what is not there is told as what is waited for.
pub async fn dereference(model: &DataModel, context: &Context) -> Result<Dereferenced, ModelError> {
    let (namespace, name) = named(model);
    let platform_name = model.spec.platform();
    let reference = ObjectRef::new(platform_name).within(&namespace);
    let platform = context.stores.platforms.get(&reference).ok_or_else(|| ModelError::PlatformMissing(platform_name.to_owned()))?;
    let connection =
        context.connections.prepared(&namespace, platform_name).ok_or_else(|| ModelError::PlatformNotReady(platform_name.to_owned()))?;
    let imports = imports(model, &namespace, context)?;
    let catalog = connection.catalog().await?;
    let retention = platform.spec.events.retention_days.map(|days| std::time::Duration::from_secs(u64::from(days) * 86_400));
    let kept = platform.spec.nats.as_ref().map_or_else(StreamSettings::default, StreamSettings::of);
    Ok(Dereferenced { namespace, name, connection, catalog, imports, streams: StreamSettings { retention, ..kept } })
}

fn imports(model: &DataModel, namespace: &str, context: &Context) -> Result<BTreeMap<String, DataModel>, ModelError> {
    let mut found: BTreeMap<String, DataModel> = BTreeMap::new();
    let mut wanted: Vec<String> = model.spec.imports.iter().map(|import| import.model.clone()).collect();
    while let Some(name) = wanted.pop() {
        if found.contains_key(&name) || Some(&name) == model.metadata.name.as_ref() {
            continue;
        }
        let other = context
            .stores
            .models
            .get(&ObjectRef::new(&name).within(namespace))
            .filter(|other| other.spec.platform() == model.spec.platform())
            .ok_or_else(|| ModelError::ImportMissing(name.clone()))?;
        wanted.extend(other.spec.imports.iter().map(|import| import.model.clone()));
        found.insert(name, other.as_ref().clone());
    }
    Ok(found)
}
