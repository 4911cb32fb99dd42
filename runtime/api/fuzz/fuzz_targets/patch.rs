//! Patches. A merge patch comes to the same as RFC 7396's own words, written down once more here.
#![no_main]

use autonomy_api::body;
use autonomy_api::write::merge::merge_patch;
use serde_json::Value;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    // Target and patch, with a zero byte between; without one there is no target.
    let (target, patch) = match data.iter().position(|byte| *byte == 0) {
        Some(at) => (Some(&data[..at]), &data[at + 1..]),
        None => (None, data),
    };
    let read = |json: &[u8]| body::text(json).ok().and_then(|text| serde_json::from_str::<Value>(text).ok());
    let (Some(target), Some(patch_value)) = (target.map(read).unwrap_or(Some(Value::Null)), read(patch)) else { return };
    // Of numbers with a fraction serde_json's reader does not give back every digit. Here they stand for themselves, so the texts are compared.
    if has_fraction(&target) || has_fraction(&patch_value) {
        let mut out = Vec::new();
        let text = patch.trim_ascii();
        merge_patch(None, std::str::from_utf8(text).unwrap_or_default(), &mut out);
        assert!(patch_value.is_object() || out == text);
        return;
    }
    let patch = std::str::from_utf8(patch).unwrap_or_default().trim();
    let mut out = Vec::new();
    // The target comes from the database, where no member is there twice.
    merge_patch(Some(&target.to_string()), patch, &mut out);
    let merged: Value = serde_json::from_slice(&out).expect("the outcome is JSON");
    assert_eq!(merged, as_rfc_7396_says(target, patch_value));
});

fn has_fraction(value: &Value) -> bool {
    match value {
        Value::Number(number) => number.is_f64(),
        Value::Array(items) => items.iter().any(has_fraction),
        Value::Object(members) => members.values().any(has_fraction),
        _ => false,
    }
}

fn as_rfc_7396_says(target: Value, patch: Value) -> Value {
    let Value::Object(patch) = patch else { return patch };
    let mut target = match target {
        Value::Object(target) => target,
        _ => serde_json::Map::new(),
    };
    for (name, value) in patch {
        if value.is_null() {
            target.shift_remove(&name);
        } else {
            let before = target.get(&name).cloned().unwrap_or_default();
            target.insert(name, as_rfc_7396_says(before, value));
        }
    }
    Value::Object(target)
}
