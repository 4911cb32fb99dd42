//! A model's webhooks, checked as the services that they become.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::service::check_service;
use crate::DataModel;
use crate::fault::Faults;
use crate::resolved::Model;
use crate::webhook::faults_of_model;

// As long as a MicroService's name may be.
const LONGEST_SERVICE_NAME: usize = 40;

/// Checks names, entities, routing values, moments and durations of a model's webhooks.
pub(super) fn check_webhooks(model: &DataModel, resolved: &Model, faults: &mut Faults) {
    let webhooks = &model.spec.webhooks;
    if webhooks.is_empty() {
        return;
    }
    let models = BTreeMap::from([(resolved.name.clone(), Arc::new(resolved.clone()))]);
    for (index, webhook) in webhooks.iter().enumerate() {
        let path = format!("spec.webhooks[{index}].name");
        let service = webhook.service_name(&resolved.name);
        if webhooks[..index].iter().any(|other| other.name == webhook.name) {
            faults.add(path, format!("there are two webhooks {:?}", webhook.name));
            continue;
        }
        if service.len() > LONGEST_SERVICE_NAME {
            let most = LONGEST_SERVICE_NAME.saturating_sub(service.len() - webhook.name.len());
            faults.add(
                path,
                format!("its service {service} would have more than {LONGEST_SERVICE_NAME} characters: take at most {most} here"),
            );
            continue;
        }
        if let Err(found) = check_service(&webhook.service(model, None), &models) {
            faults.0.extend(faults_of_model(index, found).0);
        }
    }
}
