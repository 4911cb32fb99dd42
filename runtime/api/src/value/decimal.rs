//! Exact decimal numbers: from their text to PostgreSQL's binary `numeric`.

use std::cmp::Ordering;

// Enough for anything a business counts, and a bound on memory.
const MOST_DIGITS: usize = 1_000;

/// A decimal number: digits and where the point is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decimal {
    negative: bool,
    // Values 0 to 9, the highest first; no leading zeros before the point's digits but at least `scale` digits.
    digits: Vec<u8>,
    // How many of the digits are behind the point.
    scale: usize,
}

impl Decimal {
    /// Reads digits as JSON writes numbers: `-12.50`, `1e3`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let bad = || "must be a decimal number like 12.50".to_owned();
        let (negative, rest) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let (mantissa, exponent) = match rest.find(['e', 'E']) {
            Some(at) => (&rest[..at], parse_exponent(&rest[at + 1..]).ok_or_else(bad)?),
            None => (rest, 0),
        };
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let all_digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
        if whole.is_empty() || !all_digits(whole) || !all_digits(fraction) || mantissa.ends_with('.') {
            return Err(bad());
        }
        if whole.len() + fraction.len() > MOST_DIGITS {
            return Err(format!("must have at most {MOST_DIGITS} digits"));
        }
        let mut digits: Vec<u8> = whole.bytes().chain(fraction.bytes()).map(|byte| byte - b'0').collect();
        let scale = fraction.len() as i64 - exponent;
        let scale = if scale < 0 {
            let zeros = scale.unsigned_abs() as usize;
            if digits.iter().any(|digit| *digit != 0) {
                if zeros > MOST_DIGITS {
                    return Err(format!("must have at most {MOST_DIGITS} digits"));
                }
                digits.resize(digits.len() + zeros, 0);
            }
            0
        } else {
            scale as usize
        };
        if scale > MOST_DIGITS {
            return Err(format!("must have at most {MOST_DIGITS} digits"));
        }
        if digits.len() < scale {
            let missing = scale - digits.len();
            digits.splice(0..0, std::iter::repeat_n(0, missing));
        }
        let leading = digits[..digits.len() - scale].iter().take_while(|digit| **digit == 0).count();
        digits.drain(..leading);
        let negative = negative && digits.iter().any(|digit| *digit != 0);
        Ok(Self { negative, digits, scale })
    }

    /// The number with exactly `scale` digits behind the point.
    ///
    /// # Errors
    /// When it has more, or more than `precision` in all: nothing is rounded.
    pub fn fit(mut self, precision: Option<u32>, scale: Option<u32>) -> Result<Self, String> {
        let Some(wanted) = scale.map(|scale| scale as usize) else { return Ok(self) };
        while self.scale > wanted {
            if self.digits.last().is_some_and(|digit| *digit != 0) {
                return Err(match wanted {
                    0 => "must have no digits behind the point".to_owned(),
                    1 => "must have at most 1 digit behind the point".to_owned(),
                    wanted => format!("must have at most {wanted} digits behind the point"),
                });
            }
            self.digits.pop();
            self.scale -= 1;
        }
        self.digits.resize(self.digits.len() + wanted - self.scale, 0);
        self.scale = wanted;
        if let Some(precision) = precision {
            let whole = self.digits.len() - self.scale;
            let most = (precision as usize).saturating_sub(wanted);
            if whole > most {
                return Err(format!("must have at most {most} digits before the point"));
            }
        }
        Ok(self)
    }

    /// Compares with a whole number.
    pub fn compare_integer(&self, other: i64) -> Ordering {
        if self.negative != (other < 0) {
            return if self.negative { Ordering::Less } else { Ordering::Greater };
        }
        let whole = &self.digits[..self.digits.len() - self.scale];
        let other_digits: Vec<u8> = match other {
            0 => Vec::new(),
            other => other.unsigned_abs().to_string().bytes().map(|byte| byte - b'0').collect(),
        };
        let fraction_is_zero = self.digits[whole.len()..].iter().all(|digit| *digit == 0);
        let magnitude = whole.len().cmp(&other_digits.len()).then_with(|| whole.cmp(&other_digits[..])).then(if fraction_is_zero {
            Ordering::Equal
        } else {
            Ordering::Greater
        });
        if self.negative { magnitude.reverse() } else { magnitude }
    }

    /// Writes PostgreSQL's binary form.
    pub fn write_binary(&self, out: &mut Vec<u8>) {
        let whole = self.digits.len() - self.scale;
        // Groups of four digits, aligned to the point.
        let head = (4 - whole % 4) % 4;
        let groups_before = (whole + head) / 4;
        let group_count = groups_before + self.scale.div_ceil(4);
        let digit =
            |index: isize| -> i16 { usize::try_from(index).ok().and_then(|index| self.digits.get(index)).map_or(0, |d| i16::from(*d)) };
        let group = |number: usize| -> i16 {
            let start = (number * 4) as isize - head as isize;
            (0..4).fold(0, |value, offset| value * 10 + digit(start + offset))
        };
        let first = (0..group_count).find(|number| group(*number) != 0).unwrap_or(group_count);
        let last = (first..group_count).rev().find(|number| group(*number) != 0).map_or(first, |number| number + 1);
        let count = last - first;
        let weight = if count == 0 { 0 } else { groups_before as i16 - 1 - first as i16 };
        out.extend_from_slice(&(count as i16).to_be_bytes());
        out.extend_from_slice(&weight.to_be_bytes());
        out.extend_from_slice(&(if self.negative { 0x4000_u16 } else { 0 }).to_be_bytes());
        out.extend_from_slice(&(self.scale as u16).to_be_bytes());
        for number in first..last {
            out.extend_from_slice(&group(number).to_be_bytes());
        }
    }

    /// Writes the digits as JSON and PostgreSQL do.
    pub fn write_text(&self, out: &mut Vec<u8>) {
        let whole = self.digits.len() - self.scale;
        if self.negative {
            out.push(b'-');
        }
        if whole == 0 {
            out.push(b'0');
        }
        out.extend(self.digits[..whole].iter().map(|digit| digit + b'0'));
        if self.scale > 0 {
            out.push(b'.');
            out.extend(self.digits[whole..].iter().map(|digit| digit + b'0'));
        }
    }
}

