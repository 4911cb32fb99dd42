//! Moments as options give them: a time, or how long ago.

use autonomy_crds::names::parse_duration;
use jiff::Timestamp;

/// Reads `2026-11-26T08:00:00Z`, or `2h` for two hours ago.
///
/// # Errors
/// Where it is neither.
pub fn moment(text: &str) -> Result<Timestamp, String> {
    if let Ok(time) = text.parse() {
        return Ok(time);
    }
    let fault = || format!("{text:?} is neither a time like 2026-11-26T08:00:00Z nor how long ago, like 2h");
    let ago = parse_duration(text).map_err(|_| fault())?;
    Timestamp::now().checked_sub(ago).map_err(|_| fault())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_how_long_ago() {
        assert_eq!(moment("2026-11-26T08:00:00+01:00"), Ok("2026-11-26T07:00:00Z".parse().expect("a time")));
        assert!(moment("1h30m").expect("a duration") < Timestamp::now());
        assert!(moment("yesterday").is_err());
    }
}
