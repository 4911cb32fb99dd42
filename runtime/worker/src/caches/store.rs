//! A cache's objects in memory: each as compact JSON of the members held, found by id or by the hash of an indexed member.

use std::collections::{BTreeSet, HashMap};
use std::hash::{BuildHasher, RandomState};

use uuid::Uuid;

use crate::expression::{ObjectReader, Value};

/// The objects of one cache.
#[derive(Debug)]
pub struct Store {
    reader: ObjectReader,
    objects: HashMap<Uuid, Box<[u8]>>,
    indexes: Vec<Index>,
    bytes: usize,
}

#[derive(Debug)]
struct Index {
    member: String,
    hasher: RandomState,
    // Objects by the hash of their member's value; what is found is compared, so that two values of one hash do no harm.
    ids: HashMap<u64, Ids>,
}

// Most indexed values lead to one object.
#[derive(Debug)]
enum Ids {
    One(Uuid),
    Many(BTreeSet<Uuid>),
}

impl Store {
    /// An empty store of objects that `reader` reads, with these members indexed.
    pub fn new(reader: ObjectReader, indexes: &[String]) -> Self {
        let index = |member: &String| Index { member: member.clone(), hasher: RandomState::new(), ids: HashMap::new() };
        Self { reader, objects: HashMap::new(), indexes: indexes.iter().map(index).collect(), bytes: 0 }
    }

    /// How many objects there are.
    pub fn len(&self) -> usize {
        self.objects.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.objects.is_empty()
    }

    /// How many bytes the objects' JSON takes; indexes come on top.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Puts an object in, in the place of the one with the same id. Objects without an id are not held.
    pub fn put(&mut self, object: &Value) {
        let Some(id) = id_of(object) else { return };
        self.remove(id);
        for index in &mut self.indexes {
            if let Some(hash) = index.hash_of(object) {
                index.add(hash, id);
            }
        }
        let mut json = Vec::new();
        object.write_json(&mut json);
        self.bytes += json.len();
        self.objects.insert(id, json.into_boxed_slice());
    }

    /// Takes an object out.
    pub fn remove(&mut self, id: Uuid) {
        let Some(json) = self.objects.remove(&id) else { return };
        self.bytes -= json.len();
        // What was put in can be read.
        let Ok(object) = self.reader.read(&json) else { return };
        for index in &mut self.indexes {
            if let Some(hash) = index.hash_of(&object) {
                index.drop_id(hash, id);
            }
        }
    }

    /// The object with the smallest id whose member `by` has this value.
    pub fn find(&self, by: &str, key: &Value) -> Option<Value> {
        let text = key.index_key()?;
        if by == "id" {
            return self.read(Uuid::parse_str(&text).ok()?);
        }
        let index = self.indexes.iter().find(|index| index.member == by)?;
        let matches = |id: &Uuid| {
            let object = self.read(*id)?;
            let same = object.member(by).and_then(Value::index_key).is_some_and(|own| own == text);
            same.then_some(object)
        };
        match index.ids.get(&index.hasher.hash_one(text.as_ref()))? {
            Ids::One(id) => matches(id),
            Ids::Many(ids) => ids.iter().find_map(matches),
        }
    }

    fn read(&self, id: Uuid) -> Option<Value> {
        self.reader.read(self.objects.get(&id)?).ok()
    }
}

impl Index {
    fn hash_of(&self, object: &Value) -> Option<u64> {
        Some(self.hasher.hash_one(object.member(&self.member)?.index_key()?.as_ref()))
    }

    fn add(&mut self, hash: u64, id: Uuid) {
        match self.ids.get_mut(&hash) {
            None => {
                self.ids.insert(hash, Ids::One(id));
            }
            Some(Ids::Many(ids)) => {
                ids.insert(id);
            }
            Some(one @ Ids::One(_)) => {
                let Ids::One(other) = *one else { return };
                *one = Ids::Many(BTreeSet::from([other, id]));
            }
        }
    }

    fn drop_id(&mut self, hash: u64, id: Uuid) {
        match self.ids.get_mut(&hash) {
            Some(Ids::One(own)) if *own == id => {
                self.ids.remove(&hash);
            }
            Some(Ids::Many(ids)) => {
                ids.remove(&id);
                if ids.is_empty() {
                    self.ids.remove(&hash);
                }
            }
            _ => {}
        }
    }
}

/// The id of an object, where it has one.
pub fn id_of(object: &Value) -> Option<Uuid> {
    Uuid::parse_str(object.member("id")?.as_text()?).ok()
}
