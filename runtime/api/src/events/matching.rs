//! The filters of lists, held against an event's object: values are compared as PostgreSQL compares them, numbers with all their digits.
//! Strings are in the order of their code points.

use std::cmp::Ordering;

use sonic_rs::{LazyValue, to_object_iter};

use crate::plan::EntityPlan;
use crate::query::{Filter, Operator};
use crate::value::{Encoder, Scalar, compare_binary_decimals};

/// Filters made ready.
#[derive(Debug, Default)]
pub struct Matcher {
    conditions: Vec<Condition>,
}

#[derive(Debug)]
struct Condition {
    filter: Filter,
    // Of `like`.
    pattern: Option<Pattern>,
}

impl Matcher {
    /// All of these filters.
    pub fn new(filters: Vec<Filter>) -> Self {
        let conditions = filters.into_iter().map(|filter| {
            let pattern = match (filter.operator, filter.values.first()) {
                (Operator::Like, Some(pattern)) => Some(Pattern::of_sql(&String::from_utf8_lossy(pattern))),
                _ => None,
            };
            Condition { filter, pattern }
        });
        Self { conditions: conditions.collect() }
    }

    /// Whether all filters hold for the object that is an event's data. A member that is not there is as if it were null: the event is older
    /// than the attribute.
    pub fn matches(&self, plan: &EntityPlan, data: &[u8]) -> bool {
        if self.conditions.is_empty() {
            return true;
        }
        let mut values: Vec<Option<LazyValue<'_>>> = Vec::new();
        values.resize_with(self.conditions.len(), || None);
        let mut missing = self.conditions.len();
        for member in to_object_iter(data) {
            let Ok((name, value)) = member else { return false };
            for (condition, found) in self.conditions.iter().zip(&mut values) {
                // The first one counts: `before` comes behind the object's own members.
                if found.is_none() && plan.columns[condition.filter.column].member == name.as_ref() as &str {
                    *found = Some(value.clone());
                    missing -= 1;
                }
            }
            if missing == 0 {
                break;
            }
        }
        self.conditions.iter().zip(&values).all(|(condition, value)| {
            let encoder = &plan.columns[condition.filter.column].encoder;
            condition.holds(encoder, value.as_ref().map(LazyValue::as_raw_str))
        })
    }
}

impl Condition {
    fn holds(&self, encoder: &Encoder, raw: Option<&str>) -> bool {
        let Filter { operator, values, .. } = &self.filter;
        let scalar = raw.and_then(|raw| Scalar::read(raw).ok().flatten());
        if *operator == Operator::IsNull {
            let wants_null = values.first().is_some_and(|value| *value == [1]);
            return wants_null == scalar.is_none();
        }
        let Some(scalar) = scalar else { return *operator == Operator::Ne };
        if let Some(pattern) = &self.pattern {
            return matches!(&scalar, Scalar::String(text) if pattern.matches(text));
        }
        let mut own = Vec::new();
        // A value that the attribute can't have any more is like no other.
        if encoder.encode_kept(&scalar, &mut own).is_err() {
            return *operator == Operator::Ne;
        }
        let compared = |wanted: &Vec<u8>| compare(encoder, &own, wanted);
        let first = || values.first().and_then(compared);
        match operator {
            Operator::Eq | Operator::In => values.iter().any(|wanted| compared(wanted) == Some(Ordering::Equal)),
            Operator::Ne => first() != Some(Ordering::Equal),
            Operator::Gt => first() == Some(Ordering::Greater),
            Operator::Gte => matches!(first(), Some(Ordering::Greater | Ordering::Equal)),
            Operator::Lt => first() == Some(Ordering::Less),
            Operator::Lte => matches!(first(), Some(Ordering::Less | Ordering::Equal)),
            Operator::Like | Operator::IsNull => false,
        }
    }
}

