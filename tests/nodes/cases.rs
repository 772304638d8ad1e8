//! The cases: what happens to a node, and what then becomes of the work on it.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures::FutureExt as _;
use futures::future::{LocalBoxFuture, try_join_all};
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use crate::world::{
    Case, Door, GRACE, LATER, Played, SOON, TOLERATION, World, disruption, has, is_told, node_of, phase, set_condition,
    template,
};

type Run = for<'a> fn(&'a World) -> LocalBoxFuture<'a, Result<()>>;

/// Every case that is played each time, by name.
pub const CASES: [(&str, Run); 10] = [
    ("lost", |world| lost(world).boxed_local()),
    ("lost-waits", |world| lost_and_waited_for(world).boxed_local()),
    ("out-of-service", |world| out_of_service(world).boxed_local()),
    ("back-late", |world| back_after_it_was_replaced(world).boxed_local()),
    ("back-waits", |world| back_and_waited_for(world).boxed_local()),
    ("moment", |world| silent_for_a_moment(world).boxed_local()),
    ("drained", |world| drained(world).boxed_local()),
    ("pressure", |world| evicted_under_pressure(world).boxed_local()),
    ("storm", |world| evicted_again_and_again(world).boxed_local()),
    ("fleet", |world| crashing_beside_others(world).boxed_local()),
];

/// Those that take minutes.
pub const LONG: [(&str, Run); 1] = [("default", |world| by_default(world).boxed_local())];

/// Disruptions are no failures of the job; with this policy comes podReplacementPolicy Failed.
fn ignoring() -> Value {
    json!({ "backoffLimit": 0, "podFailurePolicy": { "rules": [
        { "action": "Ignore", "onPodConditions": [{ "type": "DisruptionTarget" }] },
    ] } })
}

/// Programs that come to their end on the second node alone.
fn on_first(case: &Case<'_>) -> Value {
    json!({ "run-for": "2s", "stays-on": case.node("first") })
}

/// The node never comes back. The work is done again after the toleration; the job is over when an administrator gives the node
/// up, because until then nobody knows whether its pod has ended.
async fn lost(world: &World) -> Result<()> {
    let mut case = world.case("lost").await?;
    let jobs = case.play("etl", &json!({}), &on_first(&case)).await?;
    let since = case.lose()?;
    for job in &jobs {
        replaced(&case, job, since, "DeletionByTaintManager").await?;
        let done = job.until_done(SOON).await?;
        ensure!((done.succeeded, done.failed, done.terminating) == (1, 1, 1), "{}: {done:?}", job.name);
    }
    give_up(&case)?;
    for job in &jobs {
        let over = job.until_complete(LATER).await?;
        ensure!((over.succeeded, over.failed) == (1, 1), "{}: {over:?}", job.name);
        job.until_gone(1).await?;
    }
    Ok(())
}

/// Who wants no two pods of an index at the same time waits until it is known that the first has ended; that its node is
/// deleted says so.
async fn lost_and_waited_for(world: &World) -> Result<()> {
    let mut case = world.case("lost-waits").await?;
    let jobs = case.play("etl", &ignoring(), &on_first(&case)).await?;
    case.lose()?;
    is_waited_for(&jobs).await?;
    case.delete_first().await?;
    is_done_undisturbed(&jobs).await
}

/// The same, where an administrator gives the node up.
async fn out_of_service(world: &World) -> Result<()> {
    let mut case = world.case("out-of-service").await?;
    let jobs = case.play("etl", &ignoring(), &on_first(&case)).await?;
    case.lose()?;
    is_waited_for(&jobs).await?;
    give_up(&case)?;
    is_done_undisturbed(&jobs).await
}

/// Says that the node is down for good.
fn give_up(case: &Case<'_>) -> Result<()> {
    let taint = "node.kubernetes.io/out-of-service=nodeshutdown:NoExecute";
    case.kubectl().run(&["taint", "node", &case.node("first"), taint]).map(drop)
}

/// Its program has run on, and comes to its end when another attempt has begun: what it says then is not counted, however it
/// ends.
async fn back_after_it_was_replaced(world: &World) -> Result<()> {
    let case = world.case("back-late").await?;
    let mut jobs = case.play("fails", &json!({}), &on_first(&case)).await?;
    let mut late = on_first(&case);
    late["told-to-go"] = "succeeds".into();
    jobs.extend(case.play("succeeds", &json!({}), &late).await?);
    let since = case.pause()?;
    for job in &jobs {
        replaced(&case, job, since, "DeletionByTaintManager").await?;
    }
    case.resume()?;
    for job in &jobs {
        job.until_gone(1).await?;
        let over = job.until_complete(SOON).await?;
        ensure!((over.succeeded, over.failed) == (1, 1), "{}: {over:?}", job.name);
    }
    Ok(())
}

