//! Aggregates of a list: `aggregate=count,sum(total)&groupBy=storeId`, with the filters that lists have. Sums and averages are PostgreSQL's
//! `numeric`, and stay exact.

use autonomy_crds::object_json::{Encoding, ObjectWriter, write_string};

use crate::plan::{ColumnPlan, EntityPlan, Plans};
use crate::problem::{Fault, Faults, Problem};
use crate::query::{self, ListQuery};
use crate::value::Encoder;

const AGGREGATE: &str = "aggregate";
const GROUP_BY: &str = "groupBy";
// More make a statement that nobody reads.
pub(crate) const MOST_AGGREGATES: usize = 32;
pub(crate) const MOST_GROUPS: usize = 8;

/// What is made of the objects of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Function {
    /// How many there are.
    Count,
    /// How many different values there are.
    CountDistinct,
    /// The sum of numbers.
    Sum,
    /// Their mean.
    Avg,
    /// The smallest value.
    Min,
    /// The largest value.
    Max,
}

impl Function {
    const ALL: [Self; 6] = [Self::Count, Self::CountDistinct, Self::Sum, Self::Avg, Self::Min, Self::Max];

    fn name(self) -> &'static str {
        match self {
            Self::Count => "count",
            Self::CountDistinct => "countDistinct",
            Self::Sum => "sum",
            Self::Avg => "avg",
            Self::Min => "min",
            Self::Max => "max",
        }
    }

    fn takes(self, column: &ColumnPlan) -> bool {
        match self {
            Self::Count => false,
            Self::CountDistinct => column.encoder.is_comparable(),
            Self::Sum | Self::Avg => matches!(column.encoder, Encoder::Integer { .. } | Encoder::Decimal { .. }),
            // PostgreSQL has no smallest uuid or boolean.
            Self::Min | Self::Max => column.encoder.is_comparable() && !matches!(column.encoder, Encoder::Uuid | Encoder::Boolean),
        }
    }
}

/// An aggregate that is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Aggregate {
    /// What is made.
    pub function: Function,
    /// Of which column's values that are not null; of all objects where none.
    pub column: Option<usize>,
}

/// Aggregates as they are asked for.
#[derive(Debug)]
pub struct AggregateQuery {
    /// What is made of each group, in the order asked for.
    pub aggregates: Vec<Aggregate>,
    /// The columns with whose values a group is made; one group of all objects where none.
    pub groups: Vec<usize>,
    /// Filters, order of the groups, limit and offset.
    pub list: ListQuery,
}

/// Whether a list's parameters ask for aggregates.
pub fn is_asked(parameters: &[(String, String)]) -> bool {
    parameters.iter().any(|(name, _)| name == AGGREGATE || name == GROUP_BY)
}

impl AggregateQuery {
    /// Reads the parameters of a query.
    ///
    /// # Errors
    /// A problem with all that is wrong.
    pub fn parse(plans: &Plans, plan: &EntityPlan, parameters: &[(String, String)]) -> Result<Self, Problem> {
        let (mut aggregates, mut groups) = (Vec::new(), Vec::new());
        let (mut faults, mut conflicts) = (Faults::default(), Faults::default());
        let mut rest = Vec::with_capacity(parameters.len());
        for (name, value) in parameters {
            let read = match name.as_str() {
                AGGREGATE => read_aggregates(plan, value).map(|read| aggregates.extend(read)),
                GROUP_BY => read_groups(plan, value).map(|read| groups = read),
                "fields" | "cursor" | "embed" | "count" => {
                    conflicts.push(Fault::parameter(name, "is no parameter of aggregates"));
                    Ok(())
                }
                _ => {
                    rest.push((name.clone(), value.clone()));
                    Ok(())
                }
            };
            if let Err(detail) = read {
                faults.push(Fault::parameter(name, detail));
            }
        }
        if aggregates.is_empty() && faults.is_empty() {
            conflicts.push(Fault::parameter(AGGREGATE, "must be given with groupBy, as in count or sum(total)"));
        }
        if aggregates.len() > MOST_AGGREGATES {
            faults.push(Fault::parameter(AGGREGATE, format!("names more than {MOST_AGGREGATES}")));
        }
        let mut list = ListQuery::parse(plans, plan, &rest)?;
        let sorted = rest.iter().any(|(name, value)| name == "sort" && !value.is_empty());
        // A list's order ends with the id, which groups have only where they are made by it.
        list.sort.retain(|sort| groups.contains(&sort.column) || (sorted && sort.column != crate::plan::ID));
        if let Some(other) = list.sort.iter().find(|sort| !groups.contains(&sort.column)) {
            let member = &plan.columns[other.column].member;
            conflicts.push(Fault::parameter("sort", format!("{member} is not among groupBy")));
        }
        for column in &groups {
            if !list.sort.iter().any(|sort| sort.column == *column) {
                list.sort.push(query::Sort { column: *column, descending: false });
            }
        }
        match (faults.is_empty(), conflicts.is_empty()) {
            (false, _) => Err(query::invalid_query(faults)),
            (true, false) => Err(query::conflicting_parameters(conflicts)),
            (true, true) => Ok(Self { aggregates, groups, list }),
        }
    }
}

