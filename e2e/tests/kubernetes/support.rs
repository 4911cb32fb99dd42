//! A namespace of its own for each test, with a database in the chart's bundled PostgreSQL; and waiting for conditions.

use std::fmt::Debug;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use autonomy_crds::condition::ReconciledStatus;
use autonomy_e2e::root;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::api::{Api, DeleteParams, ListParams};
use kube::core::NamespaceResourceScope;
use kube::runtime::wait::await_condition;
use kube::{Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use serde_json::Value;

/// Where the chart is installed.
pub const RELEASE_NAMESPACE: &str = "default";
/// Longer than anything takes that works.
pub const PATIENCE: Duration = Duration::from_secs(180);

const APPLY: [&str; 4] = ["apply", "--server-side", "--field-manager=e2e", "--force-conflicts"];

/// kubectl of the cluster's own version, where it is our own cluster.
pub fn kubectl_path() -> &'static PathBuf {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| tool("kubectl"))
}

/// The path of a tool that `e2e/cluster/tool` builds.
pub fn tool(name: &str) -> PathBuf {
    let output = Command::new(root().join("e2e/cluster/tool")).arg(name).output().expect("e2e/cluster/tool");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    PathBuf::from(String::from_utf8_lossy(&output.stdout).trim())
}

/// Runs a command with input; gives its output whether it succeeds or not.
pub fn run(program: &PathBuf, arguments: &[&str], input: &str) -> Output {
    let mut child = Command::new(program)
        .args(arguments)
        .current_dir(root())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("started");
    child.stdin.take().expect("its input").write_all(input.as_bytes()).expect("written");
    child.wait_with_output().expect("its output")
}

/// What a command printed; it must succeed.
pub fn succeed(program: &PathBuf, arguments: &[&str], input: &str) -> String {
    let output = run(program, arguments, input);
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{} {arguments:?}: {out}{err}", program.display());
    out.into_owned()
}

/// Runs kubectl; it must succeed.
pub fn kubectl(arguments: &[&str]) -> String {
    succeed(kubectl_path(), arguments, "")
}

/// A namespace of a test's own.
pub struct World {
    pub client: Client,
    pub namespace: String,
    /// The database's name.
    pub database: String,
}

impl World {
    /// A namespace with an empty database, the Secrets that lead there, and pods that must be restricted. No DataPlatform yet.
    pub async fn without_platform(name: &str) -> Self {
        let client = Client::try_default().await.expect("a cluster");
        let namespace = format!("e2e-{name}-{:05x}", rand::random::<u32>() & 0xf_ffff);
        let database = namespace.replace('-', "_");
        let world = Self { client, namespace, database };
        let namespace = &world.namespace;
        world.apply_raw(&format!(
            "{{apiVersion: v1, kind: Namespace, metadata: {{name: {namespace}, labels: {{autonomy.dev/e2e: '1', pod-security.kubernetes.io/enforce: restricted}}}}}}"
        ));
        world.server_sql(&format!("CREATE DATABASE {}", world.database));
        world.add_secrets();
        world
    }

    /// [`Self::without_platform`], with a DataPlatform `default` of one API pod that is Ready.
    pub async fn start(name: &str) -> Self {
        let world = Self::without_platform(name).await;
        world.apply(PLATFORM);
        world.ready::<autonomy_crds::DataPlatform>("default").await;
        world
    }

    /// Ends it: the namespace with all that is in it, then the database with the slot that a platform leaves there. What a failed test leaves
    /// stays, to be looked at.
    pub async fn end(self) {
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        namespaces.delete(&self.namespace, &DeleteParams::background()).await.expect("deleted");
        self.gone::<Deployment>("default-relay").await;
        let database = &self.database;
        eventually("the database is dropped", async || {
            let slots = format!(
                "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE database = '{database}' AND active; \
                 SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE database = '{database}' AND NOT active; \
                 DROP DATABASE IF EXISTS {database} WITH (FORCE)"
            );
            try_psql("postgres", &slots)
        })
        .await;
    }

    /// Copies the bundled servers' Secrets, with the database of this namespace.
    pub fn add_secrets(&self) {
        for (name, change) in [("autonomy-postgresql", true), ("autonomy-nats", false)] {
            let read = |key: &str| {
                let template = format!("go-template={{{{index .data \"{key}\" | base64decode}}}}");
                kubectl(&["get", "secret", name, "-n", RELEASE_NAMESPACE, "-o", &template]).trim().to_owned()
            };
            let texts = if change {
                let url = read("url");
                let (server, _) = url.rsplit_once('/').expect("a path");
                format!("url: '{server}/{}'", self.database)
            } else {
                format!("url: '{}', reader-url: '{}'", read("url"), read("reader-url"))
            };
            let namespace = &self.namespace;
            self.apply_raw(&format!(
                "{{apiVersion: v1, kind: Secret, metadata: {{name: {name}, namespace: {namespace}}}, stringData: {{{texts}}}}}"
            ));
        }
    }

