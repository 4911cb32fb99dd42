//! Writing to Kubernetes: server-side apply, and only where what is there differs from what is wanted.

use std::fmt::Debug;

use autonomy_crds::MicroService;
use autonomy_crds::condition::ReconciledStatus;
use kube::api::{Api, DeleteParams, Patch, PatchParams, Preconditions};
use kube::core::NamespaceResourceScope;
use kube::{Client, Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use super::FIELD_MANAGER;
use super::observation::Observations;
use super::verdict::Reason;
use crate::catalog::hex_sha256;

// The field manager of what is seen of running services.
const OBSERVER: &str = "autonomy-operator-observer";
// Tells that another content was applied last, where the wanted one is a part of what is there (a field was taken away).
const APPLIED: &str = "autonomy.dev/applied-sha256";

/// Why Kubernetes does not have what is wanted.
#[derive(Debug, thiserror::Error)]
pub enum ServerSideError {
    /// The API refused or did not answer.
    #[error("{kind} {name} can't be {doing}")]
    Api {
        /// The kind.
        kind: String,
        /// The object's name.
        name: String,
        /// What was to be done.
        doing: &'static str,
        /// Why not.
        #[source]
        source: Box<kube::Error>,
    },
    /// An object of that name belongs to somebody else.
    #[error(
        "{kind} {name} is needed and exists already without belonging to this resource; delete or rename it, or name this resource otherwise"
    )]
    NameTaken {
        /// The kind.
        kind: String,
        /// The object's name.
        name: String,
    },
    /// An object can't be written as JSON, which no input can cause.
    #[error("an object can't be written as JSON")]
    Json(#[from] serde_json::Error),
}

impl ServerSideError {
    /// The reason that conditions give.
    pub fn reason(&self) -> Reason {
        match self {
            Self::NameTaken { .. } => Reason::NameTaken,
            Self::Api { .. } | Self::Json(_) => Reason::KubernetesError,
        }
    }
}

fn failed<'a>(kind: &'a str, name: &'a str, doing: &'static str) -> impl FnOnce(kube::Error) -> ServerSideError + 'a {
    move |source| ServerSideError::Api { kind: kind.to_owned(), name: name.to_owned(), doing, source: Box::new(source) }
}

/// An object of a kind, or none where it is not there.
///
/// # Errors
/// When the API does not answer.
pub async fn get<K>(client: &Client, namespace: &str, name: &str) -> Result<Option<K>, ServerSideError>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + DeserializeOwned + Debug,
{
    let api: Api<K> = Api::namespaced(client.clone(), namespace);
    api.get_opt(name).await.map_err(failed(&K::kind(&()), name, "read"))
}

/// Makes an object what is wanted, and gives it as it then is. Nothing is written where it is so already.
///
/// # Errors
/// When the API refuses or does not answer, or an object of that name belongs to somebody else.
pub async fn ensure<K>(client: &Client, wanted: &K) -> Result<K, ServerSideError>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + Serialize + DeserializeOwned + Debug,
{
    let api: Api<K> = Api::namespaced(client.clone(), &wanted.namespace().unwrap_or_default());
    ensure_in(&api, wanted, &K::kind(&())).await
}

/// [`ensure`] for any kind, also one that is only known by name.
///
/// # Errors
/// As [`ensure`].
pub async fn ensure_in<K>(api: &Api<K>, wanted: &K, kind: &str) -> Result<K, ServerSideError>
where
    K: Resource + Clone + Serialize + DeserializeOwned + Debug,
{
    let name = wanted.name_any();
    let mut document = serde_json::to_value(wanted)?;
    let sha256 = hex_sha256(document.to_string().as_bytes());
    if let Some(metadata) = document["metadata"].as_object_mut() {
        let annotations = metadata.entry("annotations").or_insert_with(|| Value::Object(Map::new()));
        annotations[APPLIED] = Value::String(sha256);
    }
    if let Some(live) = api.get_opt(&name).await.map_err(failed(kind, &name, "read"))? {
        if !same_owner(wanted, &live) {
            return Err(ServerSideError::NameTaken { kind: kind.to_owned(), name });
        }
        if is_part_of(&document, &serde_json::to_value(&live)?) {
            return Ok(live);
        }
        tracing::info!(kind, name, "brought to what is wanted");
    } else {
        tracing::info!(kind, name, "made");
    }
    let parameters = PatchParams::apply(FIELD_MANAGER).force();
    api.patch(&name, &parameters, &Patch::Apply(&document)).await.map_err(failed(kind, &name, "applied"))
}

