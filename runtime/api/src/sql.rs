//! Plans as SQL: the only place with SQL text. Names come quoted from the plan; values are always parameters. Statements on a model's
//! tables begin with its revision, so that no connection runs one that it prepared for another revision.

mod history;

use std::borrow::Cow;
use std::collections::HashMap;

use sqlx::Arguments;
use sqlx::error::BoxDynError;
use sqlx::postgres::PgArguments;

use crate::aggregate::{AggregateQuery, Function};
use crate::embed::Embedded;
use crate::plan::{ColumnPlan, EntityPlan, ID, SYSTEM};
use crate::query::{Filter, ListQuery, Operator, Sort};
use crate::rows::{Param, Rows, Value};
use crate::value::PgType;
pub use history::{deleted_at, versions};

/// SQL with its parameters.
#[derive(Debug, Default)]
pub struct Statement {
    /// The text.
    pub text: String,
    /// The parameters.
    pub arguments: PgArguments,
    count: usize,
    failed: Option<BoxDynError>,
}

impl Statement {
    fn on(plan: &EntityPlan) -> Self {
        Self { text: format!("/* {}@{} */ ", plan.model.name, plan.revision), ..Self::default() }
    }

    fn fixed(text: &str) -> Self {
        Self { text: text.to_owned(), ..Self::default() }
    }

    fn push(&mut self, text: &str) -> &mut Self {
        self.text.push_str(text);
        self
    }

    // Binds a parameter and gives its place.
    fn bind(&mut self, param: Param) -> String {
        if let Err(error) = self.arguments.add(param) {
            self.failed.get_or_insert(error);
        }
        self.count += 1;
        format!("${}", self.count)
    }

    fn with(mut self, param: Param) -> Self {
        self.bind(param);
        self
    }

    /// The query for sqlx.
    ///
    /// # Errors
    /// When a parameter could not be bound.
    pub fn query(self) -> Result<sqlx::query::Query<'static, sqlx::Postgres, PgArguments>, sqlx::Error> {
        match self.failed {
            Some(error) => Err(sqlx::Error::Encode(error)),
            None => Ok(sqlx::query_with(sqlx::AssertSqlSafe(self.text), self.arguments)),
        }
    }
}

fn cast(pg_type: &PgType, list: bool) -> String {
    match &pg_type.cast {
        Some(name) if list => format!("::{name}[]"),
        Some(name) => format!("::{name}"),
        None => String::new(),
    }
}

// PostgreSQL keeps a plan that it made without knowing a list, and for a list of ten, as it then supposes, it rather reads all of a table that is
// small at that time. With this condition, which always holds, it supposes one row, and goes by the key; see `write::attempt::BEGIN` too.
const FEW: &str = "u.o BETWEEN 1 AND 2147483647";

fn texts(plan: &EntityPlan, columns: &[usize]) -> String {
    columns.iter().map(|column| format!("t.{}::text", plan.columns[*column].quoted)).collect::<Vec<_>>().join(", ")
}

// What is selected of `t`, with the objects that it refers to.
fn select(plan: &EntityPlan, at: At, selected: &str, embedded: &[Embedded]) -> Statement {
    let mut joined = Joined::default();
    joined.all("t", plan, embedded);
    let mut statement = Statement::on(plan);
    let objects = objects_at(plan, at, &mut statement);
    statement.push(&joined.revisions).push("SELECT ").push(selected).push(&joined.texts);
    statement.push(" FROM ").push(&objects).push(" AS t").push(&joined.joins);
    statement
}

/// Which versions of which objects are read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct At {
    /// Those of this moment, in microseconds since 2000; the present ones where none.
    pub moment: Option<i64>,
    /// Those of this object alone, where that helps to find them.
    pub id: Option<[u8; 16]>,
}

impl At {
    /// All objects of a list's moment.
    fn of(query: &ListQuery) -> Self {
        Self { moment: query.as_of, id: None }
    }
}

fn objects_at<'a>(plan: &'a EntityPlan, at: At, statement: &mut Statement) -> Cow<'a, str> {
    match (at.moment, &plan.history) {
        (Some(moment), Some(history)) => Cow::Owned(history::as_of(plan, history, moment, at.id, statement)),
        _ => Cow::Borrowed(&plan.table),
    }
}

