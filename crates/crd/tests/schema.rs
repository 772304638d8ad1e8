//! The CustomResourceDefinitions have what a Job and a CronJob have, fit into `kubectl apply`, and are those in `crds/`.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use batchjob_crd::rules::Rule;
use batchjob_crd::schema::{self, batch_cron_job, batch_job, kubernetes};
use batchjob_crd::{GROUP, VERSION, cron_rules, rules};
use k8s_openapi::api::batch::v1::{CronJobSpec, JobSpec};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use serde_json::Value;

/// Where lists must be merged by key, from `spec.template.spec`, and their keys.
const MAP_LISTS: &[(&str, &[&str])] = &[
    ("containers", &["name"]),
    ("containers[].resources.claims", &["name"]),
    ("containers[].volumeDevices", &["devicePath"]),
    ("containers[].volumeMounts", &["mountPath"]),
    ("ephemeralContainers", &["name"]),
    ("initContainers", &["name"]),
    ("resourceClaims", &["name"]),
    ("schedulingGates", &["name"]),
    ("topologySpreadConstraints", &["topologyKey", "whenUnsatisfiable"]),
    ("volumes", &["name"]),
];

fn root() -> Value {
    root_of(batch_job())
}

fn root_of(mut crd: Value) -> Value {
    crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"].take()
}

/// The schema at a path like `spec.template.spec.containers[].env`.
fn at<'a>(schema: &'a Value, path: &str) -> &'a Value {
    path.split('.').filter(|field| !field.is_empty()).fold(schema, |schema, field| match field.strip_suffix("[]") {
        Some(list) => &schema["properties"][list]["items"],
        None => &schema["properties"][field],
    })
}

/// How often a keyword stands in a schema, not counting fields of that name.
fn count(schema: &Value, keyword: &str) -> usize {
    match schema {
        Value::Object(keys) => {
            let below = keys.iter().map(|(key, value)| match (key.as_str(), value) {
                ("properties", Value::Object(fields)) => fields.values().map(|field| count(field, keyword)).sum(),
                _ => count(value, keyword),
            });
            usize::from(keys.contains_key(keyword)) + below.sum::<usize>()
        }
        Value::Array(items) => items.iter().map(|item| count(item, keyword)).sum(),
        _ => 0,
    }
}

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("read {}: {error}", path.display()))
}

#[test]
fn the_files_in_crds_are_these() {
    for (plural, crd) in [("batchjobs", batch_job()), ("batchcronjobs", batch_cron_job())] {
        let file: Value = serde_saphyr::from_str(&read(&format!("../../crds/{plural}.yaml"))).expect("YAML");
        assert!(file == crd, "crds/{plural}.yaml differs from crates/crd: run `make codegen`");
    }
}

/// The annotation that plain `kubectl apply` keeps the manifest in ends at 262,144 bytes; this leaves room to grow.
#[test]
fn they_fit_into_client_side_apply() {
    for crd in schema::all() {
        let size = crd.to_string().len();
        assert!(size < 200_000, "{size} bytes");
    }
}

#[test]
fn they_are_ones() {
    let names = schema::all().map(|crd| {
        let crd: CustomResourceDefinition = serde_json::from_value(crd).expect("a CRD");
        assert_eq!((crd.spec.group.as_str(), crd.spec.versions[0].name.as_str()), (GROUP, VERSION));
        crd.metadata.name.expect("a name")
    });
    assert_eq!(names, ["batchjobs.batchjob.dev", "batchcronjobs.batchjob.dev"]);
}

#[test]
fn every_field_of_a_job_is_here() {
    let names = |schema: &Value| -> BTreeSet<String> {
        schema["properties"].as_object().expect("fields").keys().cloned().collect()
    };
    assert_eq!(names(&root()["properties"]["spec"]), names(&kubernetes::bare::<JobSpec>()));
    let cron = root_of(batch_cron_job());
    let of_cron_job = names(&kubernetes::bare::<CronJobSpec>());
    assert!(of_cron_job.is_subset(&names(&cron["properties"]["spec"])));
    assert_eq!(names(at(&cron, "spec.jobTemplate.spec")), names(&kubernetes::bare::<JobSpec>()));
}

/// A default in a spec is drift to GitOps tools; an explicit null would be stored and break the scale path.
#[test]
fn spec_has_no_default_and_nothing_is_nullable() {
    for root in schema::all().map(root_of) {
        assert_eq!(count(at(&root, "spec"), "default"), 0);
        assert_eq!(count(&root, "default"), 1, "that of .status");
        assert_eq!(root["properties"]["status"]["default"], serde_json::json!({ "observedGeneration": -1 }));
        assert_eq!(count(&root, "nullable"), 0);
    }
}

#[test]
fn own_fields_have_descriptions_and_the_template_has_none_inside() {
    for root in schema::all().map(root_of) {
        for part in ["spec", "status"] {
            for (field, schema) in at(&root, part)["properties"].as_object().expect("fields") {
                let words = schema["description"].as_str().unwrap_or_default();
                assert!(!words.is_empty(), "{part}.{field} has no description");
                assert!(!words.contains('\n'), "{part}.{field}: {words}");
            }
        }
    }
    let root = root();
    for field in ["template", "podFailurePolicy", "successPolicy"] {
        assert_eq!(count(&root["properties"]["spec"]["properties"][field], "description"), 1, "its own");
    }
}

