//! Names and small texts of the language: case conversion, reserved words, durations.

use std::time::Duration;

/// What the kinds' schemas say of a duration.
pub const DURATION_PATTERN: &str = r"^([0-9]+(\.[0-9]+)?(ms|s|m|h))+$";

/// A duration as Go writes it: `250ms`, `1.5s`, `2m15s`, `1h`.
///
/// # Errors
/// A message for the author where the text is none.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let bad = || format!("{text:?} is no duration; write for example 250ms, 1.5s, 2m15s or 1h");
    let mut rest = text;
    let mut total = Duration::ZERO;
    if rest.is_empty() {
        return Err(bad());
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(bad)?;
        let number: f64 = rest[..digits].parse().map_err(|_| bad())?;
        rest = &rest[digits..];
        let unit_end = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        let seconds = match &rest[..unit_end] {
            "ms" => 0.001,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return Err(bad()),
        };
        rest = &rest[unit_end..];
        total += Duration::try_from_secs_f64(number * seconds).map_err(|_| bad())?;
    }
    Ok(total)
}

/// The longest identifier that PostgreSQL keeps, in bytes.
pub const MAX_IDENTIFIER: usize = 63;

/// A PostgreSQL identifier in double quotes. The one function that quotes identifiers in the whole platform.
pub fn quote_identifier(name: &str) -> String {
    let mut quoted = String::with_capacity(name.len() + 2);
    quoted.push('"');
    for character in name.chars() {
        match character {
            // PostgreSQL has no identifiers with NUL, and the C string would end there.
            '\0' => {}
            '"' => quoted.push_str("\"\""),
            _ => quoted.push(character),
        }
    }
    quoted.push('"');
    quoted
}

/// `LoyaltyAccrual`, `loyaltyAccrual` and `loyalty-accrual` become `loyalty_accrual`; runs of capitals are one word (`SKUCode` → `sku_code`).
pub fn snake_case(name: &str) -> String {
    let characters: Vec<char> = name.chars().collect();
    let mut snake = String::with_capacity(name.len() + 8);
    for (index, &character) in characters.iter().enumerate() {
        if character == '-' {
            snake.push('_');
            continue;
        }
        if character.is_ascii_uppercase() && index > 0 {
            let before = characters[index - 1];
            let next_is_lower = characters.get(index + 1).is_some_and(char::is_ascii_lowercase);
            if before.is_ascii_lowercase() || before.is_ascii_digit() || (before.is_ascii_uppercase() && next_is_lower) {
                snake.push('_');
            }
        }
        snake.push(character.to_ascii_lowercase());
    }
    snake
}

/// `LoyaltyAccruals` becomes `loyaltyAccruals`; a leading run of capitals is one word (`SKUCodes` → `skuCodes`).
pub fn lower_camel_case(name: &str) -> String {
    let characters: Vec<char> = name.chars().collect();
    let run = characters.iter().take_while(|character| character.is_ascii_uppercase()).count();
    let lowered = if run > 1 && run < characters.len() && characters[run].is_ascii_lowercase() { run - 1 } else { run };
    characters
        .iter()
        .enumerate()
        .map(|(index, character)| if index < lowered { character.to_ascii_lowercase() } else { *character })
        .collect()
}

/// The identifier itself where PostgreSQL keeps it whole; otherwise its beginning and a hash of all of it, in 63 bytes.
pub fn shortened(identifier: String) -> String {
    if identifier.len() <= MAX_IDENTIFIER {
        return identifier;
    }
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for byte in identifier.as_bytes() {
        hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    let mut end = MAX_IDENTIFIER - 17;
    while !identifier.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}_{hash:016x}", &identifier[..end])
}

/// The object API's query parameters: no attribute may take their names, since `attr=value` is a filter.
pub const QUERY_PARAMETERS: [&str; 10] =
    ["limit", "cursor", "offset", "sort", "fields", "count", "embed", "filter", "aggregate", "groupBy"];

/// The query parameter of entities that keep a history: the moment as of which objects are read. Taken there only.
pub const AS_OF: &str = "asOf";

/// Whether the object API has a query parameter of that name.
pub fn is_query_parameter(name: &str) -> bool {
    QUERY_PARAMETERS.contains(&name) || matches!(name, "onError" | "onConflict")
}

/// Whether every object has that member (`id`, `version`, `createdAt`, `updatedAt`).
pub fn is_system_member(member: &str) -> bool {
    crate::resolved::SYSTEM_COLUMNS.iter().any(|(_, system)| *system == member)
}

/// Whether an entity's attribute or relationship can't have that name, whatever its model.
pub fn is_reserved_member(member: &str) -> bool {
    is_system_member(member) || is_query_parameter(member) || member == "before"
}
