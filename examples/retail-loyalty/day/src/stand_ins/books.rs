//! The books of an outside system: what it did, and the answers it gave by idempotency key. Each booking is appended to a journal, so that
//! the books are the same after a restart.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::amount::Amount;

/// Something that was done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Entry {
    /// The system's own number for it.
    pub number: String,
    /// What it is about, in the caller's words: a sale's id, or an event's.
    pub reference: String,
    /// Whose it is: a member, a debtor, a queue of tickets.
    pub party: String,
    /// An amount of money, or nothing.
    #[serde(default)]
    pub amount: Amount,
    /// Points, or none.
    #[serde(default)]
    pub points: u64,
    /// Where the caller says that it stands among those of its party; texts that are in order. Empty where there is no order.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub position: String,
}

/// What was answered to an idempotency key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Answered {
    /// The key.
    pub key: String,
    /// Of the request's body, so that a key used for something else is told.
    pub fingerprint: String,
    /// The answer's body.
    pub answer: Value,
    /// What was booked.
    pub entry: Entry,
}

/// The books, summed up.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Totals {
    /// How many bookings there are.
    pub entries: u64,
    /// How many different references they have; fewer than entries where something was booked twice.
    pub references: u64,
    /// Their amounts together.
    pub amount: Amount,
    /// Their points together.
    pub points: u64,
    /// Bookings that came behind one of the same party with a later position.
    #[serde(default)]
    pub out_of_order: u64,
    /// Answers given since the start, by what they were: `201`, `replayed`, `429`, `503`, `timeout`, `lost`, `404`, `422`, `400`.
    pub answers: BTreeMap<String, u64>,
}

/// The books of one system.
#[derive(Debug, Default)]
pub struct Books {
    by_key: HashMap<String, Answered>,
    references: HashSet<String>,
    // The latest of each party.
    positions: HashMap<String, String>,
    totals: Totals,
    journal: Option<File>,
}

impl Books {
    /// The books as the journal has them; a new one where there is none.
    ///
    /// # Errors
    /// When the journal can't be read or is not one. A last line that was cut short is taken off.
    pub fn open(journal: &Path) -> io::Result<Self> {
        let mut books = Self::default();
        if journal.exists() {
            let mut good = 0;
            let mut reader = BufReader::new(File::open(journal)?);
            let mut line = String::new();
            while reader.read_line(&mut line)? > 0 && line.ends_with('\n') {
                let answered: Answered = serde_json::from_str(&line)
                    .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, format!("{}: {error}", journal.display())))?;
                good += line.len() as u64;
                books.count(&answered);
                books.by_key.insert(answered.key.clone(), answered);
                line.clear();
            }
            OpenOptions::new().write(true).open(journal)?.set_len(good)?;
        }
        if let Some(folder) = journal.parent() {
            std::fs::create_dir_all(folder)?;
        }
        books.journal = Some(OpenOptions::new().create(true).append(true).open(journal)?);
        Ok(books)
    }

    /// What was answered to a key before.
    pub fn answered(&self, key: &str) -> Option<&Answered> {
        self.by_key.get(key)
    }

    /// The number of the next booking, from 1.
    pub fn next_number(&self) -> u64 {
        self.totals.entries + 1
    }

    /// Books something.
    ///
    /// # Errors
    /// When the journal can't be written; then nothing was booked.
    pub fn book(&mut self, answered: Answered) -> io::Result<()> {
        if let Some(journal) = &mut self.journal {
            let mut line = serde_json::to_vec(&answered).map_err(io::Error::other)?;
            line.push(b'\n');
            journal.write_all(&line)?;
        }
        self.count(&answered);
        self.by_key.insert(answered.key.clone(), answered);
        Ok(())
    }

    fn count(&mut self, answered: &Answered) {
        self.totals.entries += 1;
        if self.references.insert(answered.entry.reference.clone()) {
            self.totals.references += 1;
        }
        self.totals.amount += answered.entry.amount;
        self.totals.points += answered.entry.points;
        if !answered.entry.position.is_empty() {
            let latest = self.positions.entry(answered.entry.party.clone()).or_default();
            if *latest > answered.entry.position {
                self.totals.out_of_order += 1;
            } else {
                latest.clone_from(&answered.entry.position);
            }
        }
    }

    /// Counts an answer.
    pub fn note(&mut self, answer: &str) {
        match self.totals.answers.get_mut(answer) {
            Some(count) => *count += 1,
            None => {
                self.totals.answers.insert(answer.to_owned(), 1);
            }
        }
    }

    /// The sums.
    pub fn totals(&self) -> &Totals {
        &self.totals
    }

    /// All bookings, in no order.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.by_key.values().map(|answered| &answered.entry)
    }
}
