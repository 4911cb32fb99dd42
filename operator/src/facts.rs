//! What the planner knows about the data: how many rows the tables hold, and which tables of other models were renamed.

use std::collections::BTreeMap;

use autonomy_crds::Model;
use autonomy_crds::names::quote_identifier;
use autonomy_crds::resolved::Entity;
use sqlx::{AssertSqlSafe, PgPool};

/// Up to so many rows a table is small: reading or rewriting it within a transaction holds nobody up for more than a moment.
pub const SMALL_TABLE: u64 = 100_000;

/// How many rows a table holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rows {
    /// So many, at most [`SMALL_TABLE`].
    Counted(u64),
    /// More than that, or not known.
    Many,
}

impl Rows {
    /// Whether there are none.
    pub fn none(self) -> bool {
        self == Self::Counted(0)
    }

    /// Whether the table is small.
    pub fn few(self) -> bool {
        matches!(self, Self::Counted(_))
    }
}

/// Facts about a model's tables as they are.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Facts {
    /// Rows by table, of the model as it is; a table that is not here may hold any number.
    pub rows: BTreeMap<String, Rows>,
    /// Tables of other models by schema and former name: their names now. A reference to such a table follows it by itself.
    pub renamed: BTreeMap<(String, String), String>,
}

impl Facts {
    /// Facts of a database without data: every table of the model is empty.
    pub fn empty(current: Option<&Model>) -> Self {
        let tables = current.iter().flat_map(|model| &model.entities).flat_map(tables);
        Self { rows: tables.map(|table| (table, Rows::Counted(0))).collect(), renamed: BTreeMap::new() }
    }

    /// Adds the renames that other models declare.
    pub fn with_renames_of<'a>(mut self, others: impl IntoIterator<Item = &'a Model>) -> Self {
        for model in others {
            for entity in &model.entities {
                if let Some(former) = &entity.renamed_from_table {
                    self.renamed.insert((model.schema.clone(), former.clone()), entity.table.clone());
                }
            }
        }
        self
    }

    /// Counts the rows of a model's tables, each up to [`SMALL_TABLE`].
    ///
    /// # Errors
    /// When the database does not answer; a table that is not there counts as not known.
    pub async fn read(pool: &PgPool, current: Option<&Model>) -> Result<Self, sqlx::Error> {
        let mut facts = Self::default();
        let Some(model) = current else { return Ok(facts) };
        for name in model.entities.iter().flat_map(tables) {
            let table = format!("{}.{}", quote_identifier(&model.schema), quote_identifier(&name));
            let sql = format!("SELECT count(*) FROM (SELECT FROM {table} LIMIT {}) AS rows", SMALL_TABLE + 1);
            let counted: Result<i64, sqlx::Error> = sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(pool).await;
            let rows = match counted {
                Ok(count) => u64::try_from(count).ok().filter(|count| *count <= SMALL_TABLE).map_or(Rows::Many, Rows::Counted),
                // Dropped by hand: the plan is made from the catalog, and applying it tells.
                Err(sqlx::Error::Database(error)) if error.code().as_deref() == Some("42P01") => Rows::Many,
                Err(error) => return Err(error),
            };
            facts.rows.insert(name, rows);
        }
        Ok(facts)
    }
}

// An entity's table, and the one with its former versions.
fn tables(entity: &Entity) -> impl Iterator<Item = String> {
    std::iter::once(entity.table.clone()).chain(entity.history_table())
}
