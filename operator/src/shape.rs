//! What a model stands for in PostgreSQL: tables, columns, constraints, indexes, views and enumeration types, as plain values that the planner
//! compares. Pure.

use autonomy_crds::resolved::{
    CheckOperator, Column, ColumnKind, Compared, Entity, Model, OnDelete, PART_POSITION_COLUMN, PartShape, ValueType,
};
use serde_json::Value;

/// A model's schema.
#[derive(Clone, Debug, PartialEq)]
pub struct Shape {
    /// The schema.
    pub schema: String,
    /// The schema's comment.
    pub comment: Option<String>,
    /// The role that reads.
    pub reader: String,
    /// The role that reads and writes.
    pub writer: String,
    /// Enumeration types.
    pub enumerations: Vec<EnumerationShape>,
    /// Tables.
    pub tables: Vec<TableShape>,
    /// Views over parts.
    pub views: Vec<ViewShape>,
}

/// An enumeration type.
#[derive(Clone, Debug, PartialEq)]
pub struct EnumerationShape {
    /// The type's name.
    pub name: String,
    /// Its comment.
    pub comment: Option<String>,
    /// Its values in order.
    pub values: Vec<String>,
}

/// A table. The system columns and the primary key are always there and not listed.
#[derive(Clone, Debug, PartialEq)]
pub struct TableShape {
    /// Its name.
    pub name: String,
    /// Its name before.
    pub renamed_from: Option<String>,
    /// Its comment.
    pub comment: Option<String>,
    /// The primary key's name.
    pub primary_key: String,
    /// Its columns but the system columns.
    pub columns: Vec<ColumnShape>,
    /// Its constraints but the primary key.
    pub constraints: Vec<ConstraintShape>,
    /// Its indexes but those of constraints.
    pub indexes: Vec<IndexShape>,
    /// Where former versions of its rows are kept.
    pub history: Option<HistoryShape>,
}

/// The table with former versions of another one's rows. Its columns are the same for all of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HistoryShape {
    /// Its name.
    pub table: String,
    /// The name of its primary key.
    pub primary_key: String,
    /// The name of its index over the moments at which versions ended.
    pub index: String,
    /// Whether it gets all former versions, or only those of deleted rows.
    pub updates: bool,
}

impl TableShape {
    /// The column of that name.
    pub fn column(&self, name: &str) -> Option<&ColumnShape> {
        self.columns.iter().find(|column| column.name == name)
    }
}

/// A column.
#[derive(Clone, Debug, PartialEq)]
pub struct ColumnShape {
    /// Its name.
    pub name: String,
    /// Its name before.
    pub renamed_from: Option<String>,
    /// Its comment.
    pub comment: Option<String>,
    /// Its type.
    pub sql_type: SqlType,
    /// `NOT NULL`.
    pub required: bool,
    /// The default, in the type's JSON form.
    pub default: Option<Value>,
    /// The members of the parts it holds; empty where it holds none.
    pub parts: Vec<PartMemberShape>,
}

/// A member of the parts in a column.
#[derive(Clone, Debug, PartialEq)]
pub struct PartMemberShape {
    /// The JSON member.
    pub member: String,
    /// The column of the view.
    pub column: String,
    /// The view's column before.
    pub renamed_from: Option<String>,
    /// Its type.
    pub sql_type: SqlType,
    /// Whether each part has it.
    pub required: bool,
    /// The default, in the type's JSON form.
    pub default: Option<Value>,
    /// Its limits.
    pub limits: Option<CheckShape>,
    /// The entity it refers to: schema and table.
    pub target: Option<(String, String)>,
}

/// A column's type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SqlType {
    /// `text`
    Text,
    /// `varchar(n)`
    Varchar(u32),
    /// `uuid`
    Uuid,
    /// `bigint`
    Bigint,
    /// `numeric`
    Numeric,
    /// `numeric(precision, scale)`
    NumericOf {
        /// Digits in all.
        precision: u32,
        /// Digits behind the point.
        scale: u32,
    },
    /// `boolean`
    Boolean,
    /// `date`
    Date,
    /// `timestamptz`
    Timestamptz,
    /// `jsonb`
    Jsonb,
    /// `bytea`
    Bytea,
    /// An enumeration type.
    Enumeration {
        /// Its schema.
        schema: String,
        /// Its name.
        name: String,
    },
}

