//! Bodies in CSV (RFC 4180): a heading with the members' names, then a line an object. An empty cell is as if the member were not there. Cells of
//! JSON attributes and of parts hold JSON.

use serde::de::IgnoredAny;

use super::{Before, ObjectSeed, Purpose, is_too_deep, malformed};
use crate::plan::{EntityPlan, SYSTEM};
use crate::problem::{Intake, Path, Problem};
use crate::rows::Rows;
use crate::value::{Encoder, Scalar};

/// A table whose heading is read.
#[derive(Debug)]
pub struct Table {
    columns: Vec<usize>,
}

impl Table {
    /// Reads the heading; gives what is behind it, too.
    ///
    /// # Errors
    /// Where it is none, or names what is no member.
    pub fn read_heading<'t>(text: &'t str, plan: &EntityPlan) -> Result<(Self, &'t str), Problem> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let mut reader = reader(text);
        let mut names = csv::StringRecord::new();
        reader.read_record(&mut names).map_err(|error| not_csv(&error, 0))?;
        let columns = heading(&names, plan)?;
        Ok((Self { columns }, &text[reader.position().byte() as usize..]))
    }

    /// Reads lines into `rows`. What is wrong with the objects is left in `intake`.
    ///
    /// # Errors
    /// Where they are no CSV.
    pub fn read(
        &self,
        text: &str,
        plan: &EntityPlan,
        purpose: Purpose,
        before: Before,
        rows: &mut Rows,
        intake: &mut Intake,
    ) -> Result<(), Problem> {
        let mut reader = reader(text);
        let mut record = csv::StringRecord::new();
        let mut index = before.objects;
        while reader.read_record(&mut record).map_err(|error| not_csv(&error, before.lines))? {
            if record.len() != self.columns.len() {
                let line = record.position().map_or(0, csv::Position::line) as usize + before.lines;
                let (cells, wanted) = (record.len(), self.columns.len());
                return Err(malformed(format!("The body is not CSV at line {line}: it has {cells} cells where the heading has {wanted}.")));
            }
            let path = Path::ROOT.index(index);
            let mut object = ObjectSeed { plan, purpose, path: &path, rows: &mut *rows, intake: &mut *intake };
            object.begin();
            for (column, cell) in self.columns.iter().zip(&record).filter(|(_, cell)| !cell.is_empty()) {
                object.set(*column, scalar(&plan.columns[*column].encoder, cell));
            }
            object.complete();
            index += 1;
        }
        Ok(())
    }
}

fn reader(text: &str) -> csv::Reader<&[u8]> {
    csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(text.as_bytes())
}

fn not_csv(error: &csv::Error, before: usize) -> Problem {
    let line = error.position().map(|position| format!(" at line {}", position.line() as usize + before)).unwrap_or_default();
    malformed(format!("The body is not CSV{line}."))
}

// The columns that the heading names.
fn heading(names: &csv::StringRecord, plan: &EntityPlan) -> Result<Vec<usize>, Problem> {
    let mut columns: Vec<usize> = Vec::with_capacity(names.len());
    for name in names {
        let name = name.trim();
        let Some(column) = plan.column_of_member(name, columns.last().map_or(SYSTEM, |last| last + 1)) else {
            return Err(malformed(format!("The heading has {name:?}, which is no member of {}.", plan.entity().name)));
        };
        if columns.contains(&column) {
            return Err(malformed(format!("The heading has {name} twice.")));
        }
        columns.push(column);
    }
    if columns.is_empty() {
        return Err(malformed("The body is empty; a heading with the members' names is expected."));
    }
    Ok(columns)
}

fn scalar<'t>(encoder: &Encoder, cell: &'t str) -> Result<Option<Scalar<'t>>, &'static str> {
    match encoder {
        Encoder::Json | Encoder::Parts(_) => {
            let json = cell.trim();
            if is_too_deep(json) {
                return Err("is nested too deep");
            }
            sonic_rs::from_str::<IgnoredAny>(json).map_err(|_| "must be JSON")?;
            Scalar::read(json)
        }
        Encoder::Integer { .. } | Encoder::Decimal { .. } | Encoder::Boolean => encoder.scalar_of(cell.trim()).map(Some),
        _ => encoder.scalar_of(cell).map(Some),
    }
}
