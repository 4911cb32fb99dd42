//! What a database has beside the models: the schema `autonomy` with its tables and functions, the roles of API and relay, the publication.

use std::fmt;
use std::time::Duration;

use autonomy_crds::names::quote_identifier;
use sqlx::{AssertSqlSafe, PgConnection, PgPool};

use crate::scram;
use crate::sql::{PUBLICATION, api_role, quote_literal, relay_role};

/// The advisory lock under which everything here changes a database.
const ADVISORY_LOCK: i64 = 0x6175_746f_6e6f_6d79;
// Roles belong to the whole server, where no advisory lock of one database keeps others off them.
const TRIES: u32 = 20;

/// The passwords of the platform's own roles.
#[derive(Clone)]
pub struct PrepareSettings {
    /// The password of the object API's role; printable ASCII.
    pub api_password: String,
    /// The password of the relay's role; printable ASCII.
    pub relay_password: String,
}

impl fmt::Debug for PrepareSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PrepareSettings").finish_non_exhaustive()
    }
}

/// Why a database can't be prepared.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    /// A password has characters that would need SASLprep.
    #[error("the password of the role of the {0} must be of one or more printable ASCII characters")]
    Password(&'static str),
    /// The server does not write the log that change capture reads.
    #[error("PostgreSQL runs with wal_level={0}; the relay needs wal_level=logical: set it in postgresql.conf and restart the server")]
    WalLevel(String),
    /// The server is too old.
    #[error("PostgreSQL is of version {0}; 14 or newer is needed")]
    Version(String),
    /// The database refused.
    #[error(
        "the schema autonomy can't be made in the database; the role used must be a superuser or, from PostgreSQL 16 on, the database's owner with CREATEROLE and REPLICATION"
    )]
    Database(#[from] sqlx::Error),
}

