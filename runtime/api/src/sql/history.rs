//! SQL over the former versions of objects.

use super::{Statement, texts};
use crate::plan::{EntityPlan, HistoryPlan};
use crate::rows::Param;
use crate::value::PgType;

fn bigint(number: i64) -> Param {
    Param::value(&PgType::bigint(), Some(number.to_be_bytes().to_vec()))
}

fn uuid(id: [u8; 16]) -> Param {
    Param::value(&PgType::uuid(), Some(id.to_vec()))
}

// The rows of the table from versions of `h`, as `r`.
fn rows_of_versions(plan: &EntityPlan, history: &HistoryPlan, statement: &mut Statement) -> String {
    let unknown = history.unknown.as_ref().map(|unknown| format!("{}::jsonb || ", statement.bind(Param::text(unknown.as_str()))));
    let (from, table) = (&history.table, &plan.table);
    format!("{from} AS h CROSS JOIN LATERAL jsonb_populate_record(NULL::{table}, {}h.\"row\") AS r", unknown.unwrap_or_default())
}

/// In the place of a table: its rows as they were at a moment, of one object where an id is given.
///
/// A version lasts up to the moment at which it ends, not including it, and the times of one object's versions follow one another. Only an object
/// that was made again by a transaction that began before the one that deleted it seems to begin before its end; there the later one counts.
pub(super) fn as_of(plan: &EntityPlan, history: &HistoryPlan, moment: i64, id: Option<[u8; 16]>, statement: &mut Statement) -> String {
    let at = statement.bind(Param::value(&PgType::timestamp(), Some(moment.to_be_bytes().to_vec())));
    let of_one = id.map(|id| format!(" AND h.\"id\" = {}", statement.bind(uuid(id)))).unwrap_or_default();
    let rows = rows_of_versions(plan, history, statement);
    let (kept, table) = (&history.table, &plan.table);
    format!(
        "(SELECT r.* FROM {rows} WHERE h.\"valid_from\" <= {at} AND h.\"valid_to\" > {at}{of_one} AND (h.\"operation\" <> 'deleted' \
         OR NOT EXISTS (SELECT FROM {table} AS n WHERE n.\"id\" = h.\"id\" AND n.\"updated_at\" <= {at}) \
         AND NOT EXISTS (SELECT FROM {kept} AS n WHERE n.\"id\" = h.\"id\" AND n.\"number\" > h.\"number\" AND n.\"valid_from\" <= {at})) \
         UNION ALL SELECT c.* FROM {table} AS c WHERE c.\"updated_at\" <= {at})"
    )
}

/// The versions of an object, the newest first, from behind the one with the number `before`: each column given as text, then what ended the
/// version, from when and to when it was, and its number.
pub fn versions(plan: &EntityPlan, history: &HistoryPlan, id: [u8; 16], before: Option<i64>, columns: &[usize], limit: u64) -> Statement {
    let mut statement = Statement::on(plan);
    let of = statement.bind(uuid(id));
    let rows = rows_of_versions(plan, history, &mut statement);
    let (kept, table) = (&history.table, &plan.table);
    // A name with `@` is no column's. The present version comes before those that there are now, and not before one that is still to end.
    let mut text = format!(
        "SELECT {}, t.\"@operation\", t.\"@validFrom\"::text, t.\"@validTo\"::text, t.\"@number\"::text FROM (\
         SELECT c.*, NULL::text AS \"@operation\", c.\"updated_at\" AS \"@validFrom\", NULL::timestamptz AS \"@validTo\", \
         coalesce((SELECT max(n.\"number\") FROM {kept} AS n WHERE n.\"id\" = {of}), 0) + 1 AS \"@number\" \
         FROM {table} AS c WHERE c.\"id\" = {of} \
         UNION ALL SELECT r.*, h.\"operation\", h.\"valid_from\", h.\"valid_to\", h.\"number\" FROM {rows} WHERE h.\"id\" = {of}) AS t",
        texts(plan, columns)
    );
    if let Some(before) = before {
        text.push_str(&format!(" WHERE t.\"@number\" < {}", statement.bind(bigint(before))));
    }
    text.push_str(&format!(" ORDER BY t.\"@number\" DESC LIMIT {}", statement.bind(bigint(limit as i64))));
    statement.push(&text);
    statement
}

/// When an object was deleted last, as text.
pub fn deleted_at(plan: &EntityPlan, history: &HistoryPlan, id: [u8; 16]) -> Statement {
    let mut statement = Statement::on(plan);
    let of = statement.bind(uuid(id));
    statement.push(&format!(
        "SELECT h.\"valid_to\"::text FROM {} AS h WHERE h.\"id\" = {of} AND h.\"operation\" = 'deleted' ORDER BY h.\"number\" DESC LIMIT 1",
        history.table
    ));
    statement
}
