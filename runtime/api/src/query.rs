//! The query of a list: from its parameters to a typed plan.

use autonomy_crds::names::AS_OF;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use serde::{Deserialize, Serialize};

use crate::embed::{self, Embedded};
use crate::history;
use crate::plan::{EntityPlan, ID, Plans};
use crate::problem::{Fault, Faults, Problem};
use crate::value::Encoder;
use axum::http::StatusCode;

/// How many objects a page has where the request does not say.
pub const DEFAULT_LIMIT: u64 = 100;
/// The most objects of a page.
pub const MOST_LIMIT: u64 = 10_000;

/// How an attribute is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operator {
    /// Equal.
    Eq,
    /// Different, or null.
    Ne,
    /// Larger.
    Gt,
    /// Larger or equal.
    Gte,
    /// Smaller.
    Lt,
    /// Smaller or equal.
    Lte,
    /// Equal to one of a list.
    In,
    /// Matches a pattern with `*`.
    Like,
    /// Is null, or not.
    IsNull,
}

/// A condition on objects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    /// The column.
    pub column: usize,
    /// How it is compared.
    pub operator: Operator,
    /// With what, in binary form: one value, or a list for [`Operator::In`]; for [`Operator::Like`] the pattern of SQL; for
    /// [`Operator::IsNull`] one byte.
    pub values: Vec<Vec<u8>>,
}

/// A column to sort by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sort {
    /// The column.
    pub column: usize,
    /// From the largest to the smallest.
    pub descending: bool,
}

/// A list as it is asked for.
#[derive(Clone, Debug, Default)]
pub struct ListQuery {
    /// All of them hold.
    pub filters: Vec<Filter>,
    /// The order; it ends with the id, so that it is total.
    pub sort: Vec<Sort>,
    /// The members asked for, in the model's order, the id among them; all where none.
    pub fields: Option<Vec<usize>>,
    /// The objects that are shown inside of those that refer to them.
    pub embedded: Vec<Embedded>,
    /// The most objects; none where the request does not say.
    pub limit: Option<u64>,
    /// How many objects to pass over.
    pub offset: u64,
    /// The sort columns' texts of the last object before this page.
    pub after: Option<Vec<Option<String>>>,
    /// Whether the number of all objects is asked for.
    pub count: bool,
    /// The moment as of which objects are read, in microseconds since 2000; the present ones where none.
    pub as_of: Option<i64>,
}

#[derive(Serialize, Deserialize)]
struct Cursor {
    // The order it belongs to.
    s: String,
    // The last object's values.
    v: Vec<Option<String>>,
}

/// The parameters of a query string, decoded.
///
/// # Errors
/// Where it is not UTF-8.
pub fn parameters(query: &str) -> Result<Vec<(String, String)>, Problem> {
    let decode = |text: &str| {
        let text = text.replace('+', " ");
        percent_decode_str(&text).decode_utf8().map(|text| text.into_owned())
    };
    query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            match (decode(name), decode(value)) {
                (Ok(name), Ok(value)) if !name.contains('\0') && !value.contains('\0') => Ok((name, value)),
                _ => Err(Problem::bad_request("The query is not valid UTF-8 without U+0000.")),
            }
        })
        .collect()
}

impl ListQuery {
    /// Reads the parameters of a query.
    ///
    /// # Errors
    /// A problem with all that is wrong.
    pub fn parse(plans: &Plans, plan: &EntityPlan, parameters: &[(String, String)]) -> Result<Self, Problem> {
        let mut query = Self::default();
        let mut faults = Faults::default();
        let mut sort = "";
        let mut cursor = None;
        for (name, value) in parameters {
            let read = match name.as_str() {
                "limit" => number(value, MOST_LIMIT).map(|limit| query.limit = Some(limit)),
                "offset" => number(value, i64::MAX as u64).map(|offset| query.offset = offset),
                "count" => boolean(value).map(|count| query.count = count),
                "sort" => {
                    sort = value;
                    Ok(())
                }
                "fields" => fields(plan, value).map(|fields| query.fields = Some(fields)),
                "embed" => embed::parse(plans, plan, value).map(|embedded| query.embedded = embedded),
                "cursor" => {
                    cursor = Some(value);
                    Ok(())
                }
                AS_OF if history::is_moment_of(plan) => history::moment(plan, value).map(|moment| query.as_of = Some(moment)),
                _ => filter(plan, name, value).map(|filter| query.filters.push(filter)),
            };
            if let Err(detail) = read {
                faults.push(Fault::parameter(name, detail));
            }
        }
        match sort_columns(plan, sort) {
            Ok(columns) => query.sort = columns,
            Err(detail) => faults.push(Fault::parameter("sort", detail)),
        }
        if !faults.is_empty() {
            return Err(invalid_query(faults));
        }
        if query.as_of.is_some() && !query.embedded.is_empty() {
            return Err(history::no_embedding());
        }
        if let Some(member) = sorted_twice(plan, &query.sort) {
            faults.push(Fault::parameter("sort", format!("{member} is there twice")));
            return Err(conflicting_parameters(faults));
        }
        if let Some(cursor) = cursor {
            query.after = Some(query.read_cursor(plan, cursor).ok_or_else(invalid_cursor)?);
        }
        Ok(query)
    }

