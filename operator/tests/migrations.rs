//! Property tests of the planner: random models A → B on a real PostgreSQL. What a plan leaves is what a fresh plan of B makes; rows survive;
//! a hazardous plan changes nothing.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use autonomy_crds::{DataModel, Model, resolve};
use autonomy_operator::apply::{Applied, ApplyError, apply, apply_models, plan_model};
use autonomy_operator::catalog;
use autonomy_operator::facts::Facts;
use autonomy_operator::plan::{Plan, plan};
use autonomy_operator::shape::{Shape, SqlType};
use autonomy_operator::step::{HazardClass, Step};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::{Value, json};
use sqlx::PgPool;
use support::{Server, execute, introspect, text};

// A model as an author changes it.
#[derive(Clone, Debug)]
struct Draft {
    next: u32,
    enumerations: Vec<(String, Vec<String>)>,
    entities: Vec<Value>,
}

impl Draft {
    fn new() -> Self {
        let mut draft =
            Self { next: 0, enumerations: vec![("Colour".to_owned(), vec!["red".to_owned(), "blue".to_owned()])], entities: Vec::new() };
        draft.change(0, 0, 0);
        draft
    }

    fn name(&mut self, prefix: &str) -> String {
        self.next += 1;
        format!("{prefix}{}", self.next)
    }

    // One of an author's edits; what does not apply is left out. Those below 60 are mostly safe.
    fn change(&mut self, kind: u8, pick: u8, detail: u8) {
        if self.entities.is_empty() || kind % 100 < 8 {
            let name = self.name("Entity");
            let history = detail.is_multiple_of(2);
            self.entities
                .push(json!({"name": name, "history": history, "attributes": [{"name": "code", "type": "string", "maxLength": 20}]}));
            return;
        }
        let index = usize::from(pick) % self.entities.len();
        match kind % 100 {
            8..18 => self.add_attribute(index, detail),
            18..24 => self.add_relationship(index, detail),
            24..30 => self.edit_attribute(index, detail, |attribute, _| {
                let wider = attribute["maxLength"].as_u64().map(|length| length + 10);
                if let Some(wider) = wider {
                    attribute["maxLength"] = wider.into();
                } else if let Some(precision) = attribute["precision"].as_u64() {
                    attribute["precision"] = (precision + 3).into();
                }
            }),
            // Neither a part nor its members can be renamed.
            30..41 if !self.entities[index]["partOf"].is_null() => {}
            30..36 => self.rename_attribute(index, detail),
            36..41 => {
                let former = self.entities[index]["name"].as_str().unwrap_or_default().to_owned();
                let name = self.name("Renamed");
                for entity in &mut self.entities {
                    for relationship in entity["relationships"].as_array_mut().into_iter().flatten() {
                        if relationship["target"] == former.as_str() {
                            relationship["target"] = name.as_str().into();
                        }
                    }
                    if entity["partOf"] == former.as_str() {
                        entity["partOf"] = name.as_str().into();
                    }
                }
                self.entities[index]["name"] = name.as_str().into();
                self.entities[index]["renamedFrom"] = former.into();
            }
            41..46 => {
                let value = self.name("value");
                let values = &mut self.enumerations[0].1;
                values.insert(usize::from(detail) % (values.len() + 1), value.clone());
                if detail.is_multiple_of(3) {
                    self.add_typed(index, json!({"type": "Colour", "default": value}));
                }
            }
            46..52 => self.add_index(index, detail),
            55 if self.entities[index]["partOf"].is_null() => {
                let option = if detail.is_multiple_of(3) { "softDelete" } else { "history" };
                self.entities[index][option] = true.into();
            }
            52..56 => {
                let text = format!("it's described {detail}");
                self.entities[index]["description"] = text.clone().into();
                self.edit_attribute(index, detail, |attribute, _| attribute["description"] = text.clone().into());
            }
            56..62 => self.edit_attribute(index, detail, |attribute, detail| {
                if attribute["type"] == "integer" || attribute["type"] == "decimal" {
                    let minimum = attribute["minimum"].as_i64().unwrap_or(0);
                    attribute["minimum"] = (minimum - i64::from(detail) % 7).into();
                }
                attribute["required"] = false.into();
            }),
            62..68 => self.add_part(index),
            68..72 => self.edit_attribute(index, detail, |attribute, _| {
                if attribute["default"].is_null() && attribute["type"] == "integer" && attribute["unique"] != true {
                    attribute["default"] = 7.into();
                }
            }),
            72..76 => self.edit_attribute(index, detail, |attribute, _| attribute["required"] = true.into()),
            76..79 if self.entities[index]["partOf"].is_null() => self.edit_attribute(index, detail, |attribute, _| {
                attribute["unique"] = (attribute["default"].is_null() && attribute["type"] != "json").into();
            }),
            79..82 => self.edit_attribute(index, detail, |attribute, detail| {
                if let Some(length) = attribute["maxLength"].as_u64().filter(|length| *length > 6) {
                    attribute["maxLength"] = (length - 3).into();
                } else if attribute["type"] == "integer" && attribute["default"].is_null() {
                    let types = ["string", "decimal", "json"];
                    let name = attribute["name"].clone();
                    *attribute = json!({"name": name, "type": types[usize::from(detail) % 3]});
                }
            }),
            82..86 => self.remove(index, "attributes", detail),
            86..89 => self.remove(index, "relationships", detail),
            89 => self.remove(index, "indexes", detail),
            90 => {
                self.entities[index]["history"] = Value::Null;
                self.entities[index]["softDelete"] = Value::Null;
            }
            91..93 => {
                let name = self.entities[index]["name"].clone();
                self.entities.retain(|entity| entity["name"] != name && entity["partOf"] != name);
                for entity in &mut self.entities {
                    if let Some(relationships) = entity["relationships"].as_array_mut() {
                        relationships.retain(|relationship| relationship["target"] != name);
                    }
                }
            }
            93..95 => {
                let values = &mut self.enumerations[0].1;
                if values.len() > 1 {
                    values.remove(usize::from(detail) % values.len());
                }
            }
            95..97 => self.enumerations[0].1.reverse(),
            97..99 => {
                let code = self.entities[index]["attributes"][0]["name"].clone();
                if self.entities[index]["partOf"].is_null() {
                    self.entities[index]["key"] = json!([code]);
                }
            }
            _ => self.add_check(index, detail),
        }
    }