fn same_owner<K: Resource>(wanted: &K, live: &K) -> bool {
    let [owner] = wanted.owner_references() else { return true };
    live.owner_references().iter().any(|reference| reference.uid == owner.uid)
}

/// Takes an object away that is not wanted any more, where it belongs to `owner`.
///
/// # Errors
/// When the API refuses or does not answer.
pub async fn remove_in<K>(api: &Api<K>, name: &str, owner: &str, kind: &str) -> Result<(), ServerSideError>
where
    K: Resource + Clone + DeserializeOwned + Debug,
{
    let Some(live) = api.get_opt(name).await.map_err(failed(kind, name, "read"))? else { return Ok(()) };
    if !live.owner_references().iter().any(|reference| reference.uid == owner) {
        return Ok(());
    }
    let only_this = Preconditions { uid: live.uid(), resource_version: None };
    match api.delete(name, &DeleteParams::background().preconditions(only_this)).await {
        Ok(_) => {
            tracing::info!(kind, name, "removed: it is not wanted any more");
            Ok(())
        }
        Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => Ok(()),
        Err(error) => Err(failed(kind, name, "removed")(error)),
    }
}

/// [`remove_in`] for a kind that is known.
///
/// # Errors
/// As [`remove_in`].
pub async fn remove<K>(client: &Client, namespace: &str, name: &str, owner: &str) -> Result<(), ServerSideError>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + DeserializeOwned + Debug,
{
    let api: Api<K> = Api::namespaced(client.clone(), namespace);
    remove_in(&api, name, owner, &K::kind(&())).await
}

/// Writes a resource's status, where it is not that already.
///
/// # Errors
/// When the API refuses or does not answer.
pub async fn ensure_status<K, S>(client: &Client, resource: &K, current: Option<&S>, wanted: &S) -> Result<(), ServerSideError>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + DeserializeOwned + Debug,
    S: ReconciledStatus + Serialize,
{
    if current == Some(wanted) {
        return Ok(());
    }
    let name = resource.name_any();
    let api: Api<K> = Api::namespaced(client.clone(), &resource.namespace().unwrap_or_default());
    let document = json!({
        "apiVersion": K::api_version(&()),
        "kind": K::kind(&()),
        "metadata": {"name": name},
        "status": wanted,
    });
    let parameters = PatchParams::apply(FIELD_MANAGER).force();
    match api.patch_status(&name, &parameters, &Patch::Apply(&document)).await {
        Ok(_) => Ok(()),
        // Deleted in the meantime.
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        Err(error) => Err(failed(&K::kind(&()), &name, "given its status")(error)),
    }
}

/// Writes what is seen of a service into its status, beside what its reconciles write there, as another manager of fields: neither takes away what
/// the other wrote.
///
/// # Errors
/// When the API refuses or does not answer.
pub async fn apply_observations(client: &Client, service: &MicroService, seen: &Observations) -> Result<(), ServerSideError> {
    let name = service.name_any();
    let api: Api<MicroService> = Api::namespaced(client.clone(), &service.namespace().unwrap_or_default());
    let kind = MicroService::kind(&());
    let document = json!({
        "apiVersion": MicroService::api_version(&()),
        "kind": kind,
        "metadata": {"name": name},
        "status": seen,
    });
    let parameters = PatchParams::apply(OBSERVER).force();
    match api.patch_status(&name, &parameters, &Patch::Apply(&document)).await {
        Ok(_) => Ok(()),
        // Deleted in the meantime.
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        Err(error) => Err(failed(&kind, &name, "given its status")(error)),
    }
}

/// Puts a finalizer on a resource or takes it off; nothing is written where that is so already.
///
/// # Errors
/// When the API refuses or does not answer.
pub async fn ensure_finalizer<K>(client: &Client, resource: &K, finalizer: &str, wanted: bool) -> Result<(), ServerSideError>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + DeserializeOwned + Debug,
{
    let mut finalizers = resource.finalizers().to_vec();
    if finalizers.iter().any(|there| there == finalizer) == wanted {
        return Ok(());
    }
    if wanted {
        finalizers.push(finalizer.to_owned());
    } else {
        finalizers.retain(|there| there != finalizer);
    }
    let name = resource.name_any();
    let api: Api<K> = Api::namespaced(client.clone(), &resource.namespace().unwrap_or_default());
    // The version makes the API refuse it where somebody else changed the list since.
    let patch = json!({"metadata": {"finalizers": finalizers, "resourceVersion": resource.resource_version()}});
    match api.patch_metadata(&name, &PatchParams::default(), &Patch::Merge(&patch)).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        Err(error) => Err(failed(&K::kind(&()), &name, "given its finalizer")(error)),
    }
}

