//! Connections: who may have one, what becomes of it after a failure, and what an error of the database means.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::http::StatusCode;
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgConnection, PgDatabaseError};
use sqlx::{PgPool, Postgres};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::plan::EntityPlan;
use crate::problem::Problem;
use crate::sql::Statement;

/// How sessions are set up. Nobody waits for ever: not for a lock that a migration holds, and not for a statement gone astray.
pub const SETTINGS: [(&str, &str); 2] = [("lock_timeout", "10s"), ("statement_timeout", "120s")];

/// Lets requests to the database: a bounded number at a time, a bounded number waiting.
#[derive(Clone)]
pub struct Gate {
    pool: PgPool,
    places: Arc<Semaphore>,
    waiting: Arc<AtomicUsize>,
    most_waiting: usize,
    patience: Duration,
}

impl Gate {
    /// A gate of so many places. Those who wait longer than `patience` are sent away.
    pub fn new(pool: PgPool, places: usize, most_waiting: usize, patience: Duration) -> Self {
        Self { pool, places: Arc::new(Semaphore::new(places)), waiting: Arc::default(), most_waiting, patience }
    }

    /// A connection, with nothing begun on it.
    ///
    /// # Errors
    /// Where there is none to be had in time.
    pub async fn session(&self) -> Result<Session, Failure> {
        let busy = || Failure::Problem(Problem::unavailable("Too many requests are waiting for the database; try again."));
        let place = match self.places.clone().try_acquire_owned() {
            Ok(place) => place,
            Err(_) => {
                let _waiting = Waiting::enter(&self.waiting, self.most_waiting).ok_or_else(busy)?;
                match tokio::time::timeout(self.patience, self.places.clone().acquire_owned()).await {
                    Ok(Ok(place)) => place,
                    _ => return Err(busy()),
                }
            }
        };
        let connection = match tokio::time::timeout(self.patience, self.pool.acquire()).await {
            Ok(connection) => connection?,
            Err(_) => return Err(Failure::Problem(Problem::unavailable("The database can't be reached; try again."))),
        };
        Ok(Session { connection, clean: true, _place: place })
    }
}

struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn enter(count: &'a AtomicUsize, most: usize) -> Option<Self> {
        let guard = Self(count);
        (count.fetch_add(1, Ordering::Relaxed) < most).then_some(guard)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A connection of one request. Unless it is known to be clean it is closed afterwards and not used again: a request may be dropped at any
/// await, and a refused COPY can leave a connection out of step.
pub struct Session {
    connection: PoolConnection<Postgres>,
    clean: bool,
    _place: OwnedSemaphorePermit,
}

impl Session {
    /// The connection.
    pub fn connection(&mut self) -> &mut PgConnection {
        &mut self.connection
    }

    /// Begins a transaction.
    ///
    /// # Errors
    /// When the database refuses.
    pub async fn begin(&mut self, how: &'static str) -> Result<(), sqlx::Error> {
        self.clean = false;
        sqlx::raw_sql(how).execute(&mut *self.connection).await?;
        Ok(())
    }

    /// Commits.
    ///
    /// # Errors
    /// When the transaction did not commit, or when that is not known.
    pub async fn commit(&mut self) -> Result<(), sqlx::Error> {
        sqlx::raw_sql("COMMIT").execute(&mut *self.connection).await?;
        self.clean = true;
        Ok(())
    }

    /// Undoes the transaction; where that fails the connection is closed.
    pub async fn roll_back(&mut self) {
        if sqlx::raw_sql("ROLLBACK").execute(&mut *self.connection).await.is_ok() {
            self.clean = true;
        }
    }

    /// The connection is not used again.
    pub fn spoil(&mut self) {
        self.clean = false;
        self.connection.close_on_drop();
    }

    /// Runs a statement and gives its rows.
    ///
    /// # Errors
    /// When the database refuses.
    pub async fn rows(&mut self, statement: Statement) -> Result<Vec<sqlx::postgres::PgRow>, sqlx::Error> {
        statement.query()?.fetch_all(&mut *self.connection).await
    }

    /// Marks that a statement outside of a transaction is being done, or was done to its end.
    pub fn busy(&mut self, busy: bool) {
        self.clean = !busy;
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if !self.clean {
            self.connection.close_on_drop();
        }
    }
}

/// Why a request could not be done.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// It is answered with this.
    #[error("{}", .0.detail)]
    Problem(Problem),
    /// The database did not do what was asked.
    #[error("the database refused")]
    Database(#[from] sqlx::Error),
}

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Self {
        Self::Problem(problem)
    }
}

/// What an error of the database means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meaning {
    /// The tables are not what the catalog said when it was last read.
    Stale,
    /// Transactions were in one another's way: the same again may work.
    Conflict,
    /// The data is refused.
    Data,
    /// The database is away or has no room for more.
    Away,
    /// Anything else.
    Other,
}