    fn add_attribute(&mut self, index: usize, detail: u8) {
        let required = detail.is_multiple_of(4);
        self.add_typed(
            index,
            match detail % 12 {
                0 | 1 => json!({"type": "string", "default": "it's \\ \"so\"", "required": required}),
                2 => json!({"type": "integer", "minimum": -9, "default": -5}),
                3 | 4 => json!({"type": "decimal", "precision": 12, "scale": 2, "default": "1.50", "required": required, "minimum": -3}),
                5 => json!({"type": "boolean", "default": true}),
                6 => json!({"type": "date", "default": "2026-01-02"}),
                7 => json!({"type": "dateTime"}),
                8 => json!({"type": "json", "default": {"a": "it's"}, "required": required}),
                9 => json!({"type": "binary", "maxLength": 9, "default": "AP8="}),
                10 => json!({"type": "Colour"}),
                _ => json!({"type": "string", "maxLength": 12, "minLength": 1}),
            },
        );
    }

    fn add_typed(&mut self, index: usize, mut attribute: Value) {
        attribute["name"] = self.name("attribute").into();
        push(&mut self.entities[index], "attributes", attribute);
    }

    fn edit_attribute(&mut self, index: usize, detail: u8, edit: impl Fn(&mut Value, u8)) {
        if let Some(attributes) = self.entities[index]["attributes"].as_array_mut().filter(|attributes| !attributes.is_empty()) {
            let at = usize::from(detail) % attributes.len();
            edit(&mut attributes[at], detail);
        }
    }

