//! An event as one JSON document, CloudEvents 1.0 in structured mode: made from the headers and the data that it has in JetStream.

use crate::event::header;
use crate::object_json::write_string;

/// The media type of such a document.
pub const MEDIA_TYPE: &str = "application/cloudevents+json";

// The attributes in their order, each with its header. Names of attributes are lower-case letters and digits.
const ATTRIBUTES: [(&str, &str); 11] = [
    ("specversion", header::SPEC_VERSION),
    ("id", header::ID),
    ("source", header::SOURCE),
    ("type", header::TYPE),
    ("subject", header::SUBJECT),
    ("time", header::TIME),
    ("datacontenttype", header::CONTENT_TYPE),
    ("autonomyversion", header::VERSION),
    ("traceparent", header::TRACEPARENT),
    ("actor", header::ACTOR),
    ("causationid", header::CAUSATION_ID),
];

/// Writes an event on one line; a header that is not there is left out. `data` is JSON, and stands in the document as it is.
pub fn write_structured<'h>(header: impl Fn(&str) -> Option<&'h str>, data: &[u8], out: &mut Vec<u8>) {
    out.reserve(data.len() + 512);
    out.push(b'{');
    for (attribute, name) in ATTRIBUTES {
        if let Some(value) = header(name) {
            write_string(attribute, out);
            out.push(b':');
            write_string(value, out);
            out.push(b',');
        }
    }
    out.extend_from_slice(b"\"data\":");
    let begin = out.len();
    out.extend_from_slice(if data.is_empty() { b"null" } else { data });
    // Within a JSON string a line break is escaped, so one that stands in the text is only space.
    for byte in &mut out[begin..] {
        if matches!(byte, b'\n' | b'\r') {
            *byte = b' ';
        }
    }
    out.push(b'}');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(headers: &[(&str, &'static str)], data: &str) -> String {
        let mut out = Vec::new();
        let header = |name: &str| headers.iter().find(|(known, _)| *known == name).map(|(_, value)| *value);
        write_structured(header, data.as_bytes(), &mut out);
        String::from_utf8(out).expect("UTF-8")
    }

    #[test]
    fn every_header_becomes_its_attribute_and_the_data_stays_as_it_is() {
        let headers = [
            (header::SPEC_VERSION, "1.0"),
            (header::ID, "0000000000000010-00000000"),
            (header::SOURCE, "/namespaces/default/models/shop"),
            (header::TYPE, "dev.autonomy.shop.Sale.created"),
            (header::SUBJECT, "0b9f6c1e-7d1c-4f5b-9d0a-3f1f0f6f2a10"),
            (header::TIME, "2026-11-25T10:00:00Z"),
            (header::CONTENT_TYPE, "application/json"),
            (header::VERSION, "1"),
            (header::TRACEPARENT, "00-a-b-01"),
            (header::ACTOR, "till \"7\""),
            (header::CAUSATION_ID, "0000000000000001-00000000"),
        ];
        assert_eq!(
            written(&headers, "{\"total\":12.50,\n\"big\":9007199254740993}"),
            "{\"specversion\":\"1.0\",\"id\":\"0000000000000010-00000000\",\"source\":\"/namespaces/default/models/shop\",\
             \"type\":\"dev.autonomy.shop.Sale.created\",\"subject\":\"0b9f6c1e-7d1c-4f5b-9d0a-3f1f0f6f2a10\",\
             \"time\":\"2026-11-25T10:00:00Z\",\"datacontenttype\":\"application/json\",\"autonomyversion\":\"1\",\
             \"traceparent\":\"00-a-b-01\",\"actor\":\"till \\\"7\\\"\",\"causationid\":\"0000000000000001-00000000\",\
             \"data\":{\"total\":12.50, \"big\":9007199254740993}}"
        );
    }

    #[test]
    fn what_is_not_told_is_left_out() {
        assert_eq!(written(&[(header::SPEC_VERSION, "1.0")], ""), "{\"specversion\":\"1.0\",\"data\":null}");
    }
}