/// A constraint with its name.
#[derive(Clone, Debug, PartialEq)]
pub struct ConstraintShape {
    /// Its name.
    pub name: String,
    /// What it says.
    pub rule: Rule,
}

/// What a constraint says.
#[derive(Clone, Debug, PartialEq)]
pub enum Rule {
    /// `UNIQUE (columns)`
    Unique(Vec<String>),
    /// `FOREIGN KEY (column) REFERENCES schema.table`
    Reference {
        /// The column.
        column: String,
        /// The schema referred to.
        schema: String,
        /// The table referred to.
        table: String,
        /// What a deletion there does.
        on_delete: OnDelete,
    },
    /// `CHECK (…)`
    Check(CheckShape),
}

impl Rule {
    /// The table's columns that it is about.
    pub fn columns(&self) -> Vec<&str> {
        match self {
            Self::Unique(columns) => columns.iter().map(String::as_str).collect(),
            Self::Reference { column, .. } => vec![column],
            Self::Check(check) => check.columns(),
        }
    }

    /// The same rule for a column that is called otherwise.
    pub fn rename_column(&mut self, from: &str, to: &str) {
        let rename = |name: &mut String| {
            if name == from {
                to.clone_into(name);
            }
        };
        match self {
            Self::Unique(columns) => columns.iter_mut().for_each(rename),
            Self::Reference { column, .. } => rename(column),
            Self::Check(check) => check.rename_column(from, to),
        }
    }
}

/// What a check says. NULL always passes.
#[derive(Clone, Debug, PartialEq)]
pub enum CheckShape {
    /// A string has at least so many characters.
    MinLength {
        /// The column.
        column: String,
        /// The fewest characters.
        least: u32,
    },
    /// A binary has at most so many bytes.
    MaxBytes {
        /// The column.
        column: String,
        /// The most bytes.
        most: u32,
    },
    /// A number lies between two others.
    Range {
        /// The column.
        column: String,
        /// The smallest.
        minimum: Option<i64>,
        /// The largest.
        maximum: Option<i64>,
    },
    /// A JSON array has so many elements.
    Items {
        /// The column.
        column: String,
        /// The fewest.
        least: u32,
        /// The most.
        most: u32,
    },
    /// A column compares with something else of its row.
    Compare {
        /// The column on the left.
        column: String,
        /// How.
        operator: CheckOperator,
        /// What is on the right.
        compared: Compared,
    },
}

impl CheckShape {
    fn columns(&self) -> Vec<&str> {
        match self {
            Self::MinLength { column, .. } | Self::MaxBytes { column, .. } | Self::Range { column, .. } | Self::Items { column, .. } => {
                vec![column]
            }
            Self::Compare { column, compared, .. } => vec![column, compared.column()],
        }
    }

    /// The same check for a column that is called otherwise.
    pub fn rename_column(&mut self, from: &str, to: &str) {
        let rename = |name: &mut String| {
            if name == from {
                to.clone_into(name);
            }
        };
        match self {
            Self::MinLength { column, .. } | Self::MaxBytes { column, .. } | Self::Range { column, .. } | Self::Items { column, .. } => {
                rename(column);
            }
            Self::Compare { column, compared: Compared::Column(other) | Compared::SumOf { column: other, .. }, .. } => {
                rename(column);
                rename(other);
            }
        }
    }

    /// Whether every value that passes `before` passes this one too.
    pub fn allows_all_of(&self, before: &CheckShape) -> bool {
        match (self, before) {
            (Self::MinLength { column, least }, Self::MinLength { column: same, least: before }) => column == same && least <= before,
            (Self::MaxBytes { column, most }, Self::MaxBytes { column: same, most: before }) => column == same && most >= before,
            (Self::Range { column, minimum, maximum }, Self::Range { column: same, minimum: least_before, maximum: most_before }) => {
                column == same
                    && minimum.is_none_or(|minimum| least_before.is_some_and(|before| minimum <= before))
                    && maximum.is_none_or(|maximum| most_before.is_some_and(|before| maximum >= before))
            }
            (Self::Items { column, least, most }, Self::Items { column: same, least: least_before, most: most_before }) => {
                column == same && least <= least_before && most >= most_before
            }
            (Self::Compare { column, operator, compared }, Self::Compare { column: same, operator: before, compared: compared_before }) => {
                column == same && compared == compared_before && operator.allows_all_of(*before)
            }
            _ => false,
        }
    }
}

