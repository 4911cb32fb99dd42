//! The public vectors of json-patch-tests, and what they do not ask: digits, bounds, and pointers of faults.

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::equality::equal_numbers;
use super::*;

#[derive(Deserialize)]
struct Vector<'t> {
    #[serde(default)]
    comment: Option<String>,
    #[serde(borrow, default)]
    doc: Option<&'t RawValue>,
    #[serde(borrow, default)]
    patch: Option<&'t RawValue>,
    #[serde(borrow, default)]
    expected: Option<&'t RawValue>,
    #[serde(default)]
    error: Option<String>,
}

fn patched(document: &str, patch: &str) -> Result<String, Problem> {
    match Patch::read(patch, &[])?.apply(document)? {
        Patched::Unchanged => Ok(document.to_owned()),
        Patched::Changed(text) => Ok(text),
    }
}

fn pointers(problem: &Problem) -> Vec<&str> {
    problem.errors.iter().map(|fault| fault.pointer.as_deref().unwrap_or_default()).collect()
}

fn refused(document: &str, patch: &str) -> (u16, Vec<String>) {
    let problem = patched(document, patch).expect_err(patch);
    (problem.status.as_u16(), pointers(&problem).into_iter().map(str::to_owned).collect())
}

#[test]
fn every_public_vector_comes_out_as_it_says() {
    let mut run = 0;
    for file in [include_str!("vectors/tests.json"), include_str!("vectors/spec_tests.json")] {
        let vectors: Vec<Vector<'_>> = serde_json::from_str(file).expect("vectors");
        // Those that the suite leaves out, because not everybody does them, are done here too.
        for Vector { comment, doc, patch, expected, error } in vectors {
            let (Some(doc), Some(patch)) = (doc, patch) else { continue };
            let shown = format!("{} {} with {}", comment.unwrap_or_default(), doc.get(), patch.get());
            run += 1;
            match (patched(doc.get(), patch.get()), error) {
                (Ok(text), Some(error)) => panic!("{shown}: {text}, where {error:?} was expected"),
                (Ok(text), None) => {
                    let value: Value = serde_json::from_str(&text).expect("JSON");
                    let expected: Value = serde_json::from_str(expected.unwrap_or(doc).get()).expect("JSON");
                    assert_eq!(value, expected, "{shown}");
                }
                (Err(problem), None) => panic!("{shown}: {} {:?}", problem.detail, problem.errors),
                (Err(problem), Some(_)) => assert!(matches!(problem.status.as_u16(), 409 | 422), "{shown}"),
            }
        }
    }
    assert!(run > 100, "{run} vectors");
}

