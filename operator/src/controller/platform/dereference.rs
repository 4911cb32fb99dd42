//! What a DataPlatform refers to: the Secrets with its URLs, and the one that the operator keeps its roles' passwords in.

use autonomy_crds::DataPlatform;
use autonomy_crds::data_platform::{NatsConnection, PostgresqlConnection, SecretKeyReference};
use k8s_openapi::api::core::v1::Secret;
use kube::Client;
use rand::RngExt;

use super::super::connections::Urls;
use super::super::context::Context;
use super::super::server_side;
use super::{PlatformError, connections_secret, named};
use crate::prepare::PrepareSettings;

/// Keys of the operator's Secret.
pub const API_PASSWORD: &str = "api-password";
pub const RELAY_PASSWORD: &str = "relay-password";

const PASSWORD_LENGTH: usize = 40;

/// A platform with what it refers to.
pub struct Dereferenced {
    pub namespace: String,
    pub name: String,
    pub postgresql: PostgresqlConnection,
    pub nats: NatsConnection,
    pub urls: Urls,
    /// NATS' URL for the API, which only reads streams.
    pub nats_reader_url: String,
    pub passwords: PrepareSettings,
}

/// Reads it all; passwords that are not there yet are made, and kept by what is built.
pub async fn dereference(platform: &DataPlatform, context: &Context) -> Result<Dereferenced, PlatformError> {
    let (namespace, name) = named(platform);
    let wanted = |field: &str| {
        PlatformError::Invalid(format!(
            "spec.{field} is missing: in a cluster a DataPlatform names the Secret with the connection URL in spec.{field}.urlFrom"
        ))
    };
    let postgresql = platform.spec.postgresql.clone().ok_or_else(|| wanted("postgresql"))?;
    let nats = platform.spec.nats.clone().ok_or_else(|| wanted("nats"))?;
    let urls = Urls {
        postgresql: read(&context.client, &namespace, "spec.postgresql.urlFrom", &postgresql.url_from).await?,
        nats: read(&context.client, &namespace, "spec.nats.urlFrom", &nats.url_from).await?,
    };
    let nats_reader_url = match &nats.reader_url_from {
        Some(reference) => read(&context.client, &namespace, "spec.nats.readerUrlFrom", reference).await?,
        None => urls.nats.clone(),
    };
    let kept: Option<Secret> = server_side::get(&context.client, &namespace, &connections_secret(platform)).await?;
    let kept = |key: &str| kept.as_ref().and_then(|secret| text(secret, key)).filter(|password| !password.is_empty());
    let passwords = PrepareSettings {
        api_password: kept(API_PASSWORD).unwrap_or_else(new_password),
        relay_password: kept(RELAY_PASSWORD).unwrap_or_else(new_password),
    };
    Ok(Dereferenced { namespace, name, postgresql, nats, urls, nats_reader_url, passwords })
}

async fn read(client: &Client, namespace: &str, path: &str, reference: &SecretKeyReference) -> Result<String, PlatformError> {
    let SecretKeyReference { secret_name, key } = reference;
    let Some(secret) = server_side::get::<Secret>(client, namespace, secret_name).await? else {
        return Err(PlatformError::ReferenceMissing(format!(
            "{path}: there is no Secret {secret_name} in namespace {namespace}; it is waited for"
        )));
    };
    text(&secret, key).ok_or_else(|| {
        PlatformError::ReferenceMissing(format!("{path}: Secret {secret_name} has no text under the key {key}; it is waited for"))
    })
}

fn text(secret: &Secret, key: &str) -> Option<String> {
    let bytes = &secret.data.as_ref()?.get(key)?.0;
    Some(std::str::from_utf8(bytes).ok()?.trim().to_owned())
}

// Letters and digits only, which need no escaping in an URL.
fn new_password() -> String {
    let mut random = rand::rng();
    std::iter::repeat_with(|| char::from(random.sample(rand::distr::Alphanumeric))).take(PASSWORD_LENGTH).collect()
}
