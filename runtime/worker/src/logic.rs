//! Logic in Rust within the worker: the trait to implement, what it is given and what it gives.

use std::any::Any;
use std::fmt;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use autonomy_crds::micro_service::Operation as Change;
use futures::FutureExt;
use futures::future::BoxFuture;
use serde::Serialize;
use serde::de::DeserializeOwned;
use uuid::Uuid;

use crate::expression::Value;
use crate::expression::functions::created_id;
use crate::service::CompiledService;
use crate::steps::{EventHead, Failure, Input, Lookups, Operation, Outcome};

/// A service's logic. It says what is to be written, or why it can't; everything else is the worker's: delivery, caches, retries, dead letters,
/// tickets, metrics, and that what is written is written once.
///
/// ```
/// use autonomy_worker::{Delivery, Failure, Logic, Writes};
/// use serde::Deserialize;
/// use serde_json::json;
///
/// #[derive(Deserialize)]
/// #[serde(rename_all = "camelCase")]
/// struct Sale {
///     id: String,
///     customer_number: String,
/// }
///
/// struct Welcome;
///
/// impl Logic for Welcome {
///     async fn handle(&self, delivery: Delivery<'_>) -> Result<Writes, Failure> {
///         let mut writes = Writes::default();
///         for event in delivery.events() {
///             let sale: Sale = event.object()?;
///             if delivery.find::<serde_json::Value>("customers", "customerNumber", &sale.customer_number)?.is_none() {
///                 return Err(Failure::fatal(format!("there is no customer {}", sale.customer_number)));
///             }
///             writes.create("retail", "Greeting", &json!({"saleId": sale.id}))?;
///         }
///         Ok(writes)
///     }
/// }
/// ```
pub trait Logic: Send + Sync + 'static {
    /// Handles a delivery: an event, the events of a batch window's group, or a run of a schedule.
    ///
    /// It may be called again for the same delivery, after a failure or a crash, and with deliveries side by side (`scaling.concurrency`). What it
    /// writes takes effect once all the same. Calls of its own should carry [`Delivery::idempotency_key`].
    ///
    /// # Errors
    /// Why it can't be handled: [`Failure::retryable`] is tried again, [`Failure::fatal`] becomes a dead letter. A panic is tried again too.
    fn handle(&self, delivery: Delivery<'_>) -> impl Future<Output = Result<Writes, Failure>> + Send;
}

/// What is handled at a time, and what there is to handle it with.
#[derive(Clone, Copy)]
pub struct Delivery<'a> {
    service: &'a CompiledService,
    input: &'a Input,
    lookups: &'a dyn Lookups,
}

/// One event of a delivery.
#[derive(Clone, Copy, Debug)]
pub struct Event<'a> {
    /// Its CloudEvents attributes.
    pub head: &'a EventHead,
    object: &'a Value,
    before: &'a Value,
}

/// What is to be written, all or nothing, in order.
#[derive(Clone, Debug, Default)]
pub struct Writes(Vec<Operation>);

