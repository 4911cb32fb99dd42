//! Requests and answers in the log, without what must not be seen.

use std::time::Duration;

use autonomy_crds::micro_service;
use reqwest::header::HeaderMap;
use reqwest::{Method, StatusCode, Url};

use super::shown;
use crate::expression::{Object, Value};

const MASK: &str = "***";
// Of a body; what exceeds it is cut off.
const LONGEST: usize = 8192;
// These are masked always.
const SECRET_HEADERS: [&str; 9] = [
    "authorization",
    "proxy-authorization",
    "www-authenticate",
    "cookie",
    "set-cookie",
    "webhook-signature",
    "x-api-key",
    "api-key",
    "x-auth-token",
];

/// What a step's calls leave out of the log.
#[derive(Debug)]
pub(crate) struct CallLog {
    // In lower case.
    masked: Vec<String>,
}

impl CallLog {
    /// As declared.
    pub(crate) fn new(declared: &micro_service::CallLog) -> Self {
        Self { masked: declared.mask.iter().map(|name| name.to_lowercase()).collect() }
    }

    pub(super) fn request(&self, step: &str, method: &Method, url: &Url, headers: &HeaderMap, body: Option<&[u8]>) {
        tracing::info!(
            target: "autonomy::calls",
            step,
            method = %method,
            url = shown(url),
            headers = self.headers(headers),
            body = body.map(|body| self.body(body)),
            "request"
        );
    }

    pub(super) fn answer(&self, step: &str, url: &Url, status: StatusCode, headers: &HeaderMap, body: Option<&[u8]>, took: Duration) {
        tracing::info!(
            target: "autonomy::calls",
            step,
            url = shown(url),
            status = status.as_u16(),
            headers = self.headers(headers),
            body = body.map(|body| self.body(body)),
            milliseconds = u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
            "answer"
        );
    }

    fn is_masked(&self, name: &str) -> bool {
        let name = name.to_lowercase();
        self.masked.contains(&name)
    }

    fn headers(&self, headers: &HeaderMap) -> String {
        let shown = headers.iter().map(|(name, value)| {
            let secret = value.is_sensitive() || SECRET_HEADERS.contains(&name.as_str()) || self.is_masked(name.as_str());
            let value = if secret { MASK.into() } else { String::from_utf8_lossy(value.as_bytes()) };
            format!("{name}: {value}")
        });
        shown.collect::<Vec<_>>().join("; ")
    }

    /// A body as it may be seen: JSON with its masked members, of anything else only how long it is, for nothing tells where its secrets are.
    pub(super) fn body(&self, body: &[u8]) -> String {
        let Ok(value) = Value::from_json(body) else { return format!("{} bytes that are not JSON", body.len()) };
        let mut text = self.value(&value).to_json();
        if text.len() > LONGEST {
            let end = (0..=LONGEST).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
            text.truncate(end);
            text.push('…');
        }
        text
    }

    fn value(&self, value: &Value) -> Value {
        match value {
            Value::List(items) => Value::list(items.iter().map(|item| self.value(item))),
            Value::Object(object) => {
                let members = object.iter().map(|(name, member)| match member {
                    Value::Null => Value::Null,
                    _ if self.is_masked(name) => Value::text(MASK),
                    member => self.value(member),
                });
                Value::Object(std::sync::Arc::new(Object::new(object.shape().clone(), members.collect())))
            }
            other => other.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log() -> CallLog {
        CallLog::new(&micro_service::CallLog { mask: vec!["cardNumber".to_owned(), "X-Shop".to_owned()] })
    }

    #[test]
    fn masked_members_are_left_out_at_any_depth_and_numbers_keep_their_digits() {
        let body = br#"{"amount":1.10,"CARDNUMBER":"4111","lines":[{"cardNumber":{"digits":1}},{"cardNumber":null}]}"#;
        assert_eq!(log().body(body), r#"{"amount":1.10,"CARDNUMBER":"***","lines":[{"cardNumber":"***"},{"cardNumber":null}]}"#);
    }

    #[test]
    fn what_is_not_json_is_not_shown() {
        assert_eq!(log().body(b"<card>4111</card>"), "17 bytes that are not JSON");
    }

    #[test]
    fn long_bodies_are_cut_between_characters() {
        let text = log().body(format!("\"{}\"", "ä".repeat(LONGEST)).as_bytes());
        assert!(text.len() < LONGEST + 8 && text.ends_with('…'));
    }

    #[test]
    fn credentials_in_headers_are_masked_without_being_asked() {
        let mut headers = HeaderMap::new();
        for (name, value) in [("authorization", "Bearer s3cret"), ("x-shop", "7"), ("x-plain", "seen")] {
            headers.insert(name, value.parse().expect("a value"));
        }
        assert_eq!(log().headers(&headers), "authorization: ***; x-shop: ***; x-plain: seen");
    }
}
