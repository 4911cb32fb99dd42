//! Rates as options give them.

use std::time::Duration;

/// Reads so many a second; gives how long one waits for the next.
///
/// # Errors
/// Where it is no number above 0.
pub fn rate(text: &str) -> Result<Duration, String> {
    match text.parse::<f64>() {
        Ok(rate) if rate > 0.0 && rate <= 1_000_000.0 => Ok(Duration::from_secs_f64(1.0 / rate)),
        _ => Err("it must be a number above 0".to_owned()),
    }
}