impl<'a> Delivery<'a> {
    /// The events in the order of their positions: one, or those of a group. A run of a schedule is an event without an object.
    pub fn events(self) -> impl Iterator<Item = Event<'a>> {
        let (heads, objects, before): (&[EventHead], &[Value], &'a Value) = match self.input {
            Input::Event(input) => (std::slice::from_ref(&input.event), std::slice::from_ref(&input.object), &input.before),
            Input::Group(input) => (&input.events, &input.objects, &Value::Null),
            Input::Run(event) => (std::slice::from_ref(event), &[], &Value::Null),
            Input::Record(_) => (&[], &[], &Value::Null),
        };
        heads.iter().enumerate().map(move |(index, head)| Event { head, object: objects.get(index).unwrap_or(&Value::Null), before })
    }

    /// The object of one of the service's caches that `by` (`id` or an index) finds with `key`; of an index over several members, an object with
    /// all of them.
    ///
    /// # Errors
    /// When the service has no such cache or index, or the object is not a `T`.
    pub fn find<T: DeserializeOwned>(self, cache: &str, by: &str, key: impl Serialize) -> Result<Option<T>, Failure> {
        let found = self.service.caches.iter().find(|known| known.name == cache);
        if !found.is_some_and(|found| found.is_found_by(by)) {
            return Err(Failure::fatal(format!("the service has no cache {cache} that is looked up by {by}")));
        }
        let key = to_json(&key, "a cache's key")?;
        let key = Value::from_json(key.as_bytes()).map_err(|error| Failure::fatal(format!("a key of the cache {cache}: {error}")))?;
        let found = self.lookups.find(cache, by, &key);
        found.map(|object| of_json(&object, &format!("the object in the cache {cache}"))).transpose()
    }

    /// A value of the service's `config`, with environment variables put in.
    pub fn config(self, name: &str) -> Option<&'a str> {
        self.service.config_of(name)
    }

    /// The same in every attempt at this delivery, and for no other one: what a call to another system should carry. `call` tells several
    /// calls from one another.
    pub fn idempotency_key(self, call: &str) -> String {
        format!("{}/{call}", self.service.idempotency_key(&self.input.identity()))
    }

    /// An id for an object that is created, the same in every attempt, so that other objects can refer to it; `number` tells several from one
    /// another.
    pub fn new_id(self, number: usize) -> Uuid {
        let identity = self.input.identity();
        // Always a UUID.
        created_id(&self.service.identity(&identity), &[], number, 0).parse().unwrap_or_default()
    }
}

impl Event<'_> {
    /// What happened to the object; none for a run of a schedule.
    pub fn operation(&self) -> Option<Change> {
        [Change::Created, Change::Updated, Change::Deleted].into_iter().find(|known| known.as_str() == self.head.operation())
    }

    /// The object after the change; of a deletion, as it last was. A type with the members that are needed is enough. A decimal
    /// keeps its digits as a `Box<serde_json::value::RawValue>`; as a float it loses those beyond the 15th.
    ///
    /// # Errors
    /// When it is not a `T`.
    pub fn object<T: DeserializeOwned>(&self) -> Result<T, Failure> {
        of_json(self.object, "the event's object")
    }

    /// The object before an update; none otherwise, and none in a batch window.
    ///
    /// # Errors
    /// When it is not a `T`.
    pub fn before<T: DeserializeOwned>(&self) -> Result<Option<T>, Failure> {
        match self.before {
            Value::Null => Ok(None),
            before => of_json(before, "the object before the update").map(Some),
        }
    }
}

impl Writes {
    /// Creates an object; give it an `id` ([`Delivery::new_id`]) where others refer to it.
    ///
    /// # Errors
    /// When the object can't be written as JSON.
    pub fn create(&mut self, model: &str, entity: &str, object: impl Serialize) -> Result<(), Failure> {
        self.add(&Written { op: "create", model, entity, id: None, object: Some(object), precondition: None::<()> })
    }

    /// Changes members of an object, as a JSON Merge Patch (RFC 7396).
    ///
    /// # Errors
    /// When the patch can't be written as JSON.
    pub fn patch(&mut self, model: &str, entity: &str, id: impl fmt::Display, patch: impl Serialize) -> Result<(), Failure> {
        self.add(&Written { op: "patch", model, entity, id: Some(id.to_string()), object: Some(patch), precondition: None::<()> })
    }

    /// Changes members of an object that still has the values of `precondition`; otherwise the delivery fails and is tried again.
    ///
    /// # Errors
    /// When the patch or the precondition can't be written as JSON.
    pub fn patch_if(
        &mut self,
        model: &str,
        entity: &str,
        id: impl fmt::Display,
        patch: impl Serialize,
        precondition: impl Serialize,
    ) -> Result<(), Failure> {
        self.add(&Written { op: "patch", model, entity, id: Some(id.to_string()), object: Some(patch), precondition: Some(precondition) })
    }

    /// Deletes an object.
    ///
    /// # Errors
    /// Never; it is like the others.
    pub fn delete(&mut self, model: &str, entity: &str, id: impl fmt::Display) -> Result<(), Failure> {
        self.add(&Written { op: "delete", model, entity, id: Some(id.to_string()), object: None::<()>, precondition: None::<()> })
    }

