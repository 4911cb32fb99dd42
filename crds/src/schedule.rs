//! When the runs of a schedule trigger are planned: a cron expression in a time zone, compiled. Pure: the present moment is always given.

use std::time::Duration;

use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};
use jiff::Timestamp;
use jiff02::Zoned;
use jiff02::tz::TimeZone;

use crate::fault::Faults;
use crate::micro_service::ScheduleTrigger;
use crate::names::parse_duration;

const PATH: &str = "spec.trigger.schedule";

/// A schedule trigger, compiled.
#[derive(Clone, Debug)]
pub struct Schedule {
    cron: Cron,
    zone: TimeZone,
    starting_deadline: Option<Duration>,
}

impl Schedule {
    /// Compiles a trigger.
    ///
    /// # Errors
    /// All faults at once, each with its field path.
    pub fn new(trigger: &ScheduleTrigger) -> Result<Self, Faults> {
        let mut faults = Faults::default();
        let cron = CronParser::builder().seconds(Seconds::Optional).year(Year::Disallowed).build().parse(&trigger.cron);
        let cron = cron.map_err(|error| {
            let example = "write for example \"30 2 * * MON-FRI\": minute, hour, day of the month, month, day of the week";
            faults.add(format!("{PATH}.cron"), format!("{:?} is no cron expression ({error}); {example}", trigger.cron));
        });
        let zone = time_zone_named(&trigger.time_zone).map_err(|message| faults.add(format!("{PATH}.timeZone"), message));
        let starting_deadline = trigger.starting_deadline.as_deref().map(parse_duration).transpose();
        let starting_deadline =
            starting_deadline.map_err(|message| faults.add(format!("{PATH}.startingDeadline"), message)).unwrap_or_default();
        let (Ok(cron), Ok(zone)) = (cron, zone) else { return Err(faults) };
        let schedule = Self { cron, zone, starting_deadline };
        // From a fixed moment, so that the same declaration has the same faults at any time.
        if schedule.next_after(Timestamp::UNIX_EPOCH).is_none() {
            faults.add(format!("{PATH}.cron"), format!("{:?} never comes", trigger.cron));
        }
        faults.none_or(schedule)
    }

    /// The first planned moment after this one.
    pub fn next_after(&self, moment: Timestamp) -> Option<Timestamp> {
        timestamp(&self.cron.find_next_occurrence(&self.zoned(moment)?, false).ok()?)
    }

    /// The next moment to run where the one before was `last` and it is `now`; none where none is due.
    pub fn due(&self, last: Timestamp, now: Timestamp) -> Option<Timestamp> {
        let due = match self.starting_deadline {
            Some(deadline) => self.next_after(last.max(now.checked_sub(deadline).unwrap_or(Timestamp::MIN)))?,
            None => timestamp(&self.cron.find_previous_occurrence(&self.zoned(now)?, true).ok()?)?,
        };
        (last < due && due <= now).then_some(due)
    }

    fn zoned(&self, moment: Timestamp) -> Option<Zoned> {
        let moment = jiff02::Timestamp::from_second(moment.as_second()).ok()?;
        Some(moment.to_zoned(self.zone.clone()))
    }
}

fn timestamp(moment: &Zoned) -> Option<Timestamp> {
    Timestamp::from_second(moment.timestamp().as_second()).ok()
}

/// A time zone of the IANA database, from the copy in the binary.
///
/// # Errors
/// A message for the author where there is none of that name.
pub fn time_zone_named(name: &str) -> Result<TimeZone, String> {
    TimeZone::get(name)
        .map_err(|_| format!("there is no time zone {name:?}; write its name in the IANA database, for example Europe/Amsterdam"))
}

/// The id of the run of a planned moment: what its events, retries and effects are known by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RunId(pub Timestamp);

impl std::fmt::Display for RunId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "run-{}", self.0.strftime("%Y%m%dT%H%M%SZ"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(cron: &str, time_zone: &str, starting_deadline: Option<&str>) -> Result<Schedule, Faults> {
        let starting_deadline = starting_deadline.map(str::to_owned);
        Schedule::new(&ScheduleTrigger { cron: cron.to_owned(), time_zone: time_zone.to_owned(), starting_deadline })
    }

    fn at(text: &str) -> Timestamp {
        text.parse().expect("a moment")
    }

    fn moments(schedule: &Schedule, after: &str, count: usize) -> Vec<String> {
        let mut moment = at(after);
        let mut next = || {
            moment = schedule.next_after(moment)?;
            Some(moment.to_string())
        };
        (0..count).map_while(|_| next()).collect()
    }

    #[test]
    fn moments_are_those_of_the_time_zone() {
        let schedule = schedule("30 2 * * *", "Europe/Amsterdam", None).expect("a schedule");
        // On 29 March the clock goes from two to three: the run comes when the hour that is not there is over. On 25 October half past two comes twice.
        assert_eq!(moments(&schedule, "2026-03-27T12:00:00Z", 3), ["2026-03-28T01:30:00Z", "2026-03-29T01:00:00Z", "2026-03-30T00:30:00Z"]);
        assert_eq!(moments(&schedule, "2026-10-24T12:00:00Z", 2), ["2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"]);
        let seconds = self::schedule("*/20 * * * * *", "UTC", None).expect("a schedule");
        assert_eq!(moments(&seconds, "2026-01-01T00:00:30.5Z", 2), ["2026-01-01T00:00:40Z", "2026-01-01T00:01:00Z"]);
    }

    #[test]
    fn of_missed_moments_the_newest_is_due_or_all_within_the_deadline() {
        let (last, now) = (at("2026-01-01T00:00:00Z"), at("2026-01-01T05:10:00Z"));
        let newest = schedule("@hourly", "UTC", None).expect("a schedule");
        assert_eq!(newest.due(last, now), Some(at("2026-01-01T05:00:00Z")));
        assert_eq!(newest.due(at("2026-01-01T05:00:00Z"), now), None);
        let all = schedule("@hourly", "UTC", Some("2h30m")).expect("a schedule");
        assert_eq!(all.due(last, now), Some(at("2026-01-01T03:00:00Z")));
        assert_eq!(all.due(at("2026-01-01T03:00:00Z"), now), Some(at("2026-01-01T04:00:00Z")));
        assert_eq!(all.due(at("2026-01-01T05:00:00Z"), now), None);
        let none = schedule("@hourly", "UTC", Some("5m")).expect("a schedule");
        assert_eq!(none.due(last, now), None);
        assert_eq!(none.due(last, at("2026-01-01T05:00:00Z")), Some(at("2026-01-01T05:00:00Z")));
    }

    #[test]
    fn faults_are_told_all_at_once_with_their_paths() {
        let faults = schedule("61 * * * *", "Europe/Amsterdm", Some("soon")).expect_err("faults");
        let paths: Vec<&str> = faults.0.iter().map(|fault| fault.path.as_str()).collect();
        assert_eq!(
            paths,
            ["spec.trigger.schedule.cron", "spec.trigger.schedule.timeZone", "spec.trigger.schedule.startingDeadline"],
            "{faults}"
        );
        for never in ["0 0 30 2 *", "", "* * *", "0 0 * * * * 2030"] {
            let faults = schedule(never, "UTC", None).expect_err("a fault");
            assert_eq!(faults.0[0].path, "spec.trigger.schedule.cron", "{faults}");
        }
    }

    #[test]
    fn a_run_is_known_by_its_moment() {
        assert_eq!(RunId(at("2026-11-27T01:45:00Z")).to_string(), "run-20261127T014500Z");
    }
}
