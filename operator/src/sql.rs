//! Steps as SQL: the one place where the operator writes DDL. Identifiers go through [`quote_identifier`], values through [`quote_literal`].

mod history;

use autonomy_crds::names::{quote_identifier, shortened};
use autonomy_crds::resolved::{Compared, OnDelete};
use base64::Engine;
use serde_json::Value;

use crate::catalog::hex_sha256;
use crate::shape::{CheckShape, ColumnShape, ConstraintShape, EnumerationShape, IndexShape, Rule, SqlType, TableShape, ViewShape};
use crate::step::{Described, Step};
pub use history::{HISTORY_COLUMNS, HISTORY_TRIGGERS, history_index, history_reading, history_triggers};

/// The role of the object API on a database. Roles and slots are the whole server's, so the database is in their names.
pub fn api_role(database: &str) -> String {
    shortened(format!("autonomy_{database}_api"))
}

/// The role of the relay on a database.
pub fn relay_role(database: &str) -> String {
    shortened(format!("autonomy_{database}_relay"))
}

/// The relay's replication slot on a database. A slot's name has lower case letters, digits and underscores only.
pub fn slot(database: &str) -> String {
    let plain = |character: char| if character.is_ascii_lowercase() || character.is_ascii_digit() { character } else { '_' };
    let readable: String = database.chars().map(plain).collect();
    if readable == database {
        shortened(format!("autonomy_{readable}"))
    } else {
        let hash = &hex_sha256(database.as_bytes())[..8];
        shortened(format!("autonomy_{readable}_{hash}"))
    }
}

/// The publication that the relay follows.
pub const PUBLICATION: &str = "autonomy";

/// A string literal. Needs `standard_conforming_strings`, which [`crate::apply`] sets.
pub fn quote_literal(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('\'');
    for character in text.chars() {
        match character {
            // PostgreSQL has no text with NUL.
            '\0' => {}
            '\'' => quoted.push_str("''"),
            _ => quoted.push(character),
        }
    }
    quoted.push('\'');
    quoted
}

/// A name within a schema.
pub fn qualified(schema: &str, name: &str) -> String {
    format!("{}.{}", quote_identifier(schema), quote_identifier(name))
}

/// The statements of a step on a model's schema, in order, without semicolons.
pub fn statements(schema: &str, step: &Step) -> Vec<String> {
    let on = |table: &str| format!("ALTER TABLE {}", qualified(schema, table));
    let q = quote_identifier;
    match step {
        Step::CreateSchema { reader, writer } => create_schema(schema, reader, writer),
        Step::RenameTable { table, to } => vec![format!("{} RENAME TO {}", on(table), q(to))],
        Step::RenameColumn { table, column, to } => vec![format!("{} RENAME COLUMN {} TO {}", on(table), q(column), q(to))],
        Step::RenameConstraint { table, constraint, to } => {
            vec![format!("{} RENAME CONSTRAINT {} TO {}", on(table), q(constraint), q(to))]
        }
        Step::RenameIndex { index, to } => vec![format!("ALTER INDEX {} RENAME TO {}", qualified(schema, index), q(to))],
        Step::CreateEnumeration(enumeration) => vec![create_enumeration(schema, enumeration)],
        Step::AddEnumerationValue { enumeration, value, before } => {
            let place = before.as_ref().map(|before| format!(" BEFORE {}", quote_literal(before))).unwrap_or_default();
            vec![format!("ALTER TYPE {} ADD VALUE IF NOT EXISTS {}{place}", qualified(schema, enumeration), quote_literal(value))]
        }
        Step::ReplaceEnumeration { enumeration, columns } => replace_enumeration(schema, enumeration, columns),
        Step::DropEnumeration { enumeration } => vec![format!("DROP TYPE {}", qualified(schema, enumeration))],
        Step::DropView { view } => vec![format!("DROP VIEW IF EXISTS {}", qualified(schema, view))],
        Step::CreateView { view, reader, writer } => create_view(schema, view, reader, writer),
        Step::CreateTable { table, reader, writer } => create_table(schema, table, reader, writer),
        Step::DropTable { table } => vec![format!("DROP TABLE {}", qualified(schema, table))],
        Step::AddColumn { table, column } => vec![format!("{} ADD COLUMN {}", on(table), column_definition(column))],
        Step::DropColumn { table, column } => vec![format!("{} DROP COLUMN {}", on(table), q(column))],
        Step::ChangeType { table, column, from, to } => {
            let using = conversion(column, from, to).map(|using| format!(" USING {using}")).unwrap_or_default();
            vec![format!("{} ALTER COLUMN {} TYPE {}{using}", on(table), q(column), type_name(to))]
        }
        Step::SetDefault { table, column, sql_type, default } => vec![match default {
            Some(default) => format!("{} ALTER COLUMN {} SET DEFAULT {}", on(table), q(column), value(default, sql_type)),
            None => format!("{} ALTER COLUMN {} DROP DEFAULT", on(table), q(column)),
        }],
        Step::SetRequired { table, column, required } => {
            let verb = if *required { "SET" } else { "DROP" };
            vec![format!("{} ALTER COLUMN {} {verb} NOT NULL", on(table), q(column))]
        }
        Step::AddConstraint { table, constraint, validated } => {
            let later = if *validated { "" } else { " NOT VALID" };
            vec![format!("{} ADD {}{later}", on(table), constraint_definition(constraint))]
        }
        Step::ValidateConstraint { table, constraint } => vec![format!("{} VALIDATE CONSTRAINT {}", on(table), q(constraint))],
        Step::DropConstraint { table, constraint } => vec![format!("{} DROP CONSTRAINT {}", on(table), q(constraint))],
        Step::CreateIndex { table, index, concurrently } => vec![create_index(schema, table, index, *concurrently)],
        Step::DropIndex { index } => vec![format!("DROP INDEX {}", qualified(schema, index))],
        Step::ChangeParts { table, column, renamed, removed, added, .. } => {
            change_parts(schema, table, column, renamed, removed, added).into_iter().collect()
        }
        Step::CreateHistory { history, reader, writer } => history::create(schema, history, reader, writer),
        Step::KeepHistory { table, history } => history_triggers(schema, table, history.as_ref()),
        Step::ChangeHistory { history, column, change } => vec![history::change(schema, history, column, change)],
        Step::Describe { what, text } => vec![describe(schema, what, text.as_deref())],
    }
}