    fn add(&mut self, written: &impl Serialize) -> Result<(), Failure> {
        self.0.push(Operation { json: to_json(written, "what is to be written")? });
        Ok(())
    }
}

// An operation as `/api/transactions` takes it.
#[derive(Serialize)]
struct Written<'w, O, P> {
    op: &'w str,
    model: &'w str,
    entity: &'w str,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    object: Option<O>,
    #[serde(rename = "if", skip_serializing_if = "Option::is_none")]
    precondition: Option<P>,
}

fn to_json(value: &impl Serialize, what: &str) -> Result<String, Failure> {
    serde_json::to_string(value).map_err(|error| Failure::fatal(format!("{what} can't be written as JSON: {error}")))
}

fn of_json<T: DeserializeOwned>(value: &Value, what: &str) -> Result<T, Failure> {
    serde_json::from_str(&value.to_json()).map_err(|error| Failure::fatal(format!("{what} is not as expected: {error}")))
}

/// The logic of a worker's own program.
#[derive(Clone)]
pub struct EmbeddedLogic(Arc<dyn AnyLogic>);

trait AnyLogic: Send + Sync {
    fn handle<'a>(&'a self, delivery: Delivery<'a>) -> BoxFuture<'a, Result<Writes, Failure>>;
}

impl<L: Logic> AnyLogic for L {
    fn handle<'a>(&'a self, delivery: Delivery<'a>) -> BoxFuture<'a, Result<Writes, Failure>> {
        Logic::handle(self, delivery).boxed()
    }
}

impl EmbeddedLogic {
    /// This logic.
    pub fn new(logic: impl Logic) -> Self {
        Self(Arc::new(logic))
    }

    pub(crate) async fn handle(&self, service: &CompiledService, input: &Input, lookups: &dyn Lookups) -> Result<Outcome, Failure> {
        // A panic is a failure of this delivery and of no other one.
        let handled = AssertUnwindSafe(self.0.handle(Delivery { service, input, lookups })).catch_unwind().await;
        let writes = handled.unwrap_or_else(|panic| Err(Failure::retryable(format!("the logic panicked: {}", words_of(&*panic)))))?;
        Ok(Outcome { operations: writes.0 })
    }
}

fn words_of(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("it says nothing")
}

impl fmt::Debug for EmbeddedLogic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EmbeddedLogic")
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::Deserialize;
    use serde_json::json;
    use serde_json::value::RawValue;

    use super::*;
    use crate::rehearsal::{self, Effects, Ending, Rehearsal};
    use crate::steps::EventInput;

    const SERVICE: &str = "
apiVersion: autonomy.dev/v1alpha1
kind: DataModel
metadata: {name: shop}
spec:
  entities:
    - {name: Shop, attributes: [{name: number, type: string}]}
    - name: Sale
      attributes: [{name: total, type: decimal, precision: 10, scale: 2}, {name: shopNumber, type: string}]
---
apiVersion: autonomy.dev/v1alpha1
kind: MicroService
metadata: {name: own}
spec:
  config: {currency: EUR}
  trigger: {queue: {model: shop, entity: Sale, operations: [created, updated]}}
  caches: [{name: shops, model: shop, entity: Shop, indexes: [number]}]
  handler: {embedded: {image: example.org/own}}
