//! Two replicas, as the chart starts them: whatever takes one away, the other goes on, and the work does not notice.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use batchjob_tests::faults::campaign::sends_once;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::api::{EvictParams, ListParams};
use kube::{Api, ResourceExt as _};
use serde_json::json;
use tokio::sync::watch;

use crate::installed::{Installed, SYSTEM, alone, chart, shared};
use crate::story::{Story, phase, script, tell};

/// How soon after a leader's pod is deleted the other one leads: less than the lease duration, for which it would be waited
/// if it went without a word. That it takes 3 s from the signal on is asked of the process, in `api/leader.rs`; here a busy
/// node has to pass the signal on.
const HANDED_OVER: Duration = Duration::from_secs(8);

#[tokio::test]
async fn one_goes_and_the_other_leads() -> Result<()> {
    let installed = alone(&[]).await?;
    tell(installed, "replicas", async |story| {
        let mut spec = script("Never", "until [ -e /tmp/go ]; do sleep 0.2; done");
        (spec["completions"], spec["completionMode"]) = (json!(1), json!("Indexed"));
        story.create("long", spec).await?;
        let long = story.running("long", 1).await?;

        let (end, ended) = watch::channel(false);
        let changes = async {
            the_leader_is_deleted(story).await?;
            both_are_evicted(story).await?;
            all_are_replaced(story).await?;
            end.send_replace(true);
            anyhow::Ok(())
        };
        let ((), n_jobs) = tokio::try_join!(changes, work(story, ended))?;
        ensure!(n_jobs > 1, "the work came to nothing: {n_jobs} jobs");

        story.kubectl.run(&["exec", &long, "--", "touch", "/tmp/go"])?;
        let status = story.complete("long", 30).await?;
        assert_eq!((status.succeeded, status.failed), (Some(1), Some(0)));
        assert_eq!(story.attempts("long").await?.into_keys().collect::<Vec<_>>(), [(0, 1)]);
        Ok(())
    })
    .await
}

/// Runs one job after the other to its end, until told to stop. Each index has one attempt, and no job waits long.
async fn work(story: &Story<'_>, ended: watch::Receiver<bool>) -> Result<usize> {
    let mut n_jobs = 0;
    while !*ended.borrow() {
        let job = format!("work-{n_jobs}");
        let mut spec = script("Never", "sleep 1");
        spec["completions"] = json!(2);
        spec["parallelism"] = json!(2);
        spec["completionMode"] = json!("Indexed");
        story.create(&job, spec).await?;
        // A leader that goes without a word, which none does here, would be waited for for 15 s.
        let status = story.complete(&job, 30).await?;
        assert_eq!((status.succeeded, status.failed), (Some(2), Some(0)), "{job}");
        assert_eq!(story.attempts(&job).await?.into_keys().collect::<Vec<_>>(), [(0, 1), (1, 1)], "{job}");
        n_jobs += 1;
    }
    Ok(n_jobs)
}

async fn the_leader_is_deleted(story: &Story<'_>) -> Result<()> {
    let leader = two_are_ready(story).await?;
    let began = Instant::now();
    story.installed.kubectl(SYSTEM).run(&["delete", "pod", &leader, "--wait=false"])?;
    another_leads(story, &leader).await?;
    let took = began.elapsed();
    assert!(took < HANDED_OVER, "it took {took:?} until another one led");
    Ok(())
}

/// As two drains would at the same time: the second is told to wait.
async fn both_are_evicted(story: &Story<'_>) -> Result<()> {
    let leader = two_are_ready(story).await?;
    let client = story.installed.kubernetes.client().await?;
    let budgets: Api<PodDisruptionBudget> = Api::namespaced(client, SYSTEM);
    story
        .until("one of the two may be taken", 30, async || {
            let status = budgets.get("batchjob").await?.status.unwrap_or_default();
            Ok(((status.disruptions_allowed, status.current_healthy) == (Some(1), Some(2))).then_some(()))
        })
        .await?;
    // Another client would ask again until it may.
    let pods: Api<Pod> = Api::namespaced(sends_once(&story.installed.kubernetes).await?, SYSTEM);
    let other = other_than(story.installed, &leader).await?;
    let params = EvictParams::default();
    pods.evict(&leader, &params).await.context("evict the leader")?;
    match pods.evict(&other, &params).await {
        Err(kube::Error::Api(status)) if status.code == 429 => {
            ensure!(status.message.contains("disruption budget"), "{}", status.message);
        }
        answer => {
            let left: Vec<String> = story.installed.operator_pods().await?.iter().map(|pod| pod.name_any()).collect();
            let budget = budgets.get("batchjob").await?.status;
            anyhow::bail!("{leader} and {other} may be evicted, {left:?} are left: {answer:?}; {budget:?}");
        }
    }
    another_leads(story, &leader).await
}