#[test]
fn lists_are_merged_as_in_kubernetes() {
    let root = root();
    let pod = at(&root, "spec.template.spec");
    for (path, keys) in MAP_LISTS {
        let list = at(pod, path);
        assert_eq!(list["x-kubernetes-list-type"], "map", "{path}");
        assert_eq!(list["x-kubernetes-list-map-keys"], serde_json::json!(keys), "{path}");
    }
    // Two equal ones are fine in a Job.
    for path in ["containers[].ports", "containers[].env", "hostAliases", "imagePullSecrets"] {
        assert_eq!(at(pod, path)["x-kubernetes-list-type"], Value::Null, "{path}");
    }
    assert_eq!(at(&root, "status.conditions")["x-kubernetes-list-map-keys"], serde_json::json!(["type"]));
    assert_eq!(at(pod, "nodeSelector")["x-kubernetes-map-type"], "atomic");
    assert_eq!(at(pod, "containers[].envFrom[].secretRef")["required"], Value::Null);
}

#[test]
fn numbers_and_texts_are_told_apart_as_in_kubernetes() {
    let root = root();
    let container = at(&root, "spec.template.spec.containers[]");
    let port = at(container, "livenessProbe.httpGet.port");
    assert_eq!(port["x-kubernetes-int-or-string"], true);
    assert_eq!(port["anyOf"], serde_json::json!([{ "type": "integer" }, { "type": "string" }]));
    let quantity = &at(container, "resources.requests")["additionalProperties"];
    assert_eq!(quantity["x-kubernetes-preserve-unknown-fields"], true);
    assert!(quantity["pattern"].is_string());
    assert_eq!(quantity["type"], Value::Null, "a type would refuse `cpu: 0.5`");
}

/// The API server refuses a CRD whose rule names a field that does not exist.
#[test]
fn rules_name_fields_that_exist() {
    for (root, rules) in [(root(), rules::all()), (root_of(batch_cron_job()), cron_rules::all())] {
        for rule in rules {
            assert!(at(at(&root, &rule.stands_on), &rule.field_path).is_object(), "{rule:?}");
        }
    }
}

/// Those that are texts in a CEL expression must not end it.
#[test]
fn messages_have_no_quotes() {
    for rule in rules::all().into_iter().chain(cron_rules::all()) {
        assert!(!rule.message.contains(['\'', '\\', '%', '\n']), "{}", rule.message);
    }
}

/// A field of a new version of Kubernetes is compared too: it cannot change while the job is suspended.
#[test]
fn the_whole_template_is_compared_while_suspended() {
    let mutable = ["affinity", "containers", "initContainers", "nodeSelector", "schedulingGates", "tolerations"];
    // CEL does not see it: a map of quantities, which have no type.
    let unseen = ["overhead"];
    let root = root();
    let rules = rules::all();
    let rule = rules.iter().find(|rule| rule.field_path == ".spec.template.spec").expect("a rule");
    let compares = |owner: &str, field: &String| {
        rule.rule.contains(&format!("has({owner}.{field}) ? dyn({owner}.{field}) : null"))
    };
    for field in at(&root, "spec.template.spec")["properties"].as_object().expect("fields").keys() {
        let is_exempt = mutable.contains(&field.as_str()) || unseen.contains(&field.as_str());
        for object in ["self", "oldSelf"] {
            assert_eq!(compares(&format!("{object}.spec.template.spec"), field), !is_exempt, "{field}");
        }
    }
    for field in at(&root, "spec.template.spec.containers[]")["properties"].as_object().expect("fields").keys() {
        assert_eq!(compares("c", field), field != "resources", "{field}");
    }
}

#[test]
fn every_rule_has_a_case_that_breaks_it() {
    each_has_a_case("admission.yaml", rules::all());
    // Those of the template are the same, and stand elsewhere.
    let own = cron_rules::all().into_iter().filter(|rule| !rule.stands_on.starts_with("spec.jobTemplate"));
    each_has_a_case("cron_admission.yaml", own.collect());
}

fn each_has_a_case(file: &str, rules: Vec<Rule>) {
    let admission: Value = serde_saphyr::from_str(&read(&format!("tests/{file}"))).expect("YAML");
    let cases = admission["cases"].as_array().expect("cases");
    for rule in rules {
        // The field is part of the answer, so that two rules with the same message need two cases.
        let field = match &rule.message_expression {
            Some(_) => String::new(),
            None => in_an_answer(&rule.stands_on, &rule.field_path),
        };
        let breaks_it = |case: &&Value| {
            let says = case["says"].as_str().unwrap_or_default();
            says.starts_with(&field) && says.contains(&rule.message)
        };
        assert!(cases.iter().any(|case| breaks_it(&case)), "no case in tests/{file} for {field} {}", rule.message);
    }
}

/// A field as the API server writes it, of the first entry of each list.
fn in_an_answer(stands_on: &str, field_path: &str) -> String {
    let path = format!("{stands_on}{field_path}: ").replace("[]", "[0]");
    path.strip_prefix('.').map(str::to_owned).unwrap_or(path)
}