    fn rename_attribute(&mut self, index: usize, detail: u8) {
        let name = self.name("named");
        let mut former = Value::Null;
        if let Some(attributes) = self.entities[index]["attributes"].as_array_mut().filter(|attributes| !attributes.is_empty()) {
            let at = usize::from(detail) % attributes.len();
            former = attributes[at]["name"].clone();
            attributes[at]["renamedFrom"] = former.clone();
            attributes[at]["name"] = name.as_str().into();
        }
        let entity = &mut self.entities[index];
        let mut lists: Vec<&mut Value> = Vec::new();
        if let Some(object) = entity.as_object_mut() {
            for (member, value) in object.iter_mut() {
                match (member.as_str(), value) {
                    ("key", list) => lists.extend(list.as_array_mut().into_iter().flatten()),
                    ("indexes", list) => {
                        for index in list.as_array_mut().into_iter().flatten() {
                            lists.extend(index["attributes"].as_array_mut().into_iter().flatten());
                        }
                    }
                    ("checks", list) => {
                        for check in list.as_array_mut().into_iter().flatten().filter_map(Value::as_object_mut) {
                            lists.extend(
                                check
                                    .iter_mut()
                                    .filter(|(member, _)| ["attribute", "other"].contains(&member.as_str()))
                                    .map(|(_, value)| value),
                            );
                        }
                    }
                    _ => {}
                }
            }
        }
        for value in lists.into_iter().filter(|value| **value == former) {
            *value = name.as_str().into();
        }
        // Sums over the parts whose attribute it is.
        let part = self.entities[index]["name"].clone();
        for owner in &mut self.entities {
            let lists: Vec<Value> = owner["parts"]
                .as_array()
                .into_iter()
                .flatten()
                .filter(|list| list["entity"] == part)
                .map(|list| list["name"].clone())
                .collect();
            for sum in owner["checks"].as_array_mut().into_iter().flatten().filter_map(|check| check.get_mut("sumOf")) {
                if lists.contains(&sum["parts"]) && sum["attribute"] == former {
                    sum["attribute"] = name.as_str().into();
                }
            }
        }
    }

    fn add_relationship(&mut self, index: usize, detail: u8) {
        let targets: Vec<Value> =
            self.entities.iter().filter(|entity| entity["partOf"].is_null()).map(|entity| entity["name"].clone()).collect();
        let Some(target) = targets.get(usize::from(detail) % targets.len().max(1)) else { return };
        // Parts refer with Restrict only.
        let rules = if self.entities[index]["partOf"].is_null() { ["Restrict", "Cascade", "SetNull"] } else { ["Restrict"; 3] };
        let relationship = json!({"name": self.name("relation"), "target": target, "onDelete": rules[usize::from(detail) % 3]});
        push(&mut self.entities[index], "relationships", relationship);
    }

    fn add_index(&mut self, index: usize, detail: u8) {
        if !self.entities[index]["partOf"].is_null() {
            return;
        }
        let Some(attributes) = self.entities[index]["attributes"].as_array() else { return };
        let names: Vec<Value> =
            attributes.iter().filter(|attribute| attribute["type"] != "json").map(|attribute| attribute["name"].clone()).collect();
        let count = names.len().min(1 + usize::from(detail) % 2);
        if count > 0 {
            push(
                &mut self.entities[index],
                "indexes",
                json!({"attributes": names[names.len() - count..], "unique": detail.is_multiple_of(5)}),
            );
        }
    }

    fn add_part(&mut self, index: usize) {
        if !self.entities[index]["partOf"].is_null() {
            return;
        }
        let owner = self.entities[index]["name"].clone();
        let (shape, list) = (self.name("Part"), self.name("parts"));
        push(&mut self.entities[index], "parts", json!({"name": list, "entity": shape, "maxItems": 5}));
        self.entities.push(json!({"name": shape, "partOf": owner, "attributes": [{"name": "amount", "type": "integer"}, {"name": "colour", "type": "Colour"}]}));
    }

    fn add_check(&mut self, index: usize, detail: u8) {
        if !self.entities[index]["partOf"].is_null() {
            return;
        }
        let Some(attributes) = self.entities[index]["attributes"].as_array() else { return };
        let numbers: Vec<Value> =
            attributes.iter().filter(|attribute| attribute["type"] == "integer").map(|attribute| attribute["name"].clone()).collect();
        let operators = ["lte", "gte", "ne"];
        let operator = operators[usize::from(detail) % 3];
        let parts = self.entities[index]["parts"][0].clone();
        let part = self.entities.iter().find(|entity| entity["name"] == parts["entity"]);
        let summed = part
            .map(|part| &part["attributes"])
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .find(|attribute| attribute["type"] == "integer");
        if let (Some(summed), Some(number), true) = (summed, numbers.first(), detail.is_multiple_of(2)) {
            let sum = json!({"parts": parts["name"], "attribute": summed["name"]});
            let check = json!({"name": self.name("check"), "attribute": number, "operator": operator, "sumOf": sum});
            push(&mut self.entities[index], "checks", check);
        } else if numbers.len() > 1 {
            let check = json!({"name": self.name("check"), "attribute": numbers[0], "operator": operator, "other": numbers[1]});
            push(&mut self.entities[index], "checks", check);
        }
    }

