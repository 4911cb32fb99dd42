//! Entities: what they inherit, their columns and parts.

use super::naming::{Place, check_camel, check_length, check_member, check_pascal};
use super::scope::{Declared, Scopes};
use super::{relations, value};
use crate::data_model::{Attribute, OnDelete, Part, Relationship};
use crate::fault::Faults;
use crate::names;
use crate::resolved::{self, Column, ColumnKind, Entity, EntityReference, PART_POSITION_COLUMN, PartShape, ValueType};

// PostgreSQL takes 1,600 columns, system columns and dropped ones among them.
const MAX_COLUMNS: usize = 1000;
const DEFAULT_MAX_ITEMS: u32 = 10_000;

/// The entities that have a table, each with its place in `spec.entities`; every declared entity is checked.
pub(super) fn resolve_entities(scopes: &Scopes<'_>, faults: &mut Faults) -> Vec<(usize, Entity)> {
    let model = scopes.model;
    let mut resolved = Vec::new();
    for (index, entity) in model.spec.entities.iter().enumerate() {
        let declared = Declared { model, index, entity };
        check_entity_names(declared, faults);
        if entity.part_of.is_some() {
            check_shape(scopes, declared, faults);
            shape_columns(scopes, declared, faults);
            continue;
        }
        let built = build(scopes, declared, faults);
        if !entity.is_abstract {
            resolved.push((index, built));
        }
    }
    if resolved.is_empty() {
        let message = "nothing here has a table: every entity is abstract or the shape of a part; declare at least one that is neither";
        faults.add("spec.entities", message);
    }
    resolved
}

fn check_entity_names(declared: Declared<'_>, faults: &mut Faults) {
    let (entity, path) = (declared.entity, declared.path());
    let name_path = format!("{path}.name");
    let siblings = &declared.model.spec.entities;
    if check_pascal(&entity.name, &name_path, "entity", faults) {
        check_length(&names::snake_case(&entity.name), &name_path, "table", faults);
    }
    if siblings[..declared.index].iter().any(|earlier| earlier.name == entity.name) {
        faults.add(&name_path, format!("there are two entities {:?}; rename one of them or make one of the two", entity.name));
    }
    if let Some(plural) = &entity.plural {
        let bytes = plural.as_bytes();
        if !bytes.first().is_some_and(u8::is_ascii_alphabetic) || !bytes.iter().all(u8::is_ascii_alphanumeric) {
            faults.add(
                format!("{path}.plural"),
                format!("plural {plural:?} can't be a path: begin with a letter and take letters and digits of ASCII only"),
            );
        }
    }
    if let Some(before) = &entity.renamed_from {
        let path = format!("{path}.renamedFrom");
        check_pascal(before, &path, "entity", faults);
        if entity.is_abstract || entity.part_of.is_some() {
            faults.add(&path, "only an entity with a table can be renamed; take renamedFrom away and change the name alone");
        } else if siblings.iter().any(|other| &other.name == before) {
            faults.add(&path, format!("there still is an entity {before:?}; an entity that is renamed is not there under its old name"));
        } else if siblings[..declared.index].iter().any(|earlier| earlier.renamed_from.as_ref() == Some(before)) {
            faults.add(&path, format!("two entities can't both be what {before:?} was"));
        }
    }
}

