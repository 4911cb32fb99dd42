//! Problems (RFC 9457) and the faults they are made of: every answer that is no success.

use std::collections::BTreeMap;

use axum::body::Body;
use axum::http::{HeaderValue, Response, StatusCode, header};
use serde::Serialize;

use crate::etag::Tag;
use crate::named::Names;

// A body with more faults than this is answered with the first ones.
const MOST_FAULTS: usize = 100;
/// How many rows of a body may fail each for itself, at the most.
pub const MOST_ROWS_APART: usize = 10_000;

/// Where in a body something is: a chain on the stack, made into a JSON Pointer only when there is a fault.
#[derive(Clone, Copy, Debug)]
pub struct Path<'a> {
    parent: Option<&'a Path<'a>>,
    segment: Segment<'a>,
}

#[derive(Clone, Copy, Debug)]
enum Segment<'a> {
    Root,
    Member(&'a str),
    Index(usize),
}

impl<'a> Path<'a> {
    /// The whole body.
    pub const ROOT: Path<'static> = Path { parent: None, segment: Segment::Root };

    /// A member of the object at this path.
    pub fn member(&'a self, name: &'a str) -> Path<'a> {
        Path { parent: Some(self), segment: Segment::Member(name) }
    }

    /// An item of the list at this path.
    pub fn index(&'a self, index: usize) -> Path<'a> {
        Path { parent: Some(self), segment: Segment::Index(index) }
    }

    /// The path as a JSON Pointer (RFC 6901).
    pub fn pointer(&self) -> String {
        let mut text = self.parent.map(Path::pointer).unwrap_or_default();
        match self.segment {
            Segment::Root => {}
            Segment::Member(name) => {
                text.push('/');
                text.push_str(&name.replace('~', "~0").replace('/', "~1"));
            }
            Segment::Index(index) => {
                text.push('/');
                text.push_str(&index.to_string());
            }
        }
        text
    }
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Fault {
    /// Where in the body, as a JSON Pointer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pointer: Option<String>,
    /// Which query parameter or header.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parameter: Option<String>,
    /// What is wrong, and what would be right.
    pub detail: String,
}

impl Fault {
    /// A fault in the body.
    pub fn at(pointer: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { pointer: Some(pointer.into()), parameter: None, detail: detail.into() }
    }

    /// A fault in a query parameter or header.
    pub fn parameter(name: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { pointer: None, parameter: Some(name.into()), detail: detail.into() }
    }
}

/// All faults of a body, up to a bound.
#[derive(Debug, Default)]
pub struct Faults {
    list: Vec<Fault>,
    count: usize,
}

impl Faults {
    /// Adds a fault.
    pub fn push(&mut self, fault: Fault) {
        self.count += 1;
        if self.list.len() < MOST_FAULTS {
            self.list.push(fault);
        }
    }

    /// The faults kept.
    pub fn list(&self) -> &[Fault] {
        &self.list
    }

    /// How many there are, with those that are not kept.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The problem that these faults are.
    pub fn into_problem(self) -> Problem {
        let detail = match self.count {
            1 => "The body has a fault.".to_owned(),
            count if count > self.list.len() => format!("The body has {count} faults; the first {} are listed.", self.list.len()),
            count => format!("The body has {count} faults."),
        };
        let mut problem = Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid-body", detail);
        problem.errors = self.list;
        problem
    }
}

/// A reference from inside of a part, to be checked set-wise in the transaction.
#[derive(Clone, Copy, Debug)]
pub struct PartReference {
    /// The row in its batch.
    pub row: u32,
    /// The owner's column.
    pub column: u16,
    /// Which part in the list.
    pub item: u32,
    /// The part's column.
    pub part_column: u16,
    /// The id referred to.
    pub id: [u8; 16],
}

/// What comes out of reading bodies beside the rows: their faults, and their parts' references.
#[derive(Debug, Default)]
pub struct Intake {
    /// What is wrong.
    pub faults: Faults,
    /// References from inside of parts.
    pub references: Vec<PartReference>,
    /// The new objects that references may name; none where no names are.
    pub names: Option<Names>,
    /// The operations that make the new objects which the operation being read refers to.
    pub needs: Vec<u32>,
    /// The row being read.
    pub row: u32,
    /// The column being read.
    pub column: u16,
    /// The versions that rows of a list say the client has seen, in the rows' order.
    pub tags: Vec<(u32, Tag)>,
    /// Where each row fails for itself: the faults of those that do. They are then not among `faults`.
    pub by_row: Option<BTreeMap<u32, Faults>>,
}

impl Intake {
    /// Adds a fault.
    pub fn push(&mut self, path: &Path<'_>, detail: impl Into<String>) {
        let faults = match &mut self.by_row {
            Some(by_row) if by_row.len() < MOST_ROWS_APART || by_row.contains_key(&self.row) => by_row.entry(self.row).or_default(),
            _ => &mut self.faults,
        };
        // The pointer is made only for the faults that are kept.
        if faults.list.len() < MOST_FAULTS {
            faults.push(Fault::at(path.pointer(), detail));
        } else {
            faults.count += 1;
        }
    }
}

/// An answer that is no success.
#[derive(Clone, Debug)]
pub struct Problem {
    /// The HTTP status.
    pub status: StatusCode,
    /// The last segment of the problem's type.
    pub kind: &'static str,
    /// What happened, in a sentence.
    pub detail: String,
    /// The faults.
    pub errors: Vec<Fault>,
    /// Seconds after which to try again.
    pub retry_after: Option<u32>,
    /// What problems of its kind tell beside the rest.
    pub extension: Extension,
    /// The value of the header `Allow`.
    pub allow: Option<&'static str>,
}

/// What problems of one kind tell beside the rest. One field for all kinds, since problems are returned by value everywhere.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Extension {
    /// Nothing.
    #[default]
    None,
    /// Idempotency keys that were used before.
    UsedKeys(Box<[String]>),
    /// When the object was deleted.
    DeletedAt(Box<str>),
}