fn create_schema(schema: &str, reader: &str, writer: &str) -> Vec<String> {
    let mut statements = vec![format!("CREATE SCHEMA {}", quote_identifier(schema))];
    statements.extend(schema_access(schema, reader, writer));
    statements
}

/// The roles of a schema and what they may; may be repeated.
pub fn schema_access(schema: &str, reader: &str, writer: &str) -> Vec<String> {
    let q = quote_identifier;
    // Roles belong to the whole server: another database's model may have made one already.
    let role = |role| {
        let create = format!("CREATE ROLE {} NOLOGIN", q(role));
        format!("DO $autonomy$ BEGIN {create}; EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END $autonomy$")
    };
    vec![
        role(reader),
        role(writer),
        format!("GRANT USAGE ON SCHEMA {} TO {}, {}", q(schema), q(reader), q(writer)),
        grant_to("relay_role", reader),
        grant_to("api_role", writer),
    ]
}

// The roles of API and relay bear the database's name, which a plan does not know.
fn grant_to(platform_role: &str, role: &str) -> String {
    let grant = quote_literal(role);
    format!(
        "DO $autonomy$ BEGIN EXECUTE (SELECT format('GRANT %I TO %I', {grant}, {platform_role}) FROM autonomy.platform); END $autonomy$"
    )
}

fn create_enumeration(schema: &str, enumeration: &EnumerationShape) -> String {
    let values: Vec<String> = enumeration.values.iter().map(|value| quote_literal(value)).collect();
    format!("CREATE TYPE {} AS ENUM ({})", qualified(schema, &enumeration.name), values.join(", "))
}

fn replace_enumeration(schema: &str, enumeration: &EnumerationShape, columns: &[(String, String, Option<Value>)]) -> Vec<String> {
    let wanted = qualified(schema, &enumeration.name);
    // `__` is in no name that a model gives.
    let former = autonomy_crds::names::shortened(format!("former__{}", enumeration.name));
    let sql_type = SqlType::Enumeration { schema: schema.to_owned(), name: enumeration.name.clone() };
    let mut statements =
        vec![format!("ALTER TYPE {wanted} RENAME TO {}", quote_identifier(&former)), create_enumeration(schema, enumeration)];
    for (table, column, default) in columns {
        let (table, column) = (qualified(schema, table), quote_identifier(column));
        statements.push(format!("ALTER TABLE {table} ALTER COLUMN {column} DROP DEFAULT"));
        statements.push(format!("ALTER TABLE {table} ALTER COLUMN {column} TYPE {wanted} USING {column}::text::{wanted}"));
        if let Some(default) = default {
            statements.push(format!("ALTER TABLE {table} ALTER COLUMN {column} SET DEFAULT {}", value(default, &sql_type)));
        }
    }
    statements.push(format!("DROP TYPE {}", qualified(schema, &former)));
    statements
}

