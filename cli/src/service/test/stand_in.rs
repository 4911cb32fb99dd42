//! The web services of a case: each call takes the first answer that is written down for it.

use std::sync::{Mutex, PoisonError};

use autonomy_worker::expression::Value;
use autonomy_worker::http_call::{Request, StandIn, StandInAnswer};
use autonomy_worker::steps::Failure;

use super::comparison::{Comparison, Nulls};
use super::declared::{Exchange, GivenAnswer};
use super::fixture::Names;

/// The answers of a case, and how the calls differ from those expected.
#[derive(Debug)]
pub(super) struct Script {
    exchanges: Vec<Play>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct Play {
    method: String,
    url: String,
    headers: Vec<(String, String)>,
    body: Option<Value>,
    answer: Result<StandInAnswer, String>,
}

#[derive(Debug, Default)]
struct State {
    // Which answers are given.
    given: Vec<bool>,
    comparison: Comparison,
}

impl Script {
    pub fn new(exchanges: &[Exchange], names: &Names) -> Self {
        let plays: Vec<Play> = exchanges
            .iter()
            .map(|Exchange { expect, answer }| Play {
                method: expect.method.to_ascii_uppercase(),
                url: names.text(&expect.url),
                headers: expect.headers.iter().map(|(name, value)| (name.to_ascii_lowercase(), names.text(value))).collect(),
                body: expect.body.as_ref().map(|body| json(&names.value(body))),
                answer: given(answer, names),
            })
            .collect();
        let state = State { given: vec![false; plays.len()], comparison: Comparison::default() };
        Self { exchanges: plays, state: Mutex::new(state) }
    }

    /// The differences so far, and with them calls that were expected and not made; placeholders stay bound.
    pub fn finish(&self) -> Comparison {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let mut comparison = std::mem::take(&mut state.comparison);
        for (index, play) in self.exchanges.iter().enumerate() {
            if !state.given[index] {
                comparison.note(&format!("/http/{index}"), format!("{} {} is expected, and was not called", play.method, play.url));
            }
        }
        comparison
    }
}

impl StandIn for Script {
    fn answer(&self, request: &Request) -> Result<StandInAnswer, Failure> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let body = request.body.as_ref().map_or(Value::Null, |body| read(body));
        let same = |play: &Play| play.method == request.method.as_str() && play.url == request.url;
        let open = |index: &usize| !state.given[*index] && same(&self.exchanges[*index]);
        let candidates: Vec<usize> = (0..self.exchanges.len()).filter(open).collect();
        // Calls that are made side by side come in any order.
        let exact = candidates.iter().find(|index| self.exchanges[**index].body.as_ref().is_none_or(|expected| *expected == body));
        let Some(index) = exact.or(candidates.first()).copied() else {
            let place = format!("{} {}", request.method, request.url);
            let sent = request.body.as_deref().unwrap_or("no body");
            state.comparison.note("/http", format!("{place} is called, and there is no answer for it (any more); it sent {sent}"));
            return Err(Failure::fatal(format!("the test has no answer for {place}")));
        };
        state.given[index] = true;
        let play = &self.exchanges[index];
        let pointer = format!("/http/{index}/expect");
        if let Some(expected) = &play.body {
            state.comparison.compare(expected, &body, &format!("{pointer}/body"), Nulls::Count);
        }
        for (name, expected) in &play.headers {
            let own = || (name == "idempotency-key").then_some(request.idempotency_key.as_str());
            let found = request.headers.iter().find(|(own, _)| own.as_str() == name).map(|(_, value)| value.as_str()).or_else(own);
            let found = Value::optional_text(found);
            state.comparison.compare(&Value::text(expected), &found, &format!("{pointer}/headers/{name}"), Nulls::Count);
        }
        play.answer.clone().map_err(Failure::retryable)
    }
}

// JSON where it is some, otherwise text.
fn read(body: &str) -> Value {
    Value::from_json(body.as_bytes()).unwrap_or_else(|_| Value::text(body))
}

pub(super) fn json(value: &serde_json::Value) -> Value {
    Value::from_json(value.to_string().as_bytes()).unwrap_or_default()
}

fn given(answer: &GivenAnswer, names: &Names) -> Result<StandInAnswer, String> {
    if let Some(fault) = &answer.fault {
        return Err(fault.clone());
    }
    let mut headers: Vec<(String, String)> = answer.headers.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
    let content_type = headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("content-type")).map(|(_, value)| value.clone());
    let is_json = content_type.as_ref().is_none_or(|content_type| content_type.contains("json"));
    let body = match &answer.body {
        None => Vec::new(),
        Some(serde_json::Value::String(text)) if !is_json => text.clone().into_bytes(),
        Some(body) => names.value(body).to_string().into_bytes(),
    };
    if content_type.is_none() {
        headers.push(("content-type".to_owned(), "application/json".to_owned()));
    }
    Ok(StandInAnswer { status: answer.status, headers, body })
}
