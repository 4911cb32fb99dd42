//! A cache's objects in memory: each as compact JSON of the members held, in few large pieces of memory, found by id or by the hash of an index's
//! key. An object costs 32 bytes, some 15 for its id's place in a table, and as much for each index.

use std::collections::BTreeSet;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use uuid::Uuid;

use super::CompiledCache;
use super::arena::{Arena, Location};
use super::flat_object;
use super::table::Table;
use crate::expression::{JsonError, Value};

// Of numbers in indexes: the number of a list of ids, not of an object.
const LIST: u32 = 1 << 31;

/// The objects of one cache.
#[derive(Debug)]
pub struct Store {
    cache: Arc<CompiledCache>,
    hasher: RandomState,
    arena: Arena,
    // Where each object's record lies, by its number.
    places: Vec<Location>,
    unused: Vec<u32>,
    ids: Table,
    indexes: Vec<Index>,
    objects: usize,
    bytes: usize,
    scratch: Scratch,
}

/// Objects by the hash of their key; what is found is compared, so that two keys of one hash do no harm. Most keys lead to one object.
#[derive(Debug, Default)]
struct Index {
    table: Table,
    lists: Vec<BTreeSet<Uuid>>,
    unused: Vec<u32>,
}

// Memory that is used again and again.
#[derive(Debug, Default)]
struct Scratch {
    json: Vec<u8>,
    key: String,
    members: Vec<(u32, u32)>,
    hashes: Vec<Option<u32>>,
    former: Vec<Option<u32>>,
}

impl Store {
    /// An empty store of a cache's objects.
    pub fn new(cache: Arc<CompiledCache>) -> Self {
        Self {
            hasher: RandomState::new(),
            arena: Arena::default(),
            places: Vec::new(),
            unused: Vec::new(),
            ids: Table::default(),
            indexes: cache.indexes.iter().map(|_| Index::default()).collect(),
            objects: 0,
            bytes: 0,
            scratch: Scratch::default(),
            cache,
        }
    }

    /// How many objects there are.
    pub fn len(&self) -> usize {
        self.objects
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.objects == 0
    }

    /// How many bytes the objects' JSON takes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// How many bytes of memory it takes in all.
    pub fn memory(&self) -> usize {
        let indexes = self.indexes.iter().map(|index| {
            // A B-tree is two thirds full or more.
            let listed: usize = index.lists.iter().map(|list| list.len() * size_of::<Uuid>() * 3 / 2).sum();
            index.table.memory() + listed + index.lists.capacity() * size_of::<BTreeSet<Uuid>>()
        });
        self.arena.memory() + self.ids.memory() + self.places.capacity() * size_of::<Location>() + indexes.sum::<usize>()
    }

    /// Takes an object as the API writes it, where the cache holds it.
    ///
    /// # Errors
    /// When the line is no JSON object.
    pub fn take_line(&mut self, line: &[u8]) -> Result<(), JsonError> {
        if self.cache.is_plain() {
            let mut scratch = std::mem::take(&mut self.scratch);
            let id = flat_object::scan(line, self.cache.reader.shape(), &mut scratch.members)
                .and_then(|()| flat_object::id(line, *scratch.members.first()?));
            if let Some(id) = id {
                self.hash_line(line, &mut scratch.key, &scratch.members, &mut scratch.hashes);
                self.insert(id, line, &mut scratch);
            }
            self.scratch = scratch;
            if id.is_some() {
                return Ok(());
            }
        }
        let object = self.cache.reader.read(line)?;
        if self.cache.holds(&object) {
            self.put(&object);
        }
        Ok(())
    }

    /// Puts an object in, in the place of the one with the same id. Objects without an id are not held.
    pub fn put(&mut self, object: &Value) {
        let Some(id) = id_of(object) else { return };
        let mut scratch = std::mem::take(&mut self.scratch);
        self.hash_object(object, &mut scratch.key, &mut scratch.hashes);
        let mut json = std::mem::take(&mut scratch.json);
        json.clear();
        object.write_json(&mut json);
        self.insert(id, &json, &mut scratch);
        scratch.json = json;
        self.scratch = scratch;
    }

    /// Takes an object out.
    pub fn remove(&mut self, id: Uuid) {
        let hash = self.hash_of_id(id);
        let Some(number) = self.number_of(hash, id) else { return };
        let mut scratch = std::mem::take(&mut self.scratch);
        self.hash_former(number, &mut scratch);
        self.scratch = scratch;
        for (index, hash) in self.indexes.iter_mut().zip(&self.scratch.former) {
            hash.iter().for_each(|hash| index.remove(*hash, number, id));
        }
        self.ids.remove(hash, number);
        self.drop_record(number);
        self.places[number as usize] = Location::NONE;
        self.unused.push(number);
        self.objects -= 1;
        self.arena.tidy(&mut self.places);
    }

    /// The object with the smallest id that `by` (`id` or the name of an index) finds with this key.
    pub fn find(&self, by: &str, key: &Value) -> Option<Value> {
        if by == "id" {
            return self.object(Uuid::parse_str(&key.index_key()?).ok()?);
        }
        let place = self.cache.indexes.iter().position(|index| index.name == by)?;
        let (declared, index) = (&self.cache.indexes[place], &self.indexes[place]);
        let (mut wanted, mut own) = (String::new(), String::new());
        if !declared.of_lookup(key, &mut wanted) {
            return None;
        }
        let mut matching = |object: Option<Value>| {
            let object = object?;
            (declared.of_object(&object, &self.cache.around, &mut own) && own == wanted).then_some(object)
        };
        let number = index.table.find(self.hash_of_key(&wanted), |_| true)?;
        if number & LIST == 0 {
            return matching(self.read(self.places[number as usize]));
        }
        index.lists[(number & !LIST) as usize].iter().find_map(|id| matching(self.object(*id)))
    }

