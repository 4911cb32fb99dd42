//! A small random generator (SplitMix64) that gives the same numbers from the same seed for ever, on every machine and after every update.

use uuid::Uuid;

/// A sequence of random numbers.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// The sequence of a seed and a purpose: another purpose, another sequence.
    pub fn new(seed: u64, purpose: &str) -> Self {
        Self(hash(seed, purpose))
    }

    // The next number, any of 64 bits.
    fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// The next number from 0 up to but without `end`, which is not 0.
    pub fn below(&mut self, end: usize) -> usize {
        // The product's upper half; the bias is of no matter here.
        let product = u128::from(self.draw()) * end as u128;
        usize::try_from(product >> 64).unwrap_or(0)
    }

    /// True in so many of a thousand cases.
    pub fn chance(&mut self, of_thousand: usize) -> bool {
        self.below(1000) < of_thousand
    }

    /// One of the items, which are not none.
    pub fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len())]
    }
}

/// A number from a seed and a text: the same from the same.
pub fn hash(seed: u64, text: &str) -> u64 {
    text.bytes().fold(mix(seed ^ 0x5bd1_e995), |state, byte| mix(state ^ u64::from(byte)).wrapping_add(0x9e37_79b9_7f4a_7c15))
}

/// The id of an object of the reference data: a uuid of version 8 from the seed and the object's name.
pub fn id(seed: u64, kind: &str, name: &str) -> Uuid {
    let text = format!("{kind}/{name}");
    let (high, low) = (hash(seed, &text), hash(!seed, &text));
    Uuid::new_v8(((u128::from(high) << 64) | u128::from(low)).to_be_bytes())
}

fn mix(mut value: u64) -> u64 {
    value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}
