//! Many small records in few large pieces of memory: a record costs its header and nothing else.

use uuid::Uuid;

const SEGMENT: usize = 1 << 20;
// The slot, the length and the id.
const HEADER: usize = 4 + 4 + 16;
// Less garbage than this is not worth the work.
const LEAST_GARBAGE: usize = 4 * SEGMENT;

/// Where a record lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Location {
    segment: u32,
    offset: u32,
}

impl Location {
    /// Of no record.
    pub const NONE: Self = Self { segment: u32::MAX, offset: u32::MAX };
}

/// A record.
#[derive(Clone, Copy, Debug)]
pub(super) struct Record<'a> {
    /// Its owner's number, whose place is told when the record moves.
    pub slot: u32,
    pub id: Uuid,
    pub data: &'a [u8],
}

/// The records.
#[derive(Debug, Default)]
pub(super) struct Arena {
    segments: Vec<Segment>,
    // Segments that are empty and hold no memory.
    unused: Vec<u32>,
    // The one that is written to.
    current: Option<u32>,
    used: usize,
    garbage: usize,
}

#[derive(Debug, Default)]
struct Segment {
    bytes: Vec<u8>,
    garbage: usize,
}

impl Arena {
    /// Adds a record.
    pub fn add(&mut self, slot: u32, id: Uuid, data: &[u8]) -> Location {
        let size = HEADER + data.len();
        let number = self.room_for(size);
        let segment = &mut self.segments[number as usize];
        // A segment is never longer than its first record or SEGMENT.
        let offset = u32::try_from(segment.bytes.len()).unwrap_or(u32::MAX);
        segment.bytes.extend_from_slice(&slot.to_le_bytes());
        segment.bytes.extend_from_slice(&u32::try_from(data.len()).unwrap_or(u32::MAX).to_le_bytes());
        segment.bytes.extend_from_slice(id.as_bytes());
        segment.bytes.extend_from_slice(data);
        self.used += size;
        Location { segment: number, offset }
    }

    fn room_for(&mut self, size: usize) -> u32 {
        if let Some(current) = self.current {
            let bytes = &self.segments[current as usize].bytes;
            if bytes.capacity() - bytes.len() >= size {
                return current;
            }
        }
        let bytes = Vec::with_capacity(size.max(SEGMENT));
        let number = match self.unused.pop() {
            Some(number) => {
                self.segments[number as usize] = Segment { bytes, garbage: 0 };
                number
            }
            None => {
                self.segments.push(Segment { bytes, garbage: 0 });
                u32::try_from(self.segments.len() - 1).unwrap_or(u32::MAX)
            }
        };
        // One of a single large record has no room for more.
        let before = self.current.replace(number);
        before.into_iter().for_each(|before| self.drop_if_empty(before));
        number
    }