fn build<'a>(scopes: &Scopes<'a>, declared: Declared<'a>, faults: &mut Faults) -> Entity {
    let (entity, path) = (declared.entity, declared.path());
    let table = names::snake_case(&entity.name);
    let chain = ancestry(scopes, declared, faults);
    let mut columns = Columns::new(Place::Entity);
    let mut elsewhere = Faults::default();
    for ancestor in &chain {
        columns.foreign = !std::ptr::eq(ancestor.model, scopes.model);
        let faults = if columns.foreign { &mut elsewhere } else { &mut *faults };
        columns.add_all(scopes, *ancestor, faults);
        for (index, part) in ancestor.entity.parts.iter().enumerate() {
            let path = format!("{}.parts[{index}]", ancestor.path());
            if let Some(column) = part_column(scopes, *ancestor, part, &table, &path, faults) {
                columns.push(column, &part.name, &path, faults);
            }
        }
    }
    note_faults_elsewhere(declared, &elsewhere, faults);
    let columns = columns.finish(faults);
    if columns.is_empty() && !entity.is_abstract {
        faults.add(&path, format!("{} has nothing of its own: declare at least one attribute, relationship or part", entity.name));
    }
    if columns.len() > MAX_COLUMNS {
        let message = format!("{} has {} attributes, relationships and parts; {MAX_COLUMNS} is the most", entity.name, columns.len());
        faults.add(&path, message);
    }
    let mut built = Entity {
        name: entity.name.clone(),
        path: names::lower_camel_case(&entity.plural.clone().unwrap_or_else(|| format!("{}s", entity.name))),
        table,
        description: entity.description.clone(),
        extends: entity.extends.as_deref().and_then(|base| scopes.entity(declared.model, base)).map(|base| base.reference()),
        columns,
        key: Vec::new(),
        indexes: Vec::new(),
        checks: Vec::new(),
        routing: None,
        partition_key: None,
        history: chain.iter().any(|declared| declared.entity.history),
        soft_delete: chain.iter().any(|declared| declared.entity.soft_delete),
        renamed_from_table: entity.renamed_from.as_deref().map(names::snake_case),
        require_if_match: chain.iter().any(|ancestor| ancestor.entity.require_if_match),
    };
    relations::complete(scopes, &mut built, &chain, faults);
    if built.history && built.by_member(names::AS_OF).is_some() {
        let message = format!("{:?} is a query parameter of entities with a history; call the attribute otherwise", names::AS_OF);
        faults.add(format!("{path}.history"), message);
    }
    built
}

fn note_faults_elsewhere(declared: Declared<'_>, elsewhere: &Faults, faults: &mut Faults) {
    if let Some(first) = elsewhere.0.first() {
        let base = declared.entity.extends.as_deref().unwrap_or_default();
        let message = format!("what is taken over from {base:?} has faults in its own model; mend them there first: {}", first.message);
        faults.add(format!("{}.extends", declared.path()), message);
    }
}

/// The entity and those it extends, the farthest first.
fn ancestry<'a>(scopes: &Scopes<'a>, declared: Declared<'a>, faults: &mut Faults) -> Vec<Declared<'a>> {
    let mut chain = vec![declared];
    let mut last = declared;
    while let Some(base_name) = &last.entity.extends {
        let path = format!("{}.extends", last.path());
        let here = std::ptr::eq(last.model, scopes.model);
        let Some(base) = scopes.entity(last.model, base_name) else {
            if here {
                scopes.unknown_entity(base_name, &path, faults);
            } else {
                let message = format!("{base_name:?}, which {:?} of model {:?} extends, is not there", last.entity.name, last.model_name());
                faults.add(format!("{}.extends", declared.path()), message);
            }
            break;
        };
        if chain.iter().any(|earlier| earlier.is(&base)) {
            let way: Vec<&str> = chain.iter().map(|each| each.entity.name.as_str()).collect();
            let message = format!("extends goes in a circle: {} → {}; take one of them away", way.join(" → "), base.entity.name);
            faults.add(format!("{}.extends", declared.path()), message);
            break;
        }
        if base.entity.part_of.is_some() && here {
            faults.add(
                &path,
                format!("{base_name:?} is the shape of a part and can't be extended; move what both have to an abstract entity"),
            );
        }
        chain.push(base);
        last = base;
    }
    chain.reverse();
    chain
}

// Columns so far, so that a clash is seen when one is added.
struct Columns {
    place: Place,
    columns: Vec<Column>,
    // Of each column, its field; none where another model declares it.
    paths: Vec<Option<String>>,
    foreign: bool,
}

impl Columns {
    fn new(place: Place) -> Self {
        Self { place, columns: Vec::new(), paths: Vec::new(), foreign: false }
    }

