//! The form of a test file.

use std::collections::BTreeMap;

use autonomy_crds::micro_service::Operation;
use serde::Deserialize;
use serde_json::{Map, Value};

/// A test file: a service and its cases.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct TestFile {
    /// The service's file; paths are relative to the test file.
    pub service: String,
    /// Files and folders with all models that the service names.
    pub models: Vec<String>,
    #[serde(default = "default_namespace")]
    pub namespace: String,
    /// Values of `spec.config`, in the place of those declared.
    #[serde(default)]
    pub config: BTreeMap<String, String>,
    /// The objects of each cache, for all cases.
    #[serde(default)]
    pub caches: BTreeMap<String, Vec<Map<String, Value>>>,
    pub cases: Vec<Case>,
}

fn default_namespace() -> String {
    "default".to_owned()
}

/// A case: inputs, what web services answer, and what is expected.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Case {
    pub name: String,
    /// Caches in the place of those of all cases.
    #[serde(default)]
    pub caches: BTreeMap<String, Vec<Map<String, Value>>>,
    /// One of `event`, `events`, `scheduledAt`, `file` and `rows`.
    pub event: Option<Event>,
    pub events: Option<Vec<Event>>,
    /// The planned moment of a schedule's run, RFC 3339.
    pub scheduled_at: Option<String>,
    pub file: Option<File>,
    pub rows: Option<Vec<Value>>,
    /// Calls that are expected, and their answers.
    #[serde(default)]
    pub http: Vec<Exchange>,
    /// What is expected of each input: of an event, of a group of a batch, of a record.
    pub expect: Expectations,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Event {
    #[serde(default = "created")]
    pub operation: Operation,
    pub id: Option<String>,
    pub time: Option<String>,
    pub actor: Option<String>,
    pub causation_id: Option<String>,
    pub object: Map<String, Value>,
    pub before: Option<Map<String, Value>>,
}

fn created() -> Operation {
    Operation::Created
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct File {
    pub name: String,
    pub content: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Exchange {
    pub expect: ExpectedCall,
    #[serde(default)]
    pub answer: GivenAnswer,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct ExpectedCall {
    #[serde(default = "post")]
    pub method: String,
    pub url: String,
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// JSON, or a string for a body that is text; not compared where left out.
    pub body: Option<Value>,
}

fn post() -> String {
    "POST".to_owned()
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct GivenAnswer {
    pub status: u16,
    pub headers: BTreeMap<String, String>,
    /// JSON; a string is sent as text where the headers say so.
    pub body: Option<Value>,
    /// In the place of an answer: why the network fails.
    pub fault: Option<String>,
}

impl Default for GivenAnswer {
    fn default() -> Self {
        Self { status: 200, headers: BTreeMap::new(), body: None, fault: None }
    }
}

/// What is expected of one input, or of each of several.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum Expectations {
    // Read by itself, so that a fault in it is told as such.
    Several(Vec<Value>),
    One(Value),
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Expectation {
    #[serde(default)]
    pub outcome: Outcome,
    /// A part of the error's text.
    pub error: Option<String>,
    /// The wait asked for before the next attempt, as `90s`.
    pub after: Option<String>,
    /// All that is written, in order.
    #[serde(default)]
    pub writes: Vec<Value>,
    /// The ticket for a dead letter; not compared where left out.
    pub ticket: Option<ExpectedTicket>,
}

/// What becomes of an input.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Outcome {
    #[default]
    Handled,
    Skipped,
    Retry,
    DeadLetter,
    Rejected,
}

impl Outcome {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Handled => "handled",
            Self::Skipped => "skipped",
            Self::Retry => "retry",
            Self::DeadLetter => "deadLetter",
            Self::Rejected => "rejected",
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct ExpectedTicket {
    pub url: Option<String>,
    pub body: Option<Value>,
}

impl TestFile {
    /// Reads a test file.
    ///
    /// # Errors
    /// What is wrong with it, with the line where it is known.
    pub fn read(text: &str) -> Result<Self, String> {
        let file: Self = serde_saphyr::from_str(text).map_err(|error| format!("this is no test file: {error}"))?;
        for (index, case) in file.cases.iter().enumerate() {
            let given =
                [case.event.is_some(), case.events.is_some(), case.scheduled_at.is_some(), case.file.is_some(), case.rows.is_some()];
            if given.into_iter().filter(|given| *given).count() != 1 {
                return Err(format!("cases[{index}] ({}): a case has exactly one of event, events, scheduledAt, file and rows", case.name));
            }
            if file.cases[..index].iter().any(|other| other.name == case.name) {
                return Err(format!("cases[{index}]: another case is named {:?} too", case.name));
            }
        }
        Ok(file)
    }
}

impl Expectations {
    /// One for each input.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn read(&self) -> Result<Vec<Expectation>, String> {
        let several = match self {
            Self::Several(several) => several.as_slice(),
            Self::One(one) => std::slice::from_ref(one),
        };
        several.iter().map(|one| serde_json::from_value(one.clone()).map_err(|error| format!("expect: {error}"))).collect()
    }

    pub fn is_list(&self) -> bool {
        matches!(self, Self::Several(_))
    }
}