/// The node is back, and ends what it was told to end while it was away: that it was disrupted is known still.
async fn back_and_waited_for(world: &World) -> Result<()> {
    let case = world.case("back-waits").await?;
    let jobs = case.play("etl", &ignoring(), &on_first(&case)).await?;
    case.pause()?;
    is_waited_for(&jobs).await?;
    // Else the node would be used again.
    case.kubectl().run(&["cordon", &case.node("first")])?;
    case.resume()?;
    is_done_undisturbed(&jobs).await
}

/// Shorter than the cluster waits: nothing happens at all.
async fn silent_for_a_moment(world: &World) -> Result<()> {
    let case = world.case("moment").await?;
    let jobs = case.play("etl", &json!({}), &json!({ "run-for": "10s" })).await?;
    case.pause()?;
    // The silence itself.
    tokio::time::sleep(Duration::from_secs(GRACE / 3)).await;
    case.resume()?;
    for job in &jobs {
        let over = job.until_complete(SOON).await?;
        ensure!((over.succeeded, over.failed) == (1, 0), "{}: {over:?}", job.name);
        ensure!(job.attempts().await?.len() == 1, "{} had one attempt", job.name);
    }
    Ok(())
}

/// `kubectl drain`: by default a failure, as Kubernetes counts it; with a policy none.
async fn drained(world: &World) -> Result<()> {
    let case = world.case("drained").await?;
    let counted = case.play("counted", &json!({}), &on_first(&case)).await?;
    let ignored = case.play("ignored", &ignoring(), &on_first(&case)).await?;
    let (kubectl, node) = (case.kubectl(), case.node("first"));
    let drain = move || kubectl.run(&["drain", &node, "--ignore-daemonsets", "--timeout=90s"]);
    tokio::task::spawn_blocking(drain).await??;
    for (jobs, n_failed) in [(&counted, 1), (&ignored, 0)] {
        for job in jobs {
            let over = job.until_complete(SOON).await?;
            ensure!((over.succeeded, over.failed) == (1, n_failed), "{}: {over:?}", job.name);
            let attempts = job.attempts().await?;
            ensure!(attempts.len() == 1 && node_of(&attempts[0]) == case.node("second"), "{}: one is left", job.name);
        }
    }
    Ok(())
}

/// The kubelet evicts for want of memory, and its node is tainted: the work goes elsewhere.
async fn evicted_under_pressure(world: &World) -> Result<()> {
    let case = world.case("pressure").await?;
    let by = json!({ "run-for": "2s", "evicted-by": case.node("first") });
    let counted = case.play("counted", &json!({}), &by).await?;
    let ignored = case.play("ignored", &ignoring(), &by).await?;
    set_condition(&case.nodes, &case.node("first"), "MemoryPressure", "True").await?;
    for (jobs, n_failed) in [(&counted, 1), (&ignored, 0)] {
        for job in jobs {
            let over = job.until_complete(SOON).await?;
            ensure!((over.succeeded, over.failed) == (1, n_failed), "{}: {over:?}", job.name);
            let attempts = job.attempts().await?;
            let [evicted, done] = &attempts[..] else { anyhow::bail!("{} had {} attempts", job.name, attempts.len()) };
            ensure!(disruption(evicted).as_deref() == Some("TerminationByKubelet"), "{:?}", evicted.status);
            ensure!(node_of(done) == case.node("second"), "{} runs on {}", job.name, node_of(done));
        }
    }
    Ok(())
}

/// A node that evicts everything and is not tainted for it. Each eviction is followed by a longer delay, also where it does
/// not count: there are a few pods, and not hundreds.
async fn evicted_again_and_again(world: &World) -> Result<()> {
    /// At 0, after 10 s and after 20 s more.
    const STORM: u64 = 40;
    let case = world.case("storm").await?;
    let by = json!({ "evicted-by": case.node("first") });
    let jobs = case.play("etl", &ignoring(), &by).await?;
    // The storm itself.
    tokio::time::sleep(Duration::from_secs(STORM)).await;
    for job in &jobs {
        let stands = job.standing().await?;
        ensure!((stands.succeeded, stands.failed) == (0, 0), "{}: {stands:?}", job.name);
        let n_attempts = job.attempts().await?.len();
        ensure!((2..=3).contains(&n_attempts), "{} had {n_attempts} attempts in {STORM} s", job.name);
        job.delete().await?;
    }
    Ok(())
}

