//! `autonomy events`: what changed, as the streams tell it: a line of JSON for each event.

use std::collections::BTreeMap;

use async_nats::jetstream::consumer::DeliverPolicy;
use async_nats::jetstream::consumer::pull::OrderedConfig;
use autonomy_crds::event::{self, header};
use autonomy_crds::micro_service::Operation;
use clap::Args;
use futures::StreamExt;
use serde::Serialize;
use serde_json::value::RawValue;

use crate::place::{Place, PlaceError};

/// Shows the changes of a model's objects, a line of JSON each.
#[derive(Debug, Args)]
pub struct Command {
    /// The DataModel.
    model: String,
    /// Only this entity's, for example `Sale`.
    #[arg(long)]
    entity: Option<String>,
    /// Only this operation: created, updated or deleted.
    #[arg(long, value_parser = operation)]
    operation: Option<Operation>,
    /// From the stream's first event on, and not only the newest ones.
    #[arg(long)]
    all: bool,
    /// How many of the newest events are shown; with `--entity` and `--operation`, as many of the stream's newest are looked through.
    #[arg(long, default_value_t = 20)]
    last: u64,
    /// Go on with what comes.
    #[arg(short, long)]
    follow: bool,
    #[command(flatten)]
    place: Place,
}

fn operation(text: &str) -> Result<Operation, String> {
    [Operation::Created, Operation::Updated, Operation::Deleted]
        .into_iter()
        .find(|operation| operation.as_str() == text)
        .ok_or_else(|| "it is created, updated or deleted".to_owned())
}

/// Why events can't be shown.
#[derive(Debug, thiserror::Error)]
pub enum EventsError {
    /// NATS can't be reached.
    #[error(transparent)]
    Place(#[from] PlaceError),
    /// The stream can't be read.
    #[error("the stream {stream} can't be read: has DataModel {model} been applied?")]
    Stream {
        /// The stream.
        stream: String,
        /// The model.
        model: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

// An event as it is shown: numbers of the data stay as they are written.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Shown<'a> {
    sequence: u64,
    subject: &'a str,
    headers: BTreeMap<&'a str, &'a str>,
    data: Option<&'a RawValue>,
}

impl Command {
    /// Runs it.
    ///
    /// # Errors
    /// When the stream can't be read.
    pub async fn run(self) -> Result<(), EventsError> {
        let messaging = self.place.open("autonomy-events").await?;
        let name = event::stream(&messaging.namespace, &self.model);
        let fault = |source: Box<dyn std::error::Error + Send + Sync>| EventsError::Stream {
            stream: name.clone(),
            model: self.model.clone(),
            source,
        };
        let stream = messaging.jetstream.get_stream(&name).await.map_err(|error| fault(error.into()))?;
        let end = stream.cached_info().state.last_sequence;
        let first = end.saturating_sub(self.last).saturating_add(1).max(1);
        let deliver_policy = if self.all { DeliverPolicy::All } else { DeliverPolicy::ByStartSequence { start_sequence: first } };
        let any = "*".to_owned();
        let entity = self.entity.as_ref().unwrap_or(&any);
        let operation = self.operation.map_or("*", Operation::as_str);
        let filter_subject = format!("autonomy.{}.{}.{entity}.{operation}.>", messaging.namespace, self.model);
        let config = OrderedConfig { filter_subject, deliver_policy, ..OrderedConfig::default() };
        let mut consumer = stream.create_consumer(config).await.map_err(|error| fault(error.into()))?;
        let mut left = consumer.info().await.map_err(|error| fault(error.into()))?.num_pending;
        let mut messages = consumer.messages().await.map_err(|error| fault(error.into()))?;
        while self.follow || left > 0 {
            let Some(message) = messages.next().await else { break };
            let message = message.map_err(|error| fault(error.into()))?;
            left = left.saturating_sub(1);
            let headers = message.headers.clone().unwrap_or_default();
            let shown = Shown {
                sequence: message.info().map(|info| info.stream_sequence).unwrap_or_default(),
                subject: &message.subject,
                headers: [header::ID, header::TYPE, header::SUBJECT, header::TIME]
                    .into_iter()
                    .filter_map(|name| Some((name, headers.get(name)?.as_str())))
                    .collect(),
                data: serde_json::from_slice(&message.payload).ok(),
            };
            println!("{}", serde_json::to_string(&shown).unwrap_or_default());
        }
        Ok(())
    }
}
