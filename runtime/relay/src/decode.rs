//! pgoutput's messages (protocol version 1), read without copying: a tuple is a list of ranges in the message it came in. Begin, Commit and
//! logical messages are read by the transport; here are relations and row changes.

use std::ops::Range;

/// A message that is not what PostgreSQL's protocol says.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The message ends too early.
    #[error("a pgoutput message of type {kind:?} ends at byte {at}, in the middle of a field")]
    Truncated {
        /// The message's type byte.
        kind: char,
        /// Where.
        at: usize,
    },
    /// A byte that has no meaning there.
    #[error("a pgoutput message of type {kind:?} has an unexpected byte {byte:#04x} at byte {at}")]
    Unexpected {
        /// The message's type byte.
        kind: char,
        /// The byte.
        byte: u8,
        /// Where.
        at: usize,
    },
    /// A text that is not UTF-8.
    #[error("a pgoutput message of type {kind:?} has a text that is not UTF-8 at byte {at}")]
    NotUtf8 {
        /// The message's type byte.
        kind: char,
        /// Where.
        at: usize,
    },
}

/// A table as the log describes it before its first change, and again after it was altered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Relation {
    /// The table's object id.
    pub id: u32,
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub table: String,
    /// Whether updates and deletes carry the whole old row (`REPLICA IDENTITY FULL`).
    pub full_identity: bool,
    /// Its columns, in the order of the tuples' values.
    pub columns: Vec<String>,
}

/// One value of a tuple.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// NULL.
    Null,
    /// A TOASTed value that the update did not touch: it stands in the old row.
    Unchanged,
    /// PostgreSQL's text form, as a range of the message.
    Text(Range<u32>),
    /// The binary form, which the relay never asks for.
    Binary(Range<u32>),
}

/// The values of a row; kept and filled again for each message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tuple {
    /// In the order of the relation's columns.
    pub values: Vec<Value>,
}

/// How much of the old row an update or a delete carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Old {
    /// Nothing.
    Absent,
    /// The key's columns, the others NULL.
    Key,
    /// The whole row.
    Full,
}

/// A message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A table's description.
    Relation(Relation),
    /// A new row.
    Insert {
        /// The table.
        relation: u32,
    },
    /// A changed row.
    Update {
        /// The table.
        relation: u32,
        /// What there is of the old row.
        old: Old,
    },
    /// A deleted row.
    Delete {
        /// The table.
        relation: u32,
        /// What there is of the old row.
        old: Old,
    },
    /// Tables emptied at once.
    Truncate {
        /// The tables.
        relations: Vec<u32>,
    },
    /// A message without a meaning for the relay (types, origins).
    Other,
}

