//! Watermarks: on core NATS, how far the streams are complete.

use std::collections::BTreeMap;

use autonomy_crds::event::Watermark;

/// The position told when everything committed before `end` is in the streams. `end` is the end of a log record, where the next commit record
/// may begin; records begin at multiples of 8, so one less is at or after every commit told of, and before any other.
pub fn position_before(end: u64) -> u64 {
    end.saturating_sub(1)
}

/// A watermark's text.
pub fn text(end: u64, entities: BTreeMap<String, u64>) -> String {
    let watermark = Watermark { position: format!("{:016X}", position_before(end)), entities };
    // A struct of strings and numbers always has a JSON form.
    serde_json::to_string(&watermark).unwrap_or_default()
}