/// The beginning of every problem's type.
pub const PROBLEM_TYPES: &str = "https://autonomy.dev/problems/";
/// The media type of problems.
pub const PROBLEM_JSON: &str = "application/problem+json";

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ProblemJson<'a> {
    r#type: String,
    title: &'a str,
    status: u16,
    detail: &'a str,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    errors: &'a [Fault],
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    used_keys: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    deleted_at: Option<&'a str>,
}

impl Problem {
    /// A problem.
    pub fn new(status: StatusCode, kind: &'static str, detail: impl Into<String>) -> Self {
        Self { status, kind, detail: detail.into(), errors: Vec::new(), retry_after: None, extension: Extension::None, allow: None }
    }

    /// The request is not understood.
    pub fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad-request", detail)
    }

    /// There is nothing at this path.
    pub fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not-found", detail)
    }

    /// The database, or a place in the queue for it, can't be had now.
    pub fn unavailable(detail: impl Into<String>) -> Self {
        let mut problem = Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", detail);
        problem.retry_after = Some(1);
        problem
    }

    /// A fault of ours; what happened is in the log.
    pub fn internal() -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "The server could not answer; its log says why.")
    }

    /// The object is not as the client has seen it.
    pub fn precondition_failed(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::PRECONDITION_FAILED, "precondition-failed", detail)
    }

    /// The entity wants every change to say which version it is about.
    pub fn precondition_required(entity: &str, how: &str) -> Self {
        let detail = format!("Every change of a {entity} must say which version of it was seen; {how}.");
        Self::new(StatusCode::PRECONDITION_REQUIRED, "precondition-required", detail)
    }

    /// An idempotency key was used before, for something else.
    pub fn idempotency_key_reused() -> Self {
        let detail = "This Idempotency-Key was used for another request; take a new key for each new request.";
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "idempotency-key-reused", detail)
    }

    /// With one fault.
    pub fn with(mut self, fault: Fault) -> Self {
        self.errors.push(fault);
        self
    }

    /// The problem's title.
    pub fn title(&self) -> &'static str {
        match self.kind {
            "invalid-body" => "The body is not valid",
            "malformed-body" => "The body can't be read",
            "invalid-query" => "The query is not valid",
            "conflicting-parameters" => "The query's parameters exclude one another",
            "invalid-cursor" => "The cursor is not valid",
            "unique" => "A unique value is taken",
            "reference" => "A reference points to nothing",
            "event-gone" => "The event to go on from is gone",
            "still-referenced" => "The object is still referred to",
            "check" => "A condition of the model is not met",
            "gone" => "The object was deleted",
            "precondition-failed" => "A precondition failed",
            "precondition-required" => "A precondition is required",
            "test-failed" => "A test of the patch failed",
            "nothing-there" => "A path leads to nothing",
            "idempotency-key-reused" => "The idempotency key belongs to another request",
            "idempotency-key-partly-used" => "Some idempotency keys were used before",
            _ => self.status.canonical_reason().unwrap_or("Problem"),
        }
    }

    /// The problem as JSON.
    pub fn to_json(&self) -> Vec<u8> {
        let (used_keys, deleted_at) = match &self.extension {
            Extension::None => (&[][..], None),
            Extension::UsedKeys(keys) => (&keys[..], None),
            Extension::DeletedAt(moment) => (&[][..], Some(&**moment)),
        };
        let json = ProblemJson {
            r#type: format!("{PROBLEM_TYPES}{}", self.kind),
            title: self.title(),
            status: self.status.as_u16(),
            detail: &self.detail,
            errors: &self.errors,
            used_keys,
            deleted_at,
        };
        serde_json::to_vec(&json).unwrap_or_default()
    }

    /// The problem as an answer.
    pub fn into_response(self) -> Response<Body> {
        let mut response = Response::new(Body::from(self.to_json()));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
        if let Some(seconds) = self.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if let Some(allow) = self.allow {
            headers.insert(header::ALLOW, HeaderValue::from_static(allow));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_a_json_pointer() {
        assert_eq!(Path::ROOT.pointer(), "");
        assert_eq!(Path::ROOT.index(3).member("a/b~c").pointer(), "/3/a~1b~0c");
    }
}