    fn remove(&mut self, index: usize, list: &str, detail: u8) {
        if let Some(list) = self.entities[index][list].as_array_mut().filter(|list| list.len() > 1) {
            let at = usize::from(detail) % list.len();
            list.remove(at);
        }
    }

    // None where the edits do not give a sound model.
    fn model(&self) -> Option<Model> {
        let enumerations: Vec<Value> = self.enumerations.iter().map(|(name, values)| json!({"name": name, "values": values})).collect();
        let document = json!({"apiVersion": "autonomy.dev/v1alpha1", "kind": "DataModel", "metadata": {"name": "shop"},
            "spec": {"enumerations": enumerations, "entities": self.entities}});
        let mut document = document;
        strip_nulls(&mut document);
        let model: DataModel = serde_json::from_value(document).expect("a DataModel");
        resolve::resolve(&model, &BTreeMap::new()).ok()
    }
}

// Looking at a member that is not there makes it null.
fn strip_nulls(value: &mut Value) {
    match value {
        Value::Object(object) => {
            object.retain(|_, value| !value.is_null());
            object.values_mut().for_each(strip_nulls);
        }
        Value::Array(list) => list.iter_mut().for_each(strip_nulls),
        _ => {}
    }
}

fn push(entity: &mut Value, list: &str, value: Value) {
    match entity[list].as_array_mut() {
        Some(list) => list.push(value),
        None => entity[list] = json!([value]),
    }
}

type Edits = Vec<(u8, u8, u8)>;

fn drafted(edits: &Edits, more: &Edits) -> Option<(Model, Model)> {
    let mut draft = Draft::new();
    edits.iter().for_each(|(kind, pick, detail)| draft.change(*kind, *pick, *detail));
    let before = draft.model()?;
    // What is renamed once keeps its renamedFrom; the model before has it no more to say.
    more.iter().for_each(|(kind, pick, detail)| draft.change(*kind, *pick, *detail));
    Some((before, draft.model()?))
}

struct Databases {
    grown: PgPool,
    fresh: PgPool,
}

async fn clear(pool: &PgPool) {
    execute(pool, "DROP SCHEMA IF EXISTS shop CASCADE; DELETE FROM autonomy.catalog").await;
}

// Three rows a table, as different as the columns allow; a required reference to a table without rows leaves its table empty.
async fn fill(pool: &PgPool, model: &Model) {
    let shape = Shape::of(model);
    for table in &shape.tables {
        for row in 1..=3 {
            let mut columns = vec!["id".to_owned()];
            let mut values = vec!["gen_random_uuid()".to_owned()];
            for column in &table.columns {
                let referring = column.name.ends_with("_id");
                if referring || row == 3 && (!column.required || column.default.is_some()) {
                    continue;
                }
                columns.push(format!("\"{}\"", column.name));
                values.push(match &column.sql_type {
                    SqlType::Text | SqlType::Varchar(_) => format!("'v{row}'"),
                    SqlType::Bigint | SqlType::Numeric | SqlType::NumericOf { .. } => row.to_string(),
                    SqlType::Boolean => "true".to_owned(),
                    SqlType::Date | SqlType::Timestamptz => format!("'2026-02-0{row}'"),
                    SqlType::Jsonb if !column.parts.is_empty() => r#"'[{"amount": 1}, {"amount": 2}]'"#.to_owned(),
                    SqlType::Jsonb => format!("'{{\"row\": {row}}}'"),
                    SqlType::Bytea => format!("'\\x0{row}'"),
                    SqlType::Uuid => "gen_random_uuid()".to_owned(),
                    SqlType::Enumeration { name, .. } => {
                        let values = &shape.enumerations.iter().find(|there| there.name == *name).expect("its enumeration").values;
                        format!("'{}'", values[row % values.len()])
                    }
                });
            }
            let sql = format!("INSERT INTO shop.\"{}\" ({}) VALUES ({})", table.name, columns.join(", "), values.join(", "));
            // A check between two columns may refuse equal values.
            let _ = sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(pool).await;
        }
    }
    // Each row has a former version.
    for table in shape.tables.iter().filter(|table| table.history.is_some()) {
        execute(pool, &format!("UPDATE shop.\"{}\" SET id = id", table.name)).await;
    }
}

