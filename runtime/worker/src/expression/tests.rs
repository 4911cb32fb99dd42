//! What authors may rely on.

use super::*;

fn value(json: &str) -> Value {
    Value::from_json(json.as_bytes()).expect("JSON")
}

fn evaluate_with(source: &str, variables: &[(&str, &str)]) -> Result<Value, String> {
    let mut names = Names::new();
    let mut values = Vec::new();
    for (name, json) in variables {
        names.add(*name, Kind::Any);
        values.push(value(json));
    }
    let expression = compile(source, &names, "spec.x").map_err(|faults| faults.to_string())?;
    expression.evaluate(&values, &Identity { service: "default/test", event: "1" }).map_err(|error| error.to_string())
}

fn evaluate(source: &str) -> Result<Value, String> {
    evaluate_with(source, &[])
}

fn json(source: &str) -> String {
    evaluate(source).unwrap_or_else(|error| panic!("{source}: {error}")).to_json()
}

fn fails(source: &str, with: &str) {
    let message = evaluate(source).expect_err(source);
    assert!(message.contains(with), "{source}: {message}");
}

#[test]
fn decimals_are_exact_and_keep_their_digits() {
    assert_eq!(json("1.10 + 2.20"), "3.30");
    assert_eq!(json("1.10 + 2.20 == 3.30"), "true");
    assert_eq!(json("0.1 + 0.2"), "0.3");
    assert_eq!(json("0.1 + 0.2 == 0.3"), "true");
    assert_eq!(json("-4.10"), "-4.10");
    assert_eq!(json("'é' + string(1.10)"), "\"é1.10\"");
    assert_eq!(json("1.000000000000000000000000001"), "1.000000000000000000000000001");
    assert_eq!(json("2 * 1.15"), "2.30");
    assert_eq!(json("1 == 1.00 && 1.0 in [1]"), "true");
    assert_eq!(json("3 > 2.5 && 2.5 < 3"), "true");
    assert_eq!(json("19.99 * 3 - 0.97"), "59.00");
    assert_eq!(json("1e-3"), "0.001");
    fails("1.00000000000000000000000000000000001", "more than 28 digits");
    fails("999999999999999999999999999.0 * 100.1", "more digits than fit");
    fails("9223372036854775807 + 1", "more digits than fit");
}

#[test]
fn numbers_of_json_never_pass_through_floats() {
    let source = r#"{"a":0.30,"b":12345678901234567.89,"c":1e2,"d":123456789012345678901234567890.12,"e":10,"f":-0.0}"#;
    let read = value(source);
    assert_eq!(read.member("a").expect("a").to_json(), "0.30");
    assert_eq!(read.member("b").expect("b").to_json(), "12345678901234567.89");
    assert_eq!(read.member("c").expect("c"), &Value::Int(100));
    assert_eq!(read.member("d").expect("d").to_json(), "123456789012345678901234567890.12");
    assert!(matches!(read.member("e"), Some(Value::Int(10))));
    let sum = evaluate_with("x.b + 0.01", &[("x", source)]).expect("sum");
    assert_eq!(sum.to_json(), "12345678901234567.90");
    let error = evaluate_with("x.d + 1", &[("x", source)]).expect_err("too many digits");
    assert!(error.contains("28 digits"), "{error}");
}

#[test]
fn division_and_rounding() {
    assert_eq!(json("7 / 2"), "3");
    assert_eq!(json("7.0 / 2"), "3.5");
    assert_eq!(json("divide(10, 3, 2)"), "3.33");
    assert_eq!(json("divide(20, 3, 2)"), "6.67");
    assert_eq!(json("divide(1, 8, 2)"), "0.13");
    assert_eq!(json("divide(10, 2, 2)"), "5.00");
    assert_eq!(json("round(2.345, 2)"), "2.35");
    assert_eq!(json("round(-2.345, 2)"), "-2.35");
    assert_eq!(json("roundEven(2.345, 2)"), "2.34");
    assert_eq!(json("round(2.5)"), "3");
    assert_eq!(json("floor(2.99) + ceil(2.01)"), "5");
    assert_eq!(json("int(2.99)"), "2");
    assert_eq!(json("sum([1.10, 2, null, 3.3])"), "6.40");
    assert_eq!(json("sum([])"), "0");
    assert_eq!(json("min(3, 2.5) + max([1, 4])"), "6.5");
    assert_eq!(json("add('1.10', 2.2)"), "3.30");
    fails("1.0 / 0", "division by zero");
    fails("divide(1, 0, 2)", "can't be divided");
    fails("decimal('1_000')", "is no number");
    fails("decimal('abc')", "is no number");
    fails("double(1)", "decimal(x)");
}