#[derive(Default)]
struct Joined {
    count: usize,
    revisions: String,
    texts: String,
    joins: String,
}

impl Joined {
    fn all(&mut self, parent: &str, parent_plan: &EntityPlan, embedded: &[Embedded]) {
        for object in embedded {
            let alias = format!("e{}", self.count);
            self.count += 1;
            let plan = &object.plan;
            self.revisions.push_str(&format!("/* {}@{} */ ", plan.model.name, plan.revision));
            for column in &plan.columns {
                self.texts.push_str(&format!(", {alias}.{}::text", column.quoted));
            }
            let reference = &parent_plan.columns[object.column].quoted;
            self.joins.push_str(&format!(" LEFT JOIN {} AS {alias} ON {alias}.\"id\" = {parent}.{reference}", plan.table));
            self.all(&alias, plan, &object.inside);
        }
    }
}

/// A page or the whole of a list; each value as text: the columns, then those of each object that is embedded, and of what is in that.
pub fn list(plan: &EntityPlan, query: &ListQuery, columns: &[usize], embedded: &[Embedded], limit: Option<u64>) -> Statement {
    let mut statement = select(plan, At::of(query), &texts(plan, columns), embedded);
    conditions(plan, query, &mut statement, true);
    statement.push(" ORDER BY ").push(&order(plan, &query.sort));
    bounds(&mut statement, limit, query.offset);
    statement
}

/// How many objects a list has in all.
pub fn count(plan: &EntityPlan, query: &ListQuery) -> Statement {
    let mut statement = Statement::on(plan);
    let objects = objects_at(plan, At::of(query), &mut statement);
    statement.push("SELECT count(*) FROM ").push(&objects).push(" AS t");
    conditions(plan, query, &mut statement, false);
    statement
}

/// Aggregates; each group's values as text, then what is made of its objects.
pub fn aggregates(plan: &EntityPlan, query: &AggregateQuery, limit: u64) -> Statement {
    let name = |column: usize| format!("t.{}", plan.columns[column].quoted);
    let groups: Vec<String> = query.groups.iter().map(|column| name(*column)).collect();
    let made = query.aggregates.iter().map(|aggregate| {
        let of = aggregate.column.map_or_else(|| "*".to_owned(), name);
        let call = match aggregate.function {
            Function::Count => format!("count({of})"),
            Function::CountDistinct => format!("count(DISTINCT {of})"),
            Function::Sum => format!("sum({of})"),
            Function::Avg => format!("avg({of})"),
            Function::Min => format!("min({of})"),
            Function::Max => format!("max({of})"),
        };
        format!("{call}::text")
    });
    let selected: Vec<String> = groups.iter().map(|group| format!("{group}::text")).chain(made).collect();
    let mut statement = select(plan, At::of(&query.list), &selected.join(", "), &[]);
    conditions(plan, &query.list, &mut statement, false);
    if !groups.is_empty() {
        statement.push(" GROUP BY ").push(&groups.join(", "));
        statement.push(" ORDER BY ").push(&order(plan, &query.list.sort));
    }
    bounds(&mut statement, Some(limit), query.list.offset);
    statement
}

fn order(plan: &EntityPlan, sort: &[Sort]) -> String {
    let one = |sort: &Sort| format!("t.{}{}", plan.columns[sort.column].quoted, if sort.descending { " DESC" } else { "" });
    sort.iter().map(one).collect::<Vec<_>>().join(", ")
}

fn bounds(statement: &mut Statement, limit: Option<u64>, offset: u64) {
    for (word, number) in [(" LIMIT ", limit), (" OFFSET ", Some(offset).filter(|offset| *offset > 0))] {
        if let Some(number) = number {
            let place = statement.bind(Param::value(&PgType::bigint(), Some((number as i64).to_be_bytes().to_vec())));
            statement.push(word).push(&place);
        }
    }
}

fn conditions(plan: &EntityPlan, query: &ListQuery, statement: &mut Statement, paged: bool) {
    let mut conditions: Vec<String> = query.filters.iter().map(|filter| condition(plan, filter, statement)).collect();
    if let (true, Some(after)) = (paged, &query.after) {
        conditions.push(behind(plan, query, after, statement));
    }
    if !conditions.is_empty() {
        let text = format!(" WHERE {}", conditions.join(" AND "));
        statement.push(&text);
    }
}

