//! Where the database differs from the catalog: what was changed by hand, or left undone when a process died between a plan's transaction and
//! its last phase. What holds no data is made good (indexes, grants, triggers, replica identity, publication, views, constraints that were not
//! validated yet); missing tables, columns and constraints and other types are told.

use std::collections::{BTreeMap, BTreeSet};

use autonomy_crds::Model;
use autonomy_crds::resolved::SYSTEM_COLUMNS;
use sqlx::postgres::PgRow;
use sqlx::{AssertSqlSafe, PgConnection, PgPool, Row};

use crate::apply::with_lock;
use crate::shape::{HistoryShape, Shape, SqlType, TableShape};
use crate::sql::{self, HISTORY_COLUMNS, HISTORY_TRIGGERS, PUBLICATION, TOUCH_TRIGGER, TRUNCATE_TRIGGER, Upkeep};
use crate::step::Step;

/// How a database differs from a model of its catalog.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Drift {
    /// What can be made good: each with the statements that do.
    pub repairs: Vec<Repair>,
    /// What somebody has to look at.
    pub differences: Vec<String>,
}

/// Something that can be made good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repair {
    /// What is wrong.
    pub what: String,
    /// What makes it good, each outside a transaction.
    pub statements: Vec<String>,
}

/// Compares the database with a model that the catalog has.
///
/// # Errors
/// When the database can't be read.
pub async fn inspect(connection: &mut PgConnection, model: &Model) -> Result<Drift, sqlx::Error> {
    let shape = Shape::of(model);
    let actual = Actual::read(connection, &shape).await?;
    Ok(Comparison { shape: &shape, actual: &actual, drift: Drift::default() }.run())
}

/// Compares the database with a model that the catalog has and makes good what can be. Gives what was found.
///
/// # Errors
/// When the database can't be read or a repair fails.
pub async fn repair(pool: &PgPool, model: &Model) -> Result<Drift, sqlx::Error> {
    with_lock(pool, async |connection| {
        let drift = inspect(connection, model).await?;
        for repair in &drift.repairs {
            tracing::warn!(model = model.name, "repairing: {}", repair.what);
            for statement in &repair.statements {
                sqlx::raw_sql(AssertSqlSafe(statement.clone())).execute(&mut *connection).await?;
            }
        }
        Ok(drift)
    })
    .await
}

// A relation of the schema.
struct Relation {
    is_view: bool,
    identity_full: bool,
    published: bool,
    touched: bool,
    guarded: bool,
    readable: bool,
    writable: bool,
    // Whether those who write rows read here, and change nothing.
    read_only: bool,
    keeps_updated: bool,
    keeps_deleted: bool,
}

impl Relation {
    fn named(row: &PgRow) -> Result<(String, Self), sqlx::Error> {
        let relation = Self {
            is_view: row.try_get("is_view")?,
            identity_full: row.try_get("identity_full")?,
            published: row.try_get("published")?,
            touched: row.try_get("touched")?,
            guarded: row.try_get("guarded")?,
            readable: row.try_get("readable")?,
            writable: row.try_get("writable")?,
            read_only: row.try_get("read_only")?,
            keeps_updated: row.try_get("keeps_updated")?,
            keeps_deleted: row.try_get("keeps_deleted")?,
        };
        Ok((row.try_get("name")?, relation))
    }
}

// The schema as it is, by table and name.
struct Actual {
    accessible: bool,
    relations: BTreeMap<String, Relation>,
    columns: BTreeMap<(String, String), (String, bool)>,
    constraints: BTreeMap<(String, String), bool>,
    indexes: BTreeMap<String, bool>,
    enumerations: BTreeMap<String, Vec<String>>,
}