#[test]
fn logic_and_comparison_are_those_of_cel() {
    assert_eq!(json("false && 1 / 0 == 1"), "false");
    assert_eq!(json("1 / 0 == 1 || true"), "true");
    assert_eq!(json("[1, 2, 3].exists(x, x > 2) && [1, 2].all(x, x < 3)"), "true");
    assert_eq!(json("[1, 2, 3].filter(x, x % 2 == 1).map(x, x * 10)"), "[10,30]");
    assert_eq!(json("[1, 2, 3].map(x, x > 1, string(x))"), "[\"2\",\"3\"]");
    assert_eq!(json("[[1, 2], [3]].map(l, l.map(x, x + size(l)))"), "[[3,4],[4]]");
    assert_eq!(json("{'a': 1, 'b': [1.50]}"), r#"{"a":1,"b":[1.50]}"#);
    assert_eq!(json("{'a': 1} == {'a': 1.0}"), "true");
    assert_eq!(json("1 == 1 ? 'yes' : 'no'"), "\"yes\"");
    assert_eq!(json("'b' in {'a': 1}"), "false");
    assert_eq!(json("[1, 2].exists_one(x, x == 2)"), "true");
    fails("'1' == 1", "convert with");
    fails("1 + 'a'", "convert with");
    fails("'a' && true", "true or false");
    fails("{'a': 1, 'a': 2}", "given twice");
}

#[test]
fn null_and_missing_members() {
    let sale = [("object", r#"{"a":null,"b":{"c":1}}"#)];
    let on = |source: &str| evaluate_with(source, &sale);
    assert_eq!(on("has(object.a)").expect("has"), Value::Bool(false));
    assert_eq!(on("has(object.b.c) && !has(object.a.c) && !has(object.z.c)").expect("has"), Value::Bool(true));
    assert_eq!(on("default(object.a, 5)").expect("default"), Value::Int(5));
    assert_eq!(on("object.a.c.orValue(5)").expect("default"), Value::Int(5));
    assert_eq!(on("object.a == null").expect("null"), Value::Bool(true));
    let error = on("object.a.c").expect_err("null");
    assert!(error.contains("object.a is null and has no member c"), "{error}");
    let error = on("object.nope").expect_err("missing");
    assert!(error.contains("has no member nope; it has a, b"), "{error}");
    let error = on("object.a + 1").expect_err("null");
    assert!(error.contains("test for null first"), "{error}");
    let error = on("default(object.b + 1, 2)").expect_err("not absent");
    assert!(error.contains("can't be used"), "{error}");
}

#[test]
fn wrong_names_are_told_before_anything_runs() {
    let mut names = Names::new();
    let line = Kind::object("SaleLine", [("quantity", Kind::Int), ("amount", Kind::Decimal)]);
    names.add("object", Kind::object("retail/Sale", [("status", Kind::Text), ("lines", Kind::List(std::sync::Arc::new(line)))]));
    let faults = |source: &str| compile(source, &names, "spec.steps[0].when").expect_err(source).to_string();
    assert!(faults("object.statsu == 'x'").starts_with("spec.steps[0].when: object (retail/Sale) has no member statsu; is status meant?"));
    assert!(faults("objekt.status").contains("there is no variable objekt here; is object meant?"));
    assert!(faults("object.lines.map(l, l.ammount)").contains("is amount meant?"));
    assert!(faults("object.status > 1").contains("convert with decimal(x)"));
    assert!(faults("trimm(object.status)").contains("there is no function trimm; is trim meant?"));
    assert!(faults("trim(object.lines)").contains("takes a string"));
    assert!(faults("substring(object.status)").contains("substring(text, start, end)"));
    assert!(faults("object.status.matches('(')").contains("is no regular expression"));
    assert!(faults("object.status ==").contains("is not CEL"));
    assert!(faults("foo.bar + baz").contains("there is no variable foo") && faults("foo.bar + baz").contains("there is no variable baz"));
    assert_eq!(compile("sum(object.lines.map(l, l.amount * l.quantity))", &names, "x").expect("fine").kind(), &Kind::Decimal);
}

#[test]
fn texts() {
    assert_eq!(json("' Ab '.trim().upper() + 'X'.lower()"), "\"ABx\"");
    assert_eq!(json("'a,b'.split(',')"), r#"["a","b"]"#);
    assert_eq!(json("['a', 'b'].join('-')"), "\"a-b\"");
    assert_eq!(json("'café'.substring(1, 4) + 'café'.substring(3)"), "\"aféé\"");
    assert_eq!(json("'S-042'.extract('S-([0-9]+)')"), "\"042\"");
    assert_eq!(json("'x'.extract('[0-9]')"), "null");
    assert_eq!(json("'abc'.matches('^a.c$') && 'abc'.contains('b') && 'abc'.startsWith('a') && 'abc'.endsWith('c')"), "true");
    assert_eq!(json("padStart(string(7), 3)"), "\"007\"");
    assert_eq!(json("size('é') + size([1]) + size({'a': 1})"), "3");
    assert_eq!(json("sha256('abc')"), "\"ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad\"");
    assert_eq!(json("[nullIfEmpty(' '), nullIfEmpty(' a '), nullIfEmpty(null)]"), r#"[null,"a",null]"#);
    assert_eq!(json("bool('yes') && int('42') == 42"), "true");
    assert_eq!(json("parseJson('{\"a\": 1.10}').a"), "1.10");
    assert_eq!(json("toJson({'a': [1.10, null]})"), r#""{\"a\":[1.10,null]}""#);
}

#[test]
fn lists() {
    assert_eq!(
        json(
            "[{'s': 'b', 'n': 1}, {'s': 'a', 'n': 2}, {'s': 'b', 'n': 3}].groupBy(x, x.s).map(g, {'s': g.key, 'n': sum(g.items.map(i, i.n))})"
        ),
        r#"[{"s":"b","n":4},{"s":"a","n":2}]"#
    );
    assert_eq!(json("[3, 1, 2].sortBy(x, x)"), "[1,2,3]");
    assert_eq!(json("[1, 1.0, 2].distinct()"), "[1,2]");
    assert_eq!(json("[[1], [2, 3]].flatten()"), "[1,2,3]");
    assert_eq!(json("range(3)"), "[0,1,2]");
    assert_eq!(json("[1, 2].first() + [1, 2].last()"), "3");
    assert_eq!(json("first([])"), "null");
    assert_eq!(json("[1] + [2]"), "[1,2]");
    assert_eq!(json("merge({'a': 1, 'b': 2}, {'b': 3, 'c': 4})"), r#"{"a":1,"b":3,"c":4}"#);
    fails("[1, 'a'].sortBy(x, x)", "no order between them");
}

#[test]
fn times() {
    assert_eq!(json("date('2026-11-25T23:30:00Z')"), "\"2026-11-25\"");
    assert_eq!(json("localDate('2026-11-25T23:30:00Z', 'Europe/Amsterdam')"), "\"2026-11-26\"");
    assert_eq!(json("localDate('2026-11-25', 'Europe/Amsterdam')"), "\"2026-11-25\"");
    assert_eq!(json("parseDateTime('25-11-2026 09:15', '%d-%m-%Y %H:%M', 'Europe/Amsterdam')"), "\"2026-11-25T08:15:00Z\"");
    assert_eq!(json("parseDateTime('2026-11-25 09:15 +0200', '%Y-%m-%d %H:%M %z')"), "\"2026-11-25T07:15:00Z\"");
    assert_eq!(json("parseDate('25/11/2026', '%d/%m/%Y')"), "\"2026-11-25\"");
    assert_eq!(json("formatDateTime('2026-11-25T23:30:00Z', '%Y%m%d', 'Europe/Amsterdam')"), "\"20261126\"");
    assert_eq!(json("addDays('2026-11-25', 14)"), "\"2026-12-09\"");
    assert_eq!(json("timestamp('2026-11-25T00:00:00Z') + duration('1h30m')"), "\"2026-11-25T01:30:00Z\"");
    assert_eq!(json("timestamp('2026-11-25T00:00:19.5Z') > timestamp('2026-11-25T00:00:19Z')"), "true");
    assert_eq!(json("string(timestamp('2026-11-26T00:00:00Z') - timestamp('2026-11-25T00:00:00Z'))"), "\"86400s\"");
    fails("localDate('2026-11-25T23:30:00Z', 'Mars/Olympus')", "no time zone");
    fails("timestamp('yesterday')", "no timestamp");
}

#[test]
fn identities_are_the_same_in_every_attempt() {
    let one = evaluate("uuid('a', 1)").expect("uuid");
    assert_eq!(one, evaluate("uuid('a', 1)").expect("uuid"));
    assert_ne!(one, evaluate("uuid('a', 2)").expect("uuid"));
    assert_ne!(evaluate("uuid('ab', 'c')"), evaluate("uuid('a', 'bc')"));
    let text = one.as_text().expect("text").to_owned();
    assert_eq!(uuid::Uuid::parse_str(&text).expect("uuid").get_version_num(), 8);
    let names = Names::new();
    let (bound, stable) = (compile("uuid('a')", &names, "x").expect("fine"), compile("stableUuid('a')", &names, "x").expect("fine"));
    let of = |expression: &Expression, event: &str| expression.evaluate(&[], &Identity { service: "n/s", event }).expect("uuid");
    assert_ne!(of(&bound, "1"), of(&bound, "2"));
    assert_eq!(of(&stable, "1"), of(&stable, "2"));
}

#[test]
fn deep_texts_are_refused() {
    let deep = "[".repeat(100_000) + &"]".repeat(100_000);
    assert!(Value::from_json(deep.as_bytes()).is_err());
    assert!(Value::from_json(b"{\"a\":1").is_err());
    assert!(Value::from_json(b"{\"a\":01}").is_err());
    assert!(evaluate(&("(".repeat(5000) + "1" + &")".repeat(5000))).is_err());
    fails(&("1+".repeat(3000) + "1"), "too deep");
    assert_eq!(json(&("1+".repeat(150) + "1")), "151");
    assert_eq!(json(&("true && ".repeat(500) + "true")), "true");
}

#[test]
fn money_is_read_written_and_shared_out_to_the_cent() {
    assert_eq!(json("parseDecimal('1.234,50', ',', '.')"), "1234.50");
    assert_eq!(json("parseDecimal(' -1 234.5 ', '.', ' ')"), "-1234.5");
    assert_eq!(json("parseDecimal('12,50-', ',')"), "-12.50");
    fails("parseDecimal('1.5', ',', '.')", "is no number");
    fails("parseDecimal('1,2,3', ',')", "is no number");
    fails("parseDecimal('EUR 5')", "is no number");
    assert_eq!(json("formatDecimal(1234567.125, 2, ',', '.')"), "\"1.234.567,13\"");
    assert_eq!(json("formatDecimal(-0.001, 2)"), "\"0.00\"");
    assert_eq!(json("formatDecimal(-1234, 1, '.', \"'\")"), "\"-1'234.0\"");
    assert_eq!(
        json("['halfUp', 'halfDown', 'halfEven', 'up', 'down', 'ceiling', 'floor'].map(m, round(-2.125, 2, m))"),
        "[-2.13,-2.12,-2.12,-2.13,-2.12,-2.12,-2.13]"
    );
    fails("round(1.5, 0, 'half')", "is no way to round");
    assert_eq!(json("allocate(100, [1, 1, 1], 2)"), "[33.34,33.33,33.33]");
    assert_eq!(json("allocate(-0.05, [3, 7, 0], 2)"), "[-0.02,-0.03,0.00]");
    assert_eq!(json("sum(allocate(1000.01, [0.1, 22.7, 13, 1.999], 2))"), "1000.01");
    fails("allocate(1, [0, 0], 2)", "add up to nothing");
    fails("allocate(0.001, [1], 2)", "more than 2 digits");
}

#[test]
fn dates_are_moved_and_written() {
    assert_eq!(json("addMonths('2026-01-31', 1)"), "\"2026-02-28\"");
    assert_eq!(json("addMonths('2026-01-31', -2)"), "\"2025-11-30\"");
    assert_eq!(json("startOfMonth('2028-02-17') + endOfMonth('2028-02-17')"), "\"2028-02-012028-02-29\"");
    assert_eq!(json("dayOfWeek('2026-11-29')"), "7");
    assert_eq!(json("daysBetween('2026-11-29', '2027-01-01')"), "33");
    assert_eq!(json("formatDate('2026-11-05', '%d.%m.%Y')"), "\"05.11.2026\"");
    assert_eq!(json("inTimeZone('2026-11-25T23:30:00Z', 'Europe/Amsterdam')"), "\"2026-11-26T00:30:00+01:00\"");
    fails("formatDate('2026-11-05', '%H')", "no format of a date");
    fails("addMonths('5.11.2026', 1)", "is no date");
}

#[test]
fn keys_are_alike_however_they_are_written() {
    for text in ["+31 (0)20 123 45-67", "0031201234567", "020-1234567", "020 1234567 ext. 12"] {
        assert_eq!(json(&format!("phone('{text}', '31')")), "\"+31201234567\"", "{text}");
    }
    assert_eq!(
        json("[phone('-', '31'), phone('020 1'), phone(null), email(' '), email(' Ann@Example.ORG ')]"),
        "[null,\"0201\",null,null,\"ann@example.org\"]"
    );
    fails("phone('1', 'NL')", "no calling code");
    assert_eq!(json("urlEncode('a b/ü') + escapeXml('<&>')"), "\"a%20b%2F%C3%BC&lt;&amp;&gt;\"");
    assert_eq!(json("base64Decode(base64Encode('ü'))"), "\"ü\"");
    fails("base64Decode('*')", "is no Base64");
}
