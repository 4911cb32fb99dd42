//! Random models either resolve, with all names unique and short enough for PostgreSQL, or give faults; nothing panics.

use std::collections::{BTreeMap, BTreeSet};

use autonomy_crds::data_model::{
    Attribute, Check, CheckOperator, Entity, EntityEvents, Enumeration, Import, Index, OnDelete, Part, Relationship,
};
use autonomy_crds::names::{MAX_IDENTIFIER, lower_camel_case, quote_identifier, snake_case};
use autonomy_crds::resolved::ColumnKind;
use autonomy_crds::{DataModel, DataModelSpec, Model, documents, resolve};
use proptest::prelude::*;
use proptest::sample::select;

const ENTITIES: [&str; 6] = ["Sale", "SaleLine", "SaleLINE", "Customer", "AVeryLongNameOfAnEntityThatIsJustShortEnough", "Base"];
const MEMBERS: [&str; 8] =
    ["total", "soldAt", "soldAT", "customer", "customerId", "status", "aVeryLongNameOfAnAttributeThatIsJustAboutShortEnough", "limit"];
const TYPES: [&str; 8] = ["string", "integer", "decimal", "dateTime", "json", "Status", "Unknown", "uuid"];

fn often<T: std::fmt::Debug + Clone>(value: impl Strategy<Value = T>) -> impl Strategy<Value = Option<T>> {
    proptest::option::weighted(0.3, value)
}

fn name(names: &'static [&'static str]) -> impl Strategy<Value = String> {
    prop_oneof![30 => select(names).prop_map(str::to_owned), 1 => "\\PC{0,8}"]
}

fn attribute() -> impl Strategy<Value = Attribute> {
    let default = often(prop_oneof![Just(serde_json::json!(1)), Just(serde_json::json!("new")), Just(serde_json::json!(-0.5e300))]);
    (name(&MEMBERS), select(&TYPES[..]), any::<bool>(), any::<bool>(), default, often(0..70_u32), often(-3..3_i64), often("\\PC{0,6}"))
        .prop_map(|(name, type_name, required, unique, default, max_length, minimum, pattern)| Attribute {
            name,
            type_name: type_name.to_owned(),
            required,
            unique,
            default,
            max_length,
            minimum,
            pattern,
            ..Attribute::default()
        })
}

fn relationship() -> impl Strategy<Value = Relationship> {
    (name(&MEMBERS), name(&ENTITIES), any::<bool>(), select(&[OnDelete::Restrict, OnDelete::Cascade, OnDelete::SetNull][..]))
        .prop_map(|(name, target, required, on_delete)| Relationship { name, target, required, on_delete, ..Relationship::default() })
}

fn entity() -> impl Strategy<Value = Entity> {
    let members = || proptest::collection::vec(name(&MEMBERS), 0..3);
    let lists = (
        proptest::collection::vec(attribute(), 0..4),
        proptest::collection::vec(relationship(), 0..2),
        proptest::collection::vec((name(&MEMBERS), name(&ENTITIES)), 0..2),
        proptest::collection::vec((members(), any::<bool>()), 0..2),
        proptest::collection::vec((name(&MEMBERS), name(&MEMBERS), name(&MEMBERS)), 0..2),
    );
    let optional = || proptest::option::weighted(0.15, name(&ENTITIES));
    let events = (often(name(&MEMBERS)), often(name(&MEMBERS)));
    let kept = (proptest::bool::weighted(0.3), proptest::bool::weighted(0.1));
    (name(&ENTITIES), lists, members(), optional(), optional(), optional(), events, proptest::bool::weighted(0.1), kept).prop_map(
        |(name, (attributes, relationships, parts, indexes, checks), key, extends, part_of, renamed_from, events, is_abstract, kept)| {
            Entity {
                name,
                attributes,
                relationships,
                parts: parts.into_iter().map(|(name, entity)| Part { name, entity, ..Part::default() }).collect(),
                indexes: indexes.into_iter().map(|(attributes, unique)| Index { attributes, unique }).collect(),
                checks: checks
                    .into_iter()
                    .map(|(name, attribute, other)| Check {
                        name,
                        attribute,
                        operator: CheckOperator::Lte,
                        other: Some(other),
                        sum_of: None,
                    })
                    .collect(),
                key,
                extends,
                part_of,
                renamed_from,
                is_abstract,
                history: kept.0,
                soft_delete: kept.1,
                events: EntityEvents { routing: events.0, partition_key: events.1 },
                ..Entity::default()
            }
        },
    )
}

