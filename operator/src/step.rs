//! The operations of a plan and what may be dangerous about them.

use std::fmt;

use autonomy_crds::resolved::Compared;
use serde_json::Value;

use crate::shape::{CheckShape, ColumnShape, ConstraintShape, EnumerationShape, HistoryShape, IndexShape, SqlType, TableShape, ViewShape};

/// When a step runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// In a transaction of its own before all others: new enumeration values that a default of the same plan uses, which PostgreSQL allows
    /// only once they are committed. They do no harm when the rest then fails, and are added only where they are not there yet.
    Before,
    /// In the one transaction with the catalog.
    Together,
    /// After that transaction, without blocking readers or writers; it can be repeated.
    After,
}

/// A class of hazard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum HazardClass {
    /// Data is lost.
    LosesData,
    /// It fails where the data there does not meet it.
    MayFail,
    /// Readers or writers wait while a large table is read or rewritten.
    MayBlock,
}

impl fmt::Display for HazardClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::LosesData => "loses data",
            Self::MayFail => "may fail",
            Self::MayBlock => "may block",
        })
    }
}

/// What is dangerous about a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hazard {
    /// Its class.
    pub class: HazardClass,
    /// The reason, for a person.
    pub reason: String,
}

impl fmt::Display for Hazard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.reason, self.class)
    }
}

/// What a description describes.
#[derive(Clone, Debug, PartialEq)]
pub enum Described {
    /// The schema.
    Schema,
    /// An enumeration type.
    Enumeration(String),
    /// A table.
    Table(String),
    /// A view.
    View(String),
    /// A column: table and column.
    Column(String, String),
}

