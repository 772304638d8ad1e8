//! The types read what the schema lets in.

use batchjob_crd::BatchJob;
use serde_json::Value;

const ADMISSION: &str = include_str!("admission.yaml");

fn contains_null(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Object(fields) => fields.values().any(contains_null),
        Value::Array(items) => items.iter().any(contains_null),
        _ => false,
    }
}

/// And they write no null, which would be a change of the user's object to every tool that compares.
#[test]
fn every_manifest_that_is_accepted_is_read() {
    let admission: Value = serde_saphyr::from_str(ADMISSION).expect("YAML");
    for case in admission["cases"].as_array().expect("cases").iter().filter(|case| case["says"].is_null()) {
        let mut manifest = admission["manifest"].clone();
        for change in [&case["job"], &case["then"]].into_iter().filter(|change| !change.is_null()) {
            json_patch::merge(&mut manifest, change);
        }
        let job: BatchJob =
            serde_json::from_value(manifest).unwrap_or_else(|error| panic!("{}: {error}", case["case"]));
        let written = serde_json::to_value(&job.spec).expect("plain JSON");
        assert!(!contains_null(&written), "{}: {written}", case["case"]);
    }
}

/// The quantity of `cpu: 0.5` is the text that a pod is given.
#[test]
fn a_quantity_may_be_a_number() {
    let job = |cpu: Value| -> BatchJob {
        serde_json::from_value(serde_json::json!({
            "apiVersion": "batchjob.dev/v1alpha1",
            "kind": "BatchJob",
            "metadata": { "name": "etl" },
            "spec": { "template": { "spec": { "overhead": { "cpu": cpu }, "containers": [] } } },
        }))
        .expect("a BatchJob")
    };
    let cpu = |job: BatchJob| job.spec.template.spec.and_then(|pod| pod.overhead?.get("cpu").map(|cpu| cpu.0.clone()));
    assert_eq!(cpu(job(serde_json::json!(0.5))).as_deref(), Some("0.5"));
    assert_eq!(cpu(job(serde_json::json!(2))).as_deref(), Some("2"));
    assert_eq!(cpu(job(serde_json::json!("500m"))).as_deref(), Some("500m"));
}
