//! The tables with former versions of rows, and the triggers that fill them.

use autonomy_crds::names::{quote_identifier, shortened};

use super::{conversion, qualified, quote_literal, type_name};
use crate::shape::{HistoryShape, SqlType};
use crate::step::FormerValues;

/// The columns of every table with former versions, each with its type. `number` grows with every version that ends, so that an object that was
/// deleted and made again, with versions from 1, has its former ones in order too. `row` is the whole row by the names of its columns.
pub const HISTORY_COLUMNS: [(&str, &str); 7] = [
    ("number", "bigint"),
    ("id", "uuid"),
    ("version", "bigint"),
    ("operation", "text"),
    ("valid_from", "timestamp with time zone"),
    ("valid_to", "timestamp with time zone"),
    ("row", "jsonb"),
];

/// The triggers that keep former versions: with what they run, and their names.
pub const HISTORY_TRIGGERS: [(&str, &str); 2] = [("UPDATE", "autonomy_keep_updated"), ("DELETE", "autonomy_keep_deleted")];

pub(super) fn create(schema: &str, history: &HistoryShape, reader: &str, writer: &str) -> Vec<String> {
    let columns = HISTORY_COLUMNS.map(|(name, sql_type)| {
        let more = if name == "number" { " GENERATED ALWAYS AS IDENTITY" } else { " NOT NULL" };
        format!("{} {sql_type}{more}", quote_identifier(name))
    });
    vec![
        format!(
            "CREATE TABLE {} (\n  {},\n  CONSTRAINT {} PRIMARY KEY (\"id\", \"number\")\n)",
            qualified(schema, &history.table),
            columns.join(",\n  "),
            quote_identifier(&history.primary_key)
        ),
        history_index(schema, history, false),
        history_reading(schema, history, reader, writer),
    ]
}

/// The index over the moments at which versions ended.
pub fn history_index(schema: &str, history: &HistoryShape, concurrently: bool) -> String {
    format!(
        "CREATE INDEX {}{} ON {} (\"valid_to\")",
        if concurrently { "CONCURRENTLY IF NOT EXISTS " } else { "" },
        quote_identifier(&history.index),
        qualified(schema, &history.table)
    )
}

/// Lets the roles read former versions. Nobody but the triggers writes them.
pub fn history_reading(schema: &str, history: &HistoryShape, reader: &str, writer: &str) -> String {
    let name = qualified(schema, &history.table);
    let (reader, writer) = (quote_identifier(reader), quote_identifier(writer));
    format!("REVOKE ALL ON {name} FROM {reader}, {writer}; GRANT SELECT ON {name} TO {reader}, {writer}")
}

/// The triggers of a table as wanted; may be repeated. They run once a statement, so that a change of many rows is one of their history too.
pub fn history_triggers(schema: &str, table: &str, history: Option<&HistoryShape>) -> Vec<String> {
    let table = qualified(schema, table);
    HISTORY_TRIGGERS
        .into_iter()
        .map(|(event, name)| match history.filter(|history| event == "DELETE" || history.updates) {
            Some(history) => format!(
                "CREATE OR REPLACE TRIGGER {name} AFTER {event} ON {table} REFERENCING OLD TABLE AS former FOR EACH STATEMENT \
                 EXECUTE FUNCTION autonomy.keep_history({})",
                quote_literal(&history.table)
            ),
            None => format!("DROP TRIGGER IF EXISTS {name} ON {table}"),
        })
        .collect()
}

pub(super) fn change(schema: &str, history: &str, column: &str, change: &FormerValues) -> String {
    let history = qualified(schema, history);
    let member = quote_literal(column);
    match change {
        FormerValues::Renamed(to) => format!(
            "UPDATE {history} SET \"row\" = (\"row\" - {member}) || jsonb_build_object({}, \"row\" -> {member}) WHERE \"row\" ? {member}",
            quote_literal(to)
        ),
        FormerValues::Dropped => format!("UPDATE {history} SET \"row\" = \"row\" - {member} WHERE \"row\" ? {member}"),
        FormerValues::Converted { from, to } => convert(&history, column, from, to),
    }
}

// Each value by the expression that converts the rows there. A former version that does not fit any more is no reason to refuse the change.
fn convert(history: &str, column: &str, from: &SqlType, to: &SqlType) -> String {
    let member = quote_literal(column);
    // `__` is in no name that a model gives.
    let aside = quote_literal(&shortened(format!("former__{column}")));
    let read = if *from == SqlType::Jsonb { "->" } else { "->>" };
    let converted = conversion("former", from, to).unwrap_or_else(|| "former".to_owned());
    // What no longer has a name of its own in PostgreSQL, an enumeration that is made anew, is read as text.
    let from = if matches!(from, SqlType::Enumeration { .. }) { &SqlType::Text } else { from };
    format!(
        "DO $autonomy$\nDECLARE\n  kept record;\n  former {};\n  converted {};\nBEGIN\n  \
         FOR kept IN SELECT \"id\", \"number\", \"row\" {read} {member} AS value FROM {history} WHERE \"row\" ->> {member} IS NOT NULL LOOP\n    \
         BEGIN\n      former := kept.value;\n      converted := {converted};\n      \
         UPDATE {history} AS h SET \"row\" = h.\"row\" || jsonb_build_object({member}, converted) WHERE h.\"id\" = kept.id AND h.\"number\" = kept.number;\n    \
         EXCEPTION WHEN data_exception OR integrity_constraint_violation OR feature_not_supported OR unsafe_new_enum_value_usage THEN\n      \
         UPDATE {history} AS h SET \"row\" = (h.\"row\" - {member}) || jsonb_build_object({aside}, h.\"row\" -> {member}) WHERE h.\"id\" = kept.id AND h.\"number\" = kept.number;\n    \
         END;\n  END LOOP;\nEND $autonomy$",
        type_name(from),
        type_name(to)
    )
}