fn create_table(schema: &str, table: &TableShape, reader: &str, writer: &str) -> Vec<String> {
    let name = qualified(schema, &table.name);
    let mut lines = vec![
        format!("\"id\" uuid DEFAULT gen_random_uuid() CONSTRAINT {} PRIMARY KEY", quote_identifier(&table.primary_key)),
        "\"version\" bigint DEFAULT 1 NOT NULL".to_owned(),
        "\"created_at\" timestamptz DEFAULT now() NOT NULL".to_owned(),
        "\"updated_at\" timestamptz DEFAULT now() NOT NULL".to_owned(),
    ];
    lines.extend(table.columns.iter().map(column_definition));
    let own = table.constraints.iter().filter(|constraint| !matches!(constraint.rule, Rule::Reference { .. }));
    lines.extend(own.map(constraint_definition));
    let mut statements = vec![format!("CREATE TABLE {name} (\n  {}\n)", lines.join(",\n  "))];
    statements.extend(Upkeep::ALL.map(|upkeep| upkeep.statement(schema, &table.name, reader, writer)));
    statements
}

/// What every table of a model has beside its columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Upkeep {
    /// The whole row before a change is in the log.
    ReplicaIdentity,
    /// `autonomy.touch` raises the version.
    TouchTrigger,
    /// `autonomy.refuse_truncate`: no row goes without an event.
    TruncateTrigger,
    /// What the roles may.
    Grants,
    /// The relay sees the table's changes.
    Publication,
}

impl Upkeep {
    /// All of it.
    pub const ALL: [Self; 5] = [Self::ReplicaIdentity, Self::TouchTrigger, Self::TruncateTrigger, Self::Grants, Self::Publication];

    /// The statement that brings it; it may be repeated, but for the publication.
    pub fn statement(self, schema: &str, table: &str, reader: &str, writer: &str) -> String {
        let name = qualified(schema, table);
        let q = quote_identifier;
        match self {
            Self::ReplicaIdentity => format!("ALTER TABLE {name} REPLICA IDENTITY FULL"),
            Self::TouchTrigger => {
                format!("CREATE OR REPLACE TRIGGER {TOUCH_TRIGGER} BEFORE UPDATE ON {name} FOR EACH ROW EXECUTE FUNCTION autonomy.touch()")
            }
            Self::TruncateTrigger => format!(
                "CREATE OR REPLACE TRIGGER {TRUNCATE_TRIGGER} BEFORE TRUNCATE ON {name} FOR EACH STATEMENT EXECUTE FUNCTION autonomy.refuse_truncate()"
            ),
            Self::Grants => {
                format!("GRANT SELECT ON {name} TO {}; GRANT SELECT, INSERT, UPDATE, DELETE ON {name} TO {}", q(reader), q(writer))
            }
            Self::Publication => format!("ALTER PUBLICATION {} ADD TABLE {name}", q(PUBLICATION)),
        }
    }
}

/// The trigger of [`Upkeep::TouchTrigger`].
pub const TOUCH_TRIGGER: &str = "autonomy_touch";
/// The trigger of [`Upkeep::TruncateTrigger`].
pub const TRUNCATE_TRIGGER: &str = "autonomy_refuse_truncate";

/// A column with its type, default and `NOT NULL`.
pub fn column_definition(column: &ColumnShape) -> String {
    let mut definition = format!("{} {}", quote_identifier(&column.name), type_name(&column.sql_type));
    if let Some(default) = &column.default {
        definition.push_str(" DEFAULT ");
        definition.push_str(&value(default, &column.sql_type));
    }
    if column.required {
        definition.push_str(" NOT NULL");
    }
    definition
}

fn constraint_definition(constraint: &ConstraintShape) -> String {
    let rule = match &constraint.rule {
        Rule::Unique(columns) => format!("UNIQUE ({})", column_list(columns)),
        Rule::Reference { column, schema, table, on_delete } => {
            let action = match on_delete {
                OnDelete::Restrict => "RESTRICT",
                OnDelete::Cascade => "CASCADE",
                OnDelete::SetNull => "SET NULL",
            };
            let target = qualified(schema, table);
            format!("FOREIGN KEY ({}) REFERENCES {target} (\"id\") ON DELETE {action}", quote_identifier(column))
        }
        Rule::Check(check) => format!("CHECK ({})", check_expression(check)),
    };
    format!("CONSTRAINT {} {rule}", quote_identifier(&constraint.name))
}