/// `helm upgrade` with something new in the pods.
async fn all_are_replaced(story: &Story<'_>) -> Result<()> {
    two_are_ready(story).await?;
    let names = async || -> Result<Vec<String>> {
        let pods = story.installed.operator_pods().await?;
        Ok(pods.iter().map(|pod| pod.name_any()).collect())
    };
    let old = names().await?;
    let upgrade =
        ["upgrade", "batchjob", &chart()?, "--set-string", "podAnnotations.round=2", "--wait", "--timeout=2m"];
    story.installed.helm.run(&upgrade).await?;
    two_are_ready(story).await?;
    let new = names().await?;
    ensure!(new.iter().all(|name| !old.contains(name)), "{old:?} before, {new:?} after");
    Ok(())
}

/// Until there are two and one leads: its name.
async fn two_are_ready(story: &Story<'_>) -> Result<String> {
    story
        .until("two are ready, and one leads", 60, async || {
            let pods = story.installed.operator_pods().await?;
            ensure!(pods.len() == 2 && pods.iter().all(is_ready), "{:?}", pods.iter().map(phase).collect::<Vec<_>>());
            Ok(Some(story.installed.leader().await?.name_any()))
        })
        .await
}

async fn another_leads(story: &Story<'_>, than: &str) -> Result<()> {
    story
        .until("another one leads", 30, async || {
            let leader = story.installed.leader().await?;
            Ok((leader.name_any() != than).then_some(()))
        })
        .await
}

async fn other_than(installed: &Installed, leader: &str) -> Result<String> {
    let pods = installed.operator_pods().await?;
    let other = pods.iter().map(|pod| pod.name_any()).find(|name| name != leader);
    other.context("there is another one")
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|found| found.type_ == "Ready" && found.status == "True")
}

#[tokio::test]
async fn only_those_who_stand_by_for_each_other_have_a_lease_and_a_budget() -> Result<()> {
    let (helm, chart) = (&shared().await?.helm, chart()?);
    for (replicas, are_several) in [("replicas=0", false), ("replicas=1", false), ("replicas=2", true)] {
        let text = helm.run(&["template", "batchjob", &chart, "--set", replicas]).await?;
        for words in ["kind: PodDisruptionBudget", "resources: [leases]", "[pod-template-hash]", "RollingUpdate"] {
            assert_eq!(text.contains(words), are_several, "{words} with {replicas}: {text}");
        }
        assert_eq!(text.contains("--leader-elect=false"), !are_several, "{replicas}: {text}");
    }
    let without = helm.run(&["template", "batchjob", &chart, "--set", "podDisruptionBudget.enabled=false"]).await?;
    assert!(!without.contains("kind: PodDisruptionBudget"), "{without}");
    let one = r#"topologySpreadConstraints=[{"topologyKey":"rack","maxSkew":1,"whenUnsatisfiable":"DoNotSchedule"}]"#;
    let others = helm.run(&["template", "batchjob", &chart, "--set-json", one]).await?;
    assert!(others.contains("topologyKey: rack") && !others.contains("kubernetes.io/hostname"), "{others}");
    Ok(())
}

/// The chart's two replicas are known to the scheduler as such: on two nodes they would be one on each.
#[tokio::test]
async fn the_budget_and_the_spread_select_the_replicas() -> Result<()> {
    let installed = shared().await?;
    let client = installed.kubernetes.client().await?;
    let budgets: Api<PodDisruptionBudget> = Api::namespaced(client.clone(), SYSTEM);
    let spec = budgets.get("batchjob").await?.spec.context("the budget has a spec")?;
    let selector = serde_json::to_value(&spec.selector)?;
    let pods = installed.operator_pods().await?;
    ensure!(pods.len() == 2, "{} replicas", pods.len());
    for pod in &pods {
        let constraints = pod.spec.as_ref().and_then(|spec| spec.topology_spread_constraints.as_ref());
        let constraint = constraints.and_then(|them| them.first()).context("the pod has a constraint")?;
        assert_eq!(constraint.topology_key, "kubernetes.io/hostname");
        // That only pods of the same template count is beside these.
        let labels = constraint.label_selector.as_ref().and_then(|it| it.match_labels.clone()).unwrap_or_default();
        for (name, value) in &labels {
            assert_eq!(pod.labels().get(name), Some(value), "{name}");
        }
        assert_eq!(selector["matchLabels"], serde_json::to_value(&labels)?);
    }
    let of_budget: Vec<String> = selector["matchLabels"]
        .as_object()
        .context("labels")?
        .iter()
        .map(|(k, v)| format!("{k}={}", v.as_str().unwrap_or_default()))
        .collect();
    let all: Api<Pod> = Api::all(client);
    let selected = all.list(&ListParams::default().labels(&of_budget.join(","))).await?.items;
    assert_eq!(selected.len(), 2);
    Ok(())
}
