//! What the API server takes, what it refuses, and in which words.

use std::fs;

use anyhow::{Context, Result};
use batchjob_crd::{BatchCronJob, BatchJob};
use kube::api::{Api, ApiResource, DeleteParams, DynamicObject, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use crate::stage::{Stage, expect, merged, repository, status};

/// Creates the case's manifest, writes its status and changes it if the case has a change, and answers with what the API
/// server said to the last of them: nothing if it took it.
async fn answer(jobs: &Api<DynamicObject>, manifest: &Value, case: &Value) -> Result<Option<String>> {
    let (job, then) = (&case["job"], &case["then"]);
    let manifest = merged(manifest.clone(), job);
    let (manifest, dry_run) = (serde_json::from_value(manifest)?, then.is_null());
    let created = match jobs.create(&PostParams { dry_run, ..PostParams::default() }, &manifest).await {
        Ok(created) if !dry_run => created,
        Ok(_) => return Ok(None),
        Err(kube::Error::Api(status)) if dry_run => return Ok(Some(status.message.clone())),
        Err(error) => return Err(error.into()),
    };
    let name = created.metadata.name.context("a name")?;
    if !case["status"].is_null() {
        let status = Patch::Merge(json!({ "status": case["status"] }));
        jobs.patch_status(&name, &PatchParams::default(), &status).await.context("write the status")?;
    }
    let changed =
        jobs.patch(&name, &PatchParams { dry_run: true, ..PatchParams::default() }, &Patch::Merge(then)).await;
    jobs.delete(&name, &DeleteParams::default()).await?;
    match changed {
        Ok(_) => Ok(None),
        Err(kube::Error::Api(status)) => Ok(Some(status.message.clone())),
        Err(error) => Err(error.into()),
    }
}

#[tokio::test]
async fn every_case_of_the_list_is_answered_in_its_words() -> Result<()> {
    let stage = Stage::new("admission").await?;
    each_is_answered(&stage, "admission.yaml", ApiResource::erase::<BatchJob>(&())).await?;
    each_is_answered(&stage, "cron_admission.yaml", ApiResource::erase::<BatchCronJob>(&())).await
}

async fn each_is_answered(stage: &Stage, file: &str, kind: ApiResource) -> Result<()> {
    let jobs = Api::namespaced_with(stage.namespace.client.clone(), &stage.namespace.name, &kind);
    let text = fs::read_to_string(repository("crates/crd/tests").join(file))?;
    let admission: Value = serde_saphyr::from_str(&text)?;
    let mut wrong = Vec::new();
    for case in admission["cases"].as_array().context("cases")? {
        let answer = answer(&jobs, &admission["manifest"], case).await.with_context(|| case["case"].to_string())?;
        let is_as_it_says = match (case["says"].as_str(), &answer) {
            (Some(says), Some(answer)) => answer.contains(says),
            (says, answer) => says.is_none() && answer.is_none(),
        };
        if !is_as_it_says {
            wrong.push(format!("{}: {answer:?}", case["case"]));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

/// The first time was when the cluster was made: the annotation that plain `kubectl apply` writes was not too large.
#[tokio::test]
async fn the_definitions_can_be_applied_again() -> Result<()> {
    let stage = Stage::new("apply").await?;
    let folder = repository("crds").display().to_string();
    let said = stage.kubectl(&["apply", "-f", &folder]).await?;
    let unchanged = |plural| format!("customresourcedefinition.apiextensions.k8s.io/{plural}.batchjob.dev unchanged");
    assert_eq!(said.lines().collect::<Vec<_>>(), [unchanged("batchcronjobs"), unchanged("batchjobs")]);
    Ok(())
}

#[test]
fn the_chart_has_the_same_definitions() -> Result<()> {
    for name in ["batchjobs", "batchcronjobs"] {
        let [one, other] = ["crds", "charts/batchjob/files"].map(|folder| repository(&format!("{folder}/{name}.yaml")));
        assert!(fs::read_to_string(one)? == fs::read_to_string(other)?, "run make codegen");
    }
    Ok(())
}

#[tokio::test]
async fn every_example_is_taken() -> Result<()> {
    let stage = Stage::new("examples").await?;
    let files = fs::read_dir(repository("examples"))?.collect::<Result<Vec<_>, _>>()?;
    let files = files.iter().map(|file| file.path()).filter(|path| path.extension().is_some_and(|it| it == "yaml"));
    let files: Vec<String> = files.map(|path| path.display().to_string()).collect();
    assert!(!files.is_empty());
    for file in files {
        stage.kubectl(&["apply", "--dry-run=server", "-f", &file]).await?;
    }
    Ok(())
}

/// So that Helm, Flux and `kubectl wait` never take a job for done that nobody has looked at.
#[tokio::test]
async fn a_new_job_says_that_nobody_has_seen_it() -> Result<()> {
    let stage = Stage::new("unseen").await?;
    let job = stage.create("etl", json!({})).await?;
    assert_eq!(status(&job).observed_generation, Some(-1));
    assert_eq!(job.metadata.generation, Some(1));
    Ok(())
}

#[tokio::test]
async fn kubectl_refuses_a_field_that_does_not_exist() -> Result<()> {
    let stage = Stage::new("misspelt").await?;
    let manifest = json!({
        "apiVersion": "batchjob.dev/v1alpha1", "kind": "BatchJob", "metadata": { "name": "etl" },
        "spec": { "paralelism": 3, "template": { "spec": {
            "restartPolicy": "Never", "containers": [{ "name": "main", "image": "none", "comand": ["true"] }],
        }}},
    });
    let said = stage.kubectl_says(&["apply", "-f", "-"], &manifest.to_string()).await?;
    assert!(!said.succeeded, "{}", said.text);
    for field in ["spec.paralelism", "spec.template.spec.containers[0].comand"] {
        assert!(said.text.contains(&format!("unknown field \"{field}\"")), "{}", said.text);
    }
    Ok(())
}

#[tokio::test]
async fn a_name_of_20000_characters_is_too_long_and_nothing_worse() -> Result<()> {
    let stage = Stage::new("long-name").await?;
    let error = stage.create(&"a".repeat(20_000), json!({})).await.err().context("it must be refused")?;
    let Some(kube::Error::Api(answer)) = error.downcast_ref() else { panic!("{error:#}") };
    assert_eq!(answer.code, 422, "{}", answer.message);
    assert!(answer.message.contains("metadata.name: Too long: may not be more than 63 bytes"), "{}", answer.message);
    Ok(())
}

/// The API server lets the rules of an object cost so much and no more. 64 KiB hold 12774 numbers.
#[tokio::test]
async fn the_longest_lists_of_indexes_can_be_checked() -> Result<()> {
    let stage = Stage::new("long-lists").await?;
    let numbers: Vec<String> = (0..12_774).map(|index: u32| index.to_string()).collect();
    let spec =
        |rules| json!({ "completionMode": "Indexed", "completions": 12_774, "successPolicy": { "rules": rules } });
    stage.create("etl", spec(vec![json!({ "succeededIndexes": numbers.join(",") }); 20])).await?;

    let last_is_wrong = [&numbers[..12_773], &numbers[..1]].concat().join(",");
    let error = stage.create("wrong", spec(vec![json!({ "succeededIndexes": last_is_wrong })])).await.err();
    let error = error.context("it must be refused")?.to_string();
    assert!(error.contains("Invalid value: must be indexes and ranges of them in ascending order"), "{error}");
    Ok(())
}

#[tokio::test]
async fn a_template_of_1000_containers_can_be_compared() -> Result<()> {
    let stage = Stage::new("many-containers").await?;
    let containers = |image: &str| -> Vec<Value> {
        (0..1000).map(|number| json!({ "name": format!("c{number}"), "image": image })).collect()
    };
    let template = |init: &str| {
        let (init, main) = (containers(init), containers("main"));
        json!({ "spec": { "restartPolicy": "Never", "initContainers": init, "containers": main } })
    };
    stage.create("etl", json!({ "suspend": true, "template": template("one") })).await?;
    let error = stage.change("etl", json!({ "spec": { "template": template("other") } })).await.err();
    let error = error.context("it must be refused")?.to_string();
    assert!(error.contains("because the BatchJob is suspended"), "{error}");
    stage.change("etl", json!({ "spec": { "template": { "spec": { "nodeSelector": { "a": "b" } } } } })).await?;
    Ok(())
}

#[tokio::test]
async fn kubectl_scale_changes_parallelism() -> Result<()> {
    let stage = Stage::new("scale").await?;
    stage.create("etl", json!({ "completions": 5, "parallelism": 1 })).await?;
    stage.kubectl(&["scale", "bj/etl", "--replicas=3"]).await?;
    assert_eq!(stage.jobs.get("etl").await?.spec.parallelism, Some(3));
    Ok(())
}

#[tokio::test]
async fn kubectl_explains_the_fields() -> Result<()> {
    let stage = Stage::new("explain").await?;
    let said = expect("the schema is published, a moment after the kind is served", async || {
        Ok(Some(stage.kubectl(&["explain", "bj.spec.backoffLimit"]).await?))
    })
    .await;
    assert!(said.contains("How many attempts may fail") && said.contains("As in batch/v1 Job"), "{said}");
    let said = stage.kubectl(&["explain", "bj.status.phase"]).await?;
    assert!(said.contains("ENUM:\n    Pending\n    Running\n    Suspended\n    Succeeded\n    Failed\n"), "{said}");
    Ok(())
}

#[tokio::test]
async fn an_image_cannot_be_changed_and_the_answer_says_what_to_do() -> Result<()> {
    let stage = Stage::new("immutable").await?;
    stage.create("etl", json!({})).await?;
    let patch = r#"[{"op": "replace", "path": "/spec/template/spec/containers/0/image", "value": "other"}]"#;
    let said = stage.kubectl_says(&["patch", "bj/etl", "--type=json", "-p", patch], "").await?;
    assert!(!said.succeeded, "{}", said.text);
    assert!(said.text.contains("delete this BatchJob and create it anew"), "{}", said.text);
    Ok(())
}