";

    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Sale {
        id: String,
        total: Box<RawValue>,
        shop_number: String,
    }

    #[derive(Serialize)]
    struct Created<'s> {
        id: Uuid,
        total: &'s RawValue,
        key: String,
        currency: Option<&'s str>,
    }

    struct Own;

    impl Logic for Own {
        async fn handle(&self, delivery: Delivery<'_>) -> Result<Writes, Failure> {
            let mut writes = Writes::default();
            for event in delivery.events() {
                let sale: Sale = event.object()?;
                match sale.shop_number.as_str() {
                    "panic" => panic!("no shop {}", 7),
                    "cache" => drop(delivery.find::<serde_json::Value>("shop", "number", "1")?),
                    "index" => drop(delivery.find::<serde_json::Value>("shops", "name", "1")?),
                    _ => {}
                }
                let shop: Option<serde_json::Value> = delivery.find("shops", "number", &sale.shop_number)?;
                let id = delivery.new_id(0);
                let before: Option<Sale> = event.before()?;
                let key = delivery.idempotency_key("ledger");
                let created = Created { id, total: &sale.total, key, currency: delivery.config("currency") };
                writes.create("shop", "Sale", created)?;
                writes.patch_if("shop", "Sale", &sale.id, json!({"shop": shop.map(|shop| shop["id"].clone())}), json!({"version": 1}))?;
                writes.delete("shop", "Sale", format!("{:?} {}", event.operation(), before.is_some()))?;
            }
            Ok(writes)
        }
    }

    async fn handled(operation: &str, shop_number: &str) -> Effects {
        let value = |json: serde_json::Value| Value::from_json(json.to_string().as_bytes()).expect("JSON");
        let service = rehearsal::compile(SERVICE).expect("a service").with_logic(Some(EmbeddedLogic::new(Own))).expect("it is embedded");
        let caches =
            BTreeMap::from([("shops".to_owned(), vec![value(json!({"id": "00000000-0000-8000-8000-000000000001", "number": "S1"}))])]);
        let rehearsal = Rehearsal::without_calls(&service, &caches).expect("a rehearsal");
        let event = EventHead { id: "E".to_owned(), kind: format!("dev.autonomy.shop.Sale.{operation}"), ..EventHead::default() };
        let sale = Value::from_json(format!(r#"{{"id":"1","total":12.50,"shopNumber":"{shop_number}"}}"#).as_bytes()).expect("JSON");
        let before = if operation == "updated" { sale.clone() } else { Value::Null };
        rehearsal.run(Input::Event(EventInput { event, object: sale, before })).await
    }

    #[tokio::test]
    async fn logic_sees_the_event_and_the_caches_and_says_what_is_written() {
        let effects = handled("updated", "S1").await;
        let same = handled("updated", "S1").await;
        assert_eq!(effects, same, "ids are the same in every attempt");
        let written: Vec<String> = effects.operations.iter().map(Value::to_json).collect();
        assert!(written[0].contains(r#""total":12.50"#) && written[0].contains(r#""key":"own/E/ledger""#), "{written:?}");
        assert!(written[0].contains(r#""currency":"EUR""#), "{written:?}");
        let patch = r#"{"op":"patch","model":"shop","entity":"Sale","id":"1","object":{"shop":"00000000-0000-8000-8000-000000000001"},"if":{"version":1}}"#;
        assert_eq!(written[1], patch);
        assert_eq!(written[2], r#"{"op":"delete","model":"shop","entity":"Sale","id":"Some(Updated) true"}"#);
        assert!(handled("created", "S2").await.operations[2].to_json().contains("Some(Created) false"));
    }

    #[tokio::test]
    async fn a_panic_is_tried_again_and_mistakes_are_told() {
        let effects = handled("created", "panic").await;
        assert_eq!((effects.ending, effects.error.as_deref()), (Ending::Retry(None), Some("the logic panicked: no shop 7")));
        for (mistake, told) in
            [("cache", "no cache shop that is looked up by number"), ("index", "no cache shops that is looked up by name")]
        {
            let effects = handled("created", mistake).await;
            assert_eq!(effects.ending, Ending::Failed);
            assert!(effects.error.as_deref().is_some_and(|error| error.contains(told)), "{effects:?}");
        }
    }

    #[test]
    fn a_program_and_its_declaration_agree() {
        let compiled = || rehearsal::compile(SERVICE).expect("a service");
        assert!(compiled().with_logic(None).is_err_and(|faults| faults.to_string().contains("spec.handler.embedded")));
        let steps = SERVICE.replace("handler: {embedded: {image: example.org/own}}", "steps: [{name: a, set: '1'}]");
        let with_steps = rehearsal::compile(&steps).expect("a service").with_logic(Some(EmbeddedLogic::new(Own)));
        assert!(with_steps.is_err_and(|faults| faults.to_string().contains("spec.handler: this worker has logic of its own")));
    }
}
