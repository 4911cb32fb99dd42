//! What a MicroService refers to: its platform, its models as the catalog has them, and Secrets, ConfigMaps and the volume of its files.

use std::collections::BTreeMap;
use std::sync::Arc;

use autonomy_crds::data_platform::SecretKeyReference;
use autonomy_crds::{DataPlatform, MicroService, Model};
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim, Secret};
use kube::ResourceExt;
use kube::runtime::reflector::ObjectRef;

use super::super::connections::Connection;
use super::super::context::Context;
use super::super::server_side::get;
use super::ServiceError;

/// A service with what it refers to.
pub struct Dereferenced {
    pub namespace: String,
    pub name: String,
    pub platform: Arc<DataPlatform>,
    pub connection: Connection,
    /// The models that it reads or writes, by name.
    pub models: BTreeMap<String, Arc<Model>>,
    /// The access key's id and the secret one for the bucket of its files.
    pub access_key: Option<(String, String)>,
}

/// Reads it all; what is not there is told as what is waited for.
pub async fn dereference(service: &MicroService, context: &Context) -> Result<Dereferenced, ServiceError> {
    let (namespace, name) = (service.namespace().unwrap_or_default(), service.name_any());
    let platform_name = service.spec.platform();
    let platform = context
        .stores
        .platforms
        .get(&ObjectRef::new(platform_name).within(&namespace))
        .ok_or_else(|| ServiceError::PlatformMissing(platform_name.to_owned()))?;
    let connection =
        context.connections.prepared(&namespace, platform_name).ok_or_else(|| ServiceError::PlatformNotReady(platform_name.to_owned()))?;
    let catalog = connection.catalog().await?;
    let mut models = BTreeMap::new();
    let mut waited_for = None;
    for model in service.spec.models() {
        match catalog.get(model).filter(|entry| entry.model.namespace == namespace) {
            Some(entry) => drop(models.insert(model.to_owned(), Arc::new(entry.model.clone()))),
            // One that is declared comes by itself, so one that is not is told first.
            None if context.stores.models.get(&ObjectRef::new(model).within(&namespace)).is_some() => waited_for = Some(model),
            None => return Err(ServiceError::ModelMissing(model.to_owned())),
        }
    }
    if let Some(model) = waited_for {
        return Err(ServiceError::ModelNotReady(model.to_owned()));
    }
    references(service, context, &namespace).await?;
    let access_key = access_key(service, context, &namespace).await?;
    Ok(Dereferenced { namespace, name, platform, connection, models, access_key })
}

// A pod that names what is not there would only wait, and say so where nobody looks.
async fn references(service: &MicroService, context: &Context, namespace: &str) -> Result<(), ServiceError> {
    let client = &context.client;
    let missing = |path: String, kind: &str, name: &str| {
        ServiceError::ReferenceMissing(format!("{path}: there is no {kind} {name} in namespace {namespace}; it is waited for"))
    };
    for (index, source) in service.spec.environment_from.iter().enumerate() {
        if let Some(name) = &source.config_map
            && get::<ConfigMap>(client, namespace, name).await?.is_none()
        {
            return Err(missing(format!("spec.environmentFrom[{index}].configMap"), "ConfigMap", name));
        }
        if let Some(name) = &source.secret
            && get::<Secret>(client, namespace, name).await?.is_none()
        {
            return Err(missing(format!("spec.environmentFrom[{index}].secret"), "Secret", name));
        }
    }
    for (path, reference) in service.spec.secret_keys() {
        let Some(secret) = get::<Secret>(client, namespace, &reference.secret_name).await? else {
            return Err(missing(path, "Secret", &reference.secret_name));
        };
        if !secret.data.is_some_and(|data| data.contains_key(&reference.key)) {
            let (name, key) = (&reference.secret_name, &reference.key);
            return Err(ServiceError::ReferenceMissing(format!("{path}: Secret {name} has no key {key}; it is waited for")));
        }
    }
    if let Some(name) = service.spec.trigger.files.as_ref().and_then(|files| files.volume_claim.as_ref())
        && get::<PersistentVolumeClaim>(client, namespace, name).await?.is_none()
    {
        return Err(missing("spec.trigger.files.volumeClaim".to_owned(), "PersistentVolumeClaim", name));
    }
    Ok(())
}

async fn access_key(service: &MicroService, context: &Context, namespace: &str) -> Result<Option<(String, String)>, ServiceError> {
    let Some(location) = service.spec.trigger.files.as_ref().and_then(|files| files.s3.as_ref()) else { return Ok(None) };
    let (Some(id), Some(key)) = (&location.access_key_id_from, &location.secret_access_key_from) else { return Ok(None) };
    Ok(Some((text(context, namespace, id).await?, text(context, namespace, key).await?)))
}

async fn text(context: &Context, namespace: &str, reference: &SecretKeyReference) -> Result<String, ServiceError> {
    let SecretKeyReference { secret_name, key } = reference;
    let secret = get::<Secret>(&context.client, namespace, secret_name).await?;
    let bytes = secret.and_then(|secret| secret.data?.remove(key));
    let text = bytes.and_then(|bytes| String::from_utf8(bytes.0).ok());
    text.map(|text| text.trim().to_owned())
        .ok_or_else(|| ServiceError::ReferenceMissing(format!("Secret {secret_name} has no text under the key {key}; it is waited for")))
}