    /// Attributes and relationships of one entity.
    fn add_all<'a>(&mut self, scopes: &Scopes<'a>, declared: Declared<'a>, faults: &mut Faults) {
        for (index, attribute) in declared.entity.attributes.iter().enumerate() {
            let path = format!("{}.attributes[{index}]", declared.path());
            let column = self.attribute_column(scopes, declared, attribute, &path, faults);
            self.push(column, &attribute.name, &path, faults);
        }
        for (index, relationship) in declared.entity.relationships.iter().enumerate() {
            let path = format!("{}.relationships[{index}]", declared.path());
            let column = self.relationship_column(scopes, declared, relationship, &path, faults);
            self.push(column, &relationship.name, &path, faults);
        }
    }

    fn push(&mut self, column: Column, declared_name: &str, path: &str, faults: &mut Faults) {
        let name_path = format!("{path}.name");
        check_member(&column.member, &column.name, self.place, &name_path, faults);
        if column.member != declared_name {
            // A relationship's own name is what `embed` puts into objects.
            check_member(declared_name, &names::snake_case(declared_name), self.place, &name_path, faults);
        }
        let clash = self.columns.iter().find_map(|earlier| {
            if earlier.member == column.member || declared(earlier) == declared_name {
                Some(format!("there is a {declared_name:?} already, own or taken over by extends; rename one of the two"))
            } else if earlier.member == declared_name || column.member == declared(earlier) {
                Some(format!(
                    "{declared_name:?} clashes with {:?}, whose JSON member is {:?}; rename one",
                    declared(earlier),
                    earlier.member
                ))
            } else if earlier.name == column.name {
                Some(format!("{declared_name:?} and {:?} would both be the column {:?}; rename one", declared(earlier), column.name))
            } else {
                None
            }
        });
        if let Some(message) = clash {
            faults.add(&name_path, message);
        }
        self.paths.push((!self.foreign).then(|| path.to_owned()));
        self.columns.push(column);
    }

    /// The columns, once all are there and their former names can be checked.
    fn finish(self, faults: &mut Faults) -> Vec<Column> {
        for (index, (column, path)) in self.columns.iter().zip(&self.paths).enumerate() {
            let (Some(before), Some(path)) = (&column.renamed_from, path) else { continue };
            let path = format!("{path}.renamedFrom");
            if self.place == Place::Part {
                faults.add(path, "a part's members can't be renamed, since they are inside their owner's rows; add a new one instead");
            } else if self.columns.iter().any(|other| &other.name == before) {
                faults.add(path, format!("there still is a column {before:?}; what is renamed is not there under its old name"));
            } else if self.columns[..index].iter().any(|other| other.renamed_from.as_ref() == Some(before)) {
                faults.add(path, format!("two columns can't both be what {before:?} was"));
            }
        }
        self.columns
    }

    fn attribute_column<'a>(
        &self,
        scopes: &Scopes<'a>,
        declared: Declared<'a>,
        attribute: &Attribute,
        path: &str,
        faults: &mut Faults,
    ) -> Column {
        check_camel(&attribute.name, &format!("{path}.name"), "attribute", faults);
        if let Some(before) = &attribute.renamed_from {
            check_camel(before, &format!("{path}.renamedFrom"), "attribute", faults);
        }
        let value_type = value::resolve_type(scopes, declared.model, attribute, path, faults);
        let default = match (&attribute.default, &value_type) {
            (Some(default), Some(value_type)) => match value::resolve_default(default, value_type) {
                Ok(default) => Some(default),
                Err(message) => {
                    faults.add(format!("{path}.default"), message);
                    None
                }
            },
            _ => None,
        };
        if attribute.unique && default.is_some() {
            faults
                .add(format!("{path}.default"), "a unique attribute has no use for a default: the second object with it would be refused");
        }
        if attribute.unique && matches!(value_type, Some(ValueType::Json | ValueType::Binary { .. })) {
            faults.add(format!("{path}.unique"), format!("a value of type {} can't be unique", attribute.type_name));
        }
        if attribute.unique && self.place == Place::Part {
            faults.add(format!("{path}.unique"), "an attribute of a part can't be unique: parts live inside their owner's rows");
        }
        Column {
            name: names::snake_case(&attribute.name),
            member: attribute.name.clone(),
            // An unknown type has its fault; the rest is checked on as if it were JSON.
            kind: ColumnKind::Attribute { value_type: value_type.unwrap_or(ValueType::Json) },
            description: attribute.description.clone(),
            required: attribute.required,
            unique: attribute.unique,
            default,
            classification: attribute.classification.clone(),
            renamed_from: attribute.renamed_from.as_deref().map(names::snake_case),
        }
    }

    fn relationship_column<'a>(
        &self,
        scopes: &Scopes<'a>,
        declared: Declared<'a>,
        relationship: &Relationship,
        path: &str,
        faults: &mut Faults,
    ) -> Column {
        let name = &relationship.name;
        check_camel(name, &format!("{path}.name"), "relationship", faults);
        if relationship.required && relationship.on_delete == OnDelete::SetNull {
            let message = "a required relationship can't become null: take Restrict or Cascade, or make it not required";
            faults.add(format!("{path}.onDelete"), message);
        }
        if self.place == Place::Part {
            if relationship.on_delete != OnDelete::Restrict {
                faults
                    .add(format!("{path}.onDelete"), "a reference from a part can only be Restrict: parts live inside their owner's rows");
            }
            if relationship.unique {
                faults.add(format!("{path}.unique"), "a reference from a part can't be unique: parts live inside their owner's rows");
            }
        }
        if let Some(before) = &relationship.renamed_from {
            check_camel(before, &format!("{path}.renamedFrom"), "relationship", faults);
        }
        let target_path = format!("{path}.target");
        let Some(target) = scopes.entity(declared.model, &relationship.target) else {
            scopes.unknown_entity(&relationship.target, &target_path, faults);
            // The column stays, so that keys and indexes over it are no faults as well.
            return column_of_relationship(relationship, EntityReference::default());
        };
        if target.entity.is_abstract {
            let message = format!("{:?} is abstract and has no objects; refer to an entity that extends it", relationship.target);
            faults.add(&target_path, message);
        }
        if let Some(owner) = &target.entity.part_of {
            let message =
                format!("{:?} is the shape of a part of {owner:?} and has no objects of its own; refer to {owner:?}", relationship.target);
            faults.add(&target_path, message);
        }
        column_of_relationship(relationship, target.reference())
    }
}

