//! The systems outside keep to idempotency keys whatever their mood, and keep their books over a restart.

#![allow(clippy::unwrap_used)]

use std::collections::HashSet;
use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use reqwest::{Client, StatusCode};
use retail_loyalty::stand_ins::mood::{Mood, Temper};
use retail_loyalty::stand_ins::{StandIn, System};
use serde_json::{Value, json};

async fn provider(journal: &Path, of_thousand: u64) -> StandIn {
    let members = HashSet::from(["M1".to_owned()]);
    let temper = Temper { seed: 5, of_thousand };
    let system = System::LoyaltyProvider(Mutex::new(members));
    StandIn::start(system, temper, journal, "127.0.0.1:0".parse().unwrap()).await.unwrap()
}

fn body(reference: &str, member: &str) -> Value {
    json!({"membershipNumber": member, "reference": reference, "points": 12, "amount": 12.34})
}

async fn ask(provider: &StandIn, key: &str, body: &Value) -> Result<(StatusCode, Value), reqwest::Error> {
    let client = autonomy_process::http_client::builder().timeout(Duration::from_millis(300)).build()?;
    let answer = client.post(format!("{}/accruals", provider.url())).header("Idempotency-Key", key).json(body).send().await?;
    let status = answer.status();
    let bytes = answer.bytes().await?;
    Ok((status, serde_json::from_slice(&bytes).unwrap_or_default()))
}

#[tokio::test]
async fn the_same_key_is_booked_once_and_told_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let journal = folder.path().join("books.ndjson");
    let provider_running = provider(&journal, 0).await;
    let first = ask(&provider_running, "a", &body("s1", "M1")).await.unwrap();
    assert_eq!(first.0, StatusCode::CREATED);
    assert_eq!(ask(&provider_running, "a", &body("s1", "M1")).await.unwrap(), first);
    assert_eq!(ask(&provider_running, "a", &body("s2", "M1")).await.unwrap().0, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(ask(&provider_running, "b", &body("s2", "M2")).await.unwrap().0, StatusCode::NOT_FOUND);
    assert_eq!(ask(&provider_running, "", &body("s2", "M1")).await.unwrap().0, StatusCode::BAD_REQUEST);

    // After a restart, with a last line that was cut short.
    let mut text = std::fs::read(&journal).unwrap();
    text.extend_from_slice(b"{\"key\":\"c");
    std::fs::write(&journal, text).unwrap();
    let again = provider(&journal, 0).await;
    assert_eq!(ask(&again, "a", &body("s1", "M1")).await.unwrap(), first);
    assert_ne!(ask(&again, "b", &body("s2", "M1")).await.unwrap().1, first.1);
    let totals = again.totals();
    assert_eq!((totals.entries, totals.references, totals.points, totals.amount.to_string()), (2, 2, 24, "24.68".to_owned()));
    // Enrolled later, a member is known.
    let members = json!({"membershipNumber": "M2"});
    autonomy_process::http_client::new().post(format!("{}/members", again.url())).json(&members).send().await.unwrap();
    assert_eq!(ask(&again, "d", &body("s3", "M2")).await.unwrap().0, StatusCode::CREATED);
}

#[tokio::test]
async fn whatever_the_mood_it_comes_out_right() {
    let folder = tempfile::tempdir().unwrap();
    let provider = provider(&folder.path().join("books.ndjson"), 900).await;
    for sale in 0..40 {
        let (reference, key) = (format!("s{sale}"), format!("k{sale}"));
        let mut attempts = 0;
        while !ask(&provider, &key, &body(&reference, "M1")).await.is_ok_and(|(status, _)| status == StatusCode::CREATED) {
            attempts += 1;
            assert!(attempts < 4, "from the fourth attempt on all is well");
        }
    }
    let totals = provider.totals();
    assert_eq!((totals.entries, totals.references, totals.points), (40, 40, 480));
    for trouble in ["429", "503", "lost", "timeout", "replayed"] {
        assert!(totals.answers.contains_key(trouble), "{totals:?}");
    }
}

#[test]
fn moods_follow_from_the_seed() {
    let moods = |seed| -> Vec<Mood> {
        let temper = Temper { seed, of_thousand: 80 };
        (0..5_000).map(|sale| temper.mood("loyalty-provider", &format!("s{sale}"), 1)).collect()
    };
    assert_eq!(moods(1), moods(1));
    assert_ne!(moods(1), moods(2));
    let troubled = moods(1).iter().filter(|mood| **mood != Mood::Good).count();
    assert!((300..500).contains(&troubled), "{troubled} of 5000");
}
