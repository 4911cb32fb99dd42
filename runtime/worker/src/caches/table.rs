//! A hash table of numbers: eight bytes an entry, and at the most four fifths full.

/// Numbers by the hash of what they stand for. Several may have one hash.
#[derive(Debug, Default)]
pub(super) struct Table {
    // The hash above, the number and one below; 0 is empty.
    entries: Vec<u64>,
    count: usize,
}

// Bytes are dear, and so are moves.
const FULL: (usize, usize) = (4, 5);
const FIRST: usize = 16;

impl Table {
    /// The number with this hash for which `is` holds.
    pub fn find(&self, hash: u32, mut is: impl FnMut(u32) -> bool) -> Option<u32> {
        let mut place = self.begin(hash)?;
        loop {
            let entry = self.entries[place];
            if entry == 0 {
                return None;
            }
            if hash_of(entry) == hash && is(number_of(entry)) {
                return Some(number_of(entry));
            }
            place = self.next(place);
        }
    }

    /// Adds a number.
    pub fn insert(&mut self, hash: u32, number: u32) {
        if (self.count + 1) * FULL.1 > self.entries.len() * FULL.0 {
            self.grow();
        }
        self.put(entry(hash, number));
        self.count += 1;
    }

    /// Puts another number in the place of one; nothing where that one is not there.
    pub fn replace(&mut self, hash: u32, number: u32, with: u32) {
        if let Some(place) = self.place_of(hash, number) {
            self.entries[place] = entry(hash, with);
        }
    }

    /// Takes a number out.
    pub fn remove(&mut self, hash: u32, number: u32) {
        let Some(mut hole) = self.place_of(hash, number) else { return };
        self.count -= 1;
        let mut place = hole;
        loop {
            place = self.next(place);
            let entry = self.entries[place];
            if entry == 0 {
                break;
            }
            // An entry stays where its search would not pass the hole.
            let wanted = self.ideal(hash_of(entry));
            let stays = if hole <= place { hole < wanted && wanted <= place } else { hole < wanted || wanted <= place };
            if !stays {
                self.entries[hole] = entry;
                hole = place;
            }
        }
        self.entries[hole] = 0;
    }

    /// The bytes of memory that it holds.
    pub fn memory(&self) -> usize {
        self.entries.capacity() * size_of::<u64>()
    }

    fn place_of(&self, hash: u32, number: u32) -> Option<usize> {
        let wanted = entry(hash, number);
        let mut place = self.begin(hash)?;
        while self.entries[place] != 0 {
            if self.entries[place] == wanted {
                return Some(place);
            }
            place = self.next(place);
        }
        None
    }

    fn begin(&self, hash: u32) -> Option<usize> {
        (!self.entries.is_empty()).then(|| self.ideal(hash))
    }

    fn ideal(&self, hash: u32) -> usize {
        ((u64::from(hash) * self.entries.len() as u64) >> 32) as usize
    }

    fn next(&self, place: usize) -> usize {
        if place + 1 == self.entries.len() { 0 } else { place + 1 }
    }

    fn put(&mut self, entry: u64) {
        let mut place = self.ideal(hash_of(entry));
        while self.entries[place] != 0 {
            place = self.next(place);
        }
        self.entries[place] = entry;
    }

    fn grow(&mut self) {
        let length = FIRST.max(self.entries.len() + self.entries.len() / 2);
        let entries = std::mem::replace(&mut self.entries, vec![0; length]);
        entries.into_iter().filter(|entry| *entry != 0).for_each(|entry| self.put(entry));
    }
}

fn entry(hash: u32, number: u32) -> u64 {
    (u64::from(hash) << 32) | (u64::from(number) + 1)
}

fn hash_of(entry: u64) -> u32 {
    (entry >> 32) as u32
}

fn number_of(entry: u64) -> u32 {
    (entry as u32).wrapping_sub(1)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    #[test]
    fn it_holds_what_a_map_holds() {
        // Few hashes, the greatest too: many entries in a row, around the end.
        let hash = |number: u32| (number % 7).wrapping_mul(0x9E37_79B9) | if number.is_multiple_of(5) { 0xFFFF_FF00 } else { 0 };
        let (mut table, mut map) = (Table::default(), HashMap::new());
        let mut random = 0x2545_F491_4F6C_DD1D_u64;
        for _ in 0..200_000 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let number = ((random >> 40) % 60) as u32;
            if map.remove(&number).is_some() {
                table.remove(hash(number), number);
            } else {
                table.insert(hash(number), number);
                map.insert(number, ());
            }
            let asked = ((random >> 33) % 60) as u32;
            for number in [number, asked] {
                assert_eq!(table.find(hash(number), |own| own == number).is_some(), map.contains_key(&number));
            }
        }
        for number in 0..60 {
            assert_eq!(table.find(hash(number), |own| own == number).is_some(), map.contains_key(&number));
        }
    }

    #[test]
    fn it_takes_at_the_most_fifteen_bytes_an_entry_and_a_hair() {
        let mut table = Table::default();
        for number in 0..1_000_000u32 {
            table.insert(number.wrapping_mul(0x9E37_79B9), number);
        }
        assert!(table.memory() <= 16 * 1_000_000, "{}", table.memory());
        assert_eq!(table.find(77u32.wrapping_mul(0x9E37_79B9), |number| number == 77), Some(77));
        table.replace(77u32.wrapping_mul(0x9E37_79B9), 77, 78);
        assert_eq!(table.find(77u32.wrapping_mul(0x9E37_79B9), |_| true), Some(78));
    }
}