/// The aggregates that can be made of an entity's objects, as they are asked for.
pub fn offered(plan: &EntityPlan) -> Vec<String> {
    let mut offered = vec![Function::Count.name().to_owned()];
    for column in &plan.columns {
        let functions = Function::ALL.into_iter().filter(|function| function.takes(column));
        offered.extend(functions.map(|function| format!("{}({})", function.name(), column.member)));
    }
    offered
}

/// The members that groups can be made by.
pub fn groupable(plan: &EntityPlan) -> Vec<&str> {
    plan.columns.iter().filter(|column| can_group_by(column)).map(|column| column.member.as_str()).collect()
}

// An attribute named `sum` would stand beside the sums.
fn can_group_by(column: &ColumnPlan) -> bool {
    column.encoder.is_comparable() && !Function::ALL.iter().any(|function| function.name() == column.member)
}

fn read_aggregates(plan: &EntityPlan, text: &str) -> Result<Vec<Aggregate>, String> {
    query::items(text).map(|part| read_aggregate(plan, part?)).collect()
}

fn read_aggregate(plan: &EntityPlan, text: &str) -> Result<Aggregate, String> {
    let (name, member) = match text.split_once('(') {
        Some((name, rest)) => (name, Some(rest.strip_suffix(')').ok_or_else(|| format!("{text} has no closing parenthesis"))?)),
        None => (text, None),
    };
    let Some(function) = Function::ALL.into_iter().find(|function| function.name() == name) else {
        return Err(format!("{name} is no aggregate; there are count, countDistinct, sum, avg, min and max"));
    };
    let column = match member {
        None if function == Function::Count => None,
        None | Some("") => return Err(format!("{name} needs an attribute, as in {name}(total)")),
        Some(member) => Some(query::column(plan, member)?),
    };
    match column {
        Some(column) if !function.takes(&plan.columns[column]) => Err(format!("{name} can't be made of {}", plan.columns[column].member)),
        column => Ok(Aggregate { function, column }),
    }
}

fn read_groups(plan: &EntityPlan, text: &str) -> Result<Vec<usize>, String> {
    let mut groups = Vec::new();
    for (index, member) in query::items(text).enumerate() {
        if index == MOST_GROUPS {
            return Err(format!("names more than {MOST_GROUPS} attributes"));
        }
        let member = member?;
        let column = query::column(plan, member)?;
        if !can_group_by(&plan.columns[column]) {
            return Err(format!("can't group by {member}"));
        }
        if !groups.contains(&column) {
            groups.push(column);
        }
    }
    Ok(groups)
}

/// Writes a group from the texts of its row: its own members first, then `count`, and the others by function and attribute, as in
/// `{"storeId": …, "count": 3, "sum": {"total": 12.50}}`.
pub fn write_group(plan: &EntityPlan, query: &AggregateQuery, texts: &[Option<&str>], json: &mut Vec<u8>) {
    json.push(b'{');
    let (of_group, of_aggregates) = texts.split_at(query.groups.len());
    let members = query.groups.iter().map(|column| (plan.columns[*column].member.as_str(), plan.columns[*column].encoding));
    ObjectWriter::of_members(members).write_members(of_group.iter().copied(), json);
    write_aggregates(plan, &query.aggregates, of_aggregates, json);
    json.push(b'}');
}

fn write_aggregates(plan: &EntityPlan, aggregates: &[Aggregate], texts: &[Option<&str>], json: &mut Vec<u8>) {
    let member = |name: &str, json: &mut Vec<u8>| {
        if json.last() != Some(&b'{') {
            json.push(b',');
        }
        write_string(name, json);
        json.push(b':');
    };
    let value = |encoding: Encoding, text: Option<&str>, json: &mut Vec<u8>| match text {
        Some(text) => encoding.write(text, json),
        None => json.extend_from_slice(b"null"),
    };
    for (aggregate, text) in aggregates.iter().zip(texts).filter(|(aggregate, _)| aggregate.column.is_none()) {
        member(aggregate.function.name(), json);
        value(Encoding::Number, *text, json);
    }
    for function in Function::ALL {
        let mut of_it =
            aggregates.iter().zip(texts).filter(|(aggregate, _)| aggregate.function == function && aggregate.column.is_some()).peekable();
        if of_it.peek().is_none() {
            continue;
        }
        member(function.name(), json);
        json.push(b'{');
        for (aggregate, text) in of_it {
            let Some(column) = aggregate.column.map(|column| &plan.columns[column]) else { continue };
            member(&column.member, json);
            let encoding = if matches!(function, Function::Min | Function::Max) { column.encoding } else { Encoding::Number };
            value(encoding, *text, json);
        }
        json.push(b'}');
    }
}