// Whatever the columns have become, former versions can be read as rows of their table.
async fn read_former_versions(pool: &PgPool, model: &Model) {
    for table in &Shape::of(model).tables {
        if let Some(history) = &table.history {
            let rows = format!(
                "SELECT count(former::text)::text FROM shop.\"{}\" AS h CROSS JOIN LATERAL jsonb_populate_record(NULL::shop.\"{}\", h.\"row\") AS former",
                history.table, table.name
            );
            text(pool, &rows).await;
        }
    }
}

// The rows as text, numbers without the zeros behind their point, under the names that a plan gives to tables and columns.
async fn rows(pool: &PgPool, model: &Model, plan: &Plan, after: bool) -> BTreeMap<String, String> {
    let dropped: BTreeSet<(String, String)> = plan
        .steps
        .iter()
        .filter_map(|planned| match &planned.step {
            Step::DropColumn { table, column } | Step::ChangeType { table, column, .. } => Some((table.clone(), column.clone())),
            Step::ChangeParts { table, column, .. } => Some((table.clone(), column.clone())),
            _ => None,
        })
        .collect();
    let renamed_table = |name: &str| {
        plan.steps.iter().find_map(|planned| match &planned.step {
            Step::RenameTable { table, to } if table == name => Some(to.clone()),
            _ => None,
        })
    };
    let renamed_column = |of: &str, name: &str| {
        plan.steps.iter().find_map(|planned| match &planned.step {
            Step::RenameColumn { table, column, to } if table == of && column == name => Some(to.clone()),
            _ => None,
        })
    };
    let mut rows = BTreeMap::new();
    for table in &Shape::of(model).tables {
        let new_name = renamed_table(&table.name).unwrap_or_else(|| table.name.clone());
        let mut selected = String::from("id::text, version::text");
        for column in &table.columns {
            let new_column = renamed_column(&new_name, &column.name).unwrap_or_else(|| column.name.clone());
            if dropped.contains(&(new_name.clone(), new_column.clone())) {
                continue;
            }
            let name = if after { &new_column } else { &column.name };
            let _ = write!(selected, ", coalesce(\"{name}\"::text, 'NULL')");
        }
        let there = if after { &new_name } else { &table.name };
        let sql = format!("SELECT coalesce(string_agg(concat_ws('|', {selected}), E'\\n' ORDER BY id), '') FROM shop.\"{there}\"");
        let dropped = plan.steps.iter().any(|planned| matches!(&planned.step, Step::DropTable { table } if *table == new_name));
        // Rewritten parts raise the version.
        let rewritten = plan.steps.iter().any(|planned| matches!(&planned.step, Step::ChangeParts { table, .. } if *table == new_name));
        if !dropped && !rewritten {
            rows.insert(new_name, text(pool, &sql).await);
        }
    }
    rows
}

#[derive(Default, Debug)]
struct Seen {
    unsound: u32,
    safe: u32,
    refused: u32,
    approved: u32,
    failed: u32,
}

