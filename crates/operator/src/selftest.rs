//! Runs a small BatchJob to its end, and says whether all is well: what `helm test` runs.

use std::time::Duration;

use anyhow::{Context as _, bail};
use batchjob_crd::{BatchJob, condition};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, ListParams, PostParams};
use kube::{Api, Client, ResourceExt as _};
use tokio::time::{Instant, sleep};

use crate::args::SelftestArgs;

const POLL: Duration = Duration::from_millis(500);

pub async fn run(args: SelftestArgs) -> anyhow::Result<()> {
    let client = Client::try_from(crate::operator::client_config().await?)?;
    let jobs: Api<BatchJob> = Api::namespaced(client.clone(), &args.namespace);
    let job =
        jobs.create(&PostParams::default(), &manifest(&args.image)?).await.context("failed to create a BatchJob")?;
    let name = job.name_any();
    println!("created BatchJob {}/{name}: 3 indexes, 2 at a time", args.namespace);
    let result = wait_for_end(&jobs, &name, args.timeout).await;
    if result.is_err() {
        tell_pods(&client, &args.namespace, &name).await;
    }
    // Its pods go with it.
    let deleted = jobs.delete(&name, &DeleteParams::background()).await.context("failed to delete the BatchJob");
    result?;
    deleted?;
    println!("deleted it again: all is well");
    Ok(())
}

fn manifest(image: &str) -> anyhow::Result<BatchJob> {
    let manifest = serde_json::json!({
        "apiVersion": "batchjob.dev/v1alpha1",
        "kind": "BatchJob",
        "metadata": { "generateName": "batchjob-selftest-" },
        "spec": {
            "completionMode": "Indexed",
            "completions": 3,
            "parallelism": 2,
            "backoffLimit": 0,
            "ttlSecondsAfterFinished": 600,
            "template": { "spec": {
                "restartPolicy": "Never",
                "automountServiceAccountToken": false,
                "terminationGracePeriodSeconds": 1,
                "securityContext": { "runAsNonRoot": true, "runAsUser": 65532, "seccompProfile": { "type": "RuntimeDefault" } },
                "containers": [{
                    "name": "main",
                    "image": image,
                    "imagePullPolicy": "IfNotPresent",
                    "args": ["noop"],
                    "securityContext": {
                        "allowPrivilegeEscalation": false,
                        "readOnlyRootFilesystem": true,
                        "capabilities": { "drop": ["ALL"] },
                    },
                }],
            }},
        },
    });
    serde_json::from_value(manifest).context("failed to write the manifest")
}

async fn wait_for_end(jobs: &Api<BatchJob>, name: &str, limit: Duration) -> anyhow::Result<()> {
    let deadline = Instant::now() + limit;
    let mut told = String::new();
    loop {
        let status = jobs.get(name).await.context("failed to read the BatchJob")?.status.unwrap_or_default();
        let line = format!(
            "{} {} {}",
            status.phase.map_or("not seen by the operator yet".to_owned(), |phase| format!("{phase:?}")),
            status.completions_summary.unwrap_or_default(),
            status.reason.unwrap_or_default(),
        );
        if line != told {
            println!("{}", line.trim_end());
            told = line;
        }
        let finished = status.conditions.iter().find(|c| c.type_ == condition::FINISHED && c.status == "True");
        let complete = status.conditions.iter().any(|c| c.type_ == condition::COMPLETE && c.status == "True");
        match finished {
            Some(_) if complete => return Ok(()),
            Some(finished) => bail!("the BatchJob has failed: {}: {}", finished.reason, finished.message),
            None if Instant::now() >= deadline => bail!("the BatchJob has not ended within {limit:?}"),
            None => sleep(POLL).await,
        }
    }
}

/// What its pods say, for a person who wants to know why.
async fn tell_pods(client: &Client, namespace: &str, name: &str) {
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let params = ListParams::default().labels(&format!("job-name={name}"));
    match pods.list(&params).await {
        Ok(list) => {
            for pod in list {
                let status = serde_json::to_string(&pod.status).unwrap_or_default();
                println!("pod {}: {status}", pod.name_any());
            }
        }
        Err(error) => println!("failed to list its pods: {error}"),
    }
}
