//! What was measured: as JSON for the plot, and as the table that is kept.

use std::fmt::Write as _;

use serde::Serialize;
use serde_json::{Map, Value as Json};

/// All of a run.
#[derive(Debug, Default, Serialize)]
pub struct Results {
    /// The machine: what is said of it, by name.
    pub machine: Map<String, Json>,
    /// Versions of what was measured.
    pub versions: Map<String, Json>,
    /// The measurements.
    pub measurements: Vec<Measurement>,
}

/// One scenario.
#[derive(Debug, Serialize)]
pub struct Measurement {
    /// What was done.
    pub scenario: String,
    /// The unit of all its values.
    pub unit: &'static str,
    /// Who did it.
    pub results: Vec<Value>,
}

/// One value.
#[derive(Debug, Serialize)]
pub struct Value {
    /// Whose.
    pub name: String,
    /// The value.
    pub value: f64,
    /// What else is to be known of it.
    pub note: String,
}

impl Results {
    /// Adds a value; those of one scenario stand together.
    pub fn add(&mut self, scenario: &str, unit: &'static str, name: &str, value: f64, note: String) {
        println!("{scenario:<48} {name:<28} {:>12} {unit:<10} {note}", number(value));
        let value = Value { name: name.to_owned(), value, note };
        match self.measurements.iter_mut().find(|measurement| measurement.scenario == scenario) {
            Some(measurement) => measurement.results.push(value),
            None => self.measurements.push(Measurement { scenario: scenario.to_owned(), unit, results: vec![value] }),
        }
    }

    /// As Markdown. Each value also as a ratio to Autonomy's own in its scenario.
    pub fn markdown(&self) -> String {
        let mut text = String::new();
        for (title, facts) in [("Machine", &self.machine), ("Versions", &self.versions)] {
            let facts: Vec<String> = facts.iter().map(|(name, value)| format!("{name} {}", value.as_str().unwrap_or_default())).collect();
            let _ = writeln!(text, "{title}: {}.\n", facts.join(" · "));
        }
        text.push_str("| scenario | who | result | Autonomy is | |\n|---|---|--:|--:|---|\n");
        for Measurement { scenario, unit, results } in &self.measurements {
            let own = results.iter().find(|result| result.name == "autonomy").map(|result| result.value);
            for (index, result) in results.iter().enumerate() {
                let ratio = match own {
                    Some(own) if result.name != "autonomy" && result.value > 0.0 => format!("{:.2}×", own / result.value),
                    _ => String::new(),
                };
                let scenario = if index == 0 { scenario.as_str() } else { "" };
                let _ = writeln!(text, "| {scenario} | {} | {} {unit} | {ratio} | {} |", result.name, number(result.value), result.note);
            }
        }
        text
    }
}

// Whole numbers with separators, small ones with digits behind the point.
fn number(value: f64) -> String {
    if value < 100.0 {
        return format!("{value:.1}");
    }
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// What is said of the machine, by name.
pub fn machine() -> Map<String, Json> {
    let cpus = std::thread::available_parallelism().map_or(0, usize::from);
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info.lines().find_map(|line| line.strip_prefix("model name")).map(|rest| rest.trim_start_matches(['\t', ' ', ':']));
    let memory = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kibibytes = memory.lines().next().and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok()).unwrap_or(0);
    let facts =
        [("CPUs", cpus.to_string()), ("model", model.unwrap_or("unknown").to_owned()), ("memory GiB", (kibibytes / 1_048_576).to_string())];
    facts.into_iter().map(|(name, fact)| (name.to_owned(), fact.into())).collect()
}