/// An index.
#[derive(Clone, Debug, PartialEq)]
pub struct IndexShape {
    /// Its name.
    pub name: String,
    /// Its columns.
    pub columns: Vec<String>,
    /// Whether it is unique.
    pub unique: bool,
}

/// A view over the parts in a column.
#[derive(Clone, Debug, PartialEq)]
pub struct ViewShape {
    /// Its name.
    pub name: String,
    /// Its comment.
    pub comment: Option<String>,
    /// The table that holds the parts.
    pub owner: String,
    /// The column that holds them.
    pub column: String,
    /// The view's column with the owner's id.
    pub owner_column: String,
    /// The view's column with the part's place in the list.
    pub position_column: String,
    /// The parts' members: JSON member, view column, type.
    pub members: Vec<(String, String, SqlType)>,
}

impl Shape {
    /// The shape of a model.
    pub fn of(model: &Model) -> Self {
        Self {
            schema: model.schema.clone(),
            comment: model.description.clone(),
            reader: model.reader_role.clone(),
            writer: model.writer_role.clone(),
            enumerations: model
                .enumerations
                .iter()
                .map(|enumeration| EnumerationShape {
                    name: enumeration.type_name.clone(),
                    comment: enumeration.description.clone(),
                    values: enumeration.values.clone(),
                })
                .collect(),
            tables: model.entities.iter().map(table).collect(),
            views: model.entities.iter().flat_map(views).collect(),
        }
    }
}

fn table(entity: &Entity) -> TableShape {
    TableShape {
        name: entity.table.clone(),
        renamed_from: entity.renamed_from_table.clone(),
        comment: entity.description.clone(),
        primary_key: entity.primary_key_name(),
        columns: entity.columns.iter().map(column).collect(),
        constraints: constraints(entity),
        indexes: indexes(entity),
        history: entity.history_table().map(|table| HistoryShape {
            table,
            primary_key: entity.history_key_name(),
            index: entity.history_index_name(),
            updates: entity.history,
        }),
    }
}

fn column(column: &Column) -> ColumnShape {
    let (required, default, parts) = match &column.kind {
        ColumnKind::Parts { part, .. } => (true, Some(Value::Array(Vec::new())), part.columns.iter().map(part_member).collect()),
        _ => (column.required, column.default.clone(), Vec::new()),
    };
    ColumnShape {
        name: column.name.clone(),
        renamed_from: column.renamed_from.clone(),
        comment: column.description.clone(),
        sql_type: sql_type(column),
        required,
        default,
        parts,
    }
}

fn part_member(column: &Column) -> PartMemberShape {
    PartMemberShape {
        member: column.member.clone(),
        column: column.name.clone(),
        renamed_from: column.renamed_from.clone(),
        sql_type: sql_type(column),
        required: column.required,
        default: column.default.clone(),
        limits: limits(column),
        target: match &column.kind {
            ColumnKind::Relationship { target, .. } => Some((target.schema.clone(), target.table.clone())),
            _ => None,
        },
    }
}

/// The type of a column.
pub fn sql_type(column: &Column) -> SqlType {
    let value_type = match &column.kind {
        ColumnKind::Relationship { .. } => return SqlType::Uuid,
        ColumnKind::Parts { .. } => return SqlType::Jsonb,
        ColumnKind::Attribute { value_type } => value_type,
    };
    match value_type {
        ValueType::String { max_length: Some(most), .. } => SqlType::Varchar(*most),
        ValueType::String { max_length: None, .. } => SqlType::Text,
        ValueType::Uuid => SqlType::Uuid,
        ValueType::Integer { .. } => SqlType::Bigint,
        ValueType::Decimal { precision: Some(precision), scale, .. } => {
            SqlType::NumericOf { precision: *precision, scale: scale.unwrap_or(0) }
        }
        ValueType::Decimal { precision: None, .. } => SqlType::Numeric,
        ValueType::Boolean => SqlType::Boolean,
        ValueType::Date => SqlType::Date,
        ValueType::DateTime => SqlType::Timestamptz,
        ValueType::Json => SqlType::Jsonb,
        ValueType::Binary { .. } => SqlType::Bytea,
        ValueType::Enumeration { schema, type_name, .. } => SqlType::Enumeration { schema: schema.clone(), name: type_name.clone() },
    }
}