/// Compares two numbers in PostgreSQL's binary form, as [`Decimal::write_binary`] writes it; none where one is no number.
pub fn compare_binary_decimals(left: &[u8], right: &[u8]) -> Option<Ordering> {
    let (left, right) = (Groups::of(left)?, Groups::of(right)?);
    Some(match (left.sign(), right.sign()) {
        (1, 1) => left.compare_magnitude(&right),
        (-1, -1) => right.compare_magnitude(&left),
        (left, right) => left.cmp(&right),
    })
}

// A number's groups of four digits, with neither leading nor trailing groups of zeros, and the power of 10,000 of the first.
struct Groups<'a> {
    negative: bool,
    weight: i16,
    groups: &'a [u8],
}

impl<'a> Groups<'a> {
    fn of(binary: &'a [u8]) -> Option<Self> {
        let (head, groups) = binary.split_at_checked(8)?;
        let negative = match (head[4], head[5]) {
            (0, 0) => false,
            (0x40, 0) => true,
            _ => return None,
        };
        Some(Self { negative, weight: i16::from_be_bytes([head[2], head[3]]), groups })
    }

    fn sign(&self) -> i8 {
        match (self.groups.is_empty(), self.negative) {
            (true, _) => 0,
            (false, true) => -1,
            (false, false) => 1,
        }
    }

    // Groups are no more than 9999, so their bytes are in the order of the numbers.
    fn compare_magnitude(&self, other: &Self) -> Ordering {
        self.weight.cmp(&other.weight).then_with(|| self.groups.cmp(other.groups))
    }
}