/// Prepares a database; may be repeated at any time, and changes the roles' passwords to those given.
///
/// # Errors
/// When a password is not usable, the server is not fit for change capture, or a statement fails.
pub async fn prepare(admin: &PgPool, settings: &PrepareSettings) -> Result<(), PrepareError> {
    for (role, password) in [("API", &settings.api_password), ("relay", &settings.relay_password)] {
        if password.is_empty() || !password.bytes().all(|byte| (b' '..=b'~').contains(&byte)) {
            return Err(PrepareError::Password(role));
        }
    }
    check_server(admin).await?;
    let database: String = sqlx::query_scalar("SELECT current_database()::text").fetch_one(admin).await?;
    let statements = [SCHEMA.to_owned(), roles(&database, settings)].concat();
    let mut tries = 0;
    loop {
        tries += 1;
        match run(admin, &statements).await {
            Err(error) if tries < TRIES && concurrent_change(&error) => {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            outcome => return Ok(outcome?),
        }
    }
}

async fn check_server(admin: &PgPool) -> Result<(), PrepareError> {
    let (version, text, wal_level): (i32, String, String) = sqlx::query_as(
        "SELECT current_setting('server_version_num')::int, current_setting('server_version'), current_setting('wal_level')",
    )
    .fetch_one(admin)
    .await?;
    if version < 140_000 {
        return Err(PrepareError::Version(text));
    }
    if wal_level != "logical" {
        return Err(PrepareError::WalLevel(wal_level));
    }
    Ok(())
}

async fn run(admin: &PgPool, statements: &str) -> Result<(), sqlx::Error> {
    let mut transaction = admin.begin().await?;
    lock(&mut transaction).await?;
    sqlx::raw_sql("SET LOCAL standard_conforming_strings = on; SET LOCAL client_min_messages = warning").execute(&mut *transaction).await?;
    sqlx::raw_sql(AssertSqlSafe(statements.to_owned())).execute(&mut *transaction).await?;
    transaction.commit().await
}

/// Bounds how much log a replication slot may hold back, in MiB, where this role may set it; the largest wish of all databases of the server counts.
///
/// # Errors
/// When the server does not answer.
pub async fn limit_slots(admin: &PgPool, mebibytes: u32) -> Result<(), PrepareError> {
    let (superuser, now): (bool, i64) = sqlx::query_as(
        "SELECT current_setting('is_superuser')::boolean, (SELECT setting::bigint FROM pg_settings WHERE name = 'max_slot_wal_keep_size')",
    )
    .fetch_one(admin)
    .await?;
    if now >= i64::from(mebibytes) {
        return Ok(());
    }
    if !superuser {
        tracing::debug!(now, wanted = mebibytes, "max_slot_wal_keep_size is left to the server's administrator");
        return Ok(());
    }
    sqlx::raw_sql(AssertSqlSafe(format!("ALTER SYSTEM SET max_slot_wal_keep_size = '{mebibytes}MB'"))).execute(admin).await?;
    sqlx::raw_sql("SELECT pg_reload_conf()").execute(admin).await?;
    tracing::info!(mebibytes, "max_slot_wal_keep_size is set");
    Ok(())
}

/// Takes the operator's lock until the transaction ends.
pub(crate) async fn lock(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    poll_lock(connection, "SELECT pg_try_advisory_xact_lock($1)").await
}

/// Takes the operator's lock until the connection ends.
pub(crate) async fn lock_session(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    poll_lock(connection, "SELECT pg_try_advisory_lock($1)").await
}

// Asked again and again: one who waits inside a statement holds a snapshot, for which CREATE INDEX CONCURRENTLY of the holder would wait in turn.
async fn poll_lock(connection: &mut PgConnection, sql: &'static str) -> Result<(), sqlx::Error> {
    while !sqlx::query_scalar::<_, bool>(sql).bind(ADVISORY_LOCK).fetch_one(&mut *connection).await? {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

/// Whether a statement failed only because another one changed the same role at the same time.
pub(crate) fn concurrent_change(error: &sqlx::Error) -> bool {
    let sqlx::Error::Database(error) = error else { return false };
    let code = error.code();
    code.as_deref() == Some("XX000") && error.message().contains("concurrently")
        // Two transactions that made the same role.
        || code.as_deref() == Some("23505") && error.constraint().is_some_and(|name| name.starts_with("pg_auth"))
}

// Both roles read and write values in the one text form that the platform knows.
fn roles(database: &str, settings: &PrepareSettings) -> String {
    let (api_name, relay_name) = (api_role(database), relay_role(database));
    let (api, relay) = (quote_identifier(&api_name), quote_identifier(&relay_name));
    let mut sql = String::new();
    for (role, attributes, password) in [(&api, "LOGIN", &settings.api_password), (&relay, "LOGIN REPLICATION", &settings.relay_password)] {
        let verifier = quote_literal(&scram::verifier(password));
        sql.push_str(&format!(
            "DO $autonomy$ BEGIN CREATE ROLE {role}; EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END $autonomy$;\n\
             ALTER ROLE {role} {attributes} PASSWORD {verifier};\n\
             ALTER ROLE {role} SET timezone = 'UTC';\n\
             ALTER ROLE {role} SET datestyle = 'ISO';\n\
             ALTER ROLE {role} SET bytea_output = 'hex';\n\
             GRANT USAGE ON SCHEMA autonomy TO {role};\n\
             GRANT SELECT ON autonomy.catalog TO {role};\n"
        ));
    }
    let (api_literal, relay_literal) = (quote_literal(&api_name), quote_literal(&relay_name));
    sql.push_str(&format!(
        "INSERT INTO autonomy.platform (api_role, relay_role) VALUES ({api_literal}, {relay_literal})\n\
           ON CONFLICT (only_row) DO UPDATE SET api_role = excluded.api_role, relay_role = excluded.relay_role;\n\
         GRANT SELECT, INSERT, UPDATE, DELETE ON autonomy.idempotency TO {api};\n\
         GRANT SELECT, INSERT, UPDATE, DELETE ON autonomy.relay_stream, autonomy.relay_model TO {relay};\n\
         GRANT CONNECT, TEMPORARY ON DATABASE {} TO {api}, {relay};\n\
         DO $autonomy$ BEGIN\n\
           IF NOT EXISTS (SELECT FROM pg_publication WHERE pubname = '{PUBLICATION}') THEN\n\
             CREATE PUBLICATION {PUBLICATION} FOR TABLE autonomy.catalog;\n\
           END IF;\n\
         END $autonomy$;\n",
        quote_identifier(database)
    ));
    sql
}

const SCHEMA: &str = r#"
CREATE SCHEMA IF NOT EXISTS autonomy;

CREATE TABLE IF NOT EXISTS autonomy.catalog (
  model text PRIMARY KEY,
  uid uuid NOT NULL DEFAULT gen_random_uuid(),
  namespace text NOT NULL,
  revision bigint NOT NULL,
  resolved jsonb NOT NULL,
  sha256 text NOT NULL,
  applied_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE autonomy.catalog IS 'The models as they are served, changed in the transaction that changes their tables';
COMMENT ON COLUMN autonomy.catalog.uid IS 'Another one when a model was removed and applied again: the relay tells its changes from those of the model before';

CREATE TABLE IF NOT EXISTS autonomy.platform (
  only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
  api_role text NOT NULL,
  relay_role text NOT NULL
);
COMMENT ON TABLE autonomy.platform IS 'The roles of object API and relay on this database';

CREATE TABLE IF NOT EXISTS autonomy.idempotency (
  key_hash bytea PRIMARY KEY,
  request_hash bytea,
  status int,
  response jsonb,
  created_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX IF NOT EXISTS idempotency_created_at ON autonomy.idempotency USING brin (created_at);
COMMENT ON TABLE autonomy.idempotency IS 'Idempotency keys (sha256) with the answers given';

CREATE TABLE IF NOT EXISTS autonomy.relay_stream (
  stream text PRIMARY KEY,
  last_sequence bigint,
  last_position text,
  state text,
  updated_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE autonomy.relay_stream IS 'How far each JetStream stream is known to hold the changes';

CREATE TABLE IF NOT EXISTS autonomy.relay_model (
  model text PRIMARY KEY,
  uid uuid NOT NULL,
  resolved jsonb NOT NULL,
  updated_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE autonomy.relay_model IS 'The catalog as it was at the position the relay has confirmed: older changes are rendered by it';

CREATE OR REPLACE FUNCTION autonomy.touch() RETURNS trigger LANGUAGE plpgsql AS $function$
BEGIN
  IF NEW.id <> OLD.id THEN
    RAISE EXCEPTION 'the id of an object of % can not change', TG_TABLE_NAME USING ERRCODE = 'integrity_constraint_violation';
  END IF;
  NEW.version := OLD.version + 1;
  NEW.created_at := OLD.created_at;
  -- A transaction that began earlier may write later. The times of an object's versions follow one another all the same.
  NEW.updated_at := greatest(now(), OLD.updated_at);
  RETURN NEW;
END $function$;

CREATE OR REPLACE FUNCTION autonomy.part_sum(parts jsonb, member text) RETURNS numeric LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
  SET search_path = pg_catalog, pg_temp AS
  $function$ SELECT coalesce(sum((part->>member)::numeric), 0) FROM jsonb_array_elements(parts) AS part $function$;

CREATE OR REPLACE FUNCTION autonomy.refuse_truncate() RETURNS trigger LANGUAGE plpgsql AS $function$
BEGIN
  RAISE EXCEPTION 'TRUNCATE of % would leave no events of what is gone; use DELETE', TG_TABLE_NAME USING ERRCODE = 'feature_not_supported';
END $function$;

-- Runs as its owner, so that nobody else needs, or has, the right to write former versions; and only the owner can make a trigger of it.
-- A version ends when autonomy.touch says that the next one begins.
CREATE OR REPLACE FUNCTION autonomy.keep_history() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $function$
BEGIN
  EXECUTE format('INSERT INTO %I.%I (id, version, operation, valid_from, valid_to, "row")
    SELECT f.id, f.version, $1, f.updated_at, greatest(now(), f.updated_at), to_jsonb(f) FROM former AS f', TG_TABLE_SCHEMA, TG_ARGV[0])
    USING CASE TG_OP WHEN 'DELETE' THEN 'deleted' ELSE 'updated' END;
  RETURN NULL;
END $function$;
REVOKE ALL ON FUNCTION autonomy.keep_history() FROM PUBLIC;

"#;