impl Actual {
    async fn read(connection: &mut PgConnection, shape: &Shape) -> Result<Self, sqlx::Error> {
        let schema = &shape.schema;
        let relations = sqlx::query(RELATIONS)
            .bind(schema)
            .bind(PUBLICATION)
            .bind(TOUCH_TRIGGER)
            .bind(TRUNCATE_TRIGGER)
            .bind(&shape.reader)
            .bind(&shape.writer)
            .bind(HISTORY_TRIGGERS[0].1)
            .bind(HISTORY_TRIGGERS[1].1)
            .fetch_all(&mut *connection)
            .await?
            .iter()
            .map(Relation::named)
            .collect::<Result<_, _>>()?;
        let columns: Vec<(String, String, String, bool)> = sqlx::query_as(COLUMNS).bind(schema).fetch_all(&mut *connection).await?;
        let constraints: Vec<(String, String, bool)> = sqlx::query_as(CONSTRAINTS).bind(schema).fetch_all(&mut *connection).await?;
        let indexes: Vec<(String, bool)> = sqlx::query_as(INDEXES).bind(schema).fetch_all(&mut *connection).await?;
        let enumerations: Vec<(String, Vec<String>)> = sqlx::query_as(ENUMERATIONS).bind(schema).fetch_all(&mut *connection).await?;
        let accessible: bool =
            sqlx::query_scalar(ACCESS).bind(schema).bind(&shape.reader).bind(&shape.writer).fetch_one(&mut *connection).await?;
        Ok(Self {
            accessible,
            relations,
            columns: columns.into_iter().map(|(table, name, sql_type, required)| ((table, name), (sql_type, required))).collect(),
            constraints: constraints.into_iter().map(|(table, name, validated)| ((table, name), validated)).collect(),
            indexes: indexes.into_iter().collect(),
            enumerations: enumerations.into_iter().collect(),
        })
    }
}

struct Comparison<'a> {
    shape: &'a Shape,
    actual: &'a Actual,
    drift: Drift,
}

