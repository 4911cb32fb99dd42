//! Packed and zoned decimals, as COBOL and RPG programs write them.

use crate::expression::Value;

/// A packed decimal (COMP-3): two digits a byte, the sign in the last half byte. Only blanks are null.
///
/// # Errors
/// Why it is none.
pub fn packed(bytes: &[u8], scale: u32, ebcdic: bool) -> Result<Value, String> {
    let blank = if ebcdic { 0x40 } else { b' ' };
    if bytes.iter().all(|byte| *byte == blank) {
        return Ok(Value::Null);
    }
    let bad = || format!("{} is no packed decimal", hex(bytes));
    let Some((last, rest)) = bytes.split_last() else { return Err(bad()) };
    let mut digits = String::with_capacity(bytes.len() * 2);
    let halves = rest.iter().flat_map(|byte| [byte >> 4, byte & 0x0F]).chain([last >> 4]);
    for half in halves {
        digits.push(char::from_digit(u32::from(half), 10).ok_or_else(bad)?);
    }
    let negative = sign(last & 0x0F).ok_or_else(bad)?;
    Ok(number(&digits, negative, scale))
}

// Of a half byte; B and D are negative, the other letters positive.
fn sign(half: u8) -> Option<bool> {
    match half {
        0xB | 0xD => Some(true),
        0xA | 0xC | 0xE | 0xF => Some(false),
        _ => None,
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Zone {
    Blank,
    Digit(u8),
    // A digit with the number's sign over it.
    Signed(u8, bool),
    Sign(bool),
    Other,
}

/// A zoned decimal: a digit a byte; the sign in the zone of the last one, or of its own before or behind. Only blanks are null.
///
/// # Errors
/// Why it is none.
pub fn zoned(bytes: &[u8], scale: u32, ebcdic: bool) -> Result<Value, String> {
    let bad = || format!("{} is no zoned decimal", if ebcdic { hex(bytes) } else { format!("{:?}", String::from_utf8_lossy(bytes)) });
    let zones: Vec<Zone> = bytes.iter().map(|byte| if ebcdic { ebcdic_zone(*byte) } else { ascii_zone(*byte) }).collect();
    let first = zones.iter().position(|zone| *zone != Zone::Blank);
    let last = zones.iter().rposition(|zone| *zone != Zone::Blank);
    let (Some(first), Some(last)) = (first, last) else { return Ok(Value::Null) };
    let mut zones = &zones[first..=last];
    let mut negative = None;
    if let [Zone::Sign(sign), rest @ ..] | [rest @ .., Zone::Sign(sign)] = zones {
        (negative, zones) = (Some(*sign), rest);
    }
    let mut digits = String::with_capacity(zones.len());
    for (index, zone) in zones.iter().enumerate() {
        let digit = match zone {
            Zone::Digit(digit) => *digit,
            Zone::Signed(digit, sign) if index + 1 == zones.len() && negative.is_none() => {
                negative = Some(*sign);
                *digit
            }
            _ => return Err(bad()),
        };
        digits.push(char::from(b'0' + digit));
    }
    if digits.is_empty() {
        return Err(bad());
    }
    Ok(number(&digits, negative.unwrap_or(false), scale))
}

fn ebcdic_zone(byte: u8) -> Zone {
    match (byte >> 4, byte & 0x0F) {
        (4, 0) => Zone::Blank,
        (4, 0xE) => Zone::Sign(false),
        (6, 0) => Zone::Sign(true),
        (0xF, digit @ 0..=9) => Zone::Digit(digit),
        (zone, digit @ 0..=9) => sign(zone).map_or(Zone::Other, |negative| Zone::Signed(digit, negative)),
        _ => Zone::Other,
    }
}

// The signed digits as they come out when EBCDIC is turned into ASCII, and (p to y) as compilers on ASCII machines write negative ones.
fn ascii_zone(byte: u8) -> Zone {
    match byte {
        b' ' => Zone::Blank,
        b'+' => Zone::Sign(false),
        b'-' => Zone::Sign(true),
        b'0'..=b'9' => Zone::Digit(byte - b'0'),
        b'{' => Zone::Signed(0, false),
        b'A'..=b'I' => Zone::Signed(byte - b'A' + 1, false),
        b'}' => Zone::Signed(0, true),
        b'J'..=b'R' => Zone::Signed(byte - b'J' + 1, true),
        b'p'..=b'y' => Zone::Signed(byte - b'p', true),
        _ => Zone::Other,
    }
}

fn number(digits: &str, negative: bool, scale: u32) -> Value {
    let scale = scale as usize;
    let whole = digits.len().saturating_sub(scale);
    let (whole, fraction) = digits.split_at(whole);
    let whole = whole.trim_start_matches('0');
    let mut text = String::with_capacity(digits.len() + 3);
    if negative && digits.bytes().any(|digit| digit != b'0') {
        text.push('-');
    }
    text.push_str(if whole.is_empty() { "0" } else { whole });
    if scale > 0 {
        text.push('.');
        text.push_str(&"0".repeat(scale - fraction.len()));
        text.push_str(fraction);
    }
    Value::decimal_of_digits(&text)
}

/// Bytes in hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02X}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(read: Result<Value, String>) -> String {
        read.map_or_else(|reason| reason, |value| value.to_json())
    }

    #[test]
    fn packed_decimals() {
        for (bytes, scale, expected) in [
            (&[0x01, 0x23, 0x4C][..], 2, "12.34"),
            (&[0x01, 0x23, 0x4D], 2, "-12.34"),
            (&[0x00, 0x00, 0x0D], 2, "0.00"),
            (&[0x12, 0x3F], 0, "123"),
            (&[0x5B], 1, "-0.5"),
            (&[0x40, 0x40], 2, "null"),
            (&[0x40, 0x4C], 2, "4.04"),
            (&[0x12, 0x34], 0, "1234 is no packed decimal"),
            (&[0x1A, 0x3C], 0, "1A3C is no packed decimal"),
            (&[], 0, "null"),
        ] {
            assert_eq!(shown(packed(bytes, scale, true)), expected, "{bytes:02X?}");
        }
        // More digits than can be calculated with pass through as they are.
        let long = [&[0x12; 15][..], &[0x1C]].concat();
        assert_eq!(shown(packed(&long, 2, true)), format!("{}1.21", "12".repeat(14)));
    }

    #[test]
    fn zoned_decimals() {
        for (bytes, scale, expected) in [
            (&[0xF1, 0xF2, 0xF3][..], 2, "1.23"),
            (&[0xF1, 0xF2, 0xC3], 2, "1.23"),
            (&[0xF1, 0xF2, 0xD3], 2, "-1.23"),
            (&[0x40, 0x40, 0xF3], 0, "3"),
            (&[0x60, 0xF5, 0xF0], 0, "-50"),
            (&[0x40, 0x40], 0, "null"),
            (&[0xC1, 0xF2], 0, "C1F2 is no zoned decimal"),
            (&[0xF1, 0x40, 0xF2], 0, "F140F2 is no zoned decimal"),
        ] {
            assert_eq!(shown(zoned(bytes, scale, true)), expected, "{bytes:02X?}");
        }
        for (text, scale, expected) in [
            ("00123", 2, "1.23"),
            ("0012C", 2, "1.23"),
            ("0012L", 2, "-1.23"),
            ("0012s", 2, "-1.23"),
            ("0000}", 2, "0.00"),
            ("  12-", 0, "-12"),
            ("+5", 3, "0.005"),
            ("     ", 2, "null"),
            ("1.23", 2, "\"1.23\" is no zoned decimal"),
            ("-", 0, "\"-\" is no zoned decimal"),
            ("-1J", 0, "\"-1J\" is no zoned decimal"),
        ] {
            assert_eq!(shown(zoned(text.as_bytes(), scale, false)), expected, "{text}");
        }
    }
}
