//! Time as a trigger.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Runs the steps at moments of a calendar, each planned moment once, however many workers there are and whichever are killed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ScheduleTrigger {
    /// When: minute, hour, day of the month, month and day of the week, as cron writes them, for example `30 2 * * MON-FRI`; with six fields the
    /// first is the second. Also `@hourly`, `@daily`, `@weekly`, `@monthly` and `@yearly`.
    #[schemars(length(min = 1, max = 256))]
    pub cron: String,
    /// The time zone in which the fields are meant, by its name in the IANA database, for example `Europe/Amsterdam`.
    #[serde(default = "utc")]
    #[schemars(length(min = 1, max = 64))]
    pub time_zone: String,
    /// How late a run may still begin, as a Go duration. Of the moments that passed while no worker ran, all that are not older are made up for,
    /// in order. Where left out, only the newest one is, however old it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^([0-9]+(\.[0-9]+)?(ms|s|m|h))+$"), length(max = 32))]
    pub starting_deadline: Option<String>,
}

fn utc() -> String {
    "UTC".to_owned()
}
