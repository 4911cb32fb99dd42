//! A cache, compiled: which objects it holds, what of them, and by what they are looked up.

use std::sync::Arc;

use autonomy_crds::Model;
use autonomy_crds::micro_service::{Cache, NamedIndex};

use super::index_key::{Alike, CompiledIndex, IndexKey};
use crate::expression::{Expression, Identity, Kind, ObjectReader, Value};
use crate::service::{Compiler, find_entity, has_member};

/// A cache of a service.
#[derive(Debug)]
pub struct CompiledCache {
    /// Its name.
    pub name: String,
    /// The DataModel.
    pub model: Arc<Model>,
    /// The entity's name.
    pub entity: String,
    /// Reads objects, keeping the members in `fields`.
    pub reader: ObjectReader,
    /// What objects are looked up by, beside `id`.
    pub indexes: Vec<CompiledIndex>,
    /// The members held, to ask the API for (`fields=`): those declared, those of the indexes, and those the filter needs; empty for all.
    pub fields: Vec<String>,
    pub(super) filter: Option<Expression>,
    // `config` and `service`.
    pub(super) around: [Value; 2],
}

impl CompiledCache {
    /// Whether it holds this object. One for which the filter can't be evaluated is not held.
    pub fn holds(&self, object: &Value) -> bool {
        let Some(filter) = &self.filter else { return true };
        let variables = [object.clone(), self.around[0].clone(), self.around[1].clone()];
        filter.evaluate_condition(&variables, &Identity::default()).unwrap_or(false)
    }

    /// Whether objects can be looked up by this: `id`, or an index.
    pub(crate) fn is_found_by(&self, by: &str) -> bool {
        by == "id" || self.indexes.iter().any(|index| index.name == by)
    }

    /// By what objects can be looked up, for messages.
    pub(crate) fn found_by(&self) -> String {
        let ways: Vec<&str> = std::iter::once("id").chain(self.indexes.iter().map(|index| index.name.as_str())).collect();
        format!("the cache {} can be looked up by {}", self.name, ways.join(", "))
    }

    /// Whether `by` is an index over several members, whose keys are objects.
    pub(crate) fn is_found_by_object(&self, by: &str) -> bool {
        let over = |index: &CompiledIndex| matches!(&index.key, IndexKey::Members { members, .. } if members.len() > 1);
        self.indexes.iter().any(|index| index.name == by && over(index))
    }

    /// Whether all objects are held, and found by their members as they stand.
    pub(super) fn is_plain(&self) -> bool {
        self.filter.is_none() && self.has_plain_indexes()
    }

    pub(super) fn has_plain_indexes(&self) -> bool {
        self.indexes.iter().all(CompiledIndex::is_plain)
    }
}

