//! An Indexed job is made larger and smaller while it runs: its completions and its parallelism change together.

use anyhow::Result;
use batchjob_crd::{condition, reason};
use serde_json::{Value, json};

use crate::both::{Both, Counts, both_doors};
use crate::stage::{LONG_AGO, attempts, is_told};

const NONE: Counts = Counts { active: 0, ready: 0, terminating: 0, succeeded: 0, failed: 0 };

fn size(n: u32) -> Value {
    json!({ "completions": n, "parallelism": n })
}

/// A job of so many indexes, whose pods are all there.
async fn create(stage: &Both, n: u32) -> Result<()> {
    let mut spec = size(n);
    spec["completionMode"] = "Indexed".into();
    stage.create("etl", spec).await?;
    stage.until_counts("etl", Counts { active: n as i32, ..NONE }).await;
    Ok(())
}

async fn resize(stage: &Both, n: u32) -> Result<()> {
    stage.change("etl", json!({ "spec": size(n) })).await?;
    Ok(())
}

async fn succeed(stage: &Both, attempts: &[(u32, u32)]) -> Result<()> {
    for &(index, attempt) in attempts {
        let pod = stage.stage.pod("etl", index, attempt).await;
        stage.stage.kubelet.succeeds(&pod).await?;
    }
    Ok(())
}

both_doors!(made_larger_it_does_the_new_indexes_too);

async fn made_larger_it_does_the_new_indexes_too(stage: &Both) -> Result<()> {
    let _operator = stage.operator().await?;
    create(stage, 3).await?;
    resize(stage, 4).await?;
    stage.until_counts("etl", Counts { active: 4, ..NONE }).await;
    succeed(stage, &[(0, 1), (1, 1), (2, 1), (3, 1)]).await?;
    let job = stage.until_over("etl").await;
    assert!(job.is(condition::COMPLETE));
    assert_eq!(Counts::from(&job), Counts { succeeded: 4, ..NONE });
    assert_eq!(job.completed_indexes, "0-3");
    Ok(())
}

both_doors!(made_smaller_it_forgets_successes_but_no_failure);

async fn made_smaller_it_forgets_successes_but_no_failure(stage: &Both) -> Result<()> {
    let _operator = stage.operator().await?;
    create(stage, 3).await?;
    succeed(stage, &[(1, 1)]).await?;
    let failing = stage.stage.pod("etl", 2, 1).await;
    stage.stage.kubelet.fails(&failing, 1, LONG_AGO).await?;
    let job = stage.until_counts("etl", Counts { active: 2, succeeded: 1, failed: 1, ..NONE }).await;
    assert_eq!(job.completed_indexes, "1");
    let living = stage.stage.until_living("etl", 2).await;
    assert_eq!(attempts(&living), ["0-1", "2-2"]);

    resize(stage, 1).await?;
    let job = stage.until_counts("etl", Counts { active: 1, failed: 1, ..NONE }).await;
    assert_eq!(job.completed_indexes, "");
    succeed(stage, &[(0, 1)]).await?;
    let job = stage.until_over("etl").await;
    assert!(job.is(condition::COMPLETE));
    assert_eq!(Counts::from(&job), Counts { succeeded: 1, failed: 1, ..NONE });
    assert_eq!(job.completed_indexes, "0");
    Ok(())
}

both_doors!(made_smaller_and_larger_it_does_a_done_index_again);

async fn made_smaller_and_larger_it_does_a_done_index_again(stage: &Both) -> Result<()> {
    let _operator = stage.operator().await?;
    create(stage, 3).await?;
    succeed(stage, &[(2, 1)]).await?;
    let job = stage.until_counts("etl", Counts { active: 2, succeeded: 1, ..NONE }).await;
    assert_eq!(job.completed_indexes, "2");
    resize(stage, 2).await?;
    let job = stage.until_counts("etl", Counts { active: 2, ..NONE }).await;
    assert_eq!(job.completed_indexes, "");
    resize(stage, 3).await?;
    stage.until_counts("etl", Counts { active: 3, ..NONE }).await;
    succeed(stage, &[(0, 1), (1, 1), (2, 2)]).await?;
    let job = stage.until_over("etl").await;
    assert!(job.is(condition::COMPLETE));
    assert_eq!(Counts::from(&job), Counts { succeeded: 3, ..NONE });
    assert_eq!(job.completed_indexes, "0-2");
    assert_eq!(attempts(&stage.stage.pods_of("etl").await?), ["0-1", "1-1", "2-1", "2-2"]);
    Ok(())
}

both_doors!(made_as_small_as_nothing_it_is_complete);

async fn made_as_small_as_nothing_it_is_complete(stage: &Both) -> Result<()> {
    let _operator = stage.operator().await?;
    create(stage, 3).await?;
    resize(stage, 0).await?;
    let job = stage.until_over("etl").await;
    assert!(job.is(condition::COMPLETE));
    assert_eq!((Counts::from(&job), &*job.completed_indexes), (NONE, ""));
    stage.stage.until_pods("etl", "they are gone", |pods| pods.is_empty()).await;
    Ok(())
}

both_doors!(made_larger_again_too_late_it_is_complete);

/// That it is complete is decided as soon as nothing is left to do, and a change that comes after it comes too late.
async fn made_larger_again_too_late_it_is_complete(stage: &Both) -> Result<()> {
    let operator = stage.operator().await?;
    create(stage, 2).await?;
    let pods = [stage.stage.running_pod("etl", 0, 1).await?, stage.stage.running_pod("etl", 1, 1).await?];
    stage.until_counts("etl", Counts { active: 2, ready: 2, ..NONE }).await;
    resize(stage, 0).await?;
    let job = stage.until_counts("etl", Counts { terminating: 2, ..NONE }).await;
    assert!(job.is(condition::SUCCESS_CRITERIA_MET) && !job.is_finished(), "{job:?}");
    resize(stage, 2).await?;
    stage.look_again(&operator, "etl").await?;
    assert!(stage.stage.pods_of("etl").await?.iter().all(is_told), "none is started");

    for pod in &pods {
        stage.stage.kubelet.ends(pod).await?;
    }
    let job = stage.until_over("etl").await;
    assert!(job.is(condition::COMPLETE));
    assert_eq!(Counts::from(&job), NONE);
    Ok(())
}

both_doors!(made_as_small_as_what_is_done_it_is_complete);

async fn made_as_small_as_what_is_done_it_is_complete(stage: &Both) -> Result<()> {
    let _operator = stage.operator().await?;
    create(stage, 2).await?;
    let pods = [stage.stage.running_pod("etl", 0, 1).await?, stage.stage.running_pod("etl", 1, 1).await?];
    stage.stage.kubelet.succeeds(&pods[0]).await?;
    resize(stage, 1).await?;
    let job = stage.until_counts("etl", Counts { terminating: 1, succeeded: 1, ..NONE }).await;
    assert_eq!(job.completed_indexes, "0");
    assert!(!job.is_finished());
    let met = job.conditions.iter().find(|found| found.type_ == condition::SUCCESS_CRITERIA_MET);
    assert!(met.is_some_and(|met| met.is_true && met.reason == reason::COMPLETIONS_REACHED), "{job:?}");

    stage.stage.kubelet.succeeds(&pods[1]).await?;
    let job = stage.until_over("etl").await;
    assert!(job.is(condition::COMPLETE));
    assert_eq!(Counts::from(&job), Counts { succeeded: 1, ..NONE });
    assert_eq!(job.completed_indexes, "0");
    Ok(())
}