async fn check(databases: &Databases, before: &Model, after: &Model, with_rows: bool, seen: &mut Seen) -> Result<(), TestCaseError> {
    let Databases { grown, fresh } = databases;
    clear(grown).await;
    clear(fresh).await;
    apply_models(grown, std::slice::from_ref(before)).await.map_err(|error| TestCaseError::fail(format!("{error:?}")))?;
    if with_rows {
        fill(grown, before).await;
    }
    apply_models(fresh, std::slice::from_ref(after)).await.map_err(|error| TestCaseError::fail(format!("{error:?}")))?;
    let expected = introspect(fresh, "shop").await;
    let was = introspect(grown, "shop").await;
    let catalog = catalog::read(grown).await.expect("catalog");
    let plan = plan_model(grown, &catalog, after, &[]).await.expect("planned");
    let rows_before = rows(grown, before, &plan, false).await;
    let applied = if plan.is_safe() {
        let applied = apply(grown, &plan, None).await.map_err(|error| TestCaseError::fail(format!("{error:?}\n{plan}")))?;
        seen.safe += 1;
        let finished = matches!(&applied, Applied::Changed { unfinished, .. } if unfinished.is_empty());
        prop_assert!(finished || before == after);
        true
    } else {
        let refused = apply(grown, &plan, None).await;
        let is_refused = matches!(refused, Err(ApplyError::Hazardous { .. }));
        prop_assert!(is_refused);
        seen.refused += 1;
        unchanged(grown, &was, &catalog).await?;
        // Approved, it ends as wanted, or PostgreSQL refuses and nothing has changed.
        match apply(grown, &plan, Some(&plan.sha256())).await {
            Ok(_) => {
                seen.approved += 1;
                true
            }
            Err(ApplyError::Refused { .. }) if plan.hazards().any(|hazard| hazard.class == HazardClass::MayFail) => {
                seen.failed += 1;
                // New values of an enumeration may have come before.
                if plan.statements(autonomy_operator::step::Phase::Before).is_empty() {
                    unchanged(grown, &was, &catalog).await?;
                }
                false
            }
            Err(error) => return Err(TestCaseError::fail(format!("{error:?}\n{plan}"))),
        }
    };
    if applied {
        let is = introspect(grown, "shop").await;
        let (is_set, expected_set): (BTreeSet<_>, BTreeSet<_>) = (is.iter().collect(), expected.iter().collect());
        prop_assert!(
            is == expected,
            "more: {:#?}\nless: {:#?}\n{plan}",
            is_set.difference(&expected_set).collect::<Vec<_>>(),
            expected_set.difference(&is_set).collect::<Vec<_>>()
        );
        prop_assert_eq!(&catalog::read(grown).await.expect("catalog")["shop"].model, after);
        prop_assert_eq!(rows_before, rows(grown, before, &plan, true).await, "{}", plan);
        read_former_versions(grown, after).await;
    }
    Ok(())
}

async fn unchanged(pool: &PgPool, was: &[String], catalog: &catalog::Catalog) -> Result<(), TestCaseError> {
    prop_assert_eq!(was, introspect(pool, "shop").await);
    prop_assert_eq!(catalog, &catalog::read(pool).await.expect("catalog"));
    Ok(())
}

#[test]
fn any_model_becomes_any_other_or_is_refused_whole() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let (_server, databases) = runtime.block_on(async {
        let server = Server::start().await;
        let databases = Databases { grown: server.database("grown").await, fresh: server.database("fresh").await };
        (server, databases)
    });
    let mut seen = Seen::default();
    let cases = std::env::var("AUTONOMY_PLANNER_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(60);
    let config = Config { cases, max_shrink_iters: 120, failure_persistence: None, ..Config::default() };
    let edits = |most| prop::collection::vec((0..100_u8, any::<u8>(), any::<u8>()), 0..most);
    // Half of the changes are of the safe kind, so that plans are not all hazardous.
    let safe_edits = prop::collection::vec((8..72_u8, any::<u8>(), any::<u8>()), 1..5);
    let more = prop_oneof![3 => safe_edits, 2 => edits(6)];
    let mut seen_now = std::cell::RefCell::new(&mut seen);
    TestRunner::new(config)
        .run(&(edits(14), more, any::<bool>()), |(edits, more, with_rows)| {
            let mut seen = seen_now.borrow_mut();
            let Some((before, after)) = drafted(&edits, &more) else {
                seen.unsound += 1;
                return Ok(());
            };
            prop_assert!(plan(Some(&after), &after, &Facts::default()).steps.is_empty());
            runtime.block_on(check(&databases, &before, &after, with_rows, &mut seen))
        })
        .unwrap_or_else(|error| panic!("{error}"));
    let _ = seen_now.get_mut();
    println!("{seen:?}");
    assert!(seen.safe > cases / 10 && seen.refused > 0, "{seen:?}");
}