fn column_of_relationship(relationship: &Relationship, target: EntityReference) -> Column {
    let name = &relationship.name;
    Column {
        name: format!("{}_id", names::snake_case(name)),
        member: format!("{name}Id"),
        kind: ColumnKind::Relationship { relationship: name.clone(), target, on_delete: relationship.on_delete },
        description: relationship.description.clone(),
        required: relationship.required,
        unique: relationship.unique,
        default: None,
        classification: None,
        renamed_from: relationship.renamed_from.as_deref().map(|before| format!("{}_id", names::snake_case(before))),
    }
}

/// A column's name in the DataModel: a relationship's own, otherwise the member.
pub(super) fn declared(column: &Column) -> &str {
    match &column.kind {
        ColumnKind::Relationship { relationship, .. } => relationship,
        _ => &column.member,
    }
}

// The list of parts that `owner` declares, as a column of `table` (`owner`'s own, or one that extends it).
fn part_column<'a>(scopes: &Scopes<'a>, owner: Declared<'a>, part: &Part, table: &str, path: &str, faults: &mut Faults) -> Option<Column> {
    check_camel(&part.name, &format!("{path}.name"), "list of parts", faults);
    if let Some(before) = &part.renamed_from {
        check_camel(before, &format!("{path}.renamedFrom"), "list of parts", faults);
    }
    let (min_items, max_items) = (part.min_items.unwrap_or(0), part.max_items.unwrap_or(DEFAULT_MAX_ITEMS));
    if min_items > max_items {
        faults.add(format!("{path}.minItems"), format!("minItems {min_items} is larger than maxItems {max_items}"));
    }
    let entity_path = format!("{path}.entity");
    let Some(shape) = scopes.entity(owner.model, &part.entity) else {
        scopes.unknown_entity(&part.entity, &entity_path, faults);
        return None;
    };
    let owner_name = &owner.entity.name;
    if shape.is(&owner) {
        faults.add(&entity_path, "an entity can't be a part of itself; declare a relationship to it instead");
        return None;
    }
    if shape.entity.part_of.as_ref() != Some(owner_name) {
        let message = match &shape.entity.part_of {
            Some(other) => {
                format!("{:?} is a part of {other:?} and can't be one of {owner_name:?} too; declare an entity for each", part.entity)
            }
            None => format!("{:?} does not say that it is a part; give it partOf: {owner_name}", part.entity),
        };
        faults.add(&entity_path, message);
        return None;
    }
    let columns = shape_columns(scopes, shape, faults);
    let owner_column = resolved::part_owner_column(table);
    if let Some(clash) = columns.iter().find(|column| column.name == owner_column || column.name == PART_POSITION_COLUMN) {
        let message = format!("its member {:?} would be the column {:?}, which the part's view has for itself", clash.member, clash.name);
        faults.add(&entity_path, message);
    }
    // Where several entities take the parts over, each has a view of its own.
    let own_table = names::snake_case(owner_name);
    let view = if own_table == table {
        names::snake_case(&part.entity)
    } else {
        names::shortened(format!("{table}_{}", names::snake_case(&part.name)))
    };
    Some(Column {
        name: names::snake_case(&part.name),
        member: part.name.clone(),
        kind: ColumnKind::Parts {
            part: PartShape { name: part.entity.clone(), view, description: shape.entity.description.clone(), columns },
            min_items,
            max_items,
        },
        description: part.description.clone(),
        required: min_items > 0,
        unique: false,
        default: None,
        classification: None,
        renamed_from: part.renamed_from.as_deref().map(names::snake_case),
    })
}