#[test]
fn what_a_patch_does_not_touch_stays_as_it_was_written() {
    let document = r#"{"a": 12345678901234567890.10, "b": {"c": 1e2, "d": "\u00e4\/"}, "e": [1.0, -0.0]}"#;
    let text = patched(document, r#"[{"op": "add", "path": "/e/1", "value": 0.10}, {"op": "move", "from": "/b", "path": "/f"}]"#);
    assert_eq!(text.expect("patched"), r#"{"a":12345678901234567890.10,"e":[1.0,0.10,-0.0],"f":{"c": 1e2, "d": "\u00e4\/"}}"#);
    let same = r#"[{"op": "replace", "path": "/b", "value": {"d": "ä/", "c": 100}}, {"op": "replace", "path": "/a", "value": 12345678901234567890.1}]"#;
    assert_eq!(Patch::read(same, &[]).expect("a patch").apply(document).expect("applied"), Patched::Unchanged);
}

#[test]
fn numbers_are_equal_by_value_and_strings_by_characters() {
    for (one, other) in [
        ("1", "1.0"),
        ("10e-1", "1"),
        ("-0.0", "0"),
        ("0e5", "0"),
        ("12345678901234567890.10", "12345678901234567890.1"),
        ("1E400", "10e399"),
        ("0.001", "1e-3"),
        ("100", "1e2"),
    ] {
        assert!(equal_numbers(one, other) && equal_numbers(other, one), "{one} {other}");
    }
    for (one, other) in [
        ("1", "-1"),
        ("0.1", "0.10000000000000000000000000001"),
        ("9007199254740993", "9007199254740992"),
        ("1e400", "1e401"),
        ("1e99999999999", "2e99999999999"),
        ("10", "1"),
        ("0", "1"),
    ] {
        assert!(!equal_numbers(one, other) && !equal_numbers(other, one), "{one} {other}");
    }
    let holds = |document: &str, value: &str| patched(document, &format!(r#"[{{"op":"test","path":"","value":{value}}}]"#)).is_ok();
    assert!(holds(r#"{"a": "\u0041\n", "b": [1, {"c": null}]}"#, r#"{"b":[1.0,{"c":null}],"a":"A\u000a"}"#));
    assert!(!holds(r#"{"a": 1}"#, r#"{"a":"1"}"#));
    assert!(!holds(r#"{"a": 1}"#, r#"{"a":1,"b":null}"#));
    assert!(!holds(r#"{"a": null}"#, "{}"));
    assert!(!holds("[1,2]", "[2,1]"));
    assert!(!holds("[]", "{}"));
}

#[test]
fn faults_point_to_the_operation() {
    let document = r#"{"a": {"b": [1, 2]}, "c": 3}"#;
    let ok = r#"{"op":"test","path":"/c","value":3}"#;
    for (operation, status, pointer) in [
        (r#"{"op":"test","path":"/c","value":4}"#, 409, "/1/path"),
        (r#"{"op":"test","path":"/x","value":4}"#, 422, "/1/path"),
        (r#"{"op":"replace","path":"/a/b/2","value":4}"#, 422, "/1/path"),
        (r#"{"op":"add","path":"/c/d","value":4}"#, 422, "/1/path"),
        (r#"{"op":"move","from":"/x","path":"/y"}"#, 422, "/1/from"),
        (r#"{"op":"move","from":"/x","path":"/x"}"#, 422, "/1/from"),
        (r#"{"op":"copy","from":"/a/b/-","path":"/y"}"#, 422, "/1/from"),
        (r#"{"op":"copy","from":"/a","path":"/y/z"}"#, 422, "/1/path"),
    ] {
        assert_eq!(refused(document, &format!("[{ok},{operation}]")), (status, vec![pointer.to_owned()]), "{operation}");
    }
    // What is wrong with the patch itself is told all at once.
    let bad = r#"[5, {"op":"remove"}, {"op":"add","path":"x"}, {"op":"move","from":"/a","path":"/a/b"}, {"op":"copy","path":"/~2"},
        {"op":"remove","path":""}, {"op":"test","path":"/c","path":"/d","value":1}, {"path":"/a"}, {"op":"increment","path":"/c"}]"#;
    let wanted = ["/0", "/1/path", "/2/path", "/2/value", "/3/path", "/4/path", "/4/from", "/5/path", "/6/path", "/7/op", "/8/op"];
    assert_eq!(refused(document, bad), (422, wanted.map(str::to_owned).to_vec()));
    assert_eq!(refused(document, "{}").0, 422);
    assert_eq!(refused(document, "[{]").0, 400);
    assert_eq!(refused(document, "").0, 400);
}

#[test]
fn the_server_s_own_members_are_tested_and_not_written() {
    let read = |patch: &str| Patch::read(patch, &["id", "version"]).map(|_| ());
    assert!(read(r#"[{"op":"test","path":"/version","value":1}, {"op":"copy","from":"/version","path":"/seen"}]"#).is_ok());
    let problem = read(
        r#"[{"op":"replace","path":"/version","value":1}, {"op":"remove","path":"/id"}, {"op":"move","from":"/id","path":"/x"},
            {"op":"copy","from":"/x","path":"/id"}, {"op":"add","path":"/version/x","value":1}]"#,
    );
    assert_eq!(pointers(&problem.expect_err("refused")), ["/0/path", "/1/path", "/2/from", "/3/path", "/4/path"]);
}

#[test]
fn what_a_patch_may_cost_is_bounded() {
    let many = |count: usize| format!("[{}]", vec![r#"{"op":"add","path":"/a","value":1}"#; count].join(","));
    assert!(patched("{}", &many(MOST_OPERATIONS)).is_ok());
    assert_eq!(refused("{}", &many(MOST_OPERATIONS + 1)), (422, vec![String::new()]));
    // Doubled by each copy.
    let doubled = vec![r#"{"op":"copy","from":"/a","path":"/a/-"}"#; 40].join(",");
    let text = "x".repeat(100);
    let (status, pointers) = refused(&format!(r#"{{"a":["{text}"]}}"#), &format!("[{doubled}]"));
    assert_eq!((status, pointers.len()), (422, 1));
    // Many copies of much, and long lists that are moved about.
    let large = format!(r#"{{"a":["{}"],"b":[{}]}}"#, "x".repeat(1_000_000), vec!["1"; 100_000].join(","));
    for operation in [
        r#"{"op":"copy","from":"/a","path":"/c"}"#,
        r#"{"op":"add","path":"/b/0","value":0}"#,
        r#"{"op":"move","from":"/b/0","path":"/b/1"}"#,
    ] {
        let begun = std::time::Instant::now();
        let result = patched(&large, &format!("[{}]", vec![operation; MOST_OPERATIONS].join(",")));
        assert!(result.is_err(), "{operation}");
        assert!(begun.elapsed() < std::time::Duration::from_secs(5), "{operation}");
    }
    // Deeper by each copy: refused before the stack ends.
    let deep: Vec<String> = (1..40).map(|level| format!(r#"{{"op":"copy","from":"","path":"{}"}}"#, "/a".repeat(level))).collect();
    assert_eq!(refused(r#"{"a":{}}"#, &format!("[{}]", deep.join(","))).0, 422);
    assert_eq!(refused("{}", &format!(r#"[{{"op":"add","path":"{}","value":1}}]"#, "/a".repeat(100_000))).0, 422);
    let nested = format!("{}{}", "[".repeat(60), "]".repeat(60));
    assert_eq!(refused(r#"{"a":{"b":{"c":{"d":{}}}}}"#, &format!(r#"[{{"op":"add","path":"/a/b/c/d/e","value":{nested}}}]"#)).0, 422);
    assert!(patched(r#"{"a":{"b":{"c":{}}}}"#, &format!(r#"[{{"op":"add","path":"/a/b/c/d","value":{nested}}}]"#)).is_ok());
}
