//! The MicroServices of a model's webhooks: made and kept as the model declares them, and taken away with their webhook.

use autonomy_crds::condition::ReconciledStatus;
use autonomy_crds::data_model::WebhookStatus;
use autonomy_crds::webhook::Webhook;
use autonomy_crds::{DataModel, MicroService};
use k8s_openapi::jiff::Timestamp;
use kube::{Resource, ResourceExt};

use super::super::context::Context;
use super::super::server_side::{self, ServerSideError};
use super::named;

/// Puts them into effect; may be repeated at any time. Gives what became of each webhook.
pub async fn apply(context: &Context, model: &DataModel) -> Result<Vec<WebhookStatus>, ServerSideError> {
    let mut told = Vec::with_capacity(model.spec.webhooks.len());
    for webhook in &model.spec.webhooks {
        let service = ensure(context, model, webhook).await?;
        told.push(status(webhook, &service));
    }
    remove_others(context, model).await?;
    Ok(told)
}

async fn ensure(context: &Context, model: &DataModel, webhook: &Webhook) -> Result<MicroService, ServerSideError> {
    let (namespace, name) = named(model);
    let live: Option<MicroService> = server_side::get(&context.client, &namespace, &webhook.service_name(&name)).await?;
    // The moment from which a webhook sends is the one at which it was first seen.
    let since = live.and_then(|service| service.spec.trigger.queue?.since);
    let declared_at = since.unwrap_or_else(|| Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string());
    server_side::ensure(&context.client, &webhook.service(model, Some(&declared_at))).await
}

fn status(webhook: &Webhook, service: &MicroService) -> WebhookStatus {
    let (_, conditions) = service.status.as_ref().map(ReconciledStatus::standing).unwrap_or_default();
    let condition = conditions.iter().find(|condition| condition.type_ == "Ready");
    let ready = condition.is_some_and(|condition| condition.status == "True");
    let message = match condition {
        _ if ready => None,
        Some(condition) => Some(condition.message.clone()),
        None => Some("it was just declared".to_owned()),
    };
    WebhookStatus { name: webhook.name.clone(), service: service.name_any(), ready, message }
}

// Those of webhooks that are not declared any more. What the store does not have yet is seen at the next look.
async fn remove_others(context: &Context, model: &DataModel) -> Result<(), ServerSideError> {
    let (namespace, name) = named(model);
    let Some(uid) = model.uid() else { return Ok(()) };
    let is_wanted = |service: &str| model.spec.webhooks.iter().any(|webhook| webhook.service_name(&name) == service);
    let services = context.stores.services.state_filter(|service: &MicroService| {
        service.namespace().as_deref() == Some(&*namespace)
            && service.meta().owner_references.iter().flatten().any(|owner| owner.uid == uid)
            && !is_wanted(&service.name_any())
    });
    for service in services {
        server_side::remove::<MicroService>(&context.client, &namespace, &service.name_any(), &uid).await?;
    }
    Ok(())
}