fn parse_exponent(text: &str) -> Option<i64> {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    // What is out of range is out of the digits' range too.
    let value = digits.trim_start_matches('0');
    let value = if value.len() > 6 { 1_000_000 } else { value.parse().unwrap_or(0) };
    Some(if text.starts_with('-') { -value } else { value })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(source: &str, precision: Option<u32>, scale: Option<u32>) -> Result<String, String> {
        let mut out = Vec::new();
        Decimal::parse(source)?.fit(precision, scale)?.write_text(&mut out);
        Ok(String::from_utf8(out).expect("digits"))
    }

    #[test]
    fn digits_stay_exact_and_nothing_is_rounded() {
        assert_eq!(text("12.5", Some(12), Some(2)).as_deref(), Ok("12.50"));
        assert_eq!(text("-0.0", Some(12), Some(2)).as_deref(), Ok("0.00"));
        assert_eq!(text("12.500", Some(12), Some(2)).as_deref(), Ok("12.50"));
        assert_eq!(text("1e2", Some(12), Some(2)).as_deref(), Ok("100.00"));
        assert_eq!(text("0.05e1", None, None).as_deref(), Ok("0.5"));
        assert_eq!(text("1e-3", None, None).as_deref(), Ok("0.001"));
        assert_eq!(text("9007199254740993.10", None, None).as_deref(), Ok("9007199254740993.10"));
        assert!(text("12.505", Some(12), Some(2)).is_err());
        assert!(text("123.00", Some(4), Some(2)).is_err());
        for bad in ["", "-", ".5", "1.", "1e", "abc", "1e999999999999", "NaN", "--1", "1e-999999"] {
            assert!(text(bad, None, None).is_err(), "{bad}");
        }
    }

    #[test]
    fn comparison_with_limits_is_exact() {
        let compare = |text: &str, other| Decimal::parse(text).expect("decimal").compare_integer(other);
        assert_eq!(compare("0.01", 0), Ordering::Greater);
        assert_eq!(compare("-0.01", 0), Ordering::Less);
        assert_eq!(compare("100.00", 100), Ordering::Equal);
        assert_eq!(compare("-5.5", -5), Ordering::Less);
        assert_eq!(compare("9223372036854775807.1", i64::MAX), Ordering::Greater);
    }

    #[test]
    fn binary_numbers_compare_by_their_value() {
        let binary = |text: &str| {
            let mut out = Vec::new();
            Decimal::parse(text).expect("decimal").write_binary(&mut out);
            out
        };
        let rising = [
            "-100000000",
            "-10000.0001",
            "-10000",
            "-9999.9999",
            "-1",
            "-0.0002",
            "-0.0001",
            "-0.00001",
            "0",
            "0.00000001",
            "0.0001",
            "0.5",
            "0.50001",
            "1",
            "1.0001",
            "9999",
            "9999.9999",
            "10000",
            "10000.0000000000000001",
            "12345678901234567890",
        ];
        for (at, left) in rising.iter().enumerate() {
            for (other, right) in rising.iter().enumerate() {
                assert_eq!(compare_binary_decimals(&binary(left), &binary(right)), Some(at.cmp(&other)), "{left} {right}");
            }
        }
        assert_eq!(compare_binary_decimals(&binary("1.50"), &binary("1.5")), Some(Ordering::Equal));
        assert_eq!(compare_binary_decimals(&binary("-0.0"), &binary("0")), Some(Ordering::Equal));
        assert_eq!(compare_binary_decimals(&binary("1"), b""), None);
    }

    #[test]
    fn binary_groups_are_aligned_to_the_point() {
        let binary = |text: &str| {
            let mut out = Vec::new();
            Decimal::parse(text).expect("decimal").write_binary(&mut out);
            out.chunks(2).map(|pair| i16::from_be_bytes([pair[0], pair[1]])).collect::<Vec<_>>()
        };
        assert_eq!(binary("0"), [0, 0, 0, 0]);
        assert_eq!(binary("12345.678"), [3, 1, 0, 3, 1, 2345, 6780]);
        assert_eq!(binary("-0.0001"), [1, -1, 0x4000, 4, 1]);
        assert_eq!(binary("0.00010"), [1, -1, 0, 5, 1]);
        assert_eq!(binary("10000"), [1, 1, 0, 0, 1]);
    }
}