    /// Applies YAML in the namespace, server-side, as a GitOps tool does.
    pub fn apply(&self, yaml: &str) {
        succeed(kubectl_path(), &[&APPLY[..], &["-n", &self.namespace, "-f", "-"]].concat(), yaml);
    }

    /// Applies YAML as it is, that tells its namespace itself.
    pub fn apply_raw(&self, yaml: &str) {
        succeed(kubectl_path(), &[&APPLY[..], &["-f", "-"]].concat(), yaml);
    }

    /// Applies YAML that must be refused; gives why.
    pub fn refused(&self, yaml: &str) -> String {
        let output = run(kubectl_path(), &[&APPLY[..], &["--dry-run=server", "-n", &self.namespace, "-f", "-"]].concat(), yaml);
        assert!(!output.status.success(), "admitted:\n{yaml}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    /// Runs kubectl in the namespace.
    pub fn kubectl(&self, arguments: &[&str]) -> String {
        kubectl(&[&["-n", &self.namespace], arguments].concat())
    }

    /// An API of the namespace.
    pub fn api<K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>>(&self) -> Api<K> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Waits until an object meets a condition; gives it then.
    pub async fn until<K>(&self, name: &str, what: &str, holds: impl Fn(&K) -> bool + Send + Sync) -> K
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static,
    {
        let api = self.api::<K>();
        let condition = |object: Option<&K>| object.is_some_and(&holds);
        match tokio::time::timeout(PATIENCE, await_condition(api.clone(), name, condition)).await {
            Ok(found) => found.expect("watched").expect("there"),
            Err(_) => {
                let kind = K::kind(&());
                let seen = self.kubectl(&["get", &kind, name, "-o", "yaml"]);
                panic!("{kind} {name} of {}: not {what} within {PATIENCE:?}\n{seen}\n{}", self.namespace, self.explain());
            }
        }
    }

    /// Waits until a resource is Ready at its present generation.
    pub async fn ready<K: Reconciled>(&self, name: &str) -> K {
        self.until(name, "Ready", |resource: &K| reason(resource).is_some_and(|(ready, _)| ready)).await
    }

    /// Waits until a resource is not Ready for a reason; gives its message.
    pub async fn not_ready<K: Reconciled>(&self, name: &str, wanted: &str) -> String {
        let found =
            self.until(name, wanted, |resource: &K| reason(resource).is_some_and(|(ready, reason)| !ready && reason == wanted)).await;
        message(&found)
    }

    /// Waits until an object is gone.
    pub async fn gone<K>(&self, name: &str)
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static,
    {
        let waiting = await_condition(self.api::<K>(), name, |object: Option<&K>| object.is_none());
        assert!(tokio::time::timeout(PATIENCE, waiting).await.is_ok(), "{} {name} stays\n{}", K::kind(&()), self.explain());
    }

    /// Runs SQL on the namespace's database as its owner; gives the rows as `psql -At` prints them.
    pub fn sql(&self, sql: &str) -> String {
        psql(&self.database, sql)
    }

    fn server_sql(&self, sql: &str) -> String {
        psql("postgres", sql)
    }

    /// Asks the object API, through the Kubernetes API: the body, or the status and what it says.
    pub async fn ask(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Value, (u16, String)> {
        let uri = format!("/api/v1/namespaces/{}/services/http:default-api:8080/proxy{path}", self.namespace);
        let request = http_request(method, &uri, body);
        match self.client.request_text(request).await {
            Ok(text) if text.is_empty() => Ok(Value::Null),
            Ok(text) => Ok(serde_json::from_str(&text).unwrap_or(Value::String(text))),
            Err(kube::Error::Api(status)) => Err((status.code, status.message)),
            Err(error) => Err((0, error.to_string())),
        }
    }

    /// Asks the object API; it must succeed.
    pub async fn call(&self, method: &str, path: &str, body: Option<&Value>) -> Value {
        match self.ask(method, path, body).await {
            Ok(answer) => answer,
            Err((status, text)) => panic!("{method} {path}: {status} {text}\n{}", self.explain()),
        }
    }

    // What a person would look at.
    fn explain(&self) -> String {
        let all = run(kubectl_path(), &["get", "dp,dm,ms,mig,pods,events", "-n", &self.namespace, "-o", "wide"], "");
        let log = run(
            kubectl_path(),
            &["logs", "-n", RELEASE_NAMESPACE, "-l", "app.kubernetes.io/component=operator", "--tail=40", "--prefix"],
            "",
        );
        format!("{}\n{}", String::from_utf8_lossy(&all.stdout), String::from_utf8_lossy(&log.stdout))
    }
}

fn http_request(method: &str, uri: &str, body: Option<&Value>) -> http::Request<Vec<u8>> {
    let body = body.map(|body| body.to_string().into_bytes()).unwrap_or_default();
    let kind = if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
    http::Request::builder().method(method).uri(uri).header("content-type", kind).body(body).expect("a request")
}

/// Runs SQL in the bundled PostgreSQL.
pub fn psql(database: &str, sql: &str) -> String {
    succeed(kubectl_path(), &psql_command(database), sql).trim().to_owned()
}

fn try_psql(database: &str, sql: &str) -> Option<()> {
    run(kubectl_path(), &psql_command(database), sql).status.success().then_some(())
}

fn psql_command(database: &str) -> [&str; 16] {
    let pod = "autonomy-postgresql-0";
    [
        "exec",
        "-i",
        "-n",
        RELEASE_NAMESPACE,
        pod,
        "--",
        "psql",
        "-h",
        "/run/postgresql",
        "-U",
        "postgres",
        "-d",
        database,
        "-v",
        "ON_ERROR_STOP=1",
        "-Atq",
    ]
}

/// Waits until something outside Kubernetes is so.
pub async fn eventually<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(begun.elapsed() < PATIENCE, "{what}: not within {PATIENCE:?}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// The pods behind labels.
pub async fn pods(client: &Client, namespace: &str, labels: &str) -> Vec<Pod> {
    let api: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let list = api.list(&ListParams::default().labels(labels)).await.expect("pods").items;
    list.into_iter().filter(|pod| pod.metadata.deletion_timestamp.is_none()).collect()
}

/// A kind of ours, with its status.
pub trait Reconciled:
    Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static
{
    type Status: ReconciledStatus;
    fn status(&self) -> Option<&Self::Status>;
}

macro_rules! reconciled {
    ($($kind:ty => $status:ty),*) => {$(
        impl Reconciled for $kind {
            type Status = $status;
            fn status(&self) -> Option<&Self::Status> {
                self.status.as_ref()
            }
        }
    )*};
}

reconciled!(
    autonomy_crds::DataPlatform => autonomy_crds::data_platform::DataPlatformStatus,
    autonomy_crds::DataModel => autonomy_crds::data_model::DataModelStatus,
    autonomy_crds::MicroService => autonomy_crds::micro_service::MicroServiceStatus,
    autonomy_crds::Migration => autonomy_crds::migration::MigrationStatus
);

/// Whether a resource is Ready, and the reason, where its status speaks of its present spec.
pub fn reason<K: Reconciled>(resource: &K) -> Option<(bool, String)> {
    let (observed, conditions) = resource.status()?.standing();
    if observed != resource.meta().generation {
        return None;
    }
    let ready = conditions.iter().find(|condition| condition.type_ == "Ready")?;
    Some((ready.status == "True", ready.reason.clone()))
}

/// What the Ready condition says.
pub fn message<K: Reconciled>(resource: &K) -> String {
    let conditions = resource.status().map(|status| status.standing().1.to_vec()).unwrap_or_default();
    conditions.into_iter().find(|condition| condition.type_ == "Ready").map(|condition| condition.message).unwrap_or_default()
}

/// The name of the pod that leads: the Lease's holder, where that pod is still there.
pub async fn leader(client: &Client) -> Option<String> {
    let leases: Api<Lease> = Api::namespaced(client.clone(), RELEASE_NAMESPACE);
    let holder = leases.get("autonomy-operator").await.ok()?.spec?.holder_identity?;
    let pods = pods(client, RELEASE_NAMESPACE, "app.kubernetes.io/component=operator").await;
    pods.iter().map(ResourceExt::name_any).find(|name| *name == holder)
}

/// A small DataPlatform on the bundled servers.
pub const PLATFORM: &str = "
apiVersion: autonomy.dev/v1alpha1
kind: DataPlatform
metadata: {name: default}
spec:
  postgresql: {urlFrom: {secretName: autonomy-postgresql, key: url}}
  nats: {urlFrom: {secretName: autonomy-nats, key: url}, syncInterval: 30s}
  api: {replicas: 1}
";

/// A model with one entity.
pub const SHOP: &str = "
apiVersion: autonomy.dev/v1alpha1
kind: DataModel
metadata: {name: shop}
spec:
  entities:
    - name: Sale
      key: [receipt]
      attributes:
        - {name: receipt, type: string, maxLength: 40, required: true}
        - {name: amount, type: decimal, precision: 12, scale: 2, required: true}
        - {name: status, type: string, maxLength: 20, default: open}
      events: {routing: status}
";

/// A service on [`SHOP`] that closes open sales.
pub const CLOSE: &str = "
apiVersion: autonomy.dev/v1alpha1
kind: MicroService
metadata: {name: close}
spec:
  trigger: {queue: {model: shop, entity: Sale, routing: [open]}}
  steps:
    - patch: {model: shop, entity: Sale, id: object.id, object: {status: \"'closed'\"}}
";
