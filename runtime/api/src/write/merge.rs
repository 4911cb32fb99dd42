//! Merging JSON into JSON, every number with its digits as they are.

use std::collections::{HashMap, HashSet};

/// Merges a JSON value into another one (RFC 7396). The depth is bounded by that of bodies.
pub fn merge_patch(target: Option<&str>, patch: &str, out: &mut Vec<u8>) {
    if !patch.starts_with('{') {
        out.extend_from_slice(patch.as_bytes());
        return;
    }
    let members = |json: &str| -> Vec<(String, String)> {
        sonic_rs::to_object_iter(json)
            .filter_map(Result::ok)
            .map(|(name, value)| (name.to_string(), value.as_raw_str().trim().to_owned()))
            .collect()
    };
    let target = target.filter(|target| target.starts_with('{')).map(members).unwrap_or_default();
    let patch = members(patch);
    // Of a name that is there twice the last value counts; by name, since a body may have very many of them.
    let changes: HashMap<&str, usize> = patch.iter().enumerate().map(|(at, (name, _))| (name.as_str(), at)).collect();
    let mut written = 0;
    let mut head = |name: &str, out: &mut Vec<u8>| {
        out.push(if written == 0 { b'{' } else { b',' });
        written += 1;
        autonomy_crds::object_json::write_string(name, out);
        out.push(b':');
    };
    for (name, value) in &target {
        match changes.get(name.as_str()).map(|at| patch[*at].1.as_str()) {
            Some("null") => {}
            Some(change) => {
                head(name, out);
                merge_patch(Some(value), change, out);
            }
            None => {
                head(name, out);
                out.extend_from_slice(value.as_bytes());
            }
        }
    }
    let known: HashSet<&str> = target.iter().map(|(name, _)| name.as_str()).collect();
    for (at, (name, change)) in patch.iter().enumerate() {
        if change != "null" && changes.get(name.as_str()) == Some(&at) && !known.contains(name.as_str()) {
            head(name, out);
            merge_patch(None, change, out);
        }
    }
    if written == 0 {
        out.push(b'{');
    }
    out.push(b'}');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn merged(target: Option<&str>, patch: &str) -> String {
        let mut out = Vec::new();
        merge_patch(target, patch, &mut out);
        String::from_utf8(out).expect("UTF-8")
    }

    // RFC 7396, appendix A, all of it.
    #[test]
    fn every_example_of_rfc_7396_comes_out_as_it_says() {
        for (target, patch, result) in [
            (r#"{"a":"b"}"#, r#"{"a":"c"}"#, r#"{"a":"c"}"#),
            (r#"{"a":"b"}"#, r#"{"b":"c"}"#, r#"{"a":"b","b":"c"}"#),
            (r#"{"a":"b"}"#, r#"{"a":null}"#, "{}"),
            (r#"{"a":"b","b":"c"}"#, r#"{"a":null}"#, r#"{"b":"c"}"#),
            (r#"{"a":["b"]}"#, r#"{"a":"c"}"#, r#"{"a":"c"}"#),
            (r#"{"a":"c"}"#, r#"{"a":["b"]}"#, r#"{"a":["b"]}"#),
            (r#"{"a":{"b":"c"}}"#, r#"{"a":{"b":"d","c":null}}"#, r#"{"a":{"b":"d"}}"#),
            (r#"{"a":[{"b":"c"}]}"#, r#"{"a":[1]}"#, r#"{"a":[1]}"#),
            (r#"["a","b"]"#, r#"["c","d"]"#, r#"["c","d"]"#),
            (r#"{"a":"b"}"#, r#"["c"]"#, r#"["c"]"#),
            (r#"{"a":"foo"}"#, "null", "null"),
            (r#"{"a":"foo"}"#, r#""bar""#, r#""bar""#),
            (r#"{"e":null}"#, r#"{"a":1}"#, r#"{"e":null,"a":1}"#),
            ("[1,2]", r#"{"a":"b","c":null}"#, r#"{"a":"b"}"#),
            ("{}", r#"{"a":{"bb":{"ccc":null}}}"#, r#"{"a":{"bb":{}}}"#),
        ] {
            assert_eq!(merged(Some(target), patch), result, "{target} with {patch}");
        }
    }

    #[test]
    fn what_is_merged_keeps_its_digits() {
        assert_eq!(merged(Some(r#"{"a":"b","c":{"d":1.10,"f":2}}"#), r#"{"a":"z","c":{"f":null}}"#), r#"{"a":"z","c":{"d":1.10}}"#);
        assert_eq!(merged(Some("[1]"), r#"{"a":{"b":null}}"#), r#"{"a":{}}"#);
        assert_eq!(merged(Some(r#"{"a":1}"#), r#"{"a":null}"#), "{}");
        assert_eq!(merged(None, r#"{"a":[1,null],"b":12345678901234567890.10}"#), r#"{"a":[1,null],"b":12345678901234567890.10}"#);
    }
    #[test]
    fn of_a_name_that_is_there_twice_the_last_value_counts() {
        let mut out = Vec::new();
        merge_patch(Some(r#"{"a":1}"#), r#"{"a":2,"b":1,"a":3,"b":{"c":null},"d":1,"d":null}"#, &mut out);
        assert_eq!(String::from_utf8(out).expect("UTF-8"), r#"{"a":3,"b":{}}"#);
    }

    #[test]
    fn very_many_members_take_their_number_s_time() {
        let members = |value: u32| {
            let list: Vec<String> = (0..100_000).map(|number| format!("\"member{number}\":{value}")).collect();
            format!("{{{}}}", list.join(","))
        };
        let begun = std::time::Instant::now();
        let mut out = Vec::new();
        merge_patch(Some(&members(1)), &members(2), &mut out);
        assert_eq!(out, members(2).into_bytes());
        // Each against each took minutes.
        assert!(begun.elapsed().as_secs() < 20, "{:?}", begun.elapsed());
    }
}