/// One operation on a model's schema. [`crate::sql::statements`] gives its SQL.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// The schema with its roles.
    CreateSchema {
        /// The role that reads.
        reader: String,
        /// The role that reads and writes.
        writer: String,
    },
    /// A table gets another name.
    RenameTable {
        /// Its name.
        table: String,
        /// Its new name.
        to: String,
    },
    /// A column gets another name.
    RenameColumn {
        /// The table.
        table: String,
        /// The column.
        column: String,
        /// Its new name.
        to: String,
    },
    /// A constraint gets another name.
    RenameConstraint {
        /// The table.
        table: String,
        /// The constraint.
        constraint: String,
        /// Its new name.
        to: String,
    },
    /// An index gets another name.
    RenameIndex {
        /// The index.
        index: String,
        /// Its new name.
        to: String,
    },
    /// A new enumeration type.
    CreateEnumeration(EnumerationShape),
    /// A new value of an enumeration.
    AddEnumerationValue {
        /// The type.
        enumeration: String,
        /// The value.
        value: String,
        /// The value that it sorts before; the last where none.
        before: Option<String>,
    },
    /// An enumeration with values taken away or in another order: the type is made anew.
    ReplaceEnumeration {
        /// The type as wanted.
        enumeration: EnumerationShape,
        /// The columns of this model that have the type: table, column, default.
        columns: Vec<(String, String, Option<Value>)>,
    },
    /// An enumeration type goes.
    DropEnumeration {
        /// The type.
        enumeration: String,
    },
    /// A view goes.
    DropView {
        /// The view.
        view: String,
    },
    /// A view over parts.
    CreateView {
        /// The view.
        view: ViewShape,
        /// The role that reads.
        reader: String,
        /// The role that reads and writes.
        writer: String,
    },
    /// A table with its columns, checks and unique constraints; references and indexes are steps of their own.
    CreateTable {
        /// The table.
        table: TableShape,
        /// The role that reads.
        reader: String,
        /// The role that reads and writes.
        writer: String,
    },
    /// A table goes, with its rows.
    DropTable {
        /// The table.
        table: String,
    },
    /// A new column.
    AddColumn {
        /// The table.
        table: String,
        /// The column.
        column: ColumnShape,
    },
    /// A column goes, with its values.
    DropColumn {
        /// The table.
        table: String,
        /// The column.
        column: String,
    },
    /// A column gets another type.
    ChangeType {
        /// The table.
        table: String,
        /// The column.
        column: String,
        /// Its type.
        from: SqlType,
        /// Its new type.
        to: SqlType,
    },
    /// A column gets another default, or none.
    SetDefault {
        /// The table.
        table: String,
        /// The column.
        column: String,
        /// Its type.
        sql_type: SqlType,
        /// The default, in the type's JSON form.
        default: Option<Value>,
    },
    /// Each row must have a value, or need not any more.
    SetRequired {
        /// The table.
        table: String,
        /// The column.
        column: String,
        /// Whether it must.
        required: bool,
    },
    /// A new constraint.
    AddConstraint {
        /// The table.
        table: String,
        /// The constraint.
        constraint: ConstraintShape,
        /// False where the rows there are known to meet it and are read later, by [`Step::ValidateConstraint`].
        validated: bool,
    },
    /// The rows there are read to see that they meet a constraint.
    ValidateConstraint {
        /// The table.
        table: String,
        /// The constraint.
        constraint: String,
    },
    /// A constraint goes.
    DropConstraint {
        /// The table.
        table: String,
        /// The constraint.
        constraint: String,
    },
    /// A new index.
    CreateIndex {
        /// The table.
        table: String,
        /// The index.
        index: IndexShape,
        /// Whether it is made beside running writes, outside a transaction.
        concurrently: bool,
    },
    /// An index goes.
    DropIndex {
        /// The index.
        index: String,
    },
    /// The parts stored in a column take the form wanted.
    ChangeParts {
        /// The table.
        table: String,
        /// The column.
        column: String,
        /// Members that are called otherwise: from, to.
        renamed: Vec<(String, String)>,
        /// Members that go.
        removed: Vec<String>,
        /// Members that come, with their values.
        added: Vec<(String, Value)>,
        /// Members that keep their name and get other limits or another type, as a person reads it.
        changed: Vec<String>,
    },
    /// The table with former versions of a table's rows, where it is not there yet.
    CreateHistory {
        /// The table with former versions.
        history: HistoryShape,
        /// The role that reads.
        reader: String,
        /// The role that reads and writes, but not here.
        writer: String,
    },
    /// The triggers that keep former versions become those wanted.
    KeepHistory {
        /// The table.
        table: String,
        /// Where former versions go; nowhere where none.
        history: Option<HistoryShape>,
    },
    /// Former versions take the form that the rows have from now on.
    ChangeHistory {
        /// The table with former versions.
        history: String,
        /// The column of the rows.
        column: String,
        /// What becomes of its values.
        change: FormerValues,
    },
    /// A comment.
    Describe {
        /// On what.
        what: Described,
        /// The text; none takes the comment away.
        text: Option<String>,
    },
}

/// What becomes of a column's values in former versions.
#[derive(Clone, Debug, PartialEq)]
pub enum FormerValues {
    /// They get another name.
    Renamed(String),
    /// They go.
    Dropped,
    /// They become of another type. What does not fit reads as null, and stays beside it under another name.
    Converted {
        /// Their type.
        from: SqlType,
        /// Their new type.
        to: SqlType,
    },
}

impl CheckShape {
    /// The check as a person reads it.
    pub fn in_words(&self) -> String {
        match self {
            Self::MinLength { column, least } => format!("{column} has at least {least} characters"),
            Self::MaxBytes { column, most } => format!("{column} has at most {most} bytes"),
            Self::Range { column, minimum: Some(minimum), maximum: Some(maximum) } => {
                format!("{column} lies between {minimum} and {maximum}")
            }
            Self::Range { column, minimum: Some(minimum), maximum: None } => format!("{column} is at least {minimum}"),
            Self::Range { column, minimum: None, maximum: Some(maximum) } => format!("{column} is at most {maximum}"),
            Self::Range { column, .. } => format!("{column} is a number"),
            Self::Items { column, least, most } => format!("{column} has {least} to {most} parts"),
            Self::Compare { column, operator, compared: Compared::Column(other) } => format!("{column} {} {other}", operator.symbol()),
            Self::Compare { column, operator, compared: Compared::SumOf { column: parts, member } } => {
                format!("{column} {} the sum of {member} over {parts}", operator.symbol())
            }
        }
    }
}