    /// The record at a place.
    pub fn get(&self, location: Location) -> Option<Record<'_>> {
        let bytes = self.segments.get(location.segment as usize)?.bytes.get(location.offset as usize..)?;
        let (slot, rest) = bytes.split_first_chunk::<4>()?;
        let (length, rest) = rest.split_first_chunk::<4>()?;
        let (id, rest) = rest.split_first_chunk::<16>()?;
        let data = rest.get(..u32::from_le_bytes(*length) as usize)?;
        Some(Record { slot: u32::from_le_bytes(*slot), id: Uuid::from_bytes(*id), data })
    }

    /// Gives a record's memory back; some of it only later.
    pub fn free(&mut self, location: Location) {
        let Some(size) = self.get(location).map(|record| HEADER + record.data.len()) else { return };
        self.segments[location.segment as usize].garbage += size;
        self.garbage += size;
        self.drop_if_empty(location.segment);
    }

    fn drop_if_empty(&mut self, number: u32) {
        let segment = &mut self.segments[number as usize];
        if self.current != Some(number) && segment.garbage == segment.bytes.len() && segment.bytes.capacity() > 0 {
            self.used -= segment.garbage;
            self.garbage -= segment.garbage;
            *segment = Segment::default();
            self.unused.push(number);
        }
    }

    /// Where much is garbage, moves the records of a segment to others, no more at a time, so that nobody waits long; `places` has each slot's
    /// record.
    pub fn tidy(&mut self, places: &mut [Location]) {
        if self.garbage < LEAST_GARBAGE || self.garbage * 4 < self.used {
            return;
        }
        let eligible = |(number, segment): &(usize, &Segment)| {
            self.current.is_none_or(|current| current as usize != *number) && segment.garbage * 4 >= segment.bytes.len().max(1)
        };
        let Some((index, _)) = self.segments.iter().enumerate().find(eligible) else { return };
        let number = u32::try_from(index).unwrap_or(u32::MAX);
        let old = std::mem::take(&mut self.segments[index]);
        self.used -= old.bytes.len();
        self.garbage -= old.garbage;
        let mut offset = 0;
        // The segment is out of the list, so its records are read from here.
        let moving = Self { segments: vec![old], ..Self::default() };
        while let Some(record) = moving.get(Location { segment: 0, offset }) {
            let place = &mut places[record.slot as usize];
            if *place == (Location { segment: number, offset }) {
                *place = self.add(record.slot, record.id, record.data);
            }
            offset += u32::try_from(HEADER + record.data.len()).unwrap_or(u32::MAX);
        }
        self.unused.push(number);
    }

    /// The bytes of memory that it holds.
    pub fn memory(&self) -> usize {
        self.segments.iter().map(|segment| segment.bytes.capacity()).sum::<usize>() + self.segments.capacity() * size_of::<Segment>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fill(arena: &mut Arena, places: &mut Vec<Location>, slots: std::ops::Range<u32>, length: usize) {
        for slot in slots {
            let location = arena.add(slot, Uuid::from_u128(u128::from(slot)), &vec![u8::try_from(slot % 251).expect("small"); length]);
            let slot = slot as usize;
            if slot < places.len() { places[slot] = location } else { places.push(location) }
        }
    }

    #[test]
    fn memory_of_records_that_went_is_used_again() {
        let (mut arena, mut places) = (Arena::default(), Vec::new());
        fill(&mut arena, &mut places, 0..50_000, 300);
        let full = arena.memory();
        assert!(full < 50_000 * (300 + HEADER) + 2 * SEGMENT, "{full}");
        // All but each fifth go and come again, many times over.
        for round in 0..20 {
            for slot in (0..50_000u32).filter(|slot| slot % 5 != 0) {
                arena.free(places[slot as usize]);
                places[slot as usize] = Location::NONE;
                arena.tidy(&mut places);
            }
            assert!(arena.memory() < full * 2 / 3, "{round}: {} of {full}", arena.memory());
            for slot in (0..50_000u32).filter(|slot| slot % 5 != 0) {
                places[slot as usize] =
                    arena.add(slot, Uuid::from_u128(u128::from(slot)), &vec![u8::try_from(slot % 251).expect("small"); 300]);
            }
        }
        for (slot, place) in places.iter().enumerate() {
            let record = arena.get(*place).expect("a record");
            assert!(
                record.slot as usize == slot && record.data.len() == 300 && record.data.iter().all(|byte| usize::from(*byte) == slot % 251)
            );
        }
    }

    #[test]
    fn a_record_larger_than_a_segment_has_one_of_its_own() {
        let (mut arena, mut places) = (Arena::default(), Vec::new());
        fill(&mut arena, &mut places, 0..3, 3 * SEGMENT);
        fill(&mut arena, &mut places, 3..6, 10);
        assert_eq!(arena.get(places[1]).expect("a record").data.len(), 3 * SEGMENT);
        arena.free(places[0]);
        arena.free(places[1]);
        arena.free(places[2]);
        assert!(arena.memory() < 2 * SEGMENT, "{}", arena.memory());
        assert_eq!(arena.get(places[4]).map(|record| record.data.len()), Some(10));
        assert!(arena.get(Location::NONE).is_none());
    }
}