struct Reader<'a> {
    data: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn kind(&self) -> char {
        self.data.first().map_or('?', |&byte| byte as char)
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], DecodeError> {
        let end = self.at.checked_add(length).filter(|&end| end <= self.data.len());
        let end = end.ok_or(DecodeError::Truncated { kind: self.kind(), at: self.data.len() })?;
        let taken = &self.data[self.at..end];
        self.at = end;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8, DecodeError> {
        Ok(self.take(1)?[0])
    }

    fn u16(&mut self) -> Result<u16, DecodeError> {
        let bytes = self.take(2)?;
        Ok(u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    fn u32(&mut self) -> Result<u32, DecodeError> {
        let bytes = self.take(4)?;
        Ok(u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    }

    fn text(&mut self) -> Result<&'a str, DecodeError> {
        let start = self.at;
        let length = self.data[start..].iter().position(|&byte| byte == 0);
        let length = length.ok_or(DecodeError::Truncated { kind: self.kind(), at: self.data.len() })?;
        let bytes = self.take(length + 1)?;
        std::str::from_utf8(&bytes[..length]).map_err(|_| DecodeError::NotUtf8 { kind: self.kind(), at: start })
    }

    fn unexpected(&self, byte: u8) -> DecodeError {
        DecodeError::Unexpected { kind: self.kind(), byte, at: self.at.saturating_sub(1) }
    }

    fn tuple(&mut self, tuple: &mut Tuple) -> Result<(), DecodeError> {
        let count = self.u16()?;
        tuple.values.clear();
        for _ in 0..count {
            let value = match self.byte()? {
                b'n' => Value::Null,
                b'u' => Value::Unchanged,
                kind @ (b't' | b'b') => {
                    let length = self.u32()?;
                    let start = self.at;
                    let bytes = self.take(length as usize)?;
                    // A message has at most 1 GiB.
                    let range = start as u32..self.at as u32;
                    if kind == b'b' {
                        Value::Binary(range)
                    } else {
                        std::str::from_utf8(bytes).map_err(|_| DecodeError::NotUtf8 { kind: self.kind(), at: start })?;
                        Value::Text(range)
                    }
                }
                byte => return Err(self.unexpected(byte)),
            };
            tuple.values.push(value);
        }
        Ok(())
    }

    fn relation(&mut self) -> Result<Relation, DecodeError> {
        let id = self.u32()?;
        let schema = self.text()?.to_owned();
        let table = self.text()?.to_owned();
        let full_identity = self.byte()? == b'f';
        let count = self.u16()?;
        let mut columns = Vec::with_capacity(usize::from(count).min(self.data.len()));
        for _ in 0..count {
            self.byte()?; // part of the key
            columns.push(self.text()?.to_owned());
            self.u32()?; // type
            self.u32()?; // type modifier
        }
        Ok(Relation { id, schema, table, full_identity, columns })
    }
}

impl Tuple {
    /// The text of a value; `None` for NULL, and for a column that the tuple does not have. An untouched TOASTed value is `None` too: see
    /// [`Tuple::settle`].
    pub fn text<'a>(&self, data: &'a [u8], index: usize) -> Option<&'a str> {
        match self.values.get(index) {
            // UTF-8 was checked when the tuple was read.
            Some(Value::Text(range)) => std::str::from_utf8(data.get(range.start as usize..range.end as usize)?).ok(),
            _ => None,
        }
    }

    /// Takes the values that an update did not touch from the old row. False where the old row does not have them.
    pub fn settle(&mut self, old: &Tuple) -> bool {
        let mut whole = true;
        for (index, value) in self.values.iter_mut().enumerate() {
            if *value == Value::Unchanged {
                match old.values.get(index) {
                    Some(old @ (Value::Text(_) | Value::Null)) => *value = old.clone(),
                    _ => whole = false,
                }
            }
        }
        whole
    }
}

/// Reads a message. The rows of a change go to `new` and `old`, whose ranges are of `data`; a tuple that the message does not have is emptied.
///
/// # Errors
/// When the message is not what the protocol says.
pub fn decode(data: &[u8], new: &mut Tuple, old: &mut Tuple) -> Result<Change, DecodeError> {
    new.values.clear();
    old.values.clear();
    let mut reader = Reader { data, at: 0 };
    let kind = reader.byte()?;
    let change = match kind {
        b'R' => Change::Relation(reader.relation()?),
        b'I' => {
            let relation = reader.u32()?;
            expect(&mut reader, b'N')?;
            reader.tuple(new)?;
            Change::Insert { relation }
        }
        b'U' => {
            let relation = reader.u32()?;
            let (had, next) = match reader.byte()? {
                b'O' => (Old::Full, None),
                b'K' => (Old::Key, None),
                byte => (Old::Absent, Some(byte)),
            };
            match next {
                None => {
                    reader.tuple(old)?;
                    expect(&mut reader, b'N')?;
                }
                Some(b'N') => {}
                Some(byte) => return Err(reader.unexpected(byte)),
            }
            reader.tuple(new)?;
            Change::Update { relation, old: had }
        }
        b'D' => {
            let relation = reader.u32()?;
            let had = match reader.byte()? {
                b'O' => Old::Full,
                b'K' => Old::Key,
                byte => return Err(reader.unexpected(byte)),
            };
            reader.tuple(old)?;
            Change::Delete { relation, old: had }
        }
        b'T' => {
            let count = reader.u32()?;
            reader.byte()?; // cascade, restart identity
            let mut relations = Vec::with_capacity((count as usize).min(data.len() / 4));
            for _ in 0..count {
                relations.push(reader.u32()?);
            }
            Change::Truncate { relations }
        }
        b'Y' | b'O' | b'M' | b'B' | b'C' => Change::Other,
        byte => return Err(reader.unexpected(byte)),
    };
    Ok(change)
}

