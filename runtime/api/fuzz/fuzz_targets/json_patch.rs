//! JSON Patch. What it makes of a document is what RFC 6902 says, done once more here on parsed values.
#![no_main]

use autonomy_api::body;
use autonomy_api::json_patch::{Patch, Patched};
use serde_json::Value;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    // Document and patch, with a zero byte between.
    let Some(at) = data.iter().position(|byte| *byte == 0) else { return };
    let read = |json: &'_ [u8]| body::text(json).ok().and_then(|text| serde_json::from_str::<Value>(text).ok());
    let (Some(document), Ok(text)) = (read(&data[..at]), body::text(&data[at + 1..])) else { return };
    let Ok(patch) = Patch::read(text, &["id"]) else { return };
    // The document comes from the database, where no member is there twice.
    let document_text = document.to_string();
    let outcome = patch.apply(&document_text);
    // Numbers beyond a float's, those with a fraction, and a member given twice mean something else to serde_json.
    let Ok(operations) = serde_json::from_str::<Vec<Value>>(text) else { return };
    if has_fraction(&document) || operations.iter().any(has_fraction) || has_repeats(text, &operations) {
        return;
    }
    let expected = operations.iter().try_fold(document.clone(), apply);
    match (outcome, expected) {
        (Ok(Patched::Unchanged), Some(expected)) => assert_eq!(expected, document),
        (Ok(Patched::Changed(text)), Some(expected)) => {
            assert_eq!(serde_json::from_str::<Value>(&text).expect("the outcome is JSON"), expected);
        }
        (Err(_), None) => {}
        // More is refused than RFC 6902 has to: what would cost too much, or become too deep.
        (Err(problem), Some(_)) => assert_eq!(problem.kind, "invalid-body", "{problem:?}"),
        (Ok(patched), None) => panic!("{patched:?}, where an operation can't be done"),
    }
});

fn has_fraction(value: &Value) -> bool {
    match value {
        Value::Number(number) => number.is_f64(),
        Value::Array(items) => items.iter().any(has_fraction),
        Value::Object(members) => members.values().any(has_fraction),
        _ => false,
    }
}

// Parsed, a member that is there twice is there once: then there are fewer colons outside of strings than members in the text.
fn has_repeats(text: &str, operations: &[Value]) -> bool {
    let (mut colons, mut inside, mut escaped) = (0, false, false);
    for byte in text.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => inside = !inside,
            b':' if !inside => colons += 1,
            _ => {}
        }
    }
    colons != operations.iter().map(members).sum::<usize>()
}

fn members(value: &Value) -> usize {
    match value {
        Value::Array(items) => items.iter().map(members).sum(),
        Value::Object(object) => object.len() + object.values().map(members).sum::<usize>(),
        _ => 0,
    }
}

fn apply(mut document: Value, operation: &Value) -> Option<Value> {
    let tokens = |name: &str| Some(tokens(operation[name].as_str()?));
    let path = tokens("path")?;
    match operation["op"].as_str()? {
        "add" => add(&mut document, &path, operation.get("value")?.clone())?,
        "replace" => *find(&mut document, &path)? = operation.get("value")?.clone(),
        "remove" => drop(remove(&mut document, &path)?),
        "move" => {
            let moved = remove(&mut document, &tokens("from")?)?;
            add(&mut document, &path, moved)?;
        }
        "copy" => {
            let copied = find(&mut document, &tokens("from")?)?.clone();
            add(&mut document, &path, copied)?;
        }
        "test" => {
            if find(&mut document, &path)? != operation.get("value")? {
                return None;
            }
        }
        _ => return None,
    }
    Some(document)
}

// Of a pointer that was read already.
fn tokens(pointer: &str) -> Vec<String> {
    pointer.split('/').skip(1).map(|token| token.replace("~1", "/").replace("~0", "~")).collect()
}

fn index_of(token: &str, end: usize) -> Option<usize> {
    let plain = token == "0" || !token.starts_with('0') && !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_digit());
    token.parse().ok().filter(|index| plain && *index <= end)
}

fn find<'v>(document: &'v mut Value, path: &[String]) -> Option<&'v mut Value> {
    path.iter().try_fold(document, |value, token| match value {
        Value::Object(object) => object.get_mut(token),
        Value::Array(items) => {
            let index = index_of(token, items.len().checked_sub(1)?)?;
            items.get_mut(index)
        }
        _ => None,
    })
}

fn add(document: &mut Value, path: &[String], value: Value) -> Option<()> {
    let Some((token, above)) = path.split_last() else {
        *document = value;
        return Some(());
    };
    match find(document, above)? {
        Value::Object(object) => drop(object.insert(token.clone(), value)),
        Value::Array(items) if token == "-" => items.push(value),
        Value::Array(items) => items.insert(index_of(token, items.len())?, value),
        _ => return None,
    }
    Some(())
}

fn remove(document: &mut Value, path: &[String]) -> Option<Value> {
    let Some((token, above)) = path.split_last() else {
        return Some(std::mem::take(document));
    };
    match find(document, above)? {
        Value::Object(object) => object.shift_remove(token),
        Value::Array(items) => {
            let index = index_of(token, items.len().checked_sub(1)?)?;
            Some(items.remove(index))
        }
        _ => None,
    }
}