    fn object(&self, id: Uuid) -> Option<Value> {
        self.read(self.places[self.number_of(self.hash_of_id(id), id)? as usize])
    }

    fn read(&self, place: Location) -> Option<Value> {
        self.cache.reader.read(self.arena.get(place)?.data).ok()
    }

    // With the hashes of its keys in `scratch.hashes`.
    fn insert(&mut self, id: Uuid, json: &[u8], scratch: &mut Scratch) {
        let hash = self.hash_of_id(id);
        let number = match self.number_of(hash, id) {
            Some(number) => {
                self.hash_former(number, scratch);
                self.drop_record(number);
                number
            }
            None => {
                scratch.former.clear();
                let number = self.unused.pop().unwrap_or_else(|| {
                    self.places.push(Location::NONE);
                    u32::try_from(self.places.len() - 1).unwrap_or(LIST - 1)
                });
                self.ids.insert(hash, number);
                self.objects += 1;
                number
            }
        };
        self.places[number as usize] = self.arena.add(number, id, json);
        self.bytes += json.len();
        for (place, index) in self.indexes.iter_mut().enumerate() {
            let (new, old) = (scratch.hashes[place], scratch.former.get(place).copied().flatten());
            if new != old {
                old.into_iter().for_each(|hash| index.remove(hash, number, id));
                if let Some(hash) = new {
                    let (arena, places) = (&self.arena, &self.places);
                    index.add(hash, number, id, |number| arena.get(places[number as usize]).map(|record| record.id));
                }
            }
        }
        self.arena.tidy(&mut self.places);
    }

    fn drop_record(&mut self, number: u32) {
        let place = self.places[number as usize];
        self.bytes -= self.arena.get(place).map_or(0, |record| record.data.len());
        self.arena.free(place);
    }

    fn number_of(&self, hash: u32, id: Uuid) -> Option<u32> {
        self.ids.find(hash, |number| self.arena.get(self.places[number as usize]).is_some_and(|record| record.id == id))
    }

    // The upper half: the lower bits of a hash are as good, and a table takes the upper ones of what it is given.
    fn hash_of_id(&self, id: Uuid) -> u32 {
        (self.hasher.hash_one(id.as_u128()) >> 32) as u32
    }

    fn hash_of_key(&self, key: &str) -> u32 {
        (self.hasher.hash_one(key) >> 32) as u32
    }

    // The hashes of the keys of the object that is there, into `scratch.former`.
    fn hash_former(&self, number: u32, scratch: &mut Scratch) {
        scratch.former.clear();
        let Some(record) = self.arena.get(self.places[number as usize]) else { return };
        let line = record.data;
        if self.cache.is_plain() && flat_object::scan(line, self.cache.reader.shape(), &mut scratch.members).is_some() {
            return self.hash_line(line, &mut scratch.key, &scratch.members, &mut scratch.former);
        }
        // What was put in can be read.
        if let Ok(object) = self.cache.reader.read(line) {
            self.hash_object(&object, &mut scratch.key, &mut scratch.former);
        }
    }

    fn hash_object(&self, object: &Value, key: &mut String, hashes: &mut Vec<Option<u32>>) {
        hashes.clear();
        hashes
            .extend(self.cache.indexes.iter().map(|index| index.of_object(object, &self.cache.around, key).then(|| self.hash_of_key(key))));
    }

    fn hash_line(&self, line: &[u8], key: &mut String, members: &[(u32, u32)], hashes: &mut Vec<Option<u32>>) {
        let shape = self.cache.reader.shape();
        let text = |member: &str| flat_object::index_key(line, *members.get(shape.position(member)?)?);
        hashes.clear();
        hashes.extend(self.cache.indexes.iter().map(|index| index.of_texts(text, key).then(|| self.hash_of_key(key))));
    }
}

impl Index {
    fn add(&mut self, hash: u32, number: u32, id: Uuid, id_of: impl Fn(u32) -> Option<Uuid>) {
        match self.table.find(hash, |_| true) {
            None => self.table.insert(hash, number),
            Some(list) if list & LIST != 0 => {
                self.lists[(list & !LIST) as usize].insert(id);
            }
            Some(other) => {
                let ids = BTreeSet::from_iter([Some(id), id_of(other)].into_iter().flatten());
                let list = match self.unused.pop() {
                    Some(list) => {
                        self.lists[list as usize] = ids;
                        list
                    }
                    None => {
                        self.lists.push(ids);
                        u32::try_from(self.lists.len() - 1).unwrap_or(LIST - 1)
                    }
                };
                self.table.replace(hash, other, list | LIST);
            }
        }
    }

    fn remove(&mut self, hash: u32, number: u32, id: Uuid) {
        match self.table.find(hash, |_| true) {
            Some(list) if list & LIST != 0 => {
                let ids = &mut self.lists[(list & !LIST) as usize];
                ids.remove(&id);
                if ids.is_empty() {
                    self.table.remove(hash, list);
                    self.unused.push(list & !LIST);
                }
            }
            Some(own) if own == number => self.table.remove(hash, number),
            _ => {}
        }
    }
}

/// The id of an object, where it has one.
pub fn id_of(object: &Value) -> Option<Uuid> {
    Uuid::parse_str(object.member("id")?.as_text()?).ok()
}