fn expect(reader: &mut Reader<'_>, wanted: u8) -> Result<(), DecodeError> {
    match reader.byte()? {
        byte if byte == wanted => Ok(()),
        byte => Err(reader.unexpected(byte)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    // A value as a test writes it: `Err(true)` NULL, `Err(false)` untouched.
    type Given = Result<String, bool>;

    fn put_tuple(out: &mut Vec<u8>, values: &[Given]) {
        out.extend((values.len() as u16).to_be_bytes());
        for value in values {
            match value {
                Ok(text) => {
                    out.push(b't');
                    out.extend((text.len() as u32).to_be_bytes());
                    out.extend(text.as_bytes());
                }
                Err(true) => out.push(b'n'),
                Err(false) => out.push(b'u'),
            }
        }
    }

    fn texts(tuple: &Tuple, data: &[u8]) -> Vec<Given> {
        let text = |(index, value): (usize, &Value)| match value {
            Value::Null => Err(true),
            Value::Unchanged => Err(false),
            _ => Ok(tuple.text(data, index).expect("text").to_owned()),
        };
        tuple.values.iter().enumerate().map(text).collect()
    }

    fn values() -> impl Strategy<Value = Vec<Given>> {
        let value = prop_oneof![".{0,20}".prop_map(Ok), Just(Err(true)), Just(Err(false))];
        proptest::collection::vec(value, 0..8)
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(data in proptest::collection::vec(any::<u8>(), 0..200), kind in "[RIUDTYOMBC]") {
            let (mut new, mut old) = (Tuple::default(), Tuple::default());
            let _ = decode(&data, &mut new, &mut old);
            let mut typed = kind.into_bytes();
            typed.extend(&data);
            let _ = decode(&typed, &mut new, &mut old);
        }

        #[test]
        fn an_update_comes_back(relation in any::<u32>(), before in values(), after in values()) {
            let mut data = vec![b'U'];
            data.extend(relation.to_be_bytes());
            data.push(b'O');
            put_tuple(&mut data, &before);
            data.push(b'N');
            put_tuple(&mut data, &after);
            let (mut new, mut old) = (Tuple::default(), Tuple::default());
            prop_assert_eq!(decode(&data, &mut new, &mut old), Ok(Change::Update { relation, old: Old::Full }));
            prop_assert_eq!(texts(&old, &data), before);
            prop_assert_eq!(texts(&new, &data), after);
            for end in 0..data.len() {
                prop_assert!(decode(&data[..end], &mut new, &mut old).is_err());
            }
        }

        #[test]
        fn a_relation_comes_back(id in any::<u32>(), names in proptest::collection::vec("[a-zé_]{1,10}", 2..9)) {
            let mut data = vec![b'R'];
            data.extend(id.to_be_bytes());
            for name in &names[..2] {
                data.extend(name.as_bytes());
                data.push(0);
            }
            data.push(b'f');
            data.extend((names.len() as u16 - 2).to_be_bytes());
            for name in &names[2..] {
                data.push(1);
                data.extend(name.as_bytes());
                data.push(0);
                data.extend([0; 8]);
            }
            let wanted = Relation {
                id, schema: names[0].clone(), table: names[1].clone(), full_identity: true, columns: names[2..].to_vec(),
            };
            let (mut new, mut old) = (Tuple::default(), Tuple::default());
            prop_assert_eq!(decode(&data, &mut new, &mut old), Ok(Change::Relation(wanted)));
        }
    }

    #[test]
    fn untouched_values_come_from_the_old_row() {
        let old = Tuple { values: vec![Value::Text(1..2), Value::Null] };
        let mut new = Tuple { values: vec![Value::Unchanged, Value::Unchanged] };
        assert!(new.settle(&old));
        assert_eq!(new, old);
        let mut new = Tuple { values: vec![Value::Unchanged] };
        assert!(!new.settle(&Tuple::default()));
    }
}