// Two values in PostgreSQL's binary form.
fn compare(encoder: &Encoder, left: &[u8], right: &[u8]) -> Option<Ordering> {
    match encoder {
        Encoder::Text { .. } | Encoder::Uuid | Encoder::Boolean => Some(left.cmp(right)),
        Encoder::Integer { .. } | Encoder::DateTime => {
            let number = |bytes: &[u8]| bytes.try_into().ok().map(i64::from_be_bytes);
            Some(number(left)?.cmp(&number(right)?))
        }
        Encoder::Date => {
            let days = |bytes: &[u8]| bytes.try_into().ok().map(i32::from_be_bytes);
            Some(days(left)?.cmp(&days(right)?))
        }
        Encoder::Decimal { .. } => compare_binary_decimals(left, right),
        // In the order declared.
        Encoder::Enumeration { values } => {
            let place = |bytes: &[u8]| values.iter().position(|value| value.as_bytes() == bytes);
            Some(place(left)?.cmp(&place(right)?))
        }
        Encoder::Json | Encoder::Binary { .. } | Encoder::Parts(_) => None,
    }
}

// What SQL's LIKE takes, without `_`, which only stands for itself here: literal texts with anything between them.
#[derive(Debug, PartialEq, Eq)]
struct Pattern(Vec<String>);

impl Pattern {
    fn of_sql(pattern: &str) -> Self {
        let mut pieces = vec![String::new()];
        let mut escaped = false;
        for character in pattern.chars() {
            match character {
                '\\' if !escaped => {
                    escaped = true;
                    continue;
                }
                '%' if !escaped => pieces.push(String::new()),
                _ => {
                    if let Some(piece) = pieces.last_mut() {
                        piece.push(character);
                    }
                }
            }
            escaped = false;
        }
        Self(pieces)
    }

    fn matches(&self, text: &str) -> bool {
        let [first, between @ .., last] = &self.0[..] else {
            return self.0.first().is_some_and(|only| only == text);
        };
        let Some(mut rest) = text.strip_prefix(first.as_str()) else { return false };
        for piece in between {
            let Some(at) = rest.find(piece.as_str()) else { return false };
            rest = &rest[at + piece.len()..];
        }
        rest.ends_with(last.as_str())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use autonomy_crds::documents::{self, Resource};
    use autonomy_crds::resolve;
    use autonomy_process::catalog::Catalog;

    use super::*;
    use crate::plan::PlanCache;
    use crate::query;

    fn plan() -> Arc<EntityPlan> {
        let yaml = "
apiVersion: autonomy.dev/v1alpha1
kind: DataModel
metadata: {name: shop}
spec:
  enumerations:
    - {name: SaleStatus, values: [new, accrued, invoiced]}
  entities:
    - name: Sale
      attributes:
        - {name: receipt, type: string}
        - {name: total, type: decimal, precision: 12, scale: 2}
        - {name: exact, type: decimal}
        - {name: points, type: integer}
        - {name: paid, type: boolean}
        - {name: day, type: date}
        - {name: soldAt, type: dateTime}
        - {name: token, type: uuid}
        - {name: status, type: SaleStatus}
        - {name: notes, type: json}
";
        let resources = documents::parse("test.yaml", yaml).expect("documents");
        let models: Vec<_> =
            resources.into_iter().filter_map(|r| if let Resource::DataModel(model) = r { Some(model) } else { None }).collect();
        let model = resolve::resolve_all(&models).expect("resolved").remove(0);
        let catalog = Catalog { models: BTreeMap::from([("shop".to_owned(), Arc::new(model))]), revisions: BTreeMap::new() };
        PlanCache::default().of(&Arc::new(catalog)).models["shop"].entities[0].clone()
    }

    const SALE: &str = r#"{"id":"0b9f6c1e-7d1c-4f5b-9d0a-3f1f0f6f2a10","version":3,"createdAt":"2026-11-25T10:00:00Z",
        "updatedAt":"2026-11-25T10:00:00.5Z","receipt":"S-1_é","total":12.50,"exact":9007199254740993.00000000000000000001,
        "points":9007199254740993,"paid":true,"day":"2026-11-25","soldAt":"2026-11-25T10:00:00Z",
        "token":"0b9f6c1e-7d1c-4f5b-9d0a-3f1f0f6f2a10","status":"accrued","notes":null,
        "before":{"receipt":"other","total":1.00,"notes":{"a":1}}}"#;

