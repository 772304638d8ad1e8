//! Two operators, one of which leads: whatever ends it, the other goes on, and nothing is written by both.

use std::time::Duration;

use anyhow::{Context as _, Result};
use batchjob_tests::faults::campaign::until_collected;
use batchjob_tests::leaders::change::{Change, Times};
use batchjob_tests::leaders::{judge, lane};
use batchjob_tests::support::Operator;
use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;
use serde_json::json;
use tokio::time::Instant;

use crate::kubelet::End;
use crate::stage::{Stage, attempts, expect, is_finished, kubernetes, metric, status};

const LEASE: &str = "operator";

/// An operator that takes part in the election of the stage's namespace.
async fn candidate(stage: &Stage) -> Result<Operator> {
    let namespace = &*stage.namespace.name;
    let flags = [
        "--watch-namespace",
        namespace,
        "--leader-elect=true",
        "--leader-elect-resource-name",
        LEASE,
        "--leader-elect-resource-namespace",
        namespace,
    ];
    Operator::start(kubernetes().await?, &flags).await
}

async fn until_it_leads(operator: &Operator) {
    expect("it leads", async || {
        Ok((metric(operator, "leader_election_master_status", LEASE).await? > 0.0).then_some(()))
    })
    .await;
}

/// One that leads and one that stands by, with a job half done.
async fn two(test: &str) -> Result<(Stage, Operator, Operator)> {
    let stage = Stage::new(test).await?;
    let leader = candidate(&stage).await?;
    until_it_leads(&leader).await;
    let standby = candidate(&stage).await?;
    stage.create("etl", json!({ "completions": 3, "parallelism": 1, "completionMode": "Indexed" })).await?;
    let first = stage.running_pod("etl", 0, 1).await?;
    stage.kubelet.succeeds(&first).await?;
    stage.pod("etl", 1, 1).await;
    assert_eq!(metric(&standby, "leader_election_master_status", LEASE).await?, 0.0);
    assert_eq!(metric(&standby, "job_controller_job_syncs_total", "").await?, 0.0, "who stands by decides nothing");
    Ok((stage, leader, standby))
}

/// The rest of the job is done by the other one, each index once.
async fn goes_on(stage: &Stage) -> Result<()> {
    let _kubelet = stage.kubelet.plays(|_| End::Success);
    let job = stage.until("etl", "it is finished", is_finished).await;
    assert_eq!((status(&job).succeeded, status(&job).failed.unwrap_or_default()), (Some(3), 0));
    assert_eq!(attempts(&stage.until_no_pod_is_held("etl").await), ["0-1", "1-1", "2-1"]);
    Ok(())
}

#[tokio::test]
async fn who_is_told_to_end_gives_up_the_lease() -> Result<()> {
    let (stage, leader, standby) = two("leader-term").await?;
    leader.terminate(Duration::from_secs(10)).await?;
    let ended = Instant::now();
    until_it_leads(&standby).await;
    assert!(ended.elapsed() < Duration::from_secs(3), "{:?}", ended.elapsed());
    goes_on(&stage).await
}

#[tokio::test]
async fn who_is_killed_is_replaced_when_the_lease_is_over() -> Result<()> {
    let (stage, leader, standby) = two("leader-kill").await?;
    leader.kill()?;
    let killed = Instant::now();
    until_it_leads(&standby).await;
    let took = killed.elapsed();
    // It had renewed up to 2.4 s before.
    assert!(took > Duration::from_secs(12) && took < Duration::from_secs(19), "{took:?}");
    let leases: Api<Lease> = Api::namespaced(stage.namespace.client.clone(), &stage.namespace.name);
    let spec = leases.get(LEASE).await?.spec.unwrap_or_default();
    assert_eq!(spec.lease_transitions, Some(1));
    goes_on(&stage).await
}

/// Stopped for longer than its lease, and then let on: it finds another leader, and writes nothing.
#[tokio::test]
async fn who_slept_too_long_writes_no_more() -> Result<()> {
    let (stage, leader, standby) = two("leader-stop").await?;
    let pid = rustix::process::Pid::from_raw(leader.pid() as i32).expect("a pid");
    rustix::process::kill_process(pid, rustix::process::Signal::STOP)?;
    until_it_leads(&standby).await;
    rustix::process::kill_process(pid, rustix::process::Signal::CONT)?;
    expect("it knows that it leads no more", async || {
        Ok((metric(&leader, "leader_election_master_status", LEASE).await? == 0.0).then_some(()))
    })
    .await;
    let passes = metric(&leader, "job_controller_job_syncs_total", "").await?;
    goes_on(&stage).await?;
    assert_eq!(metric(&leader, "job_controller_job_syncs_total", "").await?, passes);
    Ok(())
}

/// One change of each kind, with jobs going on; many more are `make leaders`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_ends_a_leader_breaks_no_law() -> Result<()> {
    let kubernetes = kubernetes().await?;
    until_collected(kubernetes).await?;
    let played = Change::KINDS.map(|change| async move {
        let played = lane::play(kubernetes, Times::SHORT, &[change]).await;
        played.with_context(|| change.to_string())
    });
    for played in futures::future::try_join_all(played).await? {
        let (change, is_other) = (played.rounds[0].change, played.rounds[0].is_other);
        let judged = judge::judge(played)?;
        assert!(judged.violations.is_empty(), "{change}: {:#?}\n{}", judged.violations, judged.explanation);
        assert!(judged.n_writes > 0, "{change}: who wrote is not known");
        // Whose lease is taken away may be the one that has it again.
        assert!(is_other || matches!(change, Change::Deleted | Change::Stolen), "{change}: the same one leads");
    }
    Ok(())
}