/// Fifty pods whose programs crash every second, which is a change of a pod each time: the small jobs of somebody else start as
/// if they were not there, and each of the ten jobs fails when its restarts are more than its limit.
async fn crashing_beside_others(world: &World) -> Result<()> {
    const N_JOBS: usize = 10;
    /// Of 50 ms it takes on a machine with nothing else to do.
    const PROMPT: Duration = Duration::from_secs(10);
    let (case, other) = (world.case("fleet").await?, world.case("fleet-other").await?);
    let mut template = template(case.name, &json!({ "crashes": "true" }));
    template["spec"]["restartPolicy"] = "OnFailure".into();
    let spec = json!({ "completions": 5, "parallelism": 5, "backoffLimit": 100, "template": template });
    let mut fleet = Vec::new();
    for number in 0..N_JOBS {
        fleet.push(case.create(Door::BatchJob, &format!("crashes-{number}"), &spec, &json!({})).await?);
    }
    for job in &fleet {
        job.until_pod(1, "it crashes", has_crashed).await?;
    }
    let mut slowest = Duration::ZERO;
    for number in 0..N_JOBS {
        let began = std::time::Instant::now();
        let small = json!({ "run-for": "1s" });
        let job = other.create(Door::BatchJob, &format!("small-{number}"), &json!({}), &small).await?;
        job.until_pod(1, "it is there", |_| true).await?;
        slowest = slowest.max(began.elapsed());
        job.until_complete(SOON).await?;
    }
    ensure!(slowest < PROMPT, "the slowest of {N_JOBS} small jobs had a pod after {slowest:?}");
    println!("fleet: the slowest of {N_JOBS} small jobs had a pod after {slowest:.2?}");
    for job in &fleet {
        let over = job.until(SOON, "it has failed", |job| has(job, "Failed")).await?;
        let failed = over.conditions.iter().find(|it| it.type_ == "Failed").context("a condition")?;
        ensure!(failed.reason == "BackoffLimitExceeded", "{}: {failed:?}", job.name);
    }
    Ok(())
}

fn has_crashed(pod: &Pod) -> bool {
    let containers = pod.status.as_ref().and_then(|status| status.container_statuses.as_ref());
    containers.is_some_and(|containers| containers.iter().any(|container| container.restart_count > 0))
}

/// Who sets nothing waits five minutes, as everywhere in Kubernetes.
async fn by_default(world: &World) -> Result<()> {
    const DEFAULT: Duration = Duration::from_secs(300);
    let mut case = world.case("default").await?;
    let mut template = template(case.name, &on_first(&case));
    template["spec"]["tolerations"] = json!([]);
    let spec = json!({ "template": template });
    let job = case.create(Door::BatchJob, "etl", &spec, &json!({})).await?;
    job.until_pod(1, "it runs", |pod| phase(pod) == "Running").await?;
    let since = case.lose()?;
    let told = tokio::time::timeout(DEFAULT * 2, async {
        loop {
            if let Ok(pod) = job.until_pod(1, "it is told to go", is_told).await {
                return pod;
            }
        }
    });
    let told = told.await.context("it is told to go")?;
    let at = told.metadata.deletion_timestamp.as_ref().context("a time")?.0;
    let grace = Duration::from_secs(told.metadata.deletion_grace_period_seconds.unwrap_or_default().unsigned_abs());
    let took = Duration::try_from(at.duration_since(since))?.saturating_sub(grace);
    ensure!(took >= DEFAULT && took < DEFAULT + SOON, "it was told to go after {took:?}");
    let done = job.until_done(SOON).await?;
    ensure!((done.succeeded, done.failed) == (1, 1), "{}: {done:?}", job.name);
    case.delete_first().await?;
    job.until_complete(LATER).await.map(drop)
}

/// Attempt 1 was disrupted for that reason, and attempt 2 works on the other node within the bound.
async fn replaced(case: &Case<'_>, job: &Played, since: jiff::Timestamp, reason: &str) -> Result<()> {
    let told = job.until_pod(1, "it is told to go", is_told).await?;
    ensure!(disruption(&told).as_deref() == Some(reason), "{}: {:?}", job.name, told.status);
    let again = job.pod(2).await?;
    ensure!(node_of(&again) == case.node("second"), "{} runs on {}", job.name, node_of(&again));
    // The cluster notices, the toleration ends, and 10 s is the delay after a first failure.
    let bound = Duration::from_secs(GRACE + TOLERATION + 10);
    let took = case.measure(since, &again)?;
    ensure!(took <= bound + Duration::from_secs(15), "{}: again after {took:?}, {bound:?} at best", job.name);
    Ok(())
}

/// Their pods are told to go and do not end: none is replaced.
async fn is_waited_for(jobs: &[Played]) -> Result<()> {
    for job in jobs {
        let told = job.until_pod(1, "it is told to go", is_told).await?;
        ensure!(disruption(&told).is_some(), "{}: {:?}", job.name, told.status);
        let stands = job.until(SOON, "one is terminating", |job| job.terminating == 1).await?;
        ensure!((stands.active, stands.failed) == (0, 0), "{}: {stands:?}", job.name);
        ensure!(job.attempts().await?.len() == 1, "{} waits", job.name);
    }
    Ok(())
}

/// Another attempt has done their work, and that the first was disrupted is no failure.
async fn is_done_undisturbed(jobs: &[Played]) -> Result<()> {
    try_join_all(jobs.iter().map(async |job| {
        let over = job.until_complete(LATER).await?;
        ensure!((over.succeeded, over.failed) == (1, 0), "{}: {over:?}", job.name);
        job.pod(2).await
    }))
    .await?;
    Ok(())
}