// Whether the live object has everything that is wanted; what the API server adds by itself does not count. Lists are compared element by
// element, and quantities by what they amount to.
fn is_part_of(wanted: &Value, live: &Value) -> bool {
    match (wanted, live) {
        (Value::Object(wanted), Value::Object(live)) => wanted.iter().all(|(name, value)| match live.get(name) {
            Some(there) if matches!(name.as_str(), "requests" | "limits") => same_amounts(value, there),
            Some(there) => is_part_of(value, there),
            // Written as left out.
            None => value.is_null() || value.as_object().is_some_and(Map::is_empty) || value.as_array().is_some_and(Vec::is_empty),
        }),
        (Value::Array(wanted), Value::Array(live)) => {
            wanted.len() == live.len() && wanted.iter().zip(live).all(|(wanted, live)| is_part_of(wanted, live))
        }
        (wanted, live) => wanted == live,
    }
}

fn same_amounts(wanted: &Value, live: &Value) -> bool {
    let (Some(wanted), Some(live)) = (wanted.as_object(), live.as_object()) else { return wanted == live };
    wanted.len() == live.len()
        && wanted.iter().all(|(name, amount)| {
            match (amount.as_str().and_then(amount_of), live.get(name).and_then(Value::as_str).and_then(amount_of)) {
                (Some(wanted), Some(live)) => wanted == live,
                _ => live.get(name) == Some(amount),
            }
        })
}

// In thousandths. The API server writes amounts in a form of its own: `0.5` as `500m`, `1024Mi` as `1Gi`.
fn amount_of(text: &str) -> Option<u128> {
    const UNITS: [(&str, u128); 10] = [
        ("Ki", 1 << 10),
        ("Mi", 1 << 20),
        ("Gi", 1 << 30),
        ("Ti", 1 << 40),
        ("k", 1_000),
        ("M", 1_000_000),
        ("G", 1_000_000_000),
        ("T", 1_000_000_000_000),
        ("m", 0),
        ("", 1),
    ];
    let (digits, unit) = UNITS.iter().find_map(|(suffix, unit)| Some((text.strip_suffix(suffix)?, *unit)))?;
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let scale = 10u128.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    let number =
        whole.parse::<u128>().ok()?.checked_mul(scale)?.checked_add(if fraction.is_empty() { 0 } else { fraction.parse().ok()? })?;
    if unit == 0 { Some(number / scale) } else { Some(number.checked_mul(unit)?.checked_mul(1000)? / scale) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_server_adds_is_no_difference() {
        let wanted = json!({"spec": {"containers": [{"name": "api", "args": ["api"]}], "selector": {}}});
        let live = json!({"spec": {"containers": [{"name": "api", "args": ["api"], "terminationMessagePath": "/dev/x"}], "dnsPolicy": "ClusterFirst"}});
        assert!(is_part_of(&wanted, &live));
    }

    #[test]
    fn changed_missing_and_additional_elements_are_differences() {
        let wanted = json!({"args": ["api"], "replicas": 2});
        assert!(!is_part_of(&wanted, &json!({"args": ["api"], "replicas": 3})));
        assert!(!is_part_of(&wanted, &json!({"args": ["api"]})));
        assert!(!is_part_of(&wanted, &json!({"args": ["api", "--more"], "replicas": 2})));
    }

    #[test]
    fn amounts_are_compared_by_what_they_amount_to() {
        let same = |wanted: &str, live: &str| is_part_of(&json!({"requests": {"x": wanted}}), &json!({"requests": {"x": live}}));
        for (wanted, live) in [("0.5", "500m"), ("1000m", "1"), ("1024Mi", "1Gi"), ("1.5Gi", "1536Mi"), ("2k", "2000")] {
            assert!(same(wanted, live), "{wanted} is {live}");
        }
        assert!(!same("500m", "501m"));
        assert!(!same("1G", "1Gi"));
        assert!(!is_part_of(&json!({"limits": {"cpu": "1"}}), &json!({"limits": {"cpu": "1", "memory": "1Gi"}})));
    }
}
