//! Answers in the place of web services, where a service is rehearsed.

use std::fmt;

use reqwest::StatusCode;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};

use super::{Answer, Received, Request};
use crate::steps::Failure;

/// What answers in the place of web services.
pub trait StandIn: fmt::Debug + Send + Sync {
    /// The answer to a call.
    ///
    /// # Errors
    /// A failure, as a network that is down gives one.
    fn answer(&self, request: &Request) -> Result<StandInAnswer, Failure>;
}

/// An answer, as a web service sends it.
#[derive(Clone, Debug)]
pub struct StandInAnswer {
    /// The status.
    pub status: u16,
    /// The headers.
    pub headers: Vec<(String, String)>,
    /// The body; its form is told by the header Content-Type.
    pub body: Vec<u8>,
}

/// Its answer, judged as a web service's own is.
///
/// # Errors
/// The failure that it tells, or that its answer means.
pub(crate) fn answer_of(stand_in: &dyn StandIn, request: &Request) -> Result<Answer, Failure> {
    let answer = stand_in.answer(request)?;
    let status = StatusCode::from_u16(answer.status).map_err(|_| Failure::fatal(format!("{} is no status of HTTP", answer.status)))?;
    let mut headers = HeaderMap::new();
    for (name, value) in &answer.headers {
        let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), HeaderValue::from_str(value)) else {
            return Err(Failure::fatal(format!("{name}: {value} is no header")));
        };
        headers.append(name, value);
    }
    let place = format!("{} {}", request.method, request.url);
    Received { status, headers, body: Ok(answer.body) }.judge(&place, &request.expect, None)
}