fn shape_columns<'a>(scopes: &Scopes<'a>, shape: Declared<'a>, faults: &mut Faults) -> Vec<Column> {
    let mut columns = Columns::new(Place::Part);
    let mut elsewhere = Faults::default();
    for ancestor in ancestry(scopes, shape, faults) {
        columns.foreign = !std::ptr::eq(ancestor.model, scopes.model);
        let faults = if columns.foreign { &mut elsewhere } else { &mut *faults };
        columns.add_all(scopes, ancestor, faults);
    }
    note_faults_elsewhere(shape, &elsewhere, faults);
    columns.finish(faults)
}

// What the shape of a part can't have.
fn check_shape<'a>(scopes: &Scopes<'a>, shape: Declared<'a>, faults: &mut Faults) {
    let (entity, path) = (shape.entity, shape.path());
    let mut refuse = |given: bool, field: &str, why: &str| {
        if given {
            faults.add(format!("{path}.{field}"), format!("{} is the shape of a part, and {why}", entity.name));
        }
    };
    refuse(!entity.key.is_empty(), "key", "a part has no key of its own: it lives in its owner");
    refuse(!entity.parts.is_empty(), "parts", "a part has no parts; take a json attribute or a relationship instead");
    refuse(!entity.indexes.is_empty(), "indexes", "a part has no index: it lives in its owner's rows");
    refuse(!entity.checks.is_empty(), "checks", "a part has no checks: it lives in its owner's rows");
    refuse(entity.events.routing.is_some(), "events.routing", "a part has no events of its own: its owner's carry it");
    refuse(entity.events.partition_key.is_some(), "events.partitionKey", "a part has no events of its own: its owner's carry it");
    refuse(entity.history, "history", "a part has no history of its own: it is in its owner's");
    refuse(entity.soft_delete, "softDelete", "a part is not deleted by itself: it lives in its owner");
    refuse(entity.require_if_match, "requireIfMatch", "a part is changed with its owner: say it there");
    refuse(entity.is_abstract, "abstract", "a part is not abstract; take one of partOf and abstract away");
    let Some(owner_name) = entity.part_of.as_deref() else { return };
    let owner_path = format!("{path}.partOf");
    if owner_name == entity.name {
        faults.add(owner_path, "an entity can't be a part of itself");
        return;
    }
    match scopes.model.spec.entities.iter().find(|other| other.name == owner_name) {
        None => scopes.unknown_entity(owner_name, &owner_path, faults),
        Some(owner) if owner.part_of.is_some() => {
            faults.add(owner_path, format!("{owner_name:?} is the shape of a part itself, and a part has no parts"));
        }
        Some(owner) if !owner.parts.iter().any(|part| part.entity == entity.name) => {
            let message = format!("{owner_name:?} does not list it; give {owner_name} parts: [{{name: …, entity: {}}}]", entity.name);
            faults.add(owner_path, message);
        }
        Some(_) => {}
    }
    let base = entity.extends.as_deref().and_then(|base| scopes.entity(shape.model, base));
    if let Some(base) = base
        && (!base.entity.is_abstract || !base.entity.parts.is_empty())
    {
        let message = format!("a part can extend only an abstract entity without parts, and {:?} is none", base.entity.name);
        faults.add(format!("{path}.extends"), message);
    }
}
