//! Which dead letters are meant: by their service, entity, error and time.

use clap::Args;
use jiff::Timestamp;

use super::letter::DeadLetter;
use crate::moment::moment;

/// Which dead letters are meant; all where nothing is said.
#[derive(Clone, Debug, Default, Args)]
pub struct Selection {
    /// Only this service's.
    #[arg(long)]
    pub service: Option<String>,
    /// Only those whose last error has this text in it; upper and lower case are the same.
    #[arg(long, value_name = "TEXT")]
    pub error: Option<String>,
    /// Only those of this entity, for example `Sale` or `retail.Sale`.
    #[arg(long)]
    pub entity: Option<String>,
    /// Only those that failed last at this time or later: a time, or how long ago, for example `2h`.
    #[arg(long, value_name = "TIME", value_parser = moment)]
    pub since: Option<Timestamp>,
    /// Only those that failed last before this time: a time, or how long ago.
    #[arg(long, value_name = "TIME", value_parser = moment)]
    pub until: Option<Timestamp>,
}

impl Selection {
    /// Whether a dead letter is meant.
    pub fn selects(&self, letter: &DeadLetter) -> bool {
        let summary = letter.summary();
        let at: Option<Timestamp> = summary.at.parse().ok();
        let (service, _) = letter.key();
        self.service.as_ref().is_none_or(|wanted| *wanted == service)
            && self.error.as_ref().is_none_or(|text| summary.error.to_lowercase().contains(&text.to_lowercase()))
            && self.entity.as_ref().is_none_or(|entity| is_of(summary.event_type, entity))
            && self.since.is_none_or(|since| at.is_some_and(|at| at >= since))
            && self.until.is_none_or(|until| at.is_some_and(|at| at < until))
    }
}

// `dev.autonomy.{model}.{Entity}.{operation}`
fn is_of(event_type: &str, entity: &str) -> bool {
    let mut names = event_type.strip_prefix("dev.autonomy.").unwrap_or(event_type).split('.');
    match (names.next(), names.next(), entity.split_once('.')) {
        (Some(model), Some(name), Some((wanted_model, wanted))) => model == wanted_model && name == wanted,
        (_, Some(name), None) => name == entity,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use async_nats::HeaderMap;
    use autonomy_crds::event::{Attempt, DeliveryHistory, HISTORY_HEADER, header};

    use super::*;

    fn letter() -> DeadLetter {
        let attempt = Attempt {
            at: "2026-11-26T08:00:00Z".to_owned(),
            error: "HTTP status 503".to_owned(),
            retryable: true,
            revision: String::new(),
        };
        let history = DeliveryHistory { attempts: vec![attempt], attempt_count: 1, ..DeliveryHistory::default() };
        let mut headers = HeaderMap::new();
        headers.insert(header::TYPE, "dev.autonomy.retail.Sale.created");
        headers.insert(HISTORY_HEADER, serde_json::to_string(&history).expect("JSON").as_str());
        DeadLetter::new("autonomy.default._dead_letters.ledger.1-1", headers, b"{}")
    }

    #[test]
    fn each_part_narrows_the_selection() {
        let time = |text: &str| Some(text.parse().expect("a time"));
        let text = |text: &str| Some(text.to_owned());
        for (selection, meant) in [
            (Selection::default(), true),
            (Selection { service: text("ledger"), ..Selection::default() }, true),
            (Selection { service: text("invoice"), ..Selection::default() }, false),
            (Selection { error: text("STATUS 503"), ..Selection::default() }, true),
            (Selection { error: text("404"), ..Selection::default() }, false),
            (Selection { entity: text("Sale"), ..Selection::default() }, true),
            (Selection { entity: text("retail.Sale"), ..Selection::default() }, true),
            (Selection { entity: text("clinic.Sale"), ..Selection::default() }, false),
            (Selection { since: time("2026-11-26T08:00:00Z"), ..Selection::default() }, true),
            (Selection { since: time("2026-11-26T08:00:01Z"), ..Selection::default() }, false),
            (Selection { until: time("2026-11-26T08:00:00Z"), ..Selection::default() }, false),
        ] {
            assert_eq!(selection.selects(&letter()), meant, "{selection:?}");
        }
    }
}