fn condition(plan: &EntityPlan, filter: &Filter, statement: &mut Statement) -> String {
    let column = &plan.columns[filter.column];
    let name = format!("t.{}", column.quoted);
    let first = filter.values.first().cloned().unwrap_or_default();
    let compared = |operator: &str, statement: &mut Statement| {
        let place = statement.bind(Param::value(&column.pg_type, Some(first.clone())));
        format!("{name} {operator} {place}{}", cast(&column.pg_type, false))
    };
    match filter.operator {
        Operator::Eq => compared("=", statement),
        Operator::Ne => compared("IS DISTINCT FROM", statement),
        Operator::Gt => compared(">", statement),
        Operator::Gte => compared(">=", statement),
        Operator::Lt => compared("<", statement),
        Operator::Lte => compared("<=", statement),
        Operator::In => {
            let values = filter.values.iter().map(|value| Some(value.as_slice()));
            let place = statement.bind(Param::list(&column.pg_type, values));
            format!("{name} = ANY({place}{})", cast(&column.pg_type, true))
        }
        Operator::Like => {
            let pattern = String::from_utf8_lossy(&first).into_owned();
            format!("{name}::text LIKE {}", statement.bind(Param::text(pattern)))
        }
        Operator::IsNull => format!("{name} IS {}NULL", if first == [1] { "" } else { "NOT " }),
    }
}

// What comes behind a row in the order: NULLs are last, or first where descending, as PostgreSQL has them.
fn behind(plan: &EntityPlan, query: &ListQuery, after: &[Option<String>], statement: &mut Statement) -> String {
    let sort = &query.sort;
    // A former version may be from before a column was there.
    let required = |column: usize| plan.columns[column].required && (query.as_of.is_none() || column < SYSTEM);
    let places: Vec<Option<String>> = sort
        .iter()
        .zip(after)
        .map(|(sort, value)| {
            let column = &plan.columns[sort.column];
            value.as_ref().map(|value| format!("{}::{}", statement.bind(Param::text(value.as_str())), column.pg_type.name))
        })
        .collect();
    let name = |sort: &Sort| format!("t.{}", plan.columns[sort.column].quoted);
    let same_way = sort.iter().all(|other| other.descending == sort[0].descending);
    if same_way && sort.iter().all(|sort| required(sort.column)) {
        // As a row comparison an index serves it.
        let names = sort.iter().map(name).collect::<Vec<_>>().join(", ");
        let values = places.into_iter().flatten().collect::<Vec<_>>().join(", ");
        let operator = if sort[0].descending { "<" } else { ">" };
        return format!("({names}) {operator} ({values})");
    }
    let mut text = String::new();
    for (sort, place) in sort.iter().zip(&places).rev() {
        let name = name(sort);
        let nullable = !required(sort.column);
        let (beyond, equal) = match place {
            Some(place) if sort.descending => (format!("{name} < {place}"), format!("{name} = {place}")),
            Some(place) if nullable => (format!("({name} > {place} OR {name} IS NULL)"), format!("{name} = {place}")),
            Some(place) => (format!("{name} > {place}"), format!("{name} = {place}")),
            None if sort.descending => (format!("{name} IS NOT NULL"), format!("{name} IS NULL")),
            None => ("false".to_owned(), format!("{name} IS NULL")),
        };
        text = if text.is_empty() { beyond } else { format!("({beyond} OR ({equal} AND {text}))") };
    }
    text
}

/// Objects by their ids: the id, then each column given as text.
pub fn objects(plan: &EntityPlan, ids: &[[u8; 16]], columns: &[usize]) -> Statement {
    let mut statement = select(plan, At::default(), &format!("t.\"id\", {}", texts(plan, columns)), &[]);
    let place = statement.bind(Param::ids(ids));
    statement.push(&format!(" WHERE t.\"id\" = ANY({place})"));
    statement
}

/// One object, at a moment where one is given: each column given as text, then those of what is embedded, as in [`list`].
pub fn object(plan: &EntityPlan, id: [u8; 16], moment: Option<i64>, columns: &[usize], embedded: &[Embedded]) -> Statement {
    let mut statement = select(plan, At { moment, id: Some(id) }, &texts(plan, columns), embedded);
    let place = statement.bind(Param::value(&PgType::uuid(), Some(id.to_vec())));
    statement.push(&format!(" WHERE t.\"id\" = {place}"));
    statement
}

