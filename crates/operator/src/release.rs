//! Takes our finalizer off every pod: what `helm uninstall` runs when the operator is gone.
//!
//! The finalizer keeps a pod until its result is counted. With nobody there to count, it would keep the pod, and with it
//! the pod's namespace, for ever. Nothing else of a pod or of a job is touched: the next operator goes on with what it finds.

use anyhow::{Context as _, ensure};
use batchjob_crd::keys;
use futures::{StreamExt as _, stream};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{ListParams, ObjectMeta, PartialObjectMeta, Patch, PatchParams};
use kube::{Api, Client};
use serde_json::json;
use tokio::time::sleep;

use crate::args::ReleaseArgs;

/// Pods in one answer to a list.
const PAGE: u32 = 500;
/// Patches under way at the same time.
const AT_ONCE: usize = 16;
/// An operator that ends may have creates under way: once no pod is held any more, they are looked through again.
const AGAIN: std::time::Duration = std::time::Duration::from_secs(1);

pub async fn run(args: ReleaseArgs) -> anyhow::Result<()> {
    let client = Client::try_from(crate::operator::client_config().await?)?;
    let mut n_released = release_all(&client, &args.namespace).await?;
    loop {
        sleep(AGAIN).await;
        match release_all(&client, &args.namespace).await? {
            0 => break,
            n => n_released += n,
        }
    }
    println!("let go {n_released} pods");
    Ok(())
}

/// Lets go every pod that is held; an empty namespace means all. Answers with how many there were.
async fn release_all(client: &Client, namespace: &str) -> anyhow::Result<usize> {
    let pods: Api<Pod> = match namespace {
        "" => Api::all(client.clone()),
        namespace => Api::namespaced(client.clone(), namespace),
    };
    let mut held = Vec::new();
    let mut page = ListParams::default().limit(PAGE);
    loop {
        let list = pods.list_metadata(&page).await.context("failed to list pods")?;
        held.extend(list.items.into_iter().map(|pod| pod.metadata).filter(|pod| finalizer_of(pod).is_some()));
        match list.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => page = page.continue_token(&token),
            None => break,
        }
    }
    let results = stream::iter(&held).map(|pod| release(client, pod)).buffer_unordered(AT_ONCE);
    let results: Vec<anyhow::Result<()>> = results.collect().await;
    let n_failed =
        results.iter().filter_map(|result| result.as_ref().err()).inspect(|error| println!("{error:#}")).count();
    ensure!(n_failed == 0, "failed to let go {n_failed} of {} pods", held.len());
    Ok(held.len())
}

/// The finalizer by which an operator of ours holds the pod. That of Jobs is anybody's: the pod must be one of ours.
fn finalizer_of(pod: &ObjectMeta) -> Option<&'static str> {
    let has = |name: &str| pod.finalizers.iter().flatten().any(|finalizer| finalizer == name);
    let is_ours = pod.labels.iter().flatten().any(|(label, _)| label == keys::ATTEMPT);
    match () {
        () if has(keys::POD_FINALIZER) => Some(keys::POD_FINALIZER),
        () if has(keys::JOB_POD_FINALIZER) && is_ours => Some(keys::JOB_POD_FINALIZER),
        () => None,
    }
}

async fn release(client: &Client, pod: &ObjectMeta) -> anyhow::Result<()> {
    let (Some(namespace), Some(name)) = (&pod.namespace, &pod.name) else { return Ok(()) };
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let patch = json!({ "metadata": {
        "uid": pod.uid,
        "$deleteFromPrimitiveList/finalizers": [finalizer_of(pod)],
    }});
    let answer: kube::Result<PartialObjectMeta<Pod>> =
        pods.patch_metadata(name, &PatchParams::default(), &Patch::Strategic(patch)).await;
    match answer {
        // It has gone meanwhile, or one of the same name has come for it (422 for the uid).
        Err(kube::Error::Api(status)) if status.code == 404 || status.code == 422 => Ok(()),
        answer => answer.map(drop).with_context(|| format!("failed to let go pod {namespace}/{name}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pods_of_others_are_theirs() {
        let pod = |finalizers: &[&str], label: &str| {
            serde_json::from_value(json!({ "finalizers": finalizers, "labels": { label: "1" } })).expect("metadata")
        };
        let ours = [keys::POD_FINALIZER, "example.com/other"];
        assert_eq!(finalizer_of(&pod(&ours, "a")), Some(keys::POD_FINALIZER), "whatever labels it has lost");
        let jobs = [keys::JOB_POD_FINALIZER];
        assert_eq!(finalizer_of(&pod(&jobs, keys::ATTEMPT)), Some(keys::JOB_POD_FINALIZER));
        assert_eq!(finalizer_of(&pod(&jobs, "a")), None, "a pod of Kubernetes' own Job controller");
        assert_eq!(finalizer_of(&pod(&["example.com/other"], keys::ATTEMPT)), None);
        assert_eq!(finalizer_of(&ObjectMeta::default()), None);
    }
}
