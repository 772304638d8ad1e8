//! The plans that have found something once, and one of each class of fault: everything else is `make faults`.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::Result;
use batchjob_tests::faults::campaign::{Campaign, Verdict, until_collected};
use batchjob_tests::faults::plan::Plan;

use crate::stage::kubernetes;

/// How many at the same time.
const AT_ONCE: usize = 8;
/// For so long nothing may be written after the end.
const QUIET: Duration = Duration::from_secs(1);

/// One of each class, in the middle of a workload.
const ONE_OF_EACH: [&str; 18] = [
    "indexed-retry.kill-before.9",
    "indexed-retry.kill-after.9",
    "retry.swallow.2",
    "suspend.timeout-504.10",
    "managed.conflict-409.6",
    "failure-policy.busy-429.5",
    "restarts.error-500.4",
    "meddling.late.6",
    "managed.drop.jobs.4",
    "retry.gone-410.pods.7",
    "elastic.cut.batchjobs.5",
    "indexed-retry.hold.pods.4-12",
    "suspend.stale.pods.3-14",
    "managed.restart-stale.all.5-20",
    "elastic@standby.kill-before.8",
    "managed@standby.kill-after.6",
    "suspend@two",
    "indexed-retry@two.late.7",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fault_of_each_class_changes_nothing() -> Result<()> {
    hold(ONE_OF_EACH.iter().map(|name| name.parse()).collect::<Result<_>>()?).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn plans_that_have_found_something_find_it_no_more() -> Result<()> {
    hold(Plan::kept()?).await
}

async fn hold(plans: Vec<Plan>) -> Result<()> {
    let kubernetes = kubernetes().await?;
    until_collected(kubernetes).await?;
    let mut campaign = Campaign::new(kubernetes, AT_ONCE, QUIET).await?;
    let workloads: BTreeSet<&str> = plans.iter().map(|plan| plan.workload.as_str()).collect();
    campaign.refer(&workloads).await?;
    for (workload, reference) in campaign.references() {
        assert_eq!(reference.complaints, Vec::<String>::new(), "{workload} without faults");
    }
    let n_plans = plans.len();
    let mut verdicts = Vec::new();
    campaign.judge(plans, |verdict| verdicts.push(verdict)).await?;
    for Verdict { plan, played, violations } in &verdicts {
        let logs = played.as_ref().map(|played| played.logs.join("\n")).unwrap_or_default();
        assert!(violations.is_empty(), "{plan}: {violations:#?}\n{logs}");
    }
    assert_eq!(verdicts.len(), n_plans, "all are played");
    Ok(())
}