impl Compiler<'_> {
    pub(crate) fn caches(&mut self, caches: &[Cache]) -> Vec<Arc<CompiledCache>> {
        let mut compiled: Vec<Arc<CompiledCache>> = Vec::new();
        for (index, cache) in caches.iter().enumerate() {
            let path = format!("spec.caches[{index}]");
            if compiled.iter().any(|other| other.name == cache.name) {
                self.faults.add(format!("{path}.name"), format!("another cache is named {} too", cache.name));
            }
            compiled.extend(self.cache(cache, &path).map(Arc::new));
        }
        compiled
    }

    fn cache(&mut self, cache: &Cache, path: &str) -> Option<CompiledCache> {
        let (model, entity) = find_entity(self.models, &cache.model, &cache.entity, path, &mut self.faults)?;
        let whole = Kind::of_entity(&model.name, entity);
        let filter = cache.filter.as_ref().and_then(|filter| {
            let mut names = self.names_around(&[("object", whole.clone())]);
            self.condition(filter, &mut names, &format!("{path}.filter"))
        });
        for (list, members) in [("fields", &cache.fields), ("indexes", &cache.indexes)] {
            for (index, member) in members.iter().enumerate() {
                if !has_member(&whole, member) {
                    self.faults.add(format!("{path}.{list}[{index}]"), format!("{}/{} has no member {member}", model.name, entity.name));
                }
            }
        }
        let mut indexes: Vec<CompiledIndex> = cache.indexes.iter().map(|member| plain(member, &whole)).collect();
        for (place, named) in cache.named_indexes.iter().enumerate() {
            let path = format!("{path}.namedIndexes[{place}]");
            if named.name == "id" || indexes.iter().any(|other| other.name == named.name) {
                self.faults.add(format!("{path}.name"), format!("another index is named {} too", named.name));
            }
            indexes.extend(self.index(named, &whole, &path));
        }
        let fields = fields(cache, filter.as_ref(), &indexes);
        Some(CompiledCache {
            name: cache.name.clone(),
            model: model.clone(),
            entity: entity.name.clone(),
            reader: ObjectReader::keeping(entity, &fields),
            indexes,
            fields,
            filter,
            around: [self.config.clone(), self.service.clone()],
        })
    }

    fn index(&mut self, named: &NamedIndex, whole: &Kind, path: &str) -> Option<CompiledIndex> {
        let name = named.name.clone();
        if let Some(source) = &named.key {
            let names = self.names_around(&[("object", whole.clone())]);
            let expression = self.expression(source, &names, &format!("{path}.key"))?;
            if matches!(expression.kind(), Kind::List(_) | Kind::Object(_)) {
                self.faults.add(format!("{path}.key"), format!("a key is a single value, `{source}` gives {}", expression.kind()));
            }
            return Some(CompiledIndex { name, kind: expression.kind().clone(), key: IndexKey::Expression(expression) });
        }
        for (place, member) in named.members.iter().enumerate() {
            match member_kind(whole, member) {
                None => self.faults.add(format!("{path}.members[{place}]"), format!("there is no member {member}")),
                Some(kind) if named.normalize.is_some() && !kind.may_be(&Kind::Text) => {
                    self.faults.add(format!("{path}.normalize"), format!("{member} is {kind}, and only strings are made alike"));
                }
                Some(_) => {}
            }
        }
        let alike = Alike::new(named.normalize, named.calling_code.as_deref());
        let kinds = named.members.iter().map(|member| (member, member_kind(whole, member).unwrap_or(Kind::Any)));
        let kind = match named.members.as_slice() {
            [member] => member_kind(whole, member).unwrap_or(Kind::Any),
            _ => Kind::object(format!("the index {name}"), kinds),
        };
        Some(CompiledIndex { name, kind, key: IndexKey::Members { members: named.members.clone(), alike } })
    }
}

fn plain(member: &str, whole: &Kind) -> CompiledIndex {
    CompiledIndex {
        name: member.to_owned(),
        kind: member_kind(whole, member).unwrap_or(Kind::Any),
        key: IndexKey::Members { members: vec![member.to_owned()], alike: Alike::AsTheyAre },
    }
}

fn member_kind(whole: &Kind, member: &str) -> Option<Kind> {
    match whole {
        Kind::Object(Some(object)) => object.members.iter().find(|(own, _)| own == member).map(|(_, kind)| kind.clone()),
        _ => Some(Kind::Any),
    }
}

// All that are needed; none named for all there are.
fn fields(cache: &Cache, filter: Option<&Expression>, indexes: &[CompiledIndex]) -> Vec<String> {
    let mut fields = cache.fields.clone();
    if fields.is_empty() {
        return fields;
    }
    let needed = std::iter::once(filter.map_or(Some(Vec::new()), |filter| filter.members_of(0)));
    let needed = std::iter::once(Some(vec!["id".to_owned()])).chain(indexes.iter().map(CompiledIndex::members)).chain(needed);
    for members in needed {
        // An expression that takes the object as a whole.
        let Some(members) = members else { return Vec::new() };
        for member in members {
            if !fields.contains(&member) {
                fields.push(member);
            }
        }
    }
    fields
}
