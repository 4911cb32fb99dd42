//! `autonomy service replay`: events of the past, handed to a service once more by way of the retry stream, so that what comes in the meantime
//! is held up by nothing.

use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::jetstream::consumer::DeliverPolicy;
use async_nats::jetstream::consumer::pull::{Config, OrderedConfig};
use async_nats::jetstream::stream::Stream;
use autonomy_crds::event::{self, DeliveryHistory, HISTORY_HEADER, REPLAY_HEADER, header};
use clap::Args;
use futures::TryStreamExt;
use jiff::Timestamp;
use tokio::time::MissedTickBehavior;

use crate::moment::moment;
use crate::place::{Messaging, Place, PlaceError};
use crate::rate::rate;

// So many are handed over before it is looked how many the service still has before it.
const LOOK_EVERY: u64 = 500;
// So many may wait for the service: the retry stream is no second copy of the model's stream.
const MOST_WAITING: u64 = 10_000;
const PAUSE: Duration = Duration::from_millis(500);
// Published and not acknowledged yet.
const AT_A_TIME: usize = 256;

/// Hands events of the past to a service once more.
#[derive(Debug, Args)]
pub struct Replay {
    /// The MicroService; it has a queue trigger.
    service: String,
    /// From this time on: a time, or how long ago, for example `2h`.
    #[arg(long, value_name = "TIME", value_parser = moment, conflicts_with = "from_sequence", required_unless_present = "from_sequence")]
    from: Option<Timestamp>,
    /// From this sequence of the model's stream on, as `autonomy events` shows it.
    #[arg(long, value_name = "SEQUENCE")]
    from_sequence: Option<u64>,
    /// Until this time; until now where left out.
    #[arg(long, value_name = "TIME", value_parser = moment)]
    to: Option<Timestamp>,
    /// A name under which the events take effect once more, also where they did before; the same name never twice. For services that have
    /// changed, and whose effects may be there twice.
    #[arg(long = "as", value_name = "NAME", value_parser = name)]
    replay: Option<String>,
    /// Hands over so many a second at the most.
    #[arg(long, value_name = "PER_SECOND", value_parser = rate)]
    rate: Option<Duration>,
    /// Only tells how many there are.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    place: Place,
}

// It is part of subjects and of idempotency keys.
fn name(text: &str) -> Result<String, String> {
    let fits = |text: &str| text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
    if (1..=40).contains(&text.len()) && fits(text) {
        Ok(text.to_owned())
    } else {
        Err("it has 1 to 40 lower case letters, digits and hyphens".to_owned())
    }
}