/// Where the log is, as a number, read in a transaction after its snapshot.
pub fn position() -> Statement {
    Statement::fixed("SELECT (pg_current_wal_flush_lsn() - '0/0'::pg_lsn)::text")
}

/// COPY of whole rows.
pub fn copy(plan: &EntityPlan) -> String {
    let columns: Vec<&str> = plan.writable().map(|column| plan.columns[column].quoted.as_str()).collect();
    format!("COPY {} ({}) FROM STDIN (FORMAT binary)", plan.table, columns.join(", "))
}

/// The value that a new row has in a column: NULL where the body says nothing and there is no default.
pub fn new_value<'a>(plan: &'a EntityPlan, rows: &'a Rows, row: u32, column: usize) -> Option<&'a [u8]> {
    match rows.get(row as usize, column) {
        Value::Bytes(bytes) => Some(bytes),
        Value::Null => None,
        Value::Absent => plan.columns[column].default.as_deref(),
    }
}

/// The body of a binary COPY.
pub fn copy_data(plan: &EntityPlan, rows: &Rows, selection: &[u32]) -> Vec<u8> {
    let columns: Vec<usize> = plan.writable().collect();
    let mut data = Vec::with_capacity(rows.size() + selection.len() * (2 + 4 * columns.len()) + 32);
    data.extend_from_slice(b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0");
    let count = (columns.len() as i16).to_be_bytes();
    for row in selection {
        data.extend_from_slice(&count);
        for column in &columns {
            match new_value(plan, rows, *row, *column) {
                Some(bytes) => {
                    data.extend_from_slice(&(bytes.len() as i32).to_be_bytes());
                    data.extend_from_slice(bytes);
                }
                None => data.extend_from_slice(&(-1_i32).to_be_bytes()),
            }
        }
    }
    data.extend_from_slice(&(-1_i16).to_be_bytes());
    data
}

/// What an insert does where the object is there already.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Conflict {
    /// It fails.
    Fail,
    /// It leaves the object as it is.
    Ignore,
    /// It sets these columns of the object with the same natural key.
    UpdateByKey(Vec<usize>),
    /// It sets these columns of the object with the same id.
    UpdateById(Vec<usize>),
}

/// New rows; answers id, version, and whether the row is new, in the rows' order, then each of the columns `answered` as text.
pub fn insert(plan: &EntityPlan, rows: &Rows, selection: &[u32], conflict: &Conflict, answered: &[usize]) -> Statement {
    let mut statement = Statement::on(plan);
    let columns: Vec<usize> = plan.writable().collect();
    let places: Vec<String> = columns
        .iter()
        .map(|column| {
            let values = selection.iter().map(|row| new_value(plan, rows, *row, *column));
            statement.bind(Param::list(&plan.columns[*column].pg_type, values))
        })
        .collect();
    let names: Vec<&str> = columns.iter().map(|column| plan.columns[*column].quoted.as_str()).collect();
    let values: Vec<String> = columns.iter().map(|column| format!("u.c{column}{}", cast(&plan.columns[*column].pg_type, false))).collect();
    let aliases: Vec<String> = columns.iter().map(|column| format!("c{column}")).collect();
    let text = format!(
        "INSERT INTO {} AS t ({}) SELECT {} FROM unnest({}) WITH ORDINALITY AS u({}, o) ORDER BY u.o",
        plan.table,
        names.join(", "),
        values.join(", "),
        places.join(", "),
        aliases.join(", ")
    );
    statement.push(&text);
    let key = |columns: &[usize]| columns.iter().map(|column| plan.columns[*column].quoted.as_str()).collect::<Vec<_>>().join(", ");
    let key_or_id = if plan.key.is_empty() { key(&[ID]) } else { key(&plan.key) };
    let set = |columns: &[usize]| {
        let set = columns.iter().map(|column| &plan.columns[*column].quoted).map(|name| format!("{name} = EXCLUDED.{name}"));
        set.collect::<Vec<_>>().join(", ")
    };
    let on_conflict = match conflict {
        Conflict::Fail => String::new(),
        Conflict::Ignore => format!(" ON CONFLICT ({key_or_id}) DO NOTHING"),
        Conflict::UpdateByKey(columns) => format!(" ON CONFLICT ({key_or_id}) DO UPDATE SET {}", set(columns)),
        Conflict::UpdateById(columns) => format!(" ON CONFLICT ({}) DO UPDATE SET {}", key(&[ID]), set(columns)),
    };
    statement.push(&on_conflict).push(" RETURNING t.\"id\", t.\"version\", (t.xmax = 0)");
    answer(plan, answered, &mut statement);
    statement
}