fn check_expression(check: &CheckShape) -> String {
    let q = quote_identifier;
    match check {
        CheckShape::MinLength { column, least } => format!("char_length({}) >= {least}", q(column)),
        CheckShape::MaxBytes { column, most } => format!("octet_length({}) <= {most}", q(column)),
        CheckShape::Range { column, minimum, maximum } => {
            let bound = |operator, bound: &Option<i64>| bound.map(|bound| format!("{} {operator} {}", q(column), integer(bound)));
            let bounds: Vec<String> = [bound(">=", minimum), bound("<=", maximum)].into_iter().flatten().collect();
            if bounds.is_empty() { "true".to_owned() } else { bounds.join(" AND ") }
        }
        CheckShape::Items { column, least, most } => {
            let column = q(column);
            // CASE, because AND gives no order: the length of what is no array is an error.
            format!(
                "CASE WHEN jsonb_typeof({column}) = 'array' THEN jsonb_array_length({column}) BETWEEN {least} AND {most} ELSE false END"
            )
        }
        CheckShape::Compare { column, operator, compared } => {
            let right = match compared {
                Compared::Column(other) => q(other),
                Compared::SumOf { column, member } => format!("autonomy.part_sum({}, {})", q(column), quote_literal(member)),
            };
            format!("{} {} {right}", q(column), operator.symbol())
        }
    }
}

fn integer(value: i64) -> String {
    format!("({value})::bigint")
}

fn create_index(schema: &str, table: &str, index: &IndexShape, concurrently: bool) -> String {
    format!(
        "CREATE {}INDEX {}{} ON {} ({})",
        if index.unique { "UNIQUE " } else { "" },
        if concurrently { "CONCURRENTLY IF NOT EXISTS " } else { "" },
        quote_identifier(&index.name),
        qualified(schema, table),
        column_list(&index.columns)
    )
}

fn column_list(columns: &[String]) -> String {
    columns.iter().map(|column| quote_identifier(column)).collect::<Vec<_>>().join(", ")
}

fn create_view(schema: &str, view: &ViewShape, reader: &str, writer: &str) -> Vec<String> {
    let q = quote_identifier;
    let name = qualified(schema, &view.name);
    let position = q(&view.position_column);
    // A binary stands in base64 in JSON; everything else PostgreSQL reads by itself.
    let read: Vec<String> = view
        .members
        .iter()
        .map(|(member, _, sql_type)| {
            let sql_type = if *sql_type == SqlType::Bytea { &SqlType::Text } else { sql_type };
            format!("{} {}", q(member), type_name(sql_type))
        })
        .collect();
    let aliases: String = view.members.iter().map(|(member, ..)| format!("{}, ", q(member))).collect();
    let mut selected = vec![format!("owner.\"id\" AS {}", q(&view.owner_column)), format!("part.{position} - 1 AS {position}")];
    selected.extend(view.members.iter().map(|(member, column, sql_type)| {
        let member = format!("part.{}", q(member));
        let member = if *sql_type == SqlType::Bytea { format!("decode({member}, 'base64')") } else { member };
        format!("{member} AS {}", q(column))
    }));
    let parts = if read.is_empty() {
        format!("jsonb_array_elements(owner.{}) WITH ORDINALITY AS part(part, {position})", q(&view.column))
    } else {
        format!(
            "ROWS FROM (jsonb_to_recordset(owner.{}) AS ({})) WITH ORDINALITY AS part({aliases}{position})",
            q(&view.column),
            read.join(", ")
        )
    };
    vec![
        format!(
            "CREATE VIEW {name} AS\n  SELECT {}\n  FROM {} AS owner CROSS JOIN LATERAL {parts}",
            selected.join(", "),
            qualified(schema, &view.owner)
        ),
        format!("GRANT SELECT ON {name} TO {}, {}", q(reader), q(writer)),
    ]
}

