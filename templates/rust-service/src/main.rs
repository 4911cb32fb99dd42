//! The worker of my service.

use std::process::ExitCode;

use autonomy_worker::{Delivery, Failure, Logic, Writes, program};
use serde::Deserialize;
use serde_json::json;

fn main() -> ExitCode {
    program::main(MyService)
}

/// What my service does.
struct MyService;

// The members of the trigger's objects that are needed.
#[derive(Deserialize)]
struct Order {
    id: String,
    quantity: i64,
}

impl Logic for MyService {
    async fn handle(&self, delivery: Delivery<'_>) -> Result<Writes, Failure> {
        let mut writes = Writes::default();
        for event in delivery.events() {
            let order: Order = event.object()?;
            if order.quantity < 1 {
                // A dead letter. What may pass by itself is Failure::retryable.
                return Err(Failure::fatal("an order of nothing"));
            }
            writes.patch_if("shop", "Order", &order.id, json!({"state": "accepted"}), json!({"state": "new"}))?;
        }
        Ok(writes)
    }
}