/// What an error of the database means.
pub fn meaning(error: &sqlx::Error) -> Meaning {
    let sqlx::Error::Database(database) = error else {
        return match error {
            sqlx::Error::Io(_) | sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed | sqlx::Error::Tls(_) | sqlx::Error::Protocol(_) => {
                Meaning::Away
            }
            _ => Meaning::Other,
        };
    };
    let code = database.code().unwrap_or_default();
    match code.as_ref() {
        // A table, column or type that is not there, an attribute of another type, a cached plan of another result type.
        "42P01" | "42703" | "42704" | "42804" | "42883" | "42P10" | "0A000" | "22P03" | "3F000" | "42501" => Meaning::Stale,
        "40001" | "40P01" | "55P03" => Meaning::Conflict,
        "57014" | "57P01" | "57P02" | "57P03" | "53300" | "25006" => Meaning::Away,
        code if code.starts_with("08") || code.starts_with("53") => Meaning::Away,
        code if code.starts_with("22") || code.starts_with("23") || code == "21000" || code == "54000" => Meaning::Data,
        _ => Meaning::Other,
    }
}

/// The problem that a failure is, where no more can be said of it.
pub fn problem(failure: Failure) -> Problem {
    let error = match failure {
        Failure::Problem(problem) => return problem,
        Failure::Database(error) => error,
    };
    let chain = autonomy_process::telemetry::error_chain(&error);
    match meaning(&error) {
        Meaning::Away => {
            tracing::warn!(error = %chain, "the database is away");
            Problem::unavailable("The database can't be reached; try again.")
        }
        Meaning::Conflict => Problem::unavailable("Other transactions were in the way each time; try again."),
        Meaning::Stale => {
            tracing::warn!(error = %chain, "the tables are not what the catalog says");
            Problem::unavailable("The model is being changed; try again.")
        }
        Meaning::Data => {
            tracing::warn!(error = %chain, "the database refused data");
            Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid-body", "The database refused the data.")
        }
        Meaning::Other => {
            tracing::error!(error = %chain, "a request failed");
            Problem::internal()
        }
    }
}

/// What the database said of a constraint.
#[derive(Clone, Debug, Default)]
pub struct Violation {
    /// The SQLSTATE.
    pub code: String,
    /// The constraint's name.
    pub constraint: Option<String>,
    /// The table it is on.
    pub table: Option<(String, String)>,
    /// The column meant.
    pub column: Option<String>,
    /// The columns and the values' texts in the detail's `(a, b)=(1, 2)`.
    pub key: Option<(Vec<String>, String)>,
    /// The row of the COPY, from 1.
    pub copy_row: Option<u32>,
    /// The message, for what is not understood.
    pub message: String,
}

impl Violation {
    /// Reads an error of the database.
    pub fn of(error: &sqlx::Error) -> Option<Self> {
        let sqlx::Error::Database(database) = error else { return None };
        let postgres = database.try_downcast_ref::<PgDatabaseError>()?;
        let key = postgres.detail().and_then(|detail| {
            // The texts around are in the server's language, the parentheses are not.
            let (_, rest) = detail.split_once('(')?;
            let (columns, rest) = rest.split_once(")=(")?;
            let values = &rest[..rest.rfind(')')?];
            let columns = columns.split(", ").map(|column| column.trim_matches('"').to_owned()).collect();
            Some((columns, values.to_owned()))
        });
        let copy_row = postgres.r#where().filter(|place| place.starts_with("COPY ")).and_then(|place| {
            let digits = place.split_once(", line ")?.1;
            digits[..digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len())].parse().ok()
        });
        Some(Self {
            code: postgres.code().to_owned(),
            constraint: postgres.constraint().map(str::to_owned),
            table: postgres.schema().zip(postgres.table()).map(|(schema, table)| (schema.to_owned(), table.to_owned())),
            column: postgres.column().map(str::to_owned),
            key,
            copy_row,
            message: postgres.message().to_owned(),
        })
    }

    /// The columns of `plan` that this is about.
    pub fn columns(&self, plan: &EntityPlan) -> Vec<usize> {
        use autonomy_crds::resolved::Constraint;
        let entity = plan.entity();
        let names: Vec<&str> = match self.constraint.as_deref().and_then(|name| entity.constraint(name)) {
            Some(Constraint::PrimaryKey) => vec!["id"],
            Some(Constraint::Key) => entity.key.iter().map(String::as_str).collect(),
            Some(Constraint::Unique(column) | Constraint::ForeignKey(column) | Constraint::Limits(column)) => vec![&column.name],
            Some(Constraint::Index(index)) => index.columns.iter().map(String::as_str).collect(),
            Some(Constraint::Check(check)) => vec![&check.column, check.compared.column()],
            None => match (&self.column, &self.key) {
                (Some(column), _) => vec![column],
                (None, Some((columns, _))) => columns.iter().map(String::as_str).collect(),
                (None, None) => Vec::new(),
            },
        };
        names.into_iter().filter_map(|name| plan.column_of_name(name)).collect()
    }

    /// Whether it is on the table of that plan.
    pub fn is_on(&self, plan: &EntityPlan) -> bool {
        self.table.as_ref().is_some_and(|(schema, table)| *schema == plan.model.schema && *table == plan.entity().table)
    }
}