    /// The columns read: those answered, then those that only the cursor needs.
    pub fn columns(&self, plan: &EntityPlan) -> (Vec<usize>, usize) {
        let mut columns = self.fields.clone().unwrap_or_else(|| (0..plan.columns.len()).collect());
        let answered = columns.len();
        for sort in &self.sort {
            if !columns.contains(&sort.column) {
                columns.push(sort.column);
            }
        }
        (columns, answered)
    }

    /// The cursor that goes on behind an object with these texts of the sort columns.
    pub fn cursor(&self, plan: &EntityPlan, values: Vec<Option<String>>) -> String {
        write_cursor(self.sort_text(plan), values)
    }

    fn read_cursor(&self, plan: &EntityPlan, text: &str) -> Option<Vec<Option<String>>> {
        let values = read_cursor(&self.sort_text(plan), text)?;
        // A member that must be there has no null to go on behind.
        let whole = || self.sort.iter().zip(&values).all(|(sort, value)| value.is_some() || !plan.columns[sort.column].required);
        (values.len() == self.sort.len() && whole()).then_some(values)
    }

    fn sort_text(&self, plan: &EntityPlan) -> String {
        let member = |sort: &Sort| format!("{}{}", if sort.descending { "-" } else { "" }, plan.columns[sort.column].member);
        self.sort.iter().map(member).collect::<Vec<_>>().join(",")
    }
}

/// A cursor of an order, behind an object with these texts.
pub fn write_cursor(order: String, values: Vec<Option<String>>) -> String {
    URL_SAFE_NO_PAD.encode(serde_json::to_vec(&Cursor { s: order, v: values }).unwrap_or_default())
}

/// The texts in a cursor; none where it is none of that order.
pub fn read_cursor(order: &str, text: &str) -> Option<Vec<Option<String>>> {
    let cursor: Cursor = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(text).ok()?).ok()?;
    let clean = cursor.v.iter().flatten().all(|value| !value.contains('\0'));
    (clean && cursor.s == order).then_some(cursor.v)
}

/// The query string of the next page: the same parameters with another cursor.
pub fn next_page(parameters: &[(String, String)], cursor: &str) -> String {
    let encode = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
    parameters
        .iter()
        .filter(|(name, _)| !matches!(name.as_str(), "cursor" | "offset" | "count"))
        .map(|(name, value)| format!("{}={}", encode(name).replace("%2E", "."), encode(value)))
        .chain(std::iter::once(format!("cursor={cursor}")))
        .collect::<Vec<_>>()
        .join("&")
}

/// The problem of a query with faults.
pub fn invalid_query(faults: Faults) -> Problem {
    let mut problem = faults.into_problem();
    problem.status = StatusCode::BAD_REQUEST;
    problem.kind = "invalid-query";
    problem.detail = "The query has parameters that can't be used.".to_owned();
    problem
}

/// The problem of parameters that can be used, but not together.
pub fn conflicting_parameters(faults: Faults) -> Problem {
    let mut problem = invalid_query(faults);
    problem.kind = "conflicting-parameters";
    problem.detail = "The query has parameters that can't be used together.".to_owned();
    problem
}

/// The problem of a cursor that was not given out for this list and order.
pub fn invalid_cursor() -> Problem {
    let mut faults = Faults::default();
    faults.push(Fault::parameter("cursor", "is no cursor of this list and sort order; take it from the Link of the page before"));
    let mut problem = invalid_query(faults);
    problem.kind = "invalid-cursor";
    problem.detail = "The list can't be gone on with from this cursor.".to_owned();
    problem
}

/// A whole number up to a bound.
///
/// # Errors
/// Where it is none.
pub fn number(value: &str, most: u64) -> Result<u64, String> {
    value.parse().ok().filter(|number| *number <= most).ok_or_else(|| format!("must be a whole number from 0 to {most}"))
}

/// `true` or `false`.
///
/// # Errors
/// Where it is neither.
pub fn boolean(value: &str) -> Result<bool, String> {
    match value {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err("must be true or false".to_owned()),
    }
}

/// The items of a comma-separated list, which has none where it is empty. Blanks around them are what `+` in a query stands for.
pub fn items(list: &str) -> impl Iterator<Item = Result<&str, String>> {
    let items = (!list.is_empty()).then(|| list.split(',')).into_iter().flatten();
    items.map(|item| match item.trim_matches(' ') {
        "" => Err("has an empty item".to_owned()),
        item => Ok(item),
    })
}

/// The members of a comma-separated list as columns, in the model's order, the id among them.
///
/// # Errors
/// Where one is no member.
pub fn fields(plan: &EntityPlan, value: &str) -> Result<Vec<usize>, String> {
    let mut columns = vec![ID];
    for name in items(value) {
        columns.push(column(plan, name?)?);
    }
    columns.sort_unstable();
    columns.dedup();
    Ok(columns)
}

