//! Putting a document into a bucket, once for each event.

use std::time::Duration;

use autonomy_crds::micro_service::{PutObjectStep, S3Location};
use autonomy_process::object_storage::folder_of;
use autonomy_process::telemetry::error_chain;
use object_store::aws::AmazonS3;
use object_store::path::Path;
use object_store::{Attribute, Attributes, GetOptions, ObjectStore, PutMode, PutOptions};
use reqwest::Method;
use reqwest::header::CONTENT_TYPE;
use tokio::sync::OnceCell;

use super::Failure;
use super::compile::Steps;
use super::document::{Document, Written};
use super::http::Caller;
use crate::expression::{Expression, Kind, Value};
use crate::files::bucket_client;
use crate::http_call::{Request, StandIn, answer_of};

// The object's metadata tells who put it there, so that an attempt after a crash knows its own.
const EVENT: &str = "autonomy-event";

/// The step, compiled.
#[derive(Debug)]
pub(super) struct PutObject {
    label: String,
    // In the object's metadata.
    key_of_step: String,
    location: S3Location,
    key: Expression,
    document: Document,
    client: OnceCell<AmazonS3>,
}

impl Steps<'_> {
    pub(super) fn put_object(&mut self, step: &PutObjectStep, path: &str, label: &str, key_of_step: &str) -> Option<PutObject> {
        let key = self.typed(&step.key, &format!("{path}.key"), &Kind::Text);
        let document = Document::compile(&step.document, self.names, &format!("{path}.document"), self.faults);
        Some(PutObject {
            label: label.to_owned(),
            key_of_step: key_of_step.to_owned(),
            location: step.s3.clone(),
            key: key?,
            document: document?,
            client: OnceCell::new(),
        })
    }
}

impl PutObject {
    /// What is found under the step's name.
    pub(super) fn outcome() -> Kind {
        Kind::object("the object", [("key", Kind::Text), ("rows", Kind::Int)])
    }

    /// Puts the document there, or finds that an earlier attempt did.
    pub(super) async fn put(&self, caller: &Caller<'_>, variables: &[Value]) -> Result<Value, Failure> {
        let fatal = |what: String| Failure::fatal(format!("{}: {what}", self.label));
        let name = self.key.evaluate(variables, caller.identity).map_err(|error| fatal(error.to_string()))?;
        let Some(name) = name.as_text().filter(|name| !name.is_empty()) else {
            return Err(fatal(format!("the key is {}, not a string with something in it", name.kind())));
        };
        let key = format!("{}{name}", folder_of(&self.location));
        let path = Path::parse(&key).map_err(|error| fatal(format!("{key:?} is no key: {error}")))?;
        let Written { text, rows } = self.document.write(variables, caller.identity).map_err(|error| fatal(error.to_string()))?;
        let event = format!("{}/{}/{}{}", caller.service.name, caller.identity.event, self.key_of_step, caller.keys);
        match caller.http.stand_in() {
            Some(stand_in) => self.rehearse(stand_in, &key, text, event)?,
            None => self.put_once(caller, &path, text, &event).await?,
        }
        let rows = i64::try_from(rows).unwrap_or(i64::MAX);
        Ok(Value::object([("key", Value::text(key)), ("rows", Value::Int(rows))]))
    }

    // A stand-in gets it as a call: `PUT s3://{bucket}/{key}`.
    fn rehearse(&self, stand_in: &dyn StandIn, key: &str, text: String, event: String) -> Result<(), Failure> {
        let request = Request {
            method: Method::PUT,
            url: format!("s3://{}/{key}", self.location.bucket),
            headers: vec![(CONTENT_TYPE, self.document.content_type().to_owned())],
            body: Some(text),
            idempotency_key: event,
            expect: Vec::new(),
            timeout: Duration::ZERO,
        };
        answer_of(stand_in, &request).map(drop)
    }

    async fn put_once(&self, caller: &Caller<'_>, path: &Path, text: String, event: &str) -> Result<(), Failure> {
        let failed = |error: object_store::Error| {
            let storage = format!("{}: {path} can't be put into the bucket {}", self.label, self.location.bucket);
            Failure::retryable(format!("{storage}: {}", error_chain(&error)))
        };
        let client = self.client.get_or_try_init(async || bucket_client(&self.location, caller.http.secrets())).await.map_err(failed)?;
        let attributes = Attributes::from_iter([
            (Attribute::ContentType, self.document.content_type().to_owned()),
            (Attribute::Metadata(EVENT.into()), event.to_owned()),
        ]);
        let options = PutOptions { mode: PutMode::Create, attributes, ..PutOptions::default() };
        match client.put_opts(path, text.into(), options).await {
            Ok(_) => return Ok(()),
            Err(object_store::Error::AlreadyExists { .. }) => {}
            Err(error) => return Err(failed(error)),
        }
        let there = client.get_opts(path, GetOptions { head: true, ..GetOptions::default() }).await.map_err(failed)?;
        if there.attributes.get(&Attribute::Metadata(EVENT.into())).is_some_and(|own| **own == *event) {
            return Ok(());
        }
        let message = format!("{}: there is another object {path} in the bucket {}", self.label, self.location.bucket);
        Err(Failure::fatal(format!("{message}; a key must be of one event only, and nothing is replaced")))
    }
}
