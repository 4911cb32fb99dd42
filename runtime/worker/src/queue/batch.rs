//! The batch window: events are gathered, grouped by a value of their objects (and by calendar day), and handled a group at a time, each in one unit.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use jiff02::Timestamp;
use jiff02::civil::Date;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tracing::Instrument;

use super::event::Event;
use super::handler::Handler;
use crate::expression::Value;
use crate::service::Group;
use crate::steps::{Failure, GroupInput, Input};
use crate::transactions::SubmitError;

const AT_A_TIME: usize = 64;

/// Gathers windows and hands on their groups until the worker stops.
pub(super) async fn gather(handler: Arc<Handler>, mut events: mpsc::UnboundedReceiver<Event>, max_objects: usize, max_wait: Duration) {
    loop {
        let first = tokio::select! {
            () = handler.stop.cancelled() => return,
            event = events.recv() => event,
        };
        let Some(first) = first else { return };
        let closes = Instant::now() + handler.service.rest_of_day(Timestamp::now()).map_or(max_wait, |rest| rest.min(max_wait));
        let mut window = vec![first];
        while window.len() < max_objects {
            tokio::select! {
                () = handler.stop.cancelled() => return,
                () = tokio::time::sleep_until(closes) => break,
                event = events.recv() => match event {
                    Some(event) => window.push(event),
                    None => break,
                },
            }
        }
        hand_on(&handler, window).await;
    }
}

async fn hand_on(handler: &Arc<Handler>, window: Vec<Event>) {
    let mut groups: BTreeMap<(Option<Date>, String), (Value, Vec<Event>)> = BTreeMap::new();
    for event in window {
        match handler.service.group_of(&event.input) {
            Ok(Group { day, value }) => groups.entry((day, value.to_json())).or_insert_with(|| (value, Vec::new())).1.push(event),
            Err(failure) => handler.fail(event, &failure, rand::random()).await,
        }
    }
    for (group, mut events) in groups.into_values() {
        events.sort_by(|a, b| a.id.cmp(&b.id));
        // An event that is there twice (its retry and its redelivery) is handled once.
        let mut once: Vec<Event> = Vec::with_capacity(events.len());
        for event in events {
            match once.last() {
                Some(last) if last.id == event.id => handler.holdings.let_go(event.place, &event.id),
                _ => once.push(event),
            }
        }
        let handler_of_group = handler.clone();
        let span = tracing::info_span!("handle", group = %group, event = once.first().map(|event| &*event.id), events = once.len());
        handler.tasks.spawn(async move { handle(handler_of_group, group, once).await }.instrument(span));
    }
}

// Handles a group. Events done before are left out and the rest is formed anew; a group that fails for good is halved, until the event that
// is to blame stands alone.
async fn handle(handler: Arc<Handler>, group: Value, events: Vec<Event>) {
    let mut waiting = vec![events];
    while let Some(mut events) = waiting.pop() {
        if events.is_empty() {
            continue;
        }
        let Some(_running) = handler.turn().await else { return };
        let input = GroupInput {
            events: events.iter().map(|event| event.input.event.clone()).collect(),
            objects: events.iter().map(|event| event.input.object.clone()).collect(),
            group: group.clone(),
        };
        let result = handler.run(Input::Group(input), &events.iter().collect::<Vec<_>>()).await;
        match result {
            Ok(()) => settle(&handler, &events).await,
            Err(SubmitError::Stopping) => return,
            Err(SubmitError::PartlyUsed { used_keys }) => {
                let (used, rest): (Vec<Event>, Vec<Event>) =
                    events.into_iter().partition(|event| used_keys.contains(&handler.service.idempotency_key(&event.id)));
                if used.is_empty() {
                    let failure = Failure::retryable("the API tells of used idempotency keys that are not the group's");
                    fail(&handler, rest, &failure).await;
                } else {
                    settle(&handler, &used).await;
                    waiting.push(rest);
                }
            }
            Err(SubmitError::Refused(failure)) if failure.retryable || events.len() == 1 => fail(&handler, events, &failure).await,
            Err(SubmitError::Refused(failure)) => {
                tracing::warn!(group = %group, events = events.len(), error = failure.message, "a group failed; it is halved");
                let second = events.split_off(events.len() / 2);
                waiting.push(second);
                waiting.push(events);
            }
        }
    }
}

async fn settle(handler: &Arc<Handler>, events: &[Event]) {
    futures::stream::iter(events).for_each_concurrent(AT_A_TIME, |event| handler.done(event)).await;
}

// All come due at the same time, and so meet in one window again.
async fn fail(handler: &Arc<Handler>, events: Vec<Event>, failure: &Failure) {
    let jitter = rand::random();
    futures::stream::iter(events).for_each_concurrent(AT_A_TIME, |event| handler.fail(event, failure, jitter)).await;
}
