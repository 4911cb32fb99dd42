//! Ids of new objects: UUIDs of version 7 (RFC 9562, 6.2, method 1). Those of one process ascend, so that rows of a list go to the same place of
//! an index; made without a system call each.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use uuid::{Builder, Uuid};

// Bits of the counter within a millisecond. Where it overflows, the next millisecond is begun early.
const COUNTER_BITS: u32 = 12;

/// A new id.
pub fn new_id() -> Uuid {
    // Milliseconds and counter of the last one.
    static LAST: AtomicU64 = AtomicU64::new(0);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64;
    let begins = now << COUNTER_BITS;
    let before = LAST.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |last| Some(begins.max(last + 1))).unwrap_or_default();
    let place = begins.max(before + 1);
    let mut bytes = [0; 10];
    bytes[..2].copy_from_slice(&((place & ((1 << COUNTER_BITS) - 1)) as u16).to_be_bytes());
    bytes[2..].copy_from_slice(&rand::random::<u64>().to_be_bytes());
    Builder::from_unix_timestamp_millis(place >> COUNTER_BITS, &bytes).into_uuid()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_ascend_and_are_of_now() {
        let ids: Vec<Uuid> = (0..20_000).map(|_| new_id()).collect();
        assert!(ids.is_sorted_by(|a, b| a < b));
        assert!(ids.iter().all(|id| id.get_version_num() == 7 && id.get_variant() == uuid::Variant::RFC4122));
        let (seconds, _) = ids[0].get_timestamp().unwrap().to_unix();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        assert!(now.abs_diff(seconds) < 60);
    }
}