/// Why events can't be replayed.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// NATS can't be reached.
    #[error(transparent)]
    Place(#[from] PlaceError),
    /// No model's stream has a consumer of the service.
    #[error("service {service} has no consumer in namespace {namespace}: is it a service with a queue trigger, and applied?")]
    Unknown {
        /// The service.
        service: String,
        /// The namespace.
        namespace: String,
    },
    /// NATS did not do what was asked.
    #[error("can't {doing}")]
    Stream {
        /// What was being done.
        doing: &'static str,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

fn doing<E: Into<Box<dyn std::error::Error + Send + Sync>>>(doing: &'static str) -> impl FnOnce(E) -> ReplayError {
    move |source| ReplayError::Stream { doing, source: source.into() }
}

impl Replay {
    /// Runs it.
    ///
    /// # Errors
    /// When there is no such service, or NATS does not do it.
    pub async fn run(self) -> Result<(), ReplayError> {
        let messaging = self.place.open("autonomy-service-replay").await?;
        let (stream, filter_subjects) = self.triggering(&messaging).await?;
        let deliver_policy = match (self.from_sequence, self.from) {
            (Some(start_sequence), _) => DeliverPolicy::ByStartSequence { start_sequence: start_sequence.max(1) },
            (None, Some(from)) => {
                let nanoseconds = from.as_nanosecond();
                let start_time = time::OffsetDateTime::from_unix_timestamp_nanos(nanoseconds).map_err(doing("begin at that time"))?;
                DeliverPolicy::ByStartTime { start_time }
            }
            (None, None) => DeliverPolicy::All,
        };
        // What comes from now on, the service gets anyway.
        let end = stream.cached_info().state.last_sequence;
        let config = OrderedConfig { filter_subjects, deliver_policy, ..OrderedConfig::default() };
        let mut consumer = stream.create_consumer(config).await.map_err(doing("read the stream"))?;
        let mut left = consumer.info().await.map_err(doing("read the stream"))?.num_pending;
        let mut messages = consumer.messages().await.map_err(doing("read the stream"))?;
        let mut turns = self.rate.map(tokio::time::interval);
        if let Some(turns) = &mut turns {
            turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
        }
        let (mut handed, mut acknowledgements) = (0, Vec::new());
        while left > 0 {
            let Some(message) = messages.try_next().await.map_err(doing("read the stream"))? else { break };
            left -= 1;
            let info = message.info().map_err(doing("read the stream"))?;
            let too_late = self.to.is_some_and(|to| info.published.unix_timestamp_nanos() >= to.as_nanosecond());
            if info.stream_sequence > end || too_late {
                break;
            }
            handed += 1;
            if self.dry_run {
                continue;
            }
            if let Some(turns) = &mut turns {
                turns.tick().await;
            }
            acknowledgements.push(self.hand_over(&messaging, &message).await?);
            if acknowledgements.len() == AT_A_TIME {
                all_acknowledged(&mut acknowledgements).await?;
            }
            if handed % LOOK_EVERY == 0 {
                self.wait_for_room(&messaging).await?;
            }
        }
        all_acknowledged(&mut acknowledgements).await?;
        let what = if self.dry_run { "would be handed" } else { "are handed" };
        println!("{handed} events {what} to {} once more", self.service);
        Ok(())
    }

    // The model's stream and the subjects that trigger the service.
    async fn triggering(&self, messaging: &Messaging) -> Result<(Stream, Vec<String>), ReplayError> {
        let mut names = messaging.jetstream.stream_names();
        let others = [event::retry_stream(&messaging.namespace), event::dead_letter_stream(&messaging.namespace)];
        let head = event::stream(&messaging.namespace, "");
        while let Some(name) = names.try_next().await.map_err(doing("list the streams"))? {
            if !name.starts_with(&head) || others.contains(&name) {
                continue;
            }
            let stream = messaging.jetstream.get_stream(&name).await.map_err(doing("open a stream"))?;
            let Ok(consumer) = stream.get_consumer::<Config>(&self.service).await else { continue };
            let config = &consumer.cached_info().config;
            let mut subjects = config.filter_subjects.clone();
            subjects.extend(Some(config.filter_subject.clone()).filter(|subject| !subject.is_empty()));
            return Ok((stream, subjects));
        }
        Err(ReplayError::Unknown { service: self.service.clone(), namespace: messaging.namespace.clone() })
    }

    async fn hand_over(
        &self,
        messaging: &Messaging,
        message: &async_nats::jetstream::Message,
    ) -> Result<async_nats::jetstream::context::PublishAckFuture, ReplayError> {
        let mut headers = HeaderMap::new();
        for (name, values) in message.headers.iter().flat_map(HeaderMap::iter) {
            let text: &str = name.as_ref();
            if !text.get(..5).is_some_and(|head| head.eq_ignore_ascii_case("Nats-")) {
                values.iter().for_each(|value| headers.append(name.clone(), value.clone()));
            }
        }
        let mut token = headers.get(header::ID).map(|id| id.as_str().to_owned()).unwrap_or_default();
        if let Some(replay) = &self.replay {
            token = format!("{token}~{replay}");
            headers.insert(REPLAY_HEADER, replay.as_str());
        }
        let history = DeliveryHistory { service: self.service.clone(), subject: message.subject.to_string(), ..DeliveryHistory::default() };
        headers.insert(HISTORY_HEADER, serde_json::to_string(&history).unwrap_or_default().as_str());
        let subject = event::retry_due_subject(&messaging.namespace, &self.service, &token);
        messaging.jetstream.publish_with_headers(subject, headers, message.payload.clone()).await.map_err(doing("hand an event over"))
    }

    async fn wait_for_room(&self, messaging: &Messaging) -> Result<(), ReplayError> {
        let name = event::retry_stream(&messaging.namespace);
        let stream = messaging.jetstream.get_stream_no_info(&name).await.map_err(doing("open the retry stream"))?;
        let consumer = format!("{}-retries", self.service);
        loop {
            let info = stream.consumer_info(&consumer).await.map_err(doing("see how much waits for the service"))?;
            let waiting = info.num_pending.saturating_add(u64::try_from(info.num_ack_pending).unwrap_or_default());
            if waiting < MOST_WAITING {
                return Ok(());
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}

async fn all_acknowledged(acknowledgements: &mut Vec<async_nats::jetstream::context::PublishAckFuture>) -> Result<(), ReplayError> {
    for acknowledgement in acknowledgements.drain(..) {
        acknowledgement.await.map_err(doing("hand an event over"))?;
    }
    Ok(())
}
