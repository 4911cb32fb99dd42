//! Parts: lists of small objects inside of a column. They are checked like objects, and written as JSON with every member in order, so
//! that the same parts are always the same text.

use autonomy_crds::object_json::write_string;
use autonomy_crds::resolved::{ColumnKind, EntityReference, PartShape};
use sonic_rs::{LazyValue, to_array_iter, to_object_iter};
use uuid::Uuid;

use crate::named::{self, Reference};
use crate::problem::{Intake, PartReference, Path};
use crate::value::{Encoder, Form, Scalar};

/// Checks and writes a list of parts.
#[derive(Debug)]
pub struct PartList {
    /// The part's members.
    pub columns: Vec<PartColumn>,
    min_items: usize,
    max_items: usize,
}

/// A member of a part.
#[derive(Debug)]
pub struct PartColumn {
    /// Its name in JSON.
    pub member: String,
    /// The entity it refers to.
    pub target: Option<EntityReference>,
    // The name, quoted, with its colon.
    head: Vec<u8>,
    encoder: Encoder,
    required: bool,
    // JSON.
    default: Option<Vec<u8>>,
}

impl PartList {
    /// For parts of that shape.
    ///
    /// # Errors
    /// When a pattern is no regular expression.
    pub fn new(shape: &PartShape, min_items: u32, max_items: u32) -> Result<Self, regex::Error> {
        let mut columns = Vec::with_capacity(shape.columns.len());
        for column in &shape.columns {
            let (encoder, _) = Encoder::of(column)?;
            let target = match &column.kind {
                ColumnKind::Relationship { target, .. } => Some(target.clone()),
                _ => None,
            };
            let mut head = Vec::new();
            write_string(&column.member, &mut head);
            head.push(b':');
            let default = column.default.as_ref().and_then(|value| encode_default(&encoder, value, Form::Json));
            columns.push(PartColumn { member: column.member.clone(), target, head, encoder, required: column.required, default });
        }
        Ok(Self { columns, min_items: min_items as usize, max_items: max_items as usize })
    }

    /// Writes a JSON list as JSON, or says what is wrong with it.
    pub fn encode(&self, raw: &str, path: &Path<'_>, intake: &mut Intake, out: &mut Vec<u8>) -> bool {
        let mut good = true;
        let mut count = 0;
        out.push(b'[');
        for (index, item) in to_array_iter(raw).enumerate() {
            let Ok(item) = item else { break };
            count += 1;
            if index > 0 {
                out.push(b',');
            }
            good &= self.encode_part(&item, index, &path.index(index), intake, out);
        }
        out.push(b']');
        if count < self.min_items || count > self.max_items {
            intake.push(path, format!("must have {} to {} items, not {count}", self.min_items, self.max_items));
            good = false;
        }
        good
    }

    fn encode_part(&self, item: &LazyValue<'_>, index: usize, path: &Path<'_>, intake: &mut Intake, out: &mut Vec<u8>) -> bool {
        let raw = item.as_raw_str();
        if !raw.starts_with('{') {
            intake.push(path, "must be an object");
            return false;
        }
        // The members come in any order and are written in the part's.
        let mut values: Vec<Option<Vec<u8>>> = vec![None; self.columns.len()];
        let mut good = true;
        for entry in to_object_iter(raw) {
            let Ok((name, value)) = entry else { break };
            let here = path.member(name.as_ref());
            let Some(at) = self.columns.iter().position(|column| column.member == name.as_ref() as &str) else {
                intake.push(&here, "is no member of this part");
                good = false;
                continue;
            };
            if values[at].is_some() {
                intake.push(&here, "is given twice");
                good = false;
                continue;
            }
            let column = &self.columns[at];
            let mut text = Vec::new();
            let reference = match &column.target {
                Some(target) => named::reference(value.as_raw_str(), target, &here, intake),
                None => Reference::Plain,
            };
            let referred = match reference {
                Reference::Plain => {
                    good &= column.encode(value.as_raw_str(), &here, intake, &mut text);
                    match (&column.target, Scalar::read(value.as_raw_str())) {
                        (Some(_), Ok(Some(Scalar::String(id)))) => Uuid::try_parse(&id).ok(),
                        _ => None,
                    }
                }
                Reference::New { id, .. } => {
                    write_string(id.as_hyphenated().encode_lower(&mut Uuid::encode_buffer()), &mut text);
                    Some(id)
                }
                Reference::Faulty => {
                    good = false;
                    None
                }
            };
            if let Some(id) = referred {
                let (row, owner) = (intake.row, intake.column);
                intake.references.push(PartReference {
                    row,
                    column: owner,
                    item: index as u32,
                    part_column: at as u16,
                    id: id.into_bytes(),
                });
            }
            values[at] = Some(text);
        }
        out.push(b'{');
        for (at, (column, value)) in self.columns.iter().zip(&values).enumerate() {
            if at > 0 {
                out.push(b',');
            }
            out.extend_from_slice(&column.head);
            match (value, &column.default) {
                (Some(text), _) | (None, Some(text)) => out.extend_from_slice(text),
                (None, None) => {
                    if column.required {
                        intake.push(&path.member(&column.member), "must be given");
                        good = false;
                    }
                    out.extend_from_slice(b"null");
                }
            }
        }
        out.push(b'}');
        good
    }
}

impl PartColumn {
    fn encode(&self, raw: &str, path: &Path<'_>, intake: &mut Intake, out: &mut Vec<u8>) -> bool {
        match Scalar::read(raw) {
            Ok(Some(scalar)) => self.encoder.encode(&scalar, Form::Json, path, intake, out),
            Ok(None) if self.required => {
                intake.push(path, "must not be null");
                false
            }
            Ok(None) => {
                out.extend_from_slice(b"null");
                true
            }
            Err(detail) => {
                intake.push(path, detail);
                false
            }
        }
    }
}

/// A declared default in the form given; the resolver has checked it, so what does not fit counts as none.
pub fn encode_default(encoder: &Encoder, value: &serde_json::Value, form: Form) -> Option<Vec<u8>> {
    let raw = value.to_string();
    let scalar = Scalar::read(&raw).ok()??;
    let mut out = Vec::new();
    encoder.encode(&scalar, form, &Path::ROOT, &mut Intake::default(), &mut out).then_some(out)
}