fn model(model_name: &'static str) -> impl Strategy<Value = DataModel> {
    let imports = proptest::collection::vec((select(&["one", "two", "three"][..]), name(&ENTITIES)), 0..2);
    let statuses =
        proptest::option::weighted(0.8, Just(Enumeration { name: "Status".into(), description: None, values: vec!["new".into()] }));
    (proptest::collection::vec(entity(), 1..4), imports, statuses).prop_map(move |(entities, imports, statuses)| {
        let imports = imports
            .into_iter()
            .map(|(model, entity)| Import { model: model.into(), entities: vec![entity], enumerations: vec!["Status".into()] })
            .collect();
        DataModel::new(
            model_name,
            DataModelSpec { entities, imports, enumerations: statuses.into_iter().collect(), ..DataModelSpec::default() },
        )
    })
}

// Everything with a name in a schema; each name once.
fn assert_names(model: &Model) {
    let mut names: Vec<String> = Vec::new();
    names.extend(model.enumerations.iter().map(|enumeration| enumeration.type_name.clone()));
    for entity in &model.entities {
        names.push(entity.table.clone());
        names.push(entity.primary_key_name());
        names.extend((!entity.key.is_empty()).then(|| entity.key_name()));
        names.extend(
            entity.history_table().map(|table| [table, entity.history_key_name(), entity.history_index_name()]).into_iter().flatten(),
        );
        names.extend(entity.indexes.iter().map(|index| index.name.clone()));
        names.extend(entity.checks.iter().map(|check| check.name.clone()));
        let mut columns = BTreeSet::from(["id", "version", "created_at", "updated_at"].map(str::to_owned));
        let mut members = BTreeSet::from(["id", "version", "createdAt", "updatedAt"].map(str::to_owned));
        for column in &entity.columns {
            assert!(column.name.len() <= MAX_IDENTIFIER, "{column:?}");
            assert!(columns.insert(column.name.clone()), "{column:?}");
            assert!(members.insert(column.member.clone()), "{column:?}");
            names.push(entity.limits_name(column));
            names.extend(column.unique.then(|| entity.unique_name(column)));
            match &column.kind {
                ColumnKind::Relationship { .. } => {
                    names.push(entity.foreign_key_name(column));
                    names.extend((!column.unique).then(|| entity.foreign_key_index_name(column)));
                }
                ColumnKind::Parts { part, .. } => names.push(part.view.clone()),
                ColumnKind::Attribute { .. } => {}
            }
        }
        let known = |name: &String| entity.by_column(name).is_some();
        assert!(entity.key.iter().chain(&entity.routing).chain(&entity.partition_key).all(known), "{entity:?}");
        assert!(entity.indexes.iter().flat_map(|index| &index.columns).all(known), "{entity:?}");
    }
    for (index, name) in names.iter().enumerate() {
        assert!(!name.is_empty() && name.len() <= MAX_IDENTIFIER, "{name}");
        assert!(!names[..index].contains(name), "{name} is there twice: {names:?}");
    }
    let paths: BTreeSet<&str> = model.entities.iter().map(|entity| entity.path.as_str()).collect();
    assert_eq!(paths.len(), model.entities.len());
    let json = serde_json::to_string(model).expect("JSON");
    assert_eq!(&serde_json::from_str::<Model>(&json).expect("a model"), model);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn models_resolve_or_have_faults(one in model("one"), two in model("two")) {
        let all = BTreeMap::from([("one".to_owned(), one.clone()), ("two".to_owned(), two.clone())]);
        for model in [&one, &two] {
            match resolve::resolve(model, &all) {
                Ok(model) => assert_names(&model),
                Err(faults) => {
                    prop_assert!(!faults.0.is_empty());
                    prop_assert!(faults.0.iter().all(|fault| fault.path.starts_with("spec.") || fault.path == "metadata.name"), "{faults}");
                }
            }
        }
        let together = resolve::resolve_all(&[one, two]);
        prop_assert!(together.map_or_else(|faults| !faults.is_empty(), |models| models.len() == 2));
    }

    #[test]
    fn any_text_is_read_or_refused(text in "[-:{}\\[\\], a-z\"'\n&*|>#!%@`0-9.]{0,80}") {
        let _ = documents::parse("any.yaml", &text);
    }

    #[test]
    fn names_convert_to_identifiers(name in "[A-Za-z][A-Za-z0-9]{0,40}") {
        let snake = snake_case(&name);
        prop_assert!(!snake.contains("__") && !snake.starts_with('_') && !snake.ends_with('_'), "{}", snake);
        prop_assert_eq!(&snake_case(&snake), &snake);
        prop_assert!(lower_camel_case(&name).starts_with(|first: char| first.is_ascii_lowercase()));
    }

    #[test]
    fn quoted_identifiers_stay_one_identifier(name in "\\PC{0,20}") {
        let quoted = quote_identifier(&name);
        let inside = &quoted[1..quoted.len() - 1];
        prop_assert!(!inside.replace("\"\"", "").contains('"'));
    }
}