fn answer(plan: &EntityPlan, columns: &[usize], statement: &mut Statement) {
    if !columns.is_empty() {
        statement.push(", ").push(&texts(plan, columns));
    }
}

/// The objects that have the rows' natural keys (or ids, where the entity has none): place of the row from 1, id, version.
pub fn by_key(plan: &EntityPlan, rows: &Rows, selection: &[u32], columns: &[usize]) -> Statement {
    let mut statement = Statement::on(plan);
    let places: Vec<String> = columns
        .iter()
        .map(|column| {
            let values = selection.iter().map(|row| new_value(plan, rows, *row, *column));
            statement.bind(Param::list(&plan.columns[*column].pg_type, values))
        })
        .collect();
    let aliases: Vec<String> = columns.iter().map(|column| format!("c{column}")).collect();
    let equal: Vec<String> = columns
        .iter()
        .map(|column| {
            let column_plan = &plan.columns[*column];
            format!("t.{} = u.c{column}{}", column_plan.quoted, cast(&column_plan.pg_type, false))
        })
        .collect();
    let text = format!(
        "SELECT u.o, t.\"id\", t.\"version\" FROM unnest({}) WITH ORDINALITY AS u({}, o) JOIN {} AS t ON {} AND {FEW}",
        places.join(", "),
        aliases.join(", "),
        plan.table,
        equal.join(" AND ")
    );
    statement.push(&text);
    statement
}

/// An expectation of a present value.
#[derive(Clone, Debug)]
pub struct Condition {
    /// The row in its batch.
    pub row: u32,
    /// The column.
    pub column: usize,
    /// The value expected, in binary form; `None` is null.
    pub expected: Option<Vec<u8>>,
}

/// Locks the rows' objects in the order of their ids: place of the row from 1, version, and whether all its conditions hold.
pub fn lock(plan: &EntityPlan, rows: &Rows, selection: &[u32], conditions: &[&Condition], for_delete: bool) -> Statement {
    let mut statement = Statement::on(plan);
    let ids: Vec<[u8; 16]> = selection.iter().map(|row| rows.id(*row as usize)).collect();
    let mut places = vec![statement.bind(Param::ids(&ids))];
    let mut aliases = vec!["id".to_owned()];
    let mut columns: Vec<usize> = conditions.iter().map(|condition| condition.column).collect();
    columns.sort_unstable();
    columns.dedup();
    let mut holds = Vec::with_capacity(columns.len());
    let by_place: HashMap<(u32, usize), &Condition> =
        conditions.iter().map(|condition| ((condition.row, condition.column), *condition)).collect();
    for column in columns {
        let pg_type = &plan.columns[column].pg_type;
        let of_row = |row: &u32| by_place.get(&(*row, column));
        let values = selection.iter().map(|row| of_row(row).and_then(|condition| condition.expected.as_deref()));
        places.push(statement.bind(Param::list(pg_type, values)));
        let given: Vec<bool> = selection.iter().map(|row| of_row(row).is_some()).collect();
        places.push(statement.bind(Param::booleans(&given)));
        aliases.extend([format!("c{column}"), format!("g{column}")]);
        let name = &plan.columns[column].quoted;
        holds.push(format!("(NOT u.g{column} OR t.{name} IS NOT DISTINCT FROM u.c{column}{})", cast(pg_type, false)));
    }
    let holds = if holds.is_empty() { "true".to_owned() } else { holds.join(" AND ") };
    let text = format!(
        "SELECT u.o, t.\"version\", {holds} FROM unnest({}) WITH ORDINALITY AS u({}, o) JOIN {} AS t ON t.\"id\" = u.id AND {FEW} \
         ORDER BY t.\"id\" FOR {} OF t",
        places.join(", "),
        aliases.join(", "),
        plan.table,
        if for_delete { "UPDATE" } else { "NO KEY UPDATE" }
    );
    statement.push(&text);
    statement
}

