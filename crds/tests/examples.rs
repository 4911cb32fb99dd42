//! The examples are read, resolve, and their services refer to what is there.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use autonomy_crds::documents::{self, Resource};
use autonomy_crds::resolve;

fn yaml_files(folder: &Path, files: &mut Vec<std::path::PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            yaml_files(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "yaml")
            && path.file_name().is_some_and(|name| name != "kustomization.yaml")
        {
            files.push(path);
        }
    }
}

#[test]
fn examples_have_no_faults() {
    let examples = Path::new(&std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo runs the tests")).join("../examples");
    for example in ["retail-loyalty", "clinic"] {
        let mut files = Vec::new();
        yaml_files(&examples.join(example), &mut files);
        assert!(!files.is_empty(), "{example} has no YAML");
        let (mut models, mut services) = (Vec::new(), Vec::new());
        let mut wrong: Vec<String> = Vec::new();
        for file in files {
            let text = std::fs::read_to_string(&file).expect("a file");
            // What stands beside them in a cluster is not ours.
            if !text.contains("apiVersion: autonomy.dev/") {
                continue;
            }
            match documents::parse(&file.display().to_string(), &text) {
                Ok(resources) => resources.into_iter().for_each(|resource| match resource {
                    Resource::DataModel(model) => models.push(model),
                    Resource::MicroService(service) => services.push(service),
                    Resource::DataPlatform(_) => {}
                }),
                Err(errors) => wrong.extend(errors.iter().map(ToString::to_string)),
            }
        }
        match resolve::resolve_all(&models) {
            Ok(models) => {
                let models: BTreeMap<_, _> = models.into_iter().map(|model| (model.name.clone(), Arc::new(model))).collect();
                for service in services {
                    if let Err(faults) = resolve::check_service(&service, &models) {
                        wrong.push(format!("{}: {faults}", service.metadata.name.unwrap_or_default()));
                    }
                }
            }
            Err(faults) => wrong.extend(faults.iter().map(|(name, faults)| format!("{name}: {faults}"))),
        }
        assert!(wrong.is_empty(), "{example}:\n{}", wrong.join("\n"));
    }
}
