//! What the tests against a real PostgreSQL have alike.
#![allow(dead_code, reason = "each test uses a part of it")]

use autonomy_crds::documents::{self, Resource};
use autonomy_crds::{DataModel, Model, resolve};
use autonomy_operator::prepare::{PrepareSettings, prepare};
use autonomy_servers::{Postgres, PostgresOptions};
use sqlx::postgres::PgPoolOptions;
use sqlx::{AssertSqlSafe, PgPool};

/// A PostgreSQL of the test's own.
pub struct Server {
    pub postgres: Postgres,
    admin: PgPool,
    _folder: tempfile::TempDir,
}

impl Server {
    pub async fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let mut options = PostgresOptions::new(folder.path().join("postgresql"));
        // Durability costs time and is not what is tested here.
        options.settings = vec![("fsync".to_owned(), "off".to_owned())];
        let postgres = Postgres::start(options).await.expect("PostgreSQL");
        let admin = PgPool::connect(&postgres.url("postgres")).await.expect("a connection");
        Self { postgres, admin, _folder: folder }
    }

    /// A new database, prepared.
    pub async fn database(&self, name: &str) -> PgPool {
        sqlx::raw_sql(AssertSqlSafe(format!("CREATE DATABASE {name}"))).execute(&self.admin).await.expect("a database");
        let pool = PgPoolOptions::new().max_connections(8).connect(&self.postgres.url(name)).await.expect("a connection");
        prepare(&pool, &settings()).await.expect("prepared");
        pool
    }
}

pub fn settings() -> PrepareSettings {
    PrepareSettings { api_password: "api's \\ password".to_owned(), relay_password: "relay".to_owned() }
}

/// The DataModels of a YAML text.
pub fn data_models(yaml: &str) -> Vec<DataModel> {
    let resources = documents::parse("test.yaml", yaml).expect("documents");
    let of_kind = |resource| match resource {
        Resource::DataModel(model) => Some(model),
        _ => None,
    };
    resources.into_iter().filter_map(of_kind).collect()
}

/// The models of a YAML text, imports first.
pub fn models(yaml: &str) -> Vec<Model> {
    resolve::resolve_all(&data_models(yaml)).expect("resolved")
}

/// A model `shop` of the body of its spec.
pub fn shop(spec: &str) -> Model {
    let indented: String = spec.lines().map(|line| format!("  {line}\n")).collect();
    models(&format!("apiVersion: autonomy.dev/v1alpha1\nkind: DataModel\nmetadata: {{name: shop}}\nspec:\n{indented}")).remove(0)
}

pub async fn execute(pool: &PgPool, sql: &str) {
    sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(pool).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
}

pub async fn text(pool: &PgPool, sql: &str) -> String {
    sqlx::query_scalar(AssertSqlSafe(sql.to_owned())).fetch_one(pool).await.unwrap_or_else(|error| panic!("{sql}: {error}"))
}

/// Everything that PostgreSQL knows of a schema, a line each, sorted; places of columns left out.
pub async fn introspect(pool: &PgPool, schema: &str) -> Vec<String> {
    let lines: Vec<String> = sqlx::query_scalar(INTROSPECTION).bind(schema).fetch_all(pool).await.expect("introspected");
    lines
}

const INTROSPECTION: &str = r"
WITH spaces AS (SELECT * FROM pg_namespace WHERE nspname = $1),
relations AS (SELECT class.oid AS relation, relname, relkind, relreplident, relacl FROM pg_class class JOIN spaces ON class.relnamespace = spaces.oid)
SELECT line FROM (
  SELECT format('schema acl=%s comment=%s', nspacl, obj_description(oid, 'pg_namespace')) AS line FROM spaces
  UNION ALL
  SELECT format('relation %s kind=%s identity=%s acl=%s comment=%s published=%s', relname, relkind, relreplident,
    (SELECT string_agg(item::text, ',' ORDER BY item::text) FROM unnest(relacl) item), obj_description(relation, 'pg_class'),
    EXISTS (SELECT FROM pg_publication_rel published WHERE published.prrelid = relation)) FROM relations WHERE relkind IN ('r', 'v')
  UNION ALL
  SELECT format('column %s.%s %s notnull=%s default=%s comment=%s', relname, attname, format_type(atttypid, atttypmod), attnotnull,
    pg_get_expr(adbin, adrelid), col_description(relation, attnum))
    FROM relations JOIN pg_attribute ON attrelid = relation LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
    WHERE relkind IN ('r', 'v') AND attnum > 0 AND NOT attisdropped
  UNION ALL
  SELECT format('constraint %s %s %s valid=%s', relname, conname, pg_get_constraintdef(pg_constraint.oid), convalidated)
    FROM relations JOIN pg_constraint ON conrelid = relation
  UNION ALL
  SELECT format('index %s valid=%s', pg_get_indexdef(relation), indisvalid) FROM relations JOIN pg_index ON indexrelid = relation
  UNION ALL
  SELECT format('view %s %s', relname, pg_get_viewdef(relation)) FROM relations WHERE relkind = 'v'
  UNION ALL
  SELECT format('trigger %s %s', relname, pg_get_triggerdef(pg_trigger.oid)) FROM relations JOIN pg_trigger ON tgrelid = relation
    WHERE NOT tgisinternal
  UNION ALL
  SELECT format('enumeration %s %s comment=%s', typname, (SELECT string_agg(enumlabel, ',' ORDER BY enumsortorder) FROM pg_enum
    WHERE enumtypid = pg_type.oid), obj_description(pg_type.oid, 'pg_type')) FROM pg_type JOIN spaces ON typnamespace = spaces.oid
    WHERE typtype = 'e'
) AS lines ORDER BY line
";