/// Values that are written in the place of those given, by row and column.
pub type Merged = HashMap<(u32, usize), Vec<u8>>;

/// Sets what the rows give of these columns; answers id and version, then each of the columns `answered` as text.
pub fn update(plan: &EntityPlan, rows: &Rows, selection: &[u32], columns: &[usize], merged: &Merged, answered: &[usize]) -> Statement {
    let mut statement = Statement::on(plan);
    let value_of = |row: u32, column: usize| match (merged.get(&(row, column)), rows.get(row as usize, column)) {
        (Some(bytes), _) => Some(bytes.as_slice()),
        (None, Value::Bytes(bytes)) => Some(bytes),
        (None, _) => None,
    };
    // Also outside of a transaction, where `BEGIN` keeps nobody from a plan that reads the whole table: with one row that is one reading at the worst.
    if let [row] = selection {
        let id = statement.bind(Param::value(&PgType::uuid(), Some(rows.id(*row as usize).to_vec())));
        let given = columns.iter().filter(|column| rows.get(*row as usize, **column) != Value::Absent);
        let set: Vec<String> = given
            .map(|column| {
                let ColumnPlan { pg_type, quoted, .. } = &plan.columns[*column];
                let place = statement.bind(Param::value(pg_type, value_of(*row, *column).map(<[u8]>::to_vec)));
                format!("{quoted} = {place}{}", cast(pg_type, false))
            })
            .collect();
        let text = format!("UPDATE {} AS t SET {} WHERE t.\"id\" = {id} RETURNING t.\"id\", t.\"version\"", plan.table, set.join(", "));
        statement.push(&text);
        answer(plan, answered, &mut statement);
        return statement;
    }
    let ids: Vec<[u8; 16]> = selection.iter().map(|row| rows.id(*row as usize)).collect();
    let mut places = vec![statement.bind(Param::ids(&ids))];
    let mut aliases = vec!["id".to_owned()];
    let mut set = Vec::with_capacity(columns.len());
    for column in columns {
        let column_plan = &plan.columns[*column];
        let values = selection.iter().map(|row| value_of(*row, *column));
        places.push(statement.bind(Param::list(&column_plan.pg_type, values)));
        aliases.push(format!("c{column}"));
        let value = format!("u.c{column}{}", cast(&column_plan.pg_type, false));
        let given: Vec<bool> = selection.iter().map(|row| rows.get(*row as usize, *column) != Value::Absent).collect();
        let name = &column_plan.quoted;
        if given.iter().all(|given| *given) {
            set.push(format!("{name} = {value}"));
        } else {
            places.push(statement.bind(Param::booleans(&given)));
            aliases.push(format!("g{column}"));
            set.push(format!("{name} = CASE WHEN u.g{column} THEN {value} ELSE t.{name} END"));
        }
    }
    let text = format!(
        "UPDATE {} AS t SET {} FROM unnest({}) WITH ORDINALITY AS u({}, o) WHERE t.\"id\" = u.id AND {FEW} \
         RETURNING t.\"id\", t.\"version\"",
        plan.table,
        set.join(", "),
        places.join(", "),
        aliases.join(", ")
    );
    statement.push(&text);
    answer(plan, answered, &mut statement);
    statement
}

/// Deletes; answers id and version.
pub fn delete(plan: &EntityPlan, ids: &[[u8; 16]]) -> Statement {
    let mut statement = Statement::on(plan);
    let place = statement.bind(Param::ids(ids));
    let text = format!(
        "DELETE FROM {} AS t USING unnest({place}) WITH ORDINALITY AS u(id, o) WHERE t.\"id\" = u.id AND {FEW} RETURNING t.\"id\", t.\"version\"",
        plan.table
    );
    statement.push(&text);
    statement
}

/// The ids that are there, locked so that they stay until the transaction ends. The table comes quoted.
pub fn present(table: &str, ids: &[[u8; 16]], lock: bool) -> Statement {
    let mut statement = Statement::default();
    let place = statement.bind(Param::ids(ids));
    let lock = if lock { " ORDER BY t.\"id\" FOR KEY SHARE OF t" } else { "" };
    statement.push(&format!(
        "SELECT t.\"id\" FROM unnest({place}) WITH ORDINALITY AS u(id, o) JOIN {table} AS t ON t.\"id\" = u.id AND {FEW}{lock}"
    ));
    statement
}