impl Comparison<'_> {
    fn run(mut self) -> Drift {
        if !self.actual.accessible {
            let statements = sql::schema_access(&self.shape.schema, &self.shape.reader, &self.shape.writer);
            self.repair(format!("the roles of schema {} lack access", self.shape.schema), statements);
        }
        for enumeration in &self.shape.enumerations {
            let there = self.actual.enumerations.get(&enumeration.name);
            if there != Some(&enumeration.values) {
                self.differs(format!("enumeration {} has the values {there:?}, not {:?}", enumeration.name, enumeration.values));
            }
        }
        for table in &self.shape.tables {
            match self.actual.relations.get(&table.name).filter(|relation| !relation.is_view) {
                None => self.differs(format!("table {} is not there", table.name)),
                Some(relation) => self.table(table, relation),
            }
        }
        self.views();
        let tables =
            self.shape.tables.iter().flat_map(|table| std::iter::once(&table.name).chain(table.history.iter().map(|kept| &kept.table)));
        let known: BTreeSet<&String> = tables.chain(self.shape.views.iter().map(|view| &view.name)).collect();
        for name in self.actual.relations.keys().filter(|name| !known.contains(name)) {
            self.differs(format!("{name} is in the schema, but not in the model"));
        }
        self.drift
    }

    fn table(&mut self, table: &TableShape, relation: &Relation) {
        self.columns(table);
        self.constraints(table);
        let (schema, reader, writer) = (&self.shape.schema, &self.shape.reader, &self.shape.writer);
        for (upkeep, there) in [
            (Upkeep::ReplicaIdentity, relation.identity_full),
            (Upkeep::TouchTrigger, relation.touched),
            (Upkeep::TruncateTrigger, relation.guarded),
            (Upkeep::Grants, relation.readable && relation.writable),
            (Upkeep::Publication, relation.published),
        ] {
            if !there {
                let mut statements = vec![upkeep.statement(schema, &table.name, reader, writer)];
                // A trigger that is there may be switched off.
                if let Some(trigger) = match upkeep {
                    Upkeep::TouchTrigger => Some(TOUCH_TRIGGER),
                    Upkeep::TruncateTrigger => Some(TRUNCATE_TRIGGER),
                    _ => None,
                } {
                    statements.push(format!("ALTER TABLE {} ENABLE TRIGGER {trigger}", sql::qualified(schema, &table.name)));
                }
                self.repair(format!("table {} lacks {upkeep:?}", table.name), statements);
            }
        }
        if let Some(history) = &table.history {
            self.history(table, relation, history);
        }
        for index in &table.indexes {
            let create = Step::CreateIndex { table: table.name.clone(), index: index.clone(), concurrently: true };
            self.index(&index.name, sql::statements(schema, &create));
        }
    }

    fn index(&mut self, name: &str, mut statements: Vec<String>) {
        match self.actual.indexes.get(name) {
            Some(true) => {}
            Some(false) => {
                statements.insert(0, format!("DROP INDEX CONCURRENTLY {}", sql::qualified(&self.shape.schema, name)));
                self.repair(format!("index {name} is not whole"), statements);
            }
            None => self.repair(format!("index {name} is not there"), statements),
        }
    }

    // Former versions that are gone can't be made again: a missing table is told, as any other.
    fn history(&mut self, table: &TableShape, relation: &Relation, history: &HistoryShape) {
        let (schema, reader, writer) = (&self.shape.schema, &self.shape.reader, &self.shape.writer);
        let Some(there) = self.actual.relations.get(&history.table).filter(|relation| !relation.is_view) else {
            return self.differs(format!("table {} is not there", history.table));
        };
        if !relation.keeps_deleted || history.updates && !relation.keeps_updated {
            let mut statements = sql::history_triggers(schema, &table.name, Some(history));
            let wanted = HISTORY_TRIGGERS.iter().filter(|(event, _)| *event == "DELETE" || history.updates);
            // A trigger that is there may be switched off.
            statements
                .extend(wanted.map(|(_, trigger)| format!("ALTER TABLE {} ENABLE TRIGGER {trigger}", sql::qualified(schema, &table.name))));
            self.repair(format!("table {} does not keep its former versions", table.name), statements);
        }
        if !there.readable || !there.read_only {
            let statements = vec![sql::history_reading(schema, history, reader, writer)];
            self.repair(format!("table {} is not for reading alone", history.table), statements);
        }
        self.index(&history.index, vec![sql::history_index(schema, history, true)]);
        for (name, sql_type) in HISTORY_COLUMNS {
            let column = self.actual.columns.get(&(history.table.clone(), name.to_owned()));
            if column.is_none_or(|(there, _)| there != sql_type) {
                self.differs(format!("column {}.{name} is not there as {sql_type}", history.table));
            }
        }
        if !self.actual.constraints.contains_key(&(history.table.clone(), history.primary_key.clone())) {
            self.differs(format!("constraint {} of table {} is not there", history.primary_key, history.table));
        }
    }

    fn columns(&mut self, table: &TableShape) {
        for column in &table.columns {
            let name = format!("{}.{}", table.name, column.name);
            match self.actual.columns.get(&(table.name.clone(), column.name.clone())) {
                None => self.differs(format!("column {name} is not there")),
                Some((sql_type, required)) => {
                    let wanted = type_in_catalog(&column.sql_type);
                    if *sql_type != wanted {
                        self.differs(format!("column {name} is of type {sql_type}, not {wanted}"));
                    }
                    if *required != column.required {
                        let words = if column.required { "takes NULL" } else { "does not take NULL" };
                        self.differs(format!("column {name} {words}, other than the model says"));
                    }
                }
            }
        }
        let is_known = |name: &str| table.column(name).is_some() || SYSTEM_COLUMNS.iter().any(|(system, _)| *system == name);
        let more: Vec<String> =
            self.actual.columns.keys().filter(|(of, name)| *of == table.name && !is_known(name)).map(|(_, name)| name.clone()).collect();
        for name in more {
            self.differs(format!("column {}.{name} is in the table, but not in the model", table.name));
        }
    }

    fn constraints(&mut self, table: &TableShape) {
        for name in table.constraints.iter().map(|constraint| &constraint.name).chain([&table.primary_key]) {
            match self.actual.constraints.get(&(table.name.clone(), name.clone())) {
                Some(true) => {}
                Some(false) => {
                    let step = Step::ValidateConstraint { table: table.name.clone(), constraint: name.clone() };
                    self.repair(format!("constraint {name} was not validated"), sql::statements(&self.shape.schema, &step));
                }
                None => self.differs(format!("constraint {name} of table {} is not there", table.name)),
            }
        }
    }

    fn views(&mut self) {
        for view in &self.shape.views {
            let there = self.actual.relations.get(&view.name);
            if there.is_none_or(|there| !there.readable) && self.actual.relations.contains_key(&view.owner) {
                let mut statements = sql::statements(&self.shape.schema, &Step::DropView { view: view.name.clone() });
                let (reader, writer) = (self.shape.reader.clone(), self.shape.writer.clone());
                statements.extend(sql::statements(&self.shape.schema, &Step::CreateView { view: view.clone(), reader, writer }));
                self.repair(format!("view {} is not there or can't be read", view.name), statements);
            }
        }
    }

    fn repair(&mut self, what: String, statements: Vec<String>) {
        self.drift.repairs.push(Repair { what, statements });
    }

    fn differs(&mut self, difference: String) {
        self.drift.differences.push(difference);
    }
}

