//! The worker of the help desk's triage, with its logic in Rust.

use std::process::ExitCode;

use autonomy_worker::{Delivery, Failure, Logic, Writes, program};
use serde::Deserialize;
use serde_json::json;

fn main() -> ExitCode {
    program::main(Triage)
}

/// Gives tickets a priority and a team.
struct Triage;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Ticket {
    id: String,
    customer_number: String,
    subject: String,
}

#[derive(Deserialize)]
struct Customer {
    contract: Contract,
}

#[derive(PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Contract {
    Basic,
    Premium,
}

impl Logic for Triage {
    async fn handle(&self, delivery: Delivery<'_>) -> Result<Writes, Failure> {
        let mut writes = Writes::default();
        for event in delivery.events() {
            let ticket: Ticket = event.object()?;
            let customer: Option<Customer> = delivery.find("customers", "number", &ticket.customer_number)?;
            let customer = customer.ok_or_else(|| Failure::fatal(format!("there is no customer {}", ticket.customer_number)))?;
            let urgent = customer.contract == Contract::Premium || ticket.subject.to_lowercase().contains("down");
            let (priority, team) = if urgent { ("urgent", "first-aid") } else { ("normal", "service") };
            writes.patch("desk", "Ticket", &ticket.id, json!({"priority": priority}))?;
            writes.create("desk", "Assignment", json!({"ticketId": ticket.id, "team": team}))?;
        }
        Ok(writes)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use autonomy_worker::expression::Value;
    use autonomy_worker::logic::EmbeddedLogic;
    use autonomy_worker::rehearsal::{self, Effects, Ending, Rehearsal};
    use autonomy_worker::steps::{EventHead, EventInput, Input};

    use super::*;

    fn value(json: &serde_json::Value) -> Value {
        Value::from_json(json.to_string().as_bytes()).expect("JSON")
    }

    // The service as it is declared, with a customer in its cache.
    async fn triaged(ticket: serde_json::Value) -> Effects {
        let yaml = [include_str!("../../model.yaml"), include_str!("../service.yaml")].join("---\n");
        let service = rehearsal::compile(&yaml).expect("a service");
        let service = service.with_logic(Some(EmbeddedLogic::new(Triage))).expect("it declares embedded logic");
        let customer = json!({"id": "00000000-0000-8000-8000-000000000001", "number": "C1", "contract": "premium"});
        let caches = BTreeMap::from([("customers".to_owned(), vec![value(&customer)])]);
        let rehearsal = Rehearsal::without_calls(&service, &caches).expect("a rehearsal");
        let event = EventHead { kind: "dev.autonomy.desk.Ticket.created".to_owned(), ..EventHead::default() };
        rehearsal.run(Input::Event(EventInput { event, object: value(&ticket), before: Value::Null })).await
    }

    #[tokio::test]
    async fn premium_customers_come_first() {
        let effects = triaged(json!({"id": "T", "customerNumber": "C1", "subject": "How do I print?"})).await;
        let written: Vec<serde_json::Value> =
            effects.operations.iter().map(|one| serde_json::from_str(&one.to_json()).expect("JSON")).collect();
        let patch = json!({"op": "patch", "model": "desk", "entity": "Ticket", "id": "T", "object": {"priority": "urgent"}});
        let create = json!({"op": "create", "model": "desk", "entity": "Assignment", "object": {"ticketId": "T", "team": "first-aid"}});
        assert_eq!(written, [patch, create]);
    }

    #[tokio::test]
    async fn somebody_looks_at_tickets_of_unknown_customers() {
        let effects = triaged(json!({"id": "T", "customerNumber": "C9", "subject": "?"})).await;
        assert_eq!((effects.ending, effects.error.as_deref()), (Ending::Failed, Some("there is no customer C9")));
    }
}
