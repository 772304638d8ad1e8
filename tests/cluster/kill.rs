//! The operator is killed over and over while a job is at work: what is counted stays right.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use batchjob_crd::condition;
use k8s_openapi::api::core::v1::Pod;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use crate::installed::{SYSTEM, alone};
use crate::story::{Story, created_at, ended_at, find, phase, script, tell};

const N_KILLS: u64 = 10;
const N_INDEXES: u32 = 20;
const PARALLELISM: usize = 5;
/// Another seed is another story.
const SEED: u64 = 20_261_124;

#[tokio::test]
async fn nothing_is_lost_or_done_twice_when_the_operator_is_killed() -> Result<()> {
    // One that is alone works again as soon as it is back, so that all the kills fall into the life of one job.
    let installed = alone(&["--set", "replicas=1"]).await?;
    tell(installed, "kill", async |story| {
        let work = r#"sleep 5; case "$JOB_COMPLETION_INDEX" in 3|7|11|15|19) [ "$ATTEMPT" -ge 2 ];; esac"#;
        let mut spec = script("Never", work);
        spec["completions"] = json!(N_INDEXES);
        spec["parallelism"] = json!(PARALLELISM);
        spec["completionMode"] = json!("Indexed");
        spec["backoffLimit"] = json!(5);
        story.create("killed", spec).await?;
        let (n_kills, n_most) = tokio::try_join!(kill_at_random(story), most_at_a_time(story))?;
        ensure!(n_kills == N_KILLS, "only {n_kills} of {N_KILLS} kills fell into the life of the job: make it longer");

        let status = story.complete("killed", 1).await?;
        assert_eq!((status.succeeded, status.failed), (Some(20), Some(5)));
        assert_eq!(status.completed_indexes.as_deref(), Some("0-19"));
        assert_eq!(status.open_indexes, None);
        assert!(n_most <= PARALLELISM, "{n_most} pods at a time");
        let attempts = story.attempts("killed").await?;
        assert_eq!(attempts.len(), 25, "each index once, and five of them twice");
        for index in 0..N_INDEXES {
            check_index(index, &attempts)?;
        }
        story
            .until("no pod is held any more", 30, async || {
                let attempts = story.attempts("killed").await?;
                let held =
                    attempts.values().any(|pod| pod.metadata.finalizers.as_ref().is_some_and(|it| !it.is_empty()));
                Ok((!held).then_some(()))
            })
            .await
    })
    .await
}

/// One of its attempts succeeded, it is the last one, and those before it have failed and ended before it began.
fn check_index(index: u32, attempts: &BTreeMap<(u32, u32), Pod>) -> Result<()> {
    let mut of_index = attempts.range((index, 0)..=(index, u32::MAX)).map(|(_, pod)| pod).rev();
    let last = of_index.next().with_context(|| format!("index {index} has an attempt"))?;
    ensure!(phase(last) == "Succeeded", "the last attempt of index {index}: {:#?}", last.status);
    for earlier in of_index {
        ensure!(phase(earlier) == "Failed", "index {index} has succeeded before: {:#?}", earlier.status);
        ensure!(ended_at(earlier)? + 10 <= created_at(last)?, "the attempts of index {index} are 10 s apart");
    }
    Ok(())
}

/// SIGKILL, and a new pod at once: in the old one the kubelet would wait longer and longer. Says how many kills came
/// before the end of the job.
async fn kill_at_random(story: &Story<'_>) -> Result<u64> {
    let mut random = Random(SEED);
    for n_kills in 0..N_KILLS {
        let pid = story.installed.operator_pid().await?;
        let pod = story.installed.leader().await?.metadata.name.context("a pod has a name")?;
        // Not to wait for something: the moment is what is drawn.
        let moment = Duration::from_millis(random.below(5000));
        tokio::time::sleep(moment).await;
        if is_over(story).await? {
            return Ok(n_kills);
        }
        eprintln!("kill {} of {N_KILLS}: {pod}, {moment:?} old", n_kills + 1);
        kill_process(Pid::from_raw(pid.try_into()?).context("a pid is not 0")?, Signal::KILL)?;
        let system = story.installed.kubectl(SYSTEM);
        system.run(&["delete", "pod", &pod, "--grace-period=0", "--force"])?;
    }
    Ok(N_KILLS)
}

/// Looks until the job is over, and says how many of its pods have lived at the same time.
async fn most_at_a_time(story: &Story<'_>) -> Result<usize> {
    let mut n_most = 0;
    let until_over = async || {
        let attempts = story.attempts("killed").await?;
        let n_living = attempts.values().filter(|pod| ["Pending", "Running"].contains(&phase(pod))).count();
        n_most = n_most.max(n_living);
        Ok(is_over(story).await?.then_some(()))
    };
    story.until("the job is over", 180, until_over).await?;
    Ok(n_most)
}

async fn is_over(story: &Story<'_>) -> Result<bool> {
    Ok(find(&story.status("killed").await?, condition::FINISHED).is_some())
}

/// xorshift64: enough to choose moments, and the same ones each time.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}