fn change_parts(
    schema: &str,
    table: &str,
    column: &str,
    renamed: &[(String, String)],
    removed: &[String],
    added: &[(String, Value)],
) -> Option<String> {
    if renamed.is_empty() && removed.is_empty() && added.is_empty() {
        return None;
    }
    let column = quote_identifier(column);
    let gone: Vec<String> = renamed.iter().map(|(from, _)| from).chain(removed).map(|member| quote_literal(member)).collect();
    let mut part = "part.part".to_owned();
    if !gone.is_empty() {
        part = format!("({part} - ARRAY[{}]::text[])", gone.join(", "));
    }
    // What is written by hand wins over a default, so the defaults come first.
    if !added.is_empty() {
        let defaults: serde_json::Map<String, Value> = added.iter().cloned().collect();
        part = format!("({}::jsonb || {part})", quote_literal(&Value::Object(defaults).to_string()));
    }
    for (from, to) in renamed {
        let (from, to) = (quote_literal(from), quote_literal(to));
        part =
            format!("({part} || CASE WHEN part.part ? {from} THEN jsonb_build_object({to}, part.part -> {from}) ELSE '{{}}'::jsonb END)");
    }
    Some(format!(
        "UPDATE {} SET {column} = (SELECT coalesce(jsonb_agg({part} ORDER BY part.position), '[]'::jsonb) \
         FROM jsonb_array_elements({column}) WITH ORDINALITY AS part(part, position)) WHERE {column} <> '[]'::jsonb",
        qualified(schema, table)
    ))
}

fn describe(schema: &str, what: &Described, text: Option<&str>) -> String {
    let object = match what {
        Described::Schema => format!("SCHEMA {}", quote_identifier(schema)),
        Described::Enumeration(name) => format!("TYPE {}", qualified(schema, name)),
        Described::Table(name) => format!("TABLE {}", qualified(schema, name)),
        Described::View(name) => format!("VIEW {}", qualified(schema, name)),
        Described::Column(table, column) => format!("COLUMN {}.{}", qualified(schema, table), quote_identifier(column)),
    };
    format!("COMMENT ON {object} IS {}", text.map_or_else(|| "NULL".to_owned(), quote_literal))
}

/// A type's name in SQL.
pub fn type_name(sql_type: &SqlType) -> String {
    match sql_type {
        SqlType::Text => "text".to_owned(),
        SqlType::Varchar(most) => format!("varchar({most})"),
        SqlType::Uuid => "uuid".to_owned(),
        SqlType::Bigint => "bigint".to_owned(),
        SqlType::Numeric => "numeric".to_owned(),
        SqlType::NumericOf { precision, scale } => format!("numeric({precision}, {scale})"),
        SqlType::Boolean => "boolean".to_owned(),
        SqlType::Date => "date".to_owned(),
        SqlType::Timestamptz => "timestamptz".to_owned(),
        SqlType::Jsonb => "jsonb".to_owned(),
        SqlType::Bytea => "bytea".to_owned(),
        SqlType::Enumeration { schema, name } => qualified(schema, name),
    }
}

// How a column's values become another type; None where PostgreSQL does it by itself (and refuses what does not fit).
fn conversion(column: &str, from: &SqlType, to: &SqlType) -> Option<String> {
    use SqlType::{Bigint, Bytea, Date, Jsonb, Numeric, NumericOf, Text, Timestamptz, Varchar};
    let column = quote_identifier(column);
    match (from, to) {
        (Text | Varchar(_), Text | Varchar(_)) | (Bigint | Numeric | NumericOf { .. }, Numeric | NumericOf { .. } | Bigint) => None,
        (Date, Timestamptz) | (Timestamptz, Date) => None,
        (Bytea, Text | Varchar(_)) => Some(format!("encode({column}, 'base64')")),
        (Text | Varchar(_), Bytea) => Some(format!("decode({column}, 'base64')")),
        // Without a length, so that the assignment refuses what is too long instead of cutting it.
        (_, Text | Varchar(_)) if *from != Jsonb => Some(format!("{column}::text")),
        (_, Jsonb) => Some(format!("to_jsonb({column})")),
        (Jsonb, _) => Some(format!("({column} #>> '{{}}')::{}", cast_name(to))),
        _ => Some(format!("{column}::text::{}", cast_name(to))),
    }
}

fn cast_name(sql_type: &SqlType) -> String {
    match sql_type {
        SqlType::Varchar(_) => "text".to_owned(),
        other => type_name(other),
    }
}

/// A value in the JSON form of its type, as SQL.
pub fn value(value: &Value, sql_type: &SqlType) -> String {
    let text = match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    match (sql_type, value) {
        (SqlType::Text | SqlType::Varchar(_), _) => quote_literal(&text),
        (SqlType::Jsonb, _) => format!("{}::jsonb", quote_literal(&value.to_string())),
        (_, Value::Null) => "NULL".to_owned(),
        (SqlType::Bytea, _) => {
            let bytes = base64::engine::general_purpose::STANDARD.decode(&text).unwrap_or_default();
            let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            format!("'\\x{hex}'::bytea")
        }
        (SqlType::NumericOf { .. }, _) => format!("{}::numeric", quote_literal(&text)),
        _ => format!("{}::{}", quote_literal(&text), type_name(sql_type)),
    }
}
