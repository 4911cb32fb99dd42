//! How an outside system misbehaves: by seed and by what the request is about, so that every run has the same troubles.

use crate::random::hash;

/// How a request is treated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mood {
    /// As it should be.
    Good,
    /// 429 with Retry-After.
    Busy,
    /// 503.
    Down,
    /// No answer, and nothing done.
    Hangs,
    /// The thing is done, and then the line breaks.
    AnswerLost,
}

/// How often there is trouble.
#[derive(Clone, Copy, Debug)]
pub struct Temper {
    /// From which number the troubles follow.
    pub seed: u64,
    /// First attempts of a thousand that meet trouble.
    pub of_thousand: u64,
}

impl Temper {
    /// The mood for an attempt (from 1) at a thing. From the fourth attempt on all is well.
    pub fn mood(self, system: &str, reference: &str, attempt: u32) -> Mood {
        let number = hash(self.seed, &format!("{system}/{reference}/{attempt}"));
        // What has met trouble once meets it again quite often.
        let of_thousand = match attempt {
            0 | 1 => self.of_thousand,
            2 | 3 => (self.of_thousand * 5).min(400),
            _ => 0,
        };
        if number % 1000 >= of_thousand {
            return Mood::Good;
        }
        match (number >> 32) % 20 {
            0..8 => Mood::Down,
            8..14 => Mood::Busy,
            14..18 => Mood::AnswerLost,
            _ => Mood::Hangs,
        }
    }
}