/// The column of a member.
///
/// # Errors
/// Where there is none of that name.
pub fn column(plan: &EntityPlan, member: &str) -> Result<usize, String> {
    plan.column_of_member(member, usize::MAX).ok_or_else(|| format!("{member} is no member of {}", plan.entity().name))
}

fn sort_columns(plan: &EntityPlan, text: &str) -> Result<Vec<Sort>, String> {
    let mut sort: Vec<Sort> = Vec::new();
    for part in items(text) {
        let part = part?;
        let (descending, member) = match part.strip_prefix('-') {
            Some(member) => (true, member),
            None => (false, part.strip_prefix('+').unwrap_or(part).trim_start()),
        };
        let column = column(plan, member)?;
        if !plan.columns[column].encoder.is_comparable() {
            return Err(format!("{member} can't be sorted by"));
        }
        sort.push(Sort { column, descending });
    }
    if !sort.iter().any(|sort| sort.column == ID) {
        sort.push(Sort { column: ID, descending: sort.last().is_some_and(|last| last.descending) });
    }
    Ok(sort)
}

fn sorted_twice<'p>(plan: &'p EntityPlan, sort: &[Sort]) -> Option<&'p str> {
    let mut seen = vec![false; plan.columns.len()];
    let twice = sort.iter().find(|sort| std::mem::replace(&mut seen[sort.column], true))?;
    Some(&plan.columns[twice.column].member)
}

/// The filter that a parameter is.
///
/// # Errors
/// What is wrong with it.
pub fn filter(plan: &EntityPlan, name: &str, value: &str) -> Result<Filter, String> {
    let (member, operator) = match name.rsplit_once('.') {
        None => (name, Operator::Eq),
        Some((member, operator)) => {
            let operator = match operator {
                "eq" => Operator::Eq,
                "ne" => Operator::Ne,
                "gt" => Operator::Gt,
                "gte" => Operator::Gte,
                "lt" => Operator::Lt,
                "lte" => Operator::Lte,
                "in" => Operator::In,
                "like" => Operator::Like,
                "isnull" => Operator::IsNull,
                _ => return Err(format!("{operator} is no operator; there are eq, ne, gt, gte, lt, lte, in, like and isnull")),
            };
            (member, operator)
        }
    };
    let column = column(plan, member)?;
    let encoder = &plan.columns[column].encoder;
    let encode = |text: &str| {
        let mut bytes = Vec::new();
        encoder.encode_text(text, &mut bytes).map(|()| bytes)
    };
    let values = match operator {
        Operator::IsNull => vec![vec![u8::from(boolean(value)?)]],
        _ if !encoder.is_comparable() => return Err(format!("{member} can only be filtered by isnull")),
        Operator::Like => match encoder {
            Encoder::Text { .. } | Encoder::Enumeration { .. } => vec![like_pattern(value).into_bytes()],
            _ => return Err(format!("like is for strings, and {member} is none")),
        },
        Operator::In => value.split(',').map(encode).collect::<Result<_, _>>()?,
        _ => vec![encode(value)?],
    };
    Ok(Filter { column, operator, values })
}

// `*` (and `%`) stands for any characters; everything else for itself.
fn like_pattern(text: &str) -> String {
    let mut pattern = String::with_capacity(text.len() + 4);
    for character in text.chars() {
        match character {
            '*' | '%' => pattern.push('%'),
            '_' | '\\' => pattern.extend(['\\', character]),
            _ => pattern.push(character),
        }
    }
    pattern
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_decoded() {
        let read = parameters("a=1%2C2&b.like=x+y*&c").expect("query");
        assert_eq!(read, [("a", "1,2"), ("b.like", "x y*"), ("c", "")].map(|(n, v)| (n.to_owned(), v.to_owned())));
        assert!(parameters("a=%FF").is_err());
        assert!(parameters("a=%00").is_err());
    }

    #[test]
    fn an_empty_list_has_no_items_and_no_item_is_empty() {
        let read = |list| items(list).collect::<Result<Vec<_>, _>>();
        assert_eq!(read(""), Ok(vec![]));
        assert_eq!(read("a, -b"), Ok(vec!["a", "-b"]));
        for list in [" ", "a,", ",a", "a,,b"] {
            assert!(read(list).is_err(), "{list}");
        }
        assert_eq!(read("\u{b}"), Ok(vec!["\u{b}"]));
    }

    #[test]
    fn patterns_take_nothing_else_as_special() {
        assert_eq!(like_pattern("a_b*\\"), "a\\_b%\\\\");
    }

    #[test]
    fn the_next_page_has_the_same_filters() {
        let parameters = parameters("status.in=a%2Cb&offset=5&cursor=x&limit=2").expect("query");
        assert_eq!(next_page(&parameters, "y"), "status.in=a%2Cb&limit=2&cursor=y");
    }
}
