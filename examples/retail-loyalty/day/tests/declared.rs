//! The YAML of the examples: it parses, its models resolve, and its services refer to what is there.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use autonomy_crds::documents::{Resource, parse};
use autonomy_crds::resolve::{check_service, resolve_all};
use autonomy_worker::service::CompiledService;

fn resources(folder: &Path) -> Vec<Resource> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && path.file_name().is_none_or(|name| !["day", "kubernetes", "tests"].iter().any(|other| name == *other)) {
            found.extend(resources(&path));
        }
        let yaml = path.extension().is_some_and(|extension| extension == "yaml");
        if yaml && path.file_name().is_none_or(|name| name != "kustomization.yaml") {
            let text = fs::read_to_string(&path).unwrap();
            found.extend(parse(&path.display().to_string(), &text).unwrap_or_else(|errors| panic!("{errors:#?}")));
        }
    }
    found
}

#[test]
fn the_examples_are_declared_without_a_fault() {
    for (example, services) in [("retail-loyalty", 5), ("clinic", 0)] {
        let folder = Path::new(&std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo runs the tests")).join("../..").join(example);
        let (mut models, mut declared) = (Vec::new(), Vec::new());
        for resource in resources(&folder) {
            match resource {
                Resource::DataModel(model) => models.push(model),
                Resource::MicroService(service) => declared.push(service),
                Resource::DataPlatform(_) => {}
            }
        }
        let models = resolve_all(&models).unwrap_or_else(|faults| panic!("{faults:#?}"));
        let by_name: BTreeMap<_, _> = models.into_iter().map(|model| (model.name.clone(), Arc::new(model))).collect();
        assert_eq!(declared.len(), services);
        for service in &declared {
            check_service(service, &by_name).unwrap_or_else(|faults| panic!("{faults}"));
            let name = service.metadata.name.as_deref().unwrap();
            CompiledService::compile("default", name, &service.spec, &by_name, &service.spec.config)
                .unwrap_or_else(|faults| panic!("{faults}"));
        }
    }
}

#[test]
fn everything_is_described() {
    for example in ["retail-loyalty", "clinic"] {
        for resource in
            resources(&Path::new(&std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo runs the tests")).join("../..").join(example))
        {
            let Resource::DataModel(model) = resource else { continue };
            for entity in &model.spec.entities {
                assert!(entity.description.is_some(), "{}", entity.name);
                for attribute in &entity.attributes {
                    assert!(attribute.description.is_some(), "{}.{}", entity.name, attribute.name);
                }
                for relationship in &entity.relationships {
                    assert!(relationship.description.is_some(), "{}.{}", entity.name, relationship.name);
                }
            }
        }
    }
}