    fn holds(plan: &EntityPlan, query: &str, data: &str) -> bool {
        let parameters = query::parameters(query).expect("a query");
        let filters = parameters.iter().map(|(name, value)| query::filter(plan, name, value).expect("a filter")).collect();
        Matcher::new(filters).matches(plan, data.as_bytes())
    }

    #[test]
    fn filters_mean_what_they_mean_in_lists() {
        let plan = plan();
        for query in [
            "",
            "receipt=S-1_%C3%A9",
            "receipt.like=S*_*",
            "receipt.gt=S-1",
            "receipt.in=a,S-1_%C3%A9",
            "total=12.5",
            "total=1.25e1",
            "total.gt=12.4999999999999999999999",
            "total.lte=12.50",
            "total.in=1,12.5000",
            "exact.gt=9007199254740993",
            "exact=9007199254740993.00000000000000000001",
            "exact.lt=9007199254740993.00000000000000000002",
            "points=9007199254740993",
            "points.lt=9007199254740994",
            "points.gt=-1",
            "paid=true",
            "day.gte=2026-11-25",
            "day.lt=2026-12-01",
            "soldAt=2026-11-25T11:00:00%2B01:00",
            "soldAt.gt=1999-12-31T00:00:00Z",
            "updatedAt.gt=2026-11-25T10:00:00.499Z",
            "token=0B9F6C1E-7D1C-4F5B-9D0A-3F1F0F6F2A10",
            "status=accrued",
            "status.gt=new",
            "status.lt=invoiced",
            "status.like=acc*",
            "status.ne=new",
            "notes.isnull=true",
            "version=3",
            "total.gt=5&status.in=new,accrued&paid.ne=false",
        ] {
            assert!(holds(&plan, query, SALE), "{query}");
        }
        for query in [
            "receipt=other",
            "receipt=S-1_e",
            "receipt.like=S*x",
            "receipt.like=-1*",
            "total=12.51",
            "total.gt=12.5",
            "total.lt=-13",
            "exact=9007199254740993",
            "exact.lte=9007199254740993",
            "points=9007199254740992",
            "points.gte=9007199254740994",
            "paid=false",
            "day.lt=2026-11-25",
            "day.lt=1999-12-31",
            "soldAt.lt=2026-11-25T10:00:00Z",
            "token.ne=0b9f6c1e-7d1c-4f5b-9d0a-3f1f0f6f2a10",
            "status=new",
            "status.gte=invoiced",
            "notes.isnull=false",
            "status=accrued&total.gt=100",
        ] {
            assert!(!holds(&plan, query, SALE), "{query}");
        }
    }

    #[test]
    fn what_is_null_or_not_there_is_only_different() {
        let plan = plan();
        for data in [r#"{"total":null,"status":null}"#, "{}"] {
            for query in ["total.ne=1", "total.isnull=true", "status.ne=new"] {
                assert!(holds(&plan, query, data), "{query} {data}");
            }
            for query in ["total=1", "total.lt=1", "total.gte=1", "total.isnull=false", "status=new", "status.like=*"] {
                assert!(!holds(&plan, query, data), "{query} {data}");
            }
        }
    }

    #[test]
    fn a_value_of_before_is_like_no_other() {
        let plan = plan();
        let data = r#"{"status":"cancelled","total":"NaN"}"#;
        assert!(holds(&plan, "status.ne=new&total.ne=1&total.isnull=false", data));
        assert!(!holds(&plan, "status.gt=new", data));
        assert!(!holds(&plan, "total.lt=1", data));
    }

    #[test]
    fn patterns_are_anchored_at_both_ends() {
        let matches = |pattern: &str, text: &str| Pattern::of_sql(pattern).matches(text);
        assert!(matches("a%", "abc") && matches("%c", "abc") && matches("%b%", "abc") && matches("a%c", "abc") && matches("abc", "abc"));
        assert!(matches("%", "") && matches("%%", "x") && matches("a%b%b", "abb"));
        assert!(!matches("a", "ab") && !matches("b%", "ab") && !matches("%a", "ab") && !matches("a%a", "a") && !matches("a%b%b", "ab"));
        assert!(matches("a\\_b\\\\%", "a_b\\x") && !matches("a\\_b", "axb"));
    }
}
