//! `autonomy status`: how the resources of a namespace stand, with how much waits for each service and its dead letters.

use std::collections::BTreeMap;

use autonomy_crds::condition::{READY, ReconciledStatus};
use autonomy_crds::event;
use autonomy_crds::migration::MigrationState;
use autonomy_crds::{DataModel, DataPlatform, MicroService, Migration};
use autonomy_process::service_consumers::ServiceConsumers;
use autonomy_process::telemetry::error_chain;
use clap::Args;
use futures::TryStreamExt;
use kube::ResourceExt;
use kube::api::{Api, ListParams};

use crate::cluster::{Cluster, ClusterError};
use crate::place::{Messaging, Place};

/// How the resources of a namespace stand.
#[derive(Debug, Args)]
pub struct Command {
    #[command(flatten)]
    place: Place,
}

/// Why the status can't be told.
#[derive(Debug, thiserror::Error)]
pub enum StatusError {
    /// The cluster does not give it.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
}

struct Row {
    kind: &'static str,
    name: String,
    ready: String,
    reason: String,
    detail: String,
    message: String,
}

impl Command {
    /// Runs it.
    ///
    /// # Errors
    /// When the cluster does not answer. Where only NATS does not, that is told in its place.
    pub async fn run(self) -> Result<(), StatusError> {
        let cluster = Cluster::connect(self.place.namespace.as_deref()).await?;
        let platforms = list::<DataPlatform>(&cluster, "DataPlatforms").await?;
        let models = list::<DataModel>(&cluster, "DataModels").await?;
        let services = list::<MicroService>(&cluster, "MicroServices").await?;
        let migrations = list::<Migration>(&cluster, "Migrations").await?;
        let mut rows = Vec::new();
        for platform in &platforms {
            let status = platform.status.clone().unwrap_or_default();
            rows.push(row("DataPlatform", platform, &status, status.api_url.clone().unwrap_or_default()));
        }
        for model in &models {
            let status = model.status.clone().unwrap_or_default();
            let revision = status.revision.map(|revision| format!("revision {revision}")).unwrap_or_default();
            rows.push(row("DataModel", model, &status, revision));
        }
        let waiting = self.waiting(&cluster, &platforms, &services).await;
        for service in &services {
            let status = service.status.clone().unwrap_or_default();
            let workers = format!("{}/{} workers", status.ready_replicas.unwrap_or(0), status.replicas.unwrap_or(0));
            let detail = waiting.get(&service.name_any()).map_or_else(|| workers.clone(), |waiting| format!("{workers}, {waiting}"));
            rows.push(row("MicroService", service, &status, detail));
        }
        for migration in &migrations {
            let status = migration.status.clone().unwrap_or_default();
            if !matches!(status.state, Some(MigrationState::Applied | MigrationState::Superseded)) {
                rows.push(row("Migration", migration, &status, migration.spec.sha256.clone()));
            }
        }
        print(&cluster.namespace, &rows);
        Ok(())
    }

    // For each service how many events wait, and how many are dead letters.
    async fn waiting(&self, cluster: &Cluster, platforms: &[DataPlatform], services: &[MicroService]) -> BTreeMap<String, String> {
        let mut waiting = BTreeMap::new();
        for platform in platforms {
            let of: Vec<&MicroService> = services.iter().filter(|service| service.spec.platform() == platform.name_any()).collect();
            if of.is_empty() {
                continue;
            }
            let place =
                Place { cluster: true, platform: platform.name_any(), namespace: Some(cluster.namespace.clone()), ..self.place.clone() };
            match place.open("autonomy-status").await {
                Ok(messaging) => {
                    for service in of {
                        waiting.insert(service.name_any(), waiting_for(&messaging, service).await);
                    }
                }
                Err(error) => eprintln!("how much waits is not told: {}", error_chain(&error)),
            }
        }
        waiting
    }
}

async fn waiting_for(messaging: &Messaging, service: &MicroService) -> String {
    let name = service.name_any();
    let mut text = match ServiceConsumers::of(&messaging.namespace, &name, &service.spec) {
        Some(consumers) => match consumers.lag(&messaging.jetstream).await {
            Ok(lag) => format!("{} waiting ({} retries)", lag.total(), lag.retries),
            Err(error) => error_chain(&error),
        },
        None => "reads files".to_owned(),
    };
    match dead_letters(messaging, &name).await {
        Ok(0) => {}
        Ok(count) => text.push_str(&format!(", {count} dead letters")),
        Err(error) => text.push_str(&format!(", dead letters unknown: {}", error_chain(&*error))),
    }
    text
}

async fn dead_letters(messaging: &Messaging, service: &str) -> Result<usize, Box<dyn std::error::Error>> {
    let stream = messaging.jetstream.get_stream(event::dead_letter_stream(&messaging.namespace)).await?;
    let subjects = stream.info_with_subjects(event::dead_letter_subject(&messaging.namespace, service, "*")).await?;
    // One message a subject.
    Ok(subjects.try_fold(0, |count, _| std::future::ready(Ok(count + 1))).await?)
}

async fn list<K>(cluster: &Cluster, what: &str) -> Result<Vec<K>, ClusterError>
where
    K: kube::Resource<Scope = kube::core::NamespaceResourceScope, DynamicType = ()> + Clone + serde::de::DeserializeOwned + std::fmt::Debug,
{
    let api: Api<K> = cluster.api();
    let list = api.list(&ListParams::default()).await;
    Ok(list.map_err(|source| ClusterError::Api { what: what.to_owned(), source: Box::new(source) })?.items)
}

fn row<K: ResourceExt>(kind: &'static str, resource: &K, status: &impl ReconciledStatus, detail: String) -> Row {
    let (observed, conditions) = status.standing();
    let ready = conditions.iter().find(|condition| condition.type_ == READY);
    let old = observed.is_some() && observed != resource.meta().generation;
    Row {
        kind,
        name: resource.name_any(),
        ready: ready.map_or_else(|| "-".to_owned(), |condition| condition.status.clone()),
        reason: ready.map_or_else(
            || "not looked at yet".to_owned(),
            |condition| if old { format!("{} (of the spec before)", condition.reason) } else { condition.reason.clone() },
        ),
        detail,
        message: ready.filter(|condition| condition.status != "True").map(|condition| condition.message.clone()).unwrap_or_default(),
    }
}

fn print(namespace: &str, rows: &[Row]) {
    if rows.is_empty() {
        println!("there is nothing of Autonomy in namespace {namespace}");
        return;
    }
    let width =
        |field: fn(&Row) -> &str, least: usize| rows.iter().map(|row| field(row).chars().count()).chain([least]).max().unwrap_or(least);
    let (names, reasons) = (width(|row| &row.name, 4), width(|row| &row.reason, 6));
    println!("{:<13} {:<names$} {:<6} {:<reasons$} DETAIL", "KIND", "NAME", "READY", "REASON");
    for row in rows {
        println!("{:<13} {:<names$} {:<6} {:<reasons$} {}", row.kind, row.name, row.ready, row.reason, row.detail);
        if !row.message.is_empty() {
            println!("{:<13} {}", "", row.message);
        }
    }
}
