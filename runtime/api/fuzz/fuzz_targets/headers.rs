//! Headers: media types, ETags, idempotency keys, preferences, trace contexts and ids of events, a header a line.
#![no_main]

use autonomy_api::etag::version_of;
use autonomy_api::events::query::{EventQuery, Start};
use autonomy_api::objects::{self, WriteRequest};
use autonomy_api::representation::Representation;
use autonomy_api_fuzz::entity;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method};
use uuid::Uuid;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Some((choice, lines)) = data.split_first() else { return };
    let mut headers = HeaderMap::new();
    for line in lines.split(|byte| *byte == b'\n').take(100) {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(&line[..colon]), HeaderValue::from_bytes(line[colon + 1..].trim_ascii())) {
            headers.append(name, value);
        }
    }
    let accepted = Representation::accepted(&headers);
    assert!(Representation::of_media_type(accepted.media_type()) == Some(accepted));
    for text in headers.values().filter_map(|value| value.to_str().ok()) {
        if let Some(version) = version_of(text) {
            assert_eq!(version_of(&format!("\"{version}\"")), Some(version));
        }
        let _ = Representation::of_media_type(text);
    }
    if let Ok(Some(key)) = objects::idempotency_key(&headers) {
        assert!((1..=512).contains(&key.len()) && key.bytes().all(|byte| byte == b'\t' || (b' '..=b'~').contains(&byte)));
    }
    if let Ok(EventQuery { start: Start::Behind(position), .. }) = EventQuery::parse(entity(0), &[], &headers) {
        assert_eq!(position.to_string().parse(), Ok(position));
    }
    let method = [Method::POST, Method::PUT, Method::PATCH, Method::DELETE][usize::from(*choice) % 4].clone();
    let request = WriteRequest {
        method: &method,
        target: "/api/shop/stores",
        parameters: &[],
        headers: &headers,
        id: (method != Method::POST).then_some(Uuid::nil()),
        representation: Representation::Json,
        body: br#"{"name":"x"}"#,
    };
    if let Ok(read) = objects::read(&request, entity(1)) {
        assert!(read.work.units.len() == 1 && read.work.units[0].keys.len() <= 1);
        assert!(read.work.batches[0].conditions.len() <= 1);
    }
});
