//! Query strings: filters, sort, fields, embed, cursors, moments and aggregates of lists, to their plan and to its SQL; and those of subscriptions, to
//! their subjects.
#![no_main]

use autonomy_api::aggregate::{self, AggregateQuery};
use autonomy_api::events::query::EventQuery;
use autonomy_api::plan::EntityPlan;
use autonomy_api::query::{ListQuery, Operator, next_page, parameters};
use autonomy_api::sql;
use autonomy_api::value::Encoder;
use autonomy_api_fuzz::{canonical, entity, numeric_text, plans};
use axum::http::HeaderMap;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Some((choice, query)) = data.split_first() else { return };
    let (plan, plans) = (entity(*choice), plans());
    let Ok(parameters) = std::str::from_utf8(query).map_err(drop).and_then(|query| parameters(query).map_err(drop)) else { return };
    if let Ok(query) = EventQuery::parse(plan, &parameters, &HeaderMap::new()) {
        query.subjects(plan).iter().for_each(|subject| check_subject(subject));
    }
    if aggregate::is_asked(&parameters) {
        if let Ok(query) = AggregateQuery::parse(plans, plan, &parameters) {
            assert!(!query.aggregates.is_empty());
            check_sql(&sql::aggregates(plan, &query, 10).text);
        }
        return;
    }
    let Ok(query) = ListQuery::parse(plans, plan, &parameters) else { return };
    let (columns, answered) = query.columns(plan);
    assert!(answered <= columns.len() && columns.iter().all(|column| *column < plan.columns.len()));
    check_sql(&sql::list(plan, &query, &columns, &query.embedded, Some(10)).text);
    check_sql(&sql::count(plan, &query).text);
    check_decimals(plan, &parameters, &query);
    goes_on(plan, &parameters, &query);
});

// Nothing of a request gets into the text: it is of the model's names, placeholders and words alone, and one text of ours.
fn check_sql(text: &str) {
    let text = &text.replace("h.\"operation\" <> 'deleted'", "");
    let foreign = |byte: u8| !(byte.is_ascii_alphanumeric() || b" _\"$().,:*<>=/@[]|".contains(&byte));
    assert!(!text.bytes().any(foreign), "{text}");
    assert_eq!(text.matches('"').count() % 2, 0, "{text}");
    assert!(!text.contains("()"), "{text}");
}

// A value is one token, and none that stands for others.
fn check_subject(subject: &str) {
    let tokens: Vec<&str> = subject.split('.').collect();
    assert_eq!(tokens.len(), 7, "{subject}");
    let plain = |token: &str| {
        !token.is_empty() && !token.contains(|letter: char| letter.is_whitespace() || letter.is_control() || "*>".contains(letter))
    };
    assert!(tokens.iter().all(|token| *token == "*" || plain(token)), "{subject}");
}

fn check_decimals(plan: &EntityPlan, parameters: &[(String, String)], query: &ListQuery) {
    let of_filters = parameters
        .iter()
        .filter(|(name, _)| !matches!(name.as_str(), "limit" | "offset" | "count" | "sort" | "fields" | "embed" | "cursor" | "asOf"));
    for ((_, text), filter) in of_filters.zip(&query.filters) {
        if matches!(plan.columns[filter.column].encoder, Encoder::Decimal { .. }) && filter.operator != Operator::IsNull {
            for (text, value) in text.split(',').zip(&filter.values) {
                assert_eq!(canonical(text), canonical(&numeric_text(value)), "{text}");
            }
        }
    }
}

// A page's cursor is taken for the same query, and for no other order.
fn goes_on(plan: &EntityPlan, parameters: &[(String, String)], query: &ListQuery) {
    let values: Vec<Option<String>> = query.sort.iter().map(|sort| Some(format!("{} \"'&=", sort.column))).collect();
    let next = next_page(parameters, &query.cursor(plan, values.clone()));
    let again = autonomy_api::query::parameters(&next).expect("a link is a query");
    let again = ListQuery::parse(plans(), plan, &again).expect("a link is taken");
    assert_eq!(again.after, Some(values));
    assert_eq!((&again.filters, &again.sort, &again.fields, again.limit), (&query.filters, &query.sort, &query.fields, query.limit));
    assert_eq!(again.as_of, query.as_of);
}
