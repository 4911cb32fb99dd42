//! Objects as the API writes them, looked at without reading them: members in a line, whose values are no lists and no objects.

use std::borrow::Cow;

use uuid::Uuid;

use crate::expression::{Shape, Value};

/// The values of a shape's members where they stand in a line; `None` where it has other members, is written in another way, or needs more than a
/// look. `places` is cleared and filled, one a member; an empty one is of a member that is not there.
pub(super) fn scan(line: &[u8], shape: &Shape, places: &mut Vec<(u32, u32)>) -> Option<()> {
    places.clear();
    places.resize(shape.names().len(), (0, 0));
    std::str::from_utf8(line).ok()?;
    let mut rest = Rest { line, place: 0 };
    let mut expected = 0;
    rest.take(b'{')?;
    loop {
        let name = rest.text()?;
        let name = line.get(name.0 as usize + 1..name.1 as usize - 1)?;
        let position = match shape.names().get(expected) {
            Some(own) if own.as_bytes() == name => expected,
            _ => shape.names().iter().position(|own| own.as_bytes() == name)?,
        };
        expected = position + 1;
        rest.take(b':')?;
        places[position] = rest.value()?;
        match rest.next()? {
            b',' => {}
            b'}' if rest.place == line.len() => return Some(()),
            _ => return None,
        }
    }
}

/// The text that [`Value::index_key`] gives for a value at a place.
pub(super) fn index_key<'l>(line: &'l [u8], (start, end): (u32, u32)) -> Option<Cow<'l, str>> {
    let value = std::str::from_utf8(line.get(start as usize..end as usize)?).ok()?;
    match value.as_bytes().first()? {
        b'"' => Some(Cow::Borrowed(value.get(1..value.len() - 1)?)),
        b'n' => None,
        b't' | b'f' => Some(Cow::Borrowed(value)),
        _ => Value::from_json(value.as_bytes()).ok()?.index_key().map(|text| Cow::Owned(text.into_owned())),
    }
}

/// The id at a place.
pub(super) fn id(line: &[u8], place: (u32, u32)) -> Option<Uuid> {
    Uuid::try_parse(&index_key(line, place)?).ok()
}

struct Rest<'l> {
    line: &'l [u8],
    place: usize,
}

impl Rest<'_> {
    fn next(&mut self) -> Option<u8> {
        let byte = self.line.get(self.place).copied();
        self.place += 1;
        byte
    }

    fn take(&mut self, wanted: u8) -> Option<()> {
        (self.next()? == wanted).then_some(())
    }

    // A string without escapes, with its quotes.
    fn text(&mut self) -> Option<(u32, u32)> {
        let start = self.place;
        self.take(b'"')?;
        let text = &self.line[self.place..];
        let length = text.iter().position(|byte| matches!(byte, b'"' | b'\\' | 0..=0x1F))?;
        if text[length] != b'"' {
            return None;
        }
        self.place += length + 1;
        Some((u32::try_from(start).ok()?, u32::try_from(self.place).ok()?))
    }

    fn value(&mut self) -> Option<(u32, u32)> {
        let start = self.place;
        let first = *self.line.get(start)?;
        if first == b'"' {
            return self.text();
        }
        let value = &self.line[start..];
        let value = &value[..value.iter().position(|byte| matches!(byte, b',' | b'}'))?];
        let known = matches!(value, b"null" | b"true" | b"false") || is_number(value);
        self.place += value.len();
        known.then_some((u32::try_from(start).ok()?, u32::try_from(self.place).ok()?))
    }
}

fn is_number(text: &[u8]) -> bool {
    let text = text.strip_prefix(b"-").unwrap_or(text);
    let (whole, fraction) = match text.iter().position(|byte| *byte == b'.') {
        Some(point) => (&text[..point], Some(&text[point + 1..])),
        None => (text, None),
    };
    let digits = |text: &[u8]| !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    digits(whole) && (whole[0] != b'0' || whole.len() == 1) && fraction.is_none_or(digits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_looked_at_is_what_would_be_read() {
        let shape = Shape::new(["id", "name", "total", "open"]);
        let mut places = Vec::new();
        let line = r#"{"id":"019aa0b0-0000-7000-8000-000000000001","open":true,"name":"é","total":-1.50}"#.as_bytes();
        assert_eq!(scan(line, &shape, &mut places), Some(()));
        let key = |member: usize| index_key(line, places[member]).map(Cow::into_owned);
        assert_eq!((key(1), key(2), key(3)), (Some("é".to_owned()), Some("-1.5".to_owned()), Some("true".to_owned())));
        assert!(id(line, places[0]).is_some());
        scan(br#"{"id":null}"#, &shape, &mut places).expect("a line");
        assert_eq!((index_key(br#"{"id":null}"#, places[0]), index_key(b"", places[1])), (None, None));
        // What needs to be read.
        for line in [
            r#"{"id":"a\"b"}"#,
            r#"{"id": "a"}"#,
            r#"{"id":[]}"#,
            r#"{"name":{"a":1}}"#,
            r#"{"other":1}"#,
            r#"{"id":01}"#,
            r#"{"id":1e2}"#,
            r#"{"id":1"#,
            r#"{"id":1}x"#,
            r#"{"id":"a}"#,
            "{}",
            "[]",
            "",
        ] {
            assert_eq!(scan(line.as_bytes(), &shape, &mut places), None, "{line}");
        }
    }
}