/// The members of the writable columns.
pub fn own_columns(plan: &EntityPlan) -> Vec<usize> {
    (SYSTEM..plan.columns.len()).collect()
}

/// Writes the context of a transaction into the log, for the relay.
pub fn context(json: String) -> Statement {
    Statement::fixed("SELECT pg_logical_emit_message(true, 'autonomy.context', $1)").with(Param::text(json))
}

/// Takes an idempotency key before what it is for is known; answers it where it was free. Waits for another transaction that takes it.
pub fn take_key(hash: &[u8; 32]) -> Statement {
    Statement::fixed("INSERT INTO autonomy.idempotency (key_hash) VALUES ($1) ON CONFLICT (key_hash) DO NOTHING RETURNING key_hash")
        .with(Param::value(&PgType::bytea(), Some(hash.to_vec())))
}

/// The answers kept for idempotency keys: key, request, status, answer as text.
pub fn kept_answers(hashes: &[[u8; 32]]) -> Statement {
    let text = format!(
        "SELECT i.key_hash, i.request_hash, i.status, i.response::text \
         FROM unnest($1) WITH ORDINALITY AS u(k, o) JOIN autonomy.idempotency AS i ON i.key_hash = u.k AND {FEW}"
    );
    Statement::fixed(&text).with(Param::byte_strings(hashes.iter().map(<[u8; 32]>::as_slice)))
}

/// What is kept for an idempotency key.
pub struct KeptAnswer {
    /// The key, hashed.
    pub key: [u8; 32],
    /// What the request was, where that matters.
    pub request: Option<[u8; 32]>,
    /// The answer's status.
    pub status: u16,
    /// The answer as JSON.
    pub answer: String,
}

/// Keeps answers for idempotency keys; answers the keys that were free. Waits for other transactions that take the same ones.
pub fn keep_answers(kept: &[KeptAnswer]) -> Statement {
    let statuses: Vec<[u8; 8]> = kept.iter().map(|kept| i64::from(kept.status).to_be_bytes()).collect();
    Statement::fixed(
        "INSERT INTO autonomy.idempotency (key_hash, request_hash, status, response) \
         SELECT u.k, u.r, u.s, u.a::jsonb FROM unnest($1, $2, $3, $4) AS u(k, r, s, a) ORDER BY u.k \
         ON CONFLICT (key_hash) DO NOTHING RETURNING key_hash",
    )
    .with(Param::byte_strings(kept.iter().map(|kept| kept.key.as_slice())))
    .with(Param::list(&PgType::bytea(), kept.iter().map(|kept| kept.request.as_ref().map(<[u8; 32]>::as_slice))))
    .with(Param::list(&PgType::bigint(), statuses.iter().map(|status| Some(status.as_slice()))))
    .with(Param::texts(kept.iter().map(|kept| kept.answer.as_str())))
}

/// Keeps the answer for an idempotency key that this transaction took, and what the request was.
pub fn keep_answer_and_request(hash: &[u8; 32], request: &[u8; 32], status: u16, answer: &str) -> Statement {
    Statement::fixed("UPDATE autonomy.idempotency SET request_hash = $2, status = $3, response = $4::jsonb WHERE key_hash = $1")
        .with(Param::value(&PgType::bytea(), Some(hash.to_vec())))
        .with(Param::value(&PgType::bytea(), Some(request.to_vec())))
        .with(Param::value(&PgType::bigint(), Some(i64::from(status).to_be_bytes().to_vec())))
        .with(Param::text(answer))
}

/// Forgets a bounded number of idempotency keys older than so many seconds; answers how many.
pub fn forget_keys(seconds: i64, most: i64) -> Statement {
    Statement::fixed(
        "WITH old AS (SELECT key_hash FROM autonomy.idempotency WHERE created_at < now() - make_interval(secs => $1) LIMIT $2 \
         FOR UPDATE SKIP LOCKED), \
         gone AS (DELETE FROM autonomy.idempotency AS i USING old WHERE i.key_hash = old.key_hash RETURNING 1) SELECT count(*) FROM gone",
    )
    .with(Param::value(&PgType::bigint(), Some(seconds.to_be_bytes().to_vec())))
    .with(Param::value(&PgType::bigint(), Some(most.to_be_bytes().to_vec())))
}