fn constraints(entity: &Entity) -> Vec<ConstraintShape> {
    let mut constraints = Vec::new();
    let mut add = |name: String, rule: Rule| constraints.push(ConstraintShape { name, rule });
    if !entity.key.is_empty() {
        add(entity.key_name(), Rule::Unique(entity.key.clone()));
    }
    for column in &entity.columns {
        // The key says it already; PostgreSQL itself would leave the second one out where it makes the table.
        if column.unique && entity.key != [column.name.as_str()] {
            add(entity.unique_name(column), Rule::Unique(vec![column.name.clone()]));
        }
        if let ColumnKind::Relationship { target, on_delete, .. } = &column.kind {
            let rule = Rule::Reference {
                column: column.name.clone(),
                schema: target.schema.clone(),
                table: target.table.clone(),
                on_delete: *on_delete,
            };
            add(entity.foreign_key_name(column), rule);
        }
        if let Some(limits) = limits(column) {
            add(entity.limits_name(column), Rule::Check(limits));
        }
    }
    for check in &entity.checks {
        let rule = CheckShape::Compare { column: check.column.clone(), operator: check.operator, compared: check.compared.clone() };
        add(check.name.clone(), Rule::Check(rule));
    }
    constraints
}

// A string's largest length is its type's. Its pattern is checked by the API alone: PostgreSQL's regular expressions are not the language's.
fn limits(column: &Column) -> Option<CheckShape> {
    let name = column.name.clone();
    let value_type = match &column.kind {
        ColumnKind::Relationship { .. } => return None,
        ColumnKind::Parts { min_items, max_items, .. } => {
            return Some(CheckShape::Items { column: name, least: *min_items, most: *max_items });
        }
        ColumnKind::Attribute { value_type } => value_type,
    };
    match value_type {
        ValueType::String { min_length: Some(least), .. } if *least > 0 => Some(CheckShape::MinLength { column: name, least: *least }),
        ValueType::Binary { max_length: Some(most) } => Some(CheckShape::MaxBytes { column: name, most: *most }),
        ValueType::Integer { minimum, maximum } | ValueType::Decimal { minimum, maximum, .. } if minimum.is_some() || maximum.is_some() => {
            Some(CheckShape::Range { column: name, minimum: *minimum, maximum: *maximum })
        }
        _ => None,
    }
}

fn indexes(entity: &Entity) -> Vec<IndexShape> {
    let declared =
        entity.indexes.iter().map(|index| IndexShape { name: index.name.clone(), columns: index.columns.clone(), unique: index.unique });
    // A foreign key needs an index only where nothing else begins with its column.
    let leads = |columns: &[String], column: &Column| columns.first() == Some(&column.name);
    let of_references = entity
        .columns
        .iter()
        .filter(|column| matches!(column.kind, ColumnKind::Relationship { .. }))
        .filter(|column| !column.unique && !leads(&entity.key, column) && !entity.indexes.iter().any(|index| leads(&index.columns, column)))
        .map(|column| IndexShape { name: entity.foreign_key_index_name(column), columns: vec![column.name.clone()], unique: false });
    declared.chain(of_references).collect()
}

fn views(entity: &Entity) -> impl Iterator<Item = ViewShape> {
    entity.columns.iter().filter_map(|column| match &column.kind {
        ColumnKind::Parts { part, .. } => Some(view(entity, column, part)),
        _ => None,
    })
}

fn view(entity: &Entity, column: &Column, part: &PartShape) -> ViewShape {
    // A member's largest length and its digits are left to the API, so that widening them leaves the view as it is.
    let loose = |member: &Column| match sql_type(member) {
        SqlType::Varchar(_) => SqlType::Text,
        SqlType::NumericOf { .. } => SqlType::Numeric,
        other => other,
    };
    ViewShape {
        name: part.view.clone(),
        comment: part.description.clone(),
        owner: entity.table.clone(),
        column: column.name.clone(),
        owner_column: part.owner_column(entity),
        position_column: PART_POSITION_COLUMN.to_owned(),
        members: part.columns.iter().map(|member| (member.member.clone(), member.name.clone(), loose(member))).collect(),
    }
}