// A type as PostgreSQL's `format_type` gives it; an enumeration as schema and name.
fn type_in_catalog(sql_type: &SqlType) -> String {
    match sql_type {
        SqlType::Varchar(most) => format!("character varying({most})"),
        SqlType::NumericOf { precision, scale } => format!("numeric({precision},{scale})"),
        SqlType::Timestamptz => "timestamp with time zone".to_owned(),
        SqlType::Enumeration { schema, name } => format!("{schema}.{name}"),
        other => sql::type_name(other),
    }
}

// A role that is not there has no privileges.
const RELATIONS: &str = "
SELECT relname::text AS name, relkind = 'v' AS is_view, relreplident = 'f' AS identity_full,
  EXISTS (SELECT FROM pg_publication_rel JOIN pg_publication ON pg_publication.oid = prpubid WHERE prrelid = pg_class.oid AND pubname = $2) AS published,
  EXISTS (SELECT FROM pg_trigger WHERE tgrelid = pg_class.oid AND tgname = $3 AND tgenabled IN ('O', 'A')) AS touched,
  EXISTS (SELECT FROM pg_trigger WHERE tgrelid = pg_class.oid AND tgname = $4 AND tgenabled IN ('O', 'A')) AS guarded,
  coalesce((SELECT has_table_privilege(oid, pg_class.oid, 'SELECT') FROM pg_roles WHERE rolname = $5), false) AS readable,
  coalesce((SELECT has_table_privilege(oid, pg_class.oid, 'SELECT') AND has_table_privilege(oid, pg_class.oid, 'INSERT')
    AND has_table_privilege(oid, pg_class.oid, 'UPDATE') AND has_table_privilege(oid, pg_class.oid, 'DELETE')
    FROM pg_roles WHERE rolname = $6), false) AS writable,
  coalesce((SELECT has_table_privilege(oid, pg_class.oid, 'SELECT')
    AND NOT has_table_privilege(oid, pg_class.oid, 'INSERT, UPDATE, DELETE, TRUNCATE') FROM pg_roles WHERE rolname = $6), false) AS read_only,
  EXISTS (SELECT FROM pg_trigger WHERE tgrelid = pg_class.oid AND tgname = $7 AND tgenabled IN ('O', 'A')) AS keeps_updated,
  EXISTS (SELECT FROM pg_trigger WHERE tgrelid = pg_class.oid AND tgname = $8 AND tgenabled IN ('O', 'A')) AS keeps_deleted
FROM pg_class WHERE relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = $1) AND relkind IN ('r', 'v')";

const COLUMNS: &str = "
SELECT relname::text, attname::text,
  CASE WHEN typtype = 'e' THEN nspname || '.' || typname ELSE format_type(atttypid, atttypmod) END, attnotnull
FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid JOIN pg_type ON pg_type.oid = atttypid
  JOIN pg_namespace ON pg_namespace.oid = typnamespace
WHERE relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = $1) AND relkind = 'r' AND attnum > 0 AND NOT attisdropped";

const CONSTRAINTS: &str = "
SELECT relname::text, conname::text, convalidated FROM pg_constraint JOIN pg_class ON pg_class.oid = conrelid
WHERE relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = $1)";

const INDEXES: &str = "
SELECT relname::text, indisvalid FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid
WHERE relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = $1)";

const ENUMERATIONS: &str = "
SELECT typname::text, array_agg(enumlabel::text ORDER BY enumsortorder) FROM pg_enum JOIN pg_type ON pg_type.oid = enumtypid
WHERE typnamespace = (SELECT oid FROM pg_namespace WHERE nspname = $1) GROUP BY typname";

const ACCESS: &str = "
SELECT (SELECT count(*) = 2 FROM pg_roles, pg_namespace
    WHERE rolname IN ($2, $3) AND nspname = $1 AND has_schema_privilege(pg_roles.oid, pg_namespace.oid, 'USAGE'))
  AND (SELECT count(*) = 2 FROM pg_auth_members
    JOIN pg_roles given ON given.oid = roleid JOIN pg_roles member ON member.oid = pg_auth_members.member
      CROSS JOIN autonomy.platform
    WHERE (given.rolname = $2 AND member.rolname = relay_role) OR (given.rolname = $3 AND member.rolname = api_role))";
