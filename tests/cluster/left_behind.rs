//! The release is taken away while pods are at work: nothing stays behind. All 24 orders, on nodes that are played, are in
//! `api/left_behind.rs`; here the chart's hook is a container and the pods are real.

use anyhow::{Context, Result, ensure};
use batchjob_crd::keys;
use batchjob_tests::support::{Kubectl, Namespace, wait_for};
use serde_json::json;
use std::time::{Duration, Instant};

use crate::installed::{Installed, MANAGED_JOBS, SYSTEM, alone};
use crate::story::script;

/// Nothing may be left after this time.
const LIMIT: Duration = Duration::from_secs(60);

#[tokio::test]
async fn what_a_dead_operator_holds_an_uninstall_frees() -> Result<()> {
    let installed = alone(&MANAGED_JOBS).await?;
    let system = installed.kubectl(SYSTEM);

    let work = put_to_work(installed, "dead").await?;
    system.run(&["scale", "deployment", "batchjob", "--replicas=0"])?;
    system.run(&[
        "wait",
        "pod",
        "--for=delete",
        "--selector",
        "app.kubernetes.io/component=operator",
        "--timeout=60s",
    ])?;
    work.run(&["delete", "namespace", &namespace(&work)?, "--wait=false"])?;
    wait_for("its pods have ended, and are held", LIMIT, async || {
        let phases = work.run(&["get", "pods", "-o", "jsonpath={.items[*].status.phase}"])?;
        Ok((phases == "Failed Failed").then_some(()))
    })
    .await?;
    installed.helm.run(&["uninstall", "batchjob"]).await?;
    until_nothing_is_left(installed, &work).await?;

    installed.install("batchjob", &[]).await?;
    let work = put_to_work(installed, "uninstalled").await?;
    installed.helm.run(&["uninstall", "batchjob"]).await?;
    let held = work.run(&["get", "pods", "-o", "jsonpath={.items[*].metadata.finalizers}"])?;
    ensure!(!held.contains(keys::POD_FINALIZER), "after the uninstall: {held}");
    let running = work.run(&["get", "pods", "-o", "jsonpath={.items[*].status.phase}"])?;
    ensure!(running == "Running Running", "they run on: {running}");
    work.run(&["delete", "customresourcedefinition", "batchjobs.batchjob.dev", "--wait=false"])?;
    work.run(&["delete", "namespace", &namespace(&work)?, "--wait=false"])?;
    until_nothing_is_left(installed, &work).await?;
    let said = work.run(&["get", "customresourcedefinition", "batchjobs.batchjob.dev", "--ignore-not-found"])?;
    ensure!(said.is_empty(), "{said}");
    Ok(())
}

/// Two pods of a BatchJob run in a namespace of their own.
async fn put_to_work(installed: &Installed, name: &str) -> Result<Kubectl> {
    let work = Namespace::new(&installed.kubernetes, name).await?.kubectl.clone();
    let mut spec = script("Never", "sleep 1000");
    (spec["completions"], spec["parallelism"]) = (json!(2), json!(2));
    let job =
        json!({"apiVersion": "batchjob.dev/v1alpha1", "kind": "BatchJob", "metadata": {"name": "etl"}, "spec": spec});
    work.apply(&job.to_string())?;
    wait_for("two pods run", LIMIT, async || {
        let running = work.run(&["get", "pods", "-o", "jsonpath={.items[*].status.phase}"])?;
        Ok((running == "Running Running").then_some(()))
    })
    .await?;
    Ok(work)
}

fn namespace(work: &Kubectl) -> Result<String> {
    let said = work.run(&["get", "serviceaccount", "default", "-o", "jsonpath={.metadata.namespace}"])?;
    Some(said).filter(|name| !name.is_empty()).context("a namespace has its service account")
}

async fn until_nothing_is_left(installed: &Installed, work: &Kubectl) -> Result<()> {
    let began = Instant::now();
    let gone = wait_for("nothing is left", LIMIT, async || {
        // Namespaces of tests that have ended are empty.
        let pods = work.run(&["get", "pods", "--all-namespaces", "--selector", keys::ATTEMPT, "-o", "name"])?;
        let there = work.say(&["get", "serviceaccount", "default"], "")?;
        let release = installed.kubectl(SYSTEM).run(&[
            "get",
            "pods,deployments,serviceaccounts,clusterroles,clusterrolebindings",
            "--selector",
            "app.kubernetes.io/instance=batchjob",
            "-o",
            "name",
        ])?;
        let left = format!("{pods}{}{release}", if there.succeeded { &*there.text } else { "" });
        ensure!(left.is_empty(), "left: {left}");
        Ok(Some(()))
    });
    gone.await.with_context(|| {
        work.say(&["get", "pods", "-A", "-o", "wide"], "").map(|said| said.text).unwrap_or_default()
    })?;
    eprintln!("nothing was left after {:.1?}", began.elapsed());
    Ok(())
}
