//! Each file in examples/ is applied as it is, and ends as its comment says.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use batchjob_crd::Phase;
use batchjob_tests::support::kubelet::ago;
use batchjob_tests::support::wait_for;

use crate::installed::shared;
use crate::story::{created_at, ended_at, find, tell};

#[tokio::test]
async fn hello_says_hello() -> Result<()> {
    tell(shared().await?, "hello", async |story| {
        story.apply_example("hello")?;
        let status = story.complete("hello", 30).await?;
        assert_eq!((status.succeeded, status.failed), (Some(1), Some(0)));
        assert_eq!(story.logs("hello")?, ["Hello from a BatchJob."]);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn word_count_counts_what_wc_counts() -> Result<()> {
    tell(shared().await?, "word-count", async |story| {
        story.apply_example("word-count")?;
        let status = story.complete("word-count", 60).await?;
        assert_eq!((status.completions_summary.as_deref(), status.failed), (Some("5/5"), Some(0)));
        let counts = story.logs("word-count")?.into_iter().map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            ensure!(words.len() == 3 && words[0] == "words", "a line of the log: {line}");
            Ok((words[1].to_owned(), words[2].parse()?))
        });
        let mut counts = counts.collect::<Result<Vec<(String, usize)>>>()?;
        counts.sort();
        assert_eq!(counts, count_words(Path::new("/usr/share/common-licenses"))?);
        Ok(())
    })
    .await
}

/// `wc -w` of every regular file of a folder.
fn count_words(folder: &Path) -> Result<Vec<(String, usize)>> {
    let mut counts = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| format!("list {}", folder.display()))? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            let text = fs::read(entry.path())?;
            let n_words = text.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty()).count();
            counts.push((entry.file_name().to_string_lossy().into_owned(), n_words));
        }
    }
    counts.sort();
    Ok(counts)
}

#[tokio::test]
async fn work_queue_does_each_item_once() -> Result<()> {
    tell(shared().await?, "work-queue", async |story| {
        story.apply_example("work-queue")?;
        story.complete("work-queue", 60).await?;
        let lines = story.logs("work-queue")?;
        let items = lines.iter().filter_map(|line| line.strip_prefix("item "));
        let mut items = items.map(str::parse).collect::<Result<Vec<u32>, _>>()?;
        items.sort_unstable();
        assert_eq!(items, (1..=12).collect::<Vec<u32>>());
        let n_workers = story.attempts("work-queue").await?.len();
        assert_eq!(n_workers, 3, "none is started once a worker has seen the end of the queue");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn retry_runs_three_attempts_with_growing_delays() -> Result<()> {
    tell(shared().await?, "retry", async |story| {
        story.apply_example("retry")?;
        let status = story.complete("retry", 90).await?;
        assert_eq!((status.succeeded, status.failed), (Some(1), Some(2)));
        let attempts = story.attempts("retry").await?;
        assert_eq!(attempts.keys().copied().collect::<Vec<_>>(), [(0, 1), (0, 2), (0, 3)]);
        for (n_failures, least) in [(1, 10), (2, 20)] {
            let delay = created_at(&attempts[&(0, n_failures + 1)])? - ended_at(&attempts[&(0, n_failures)])?;
            // Above the promise lies only what a busy machine adds.
            assert!((least..least + 5).contains(&delay), "{delay} s after failure {n_failures}");
        }
        let mut lines = story.logs("retry")?;
        lines.sort();
        assert_eq!(lines, ["attempt 1", "attempt 2", "attempt 3"]);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn give_up_fails_and_says_why() -> Result<()> {
    tell(shared().await?, "give-up", async |story| {
        story.apply_example("give-up")?;
        let (status, failed) = story.failed("give-up", 60).await?;
        assert_eq!(status.reason.as_deref(), Some("BackoffLimitExceeded"));
        assert_eq!((status.failed, story.attempts("give-up").await?.len()), (Some(2), 2));
        assert_eq!(failed.reason, "BackoffLimitExceeded");
        assert!(failed.message.contains("container broken exited with code 7"), "{}", failed.message);
        // What the comment sends people to look at.
        let described = story.kubectl.run(&["describe", "batchjob", "give-up"])?;
        let events = described.split_once("\nEvents:").context("it has events")?.1;
        assert!(events.contains("PodFailed") && events.contains("exited with code 7"), "{events}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn fail_fast_ends_at_the_first_exit_that_its_policy_names() -> Result<()> {
    tell(shared().await?, "fail-fast", async |story| {
        story.apply_example("fail-fast")?;
        let (status, failed) = story.failed("fail-fast", 30).await?;
        assert_eq!((status.failed, &*failed.reason), (Some(1), "PodFailurePolicy"));
        assert!(failed.message.contains("42"), "{}", failed.message);
        assert_eq!(story.attempts("fail-fast").await?.len(), 1);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn leader_is_complete_when_index_0_is() -> Result<()> {
    tell(shared().await?, "leader", async |story| {
        story.apply_example("leader")?;
        let status = story.complete("leader", 60).await?;
        assert_eq!((status.succeeded, status.failed), (Some(1), Some(0)));
        assert_eq!(status.completed_indexes.as_deref(), Some("0"));
        assert_eq!(find(&status, "SuccessCriteriaMet").map(|met| &*met.reason), Some("SuccessPolicy"));
        // They have ended, so the job has; the kubelet may take a moment to take its hands off them.
        wait_for("the workers' pods are gone", Duration::from_secs(30), async || {
            Ok((story.attempts("leader").await?.len() == 1).then_some(()))
        })
        .await?;
        assert_eq!(story.logs("leader")?, ["all epochs done"]);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn shards_runs_every_shard_though_one_is_broken() -> Result<()> {
    tell(shared().await?, "shards", async |story| {
        story.apply_example("shards")?;
        let (status, failed) = story.failed("shards", 90).await?;
        assert_eq!((status.succeeded, status.failed, &*failed.reason), (Some(4), Some(2), "FailedIndexes"));
        assert_eq!(status.completed_indexes.as_deref(), Some("0-2,4"));
        assert_eq!(status.failed_indexes.as_deref(), Some("3"));
        let attempts = story.attempts("shards").await?;
        assert_eq!(attempts.keys().copied().collect::<Vec<_>>(), [(0, 1), (1, 1), (2, 1), (3, 1), (3, 2), (4, 1)]);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn backup_is_run_by_the_operator() -> Result<()> {
    tell(shared().await?, "backup", async |story| {
        story.apply_example("backup")?;
        story.kubectl.run(&["create", "job", "backup-now", "--from=cronjob/backup"])?;
        let logs = story
            .until("it has saved", 60, async || {
                let said = story.kubectl.say(&["logs", "job/backup-now"], "")?;
                Ok(said.text.ends_with("saved\n").then_some(said.text))
            })
            .await?;
        assert_eq!(logs.lines().count(), 2, "{logs}");
        story.kubectl.run(&["wait", "job/backup-now", "--for=condition=complete", "--timeout=30s"])?;
        assert!(story.attempts("backup-now").await?.contains_key(&(0, 1)), "it is an attempt of ours");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn suspended_starts_nothing_until_it_is_resumed() -> Result<()> {
    tell(shared().await?, "suspended", async |story| {
        story.apply_example("suspended")?;
        story
            .until("the operator has seen that it is suspended", 30, async || {
                Ok((story.status("suspended").await?.phase == Some(Phase::Suspended)).then_some(()))
            })
            .await?;
        // A job that came later and is over shows that the operator has passed by, and left this one alone.
        story.apply_example("hello")?;
        story.complete("hello", 30).await?;
        assert!(story.attempts("suspended").await?.is_empty());
        assert_eq!(story.status("suspended").await?.start_time, None);

        story.kubectl.run(&[
            "patch",
            "batchjob",
            "suspended",
            "--type=merge",
            "-p",
            r#"{"spec":{"suspend":false}}"#,
        ])?;
        let status = story.complete("suspended", 30).await?;
        assert_eq!(find(&status, "Suspended").map(|suspended| &*suspended.status), Some("False"));
        assert_eq!(story.logs("suspended")?, ["Somebody let me run."]);
        Ok(())
    })
    .await
}

/// Not to wait for the night: what the first comment of the file says.
#[tokio::test]
async fn nightly_report_runs_now_when_it_is_told_to() -> Result<()> {
    tell(shared().await?, "nightly-report", async |story| {
        story.apply_example("nightly-report")?;
        story.kubectl.run(&["annotate", "bcj", "nightly-report", "batchjob.dev/trigger=now"])?;
        let run = story.run_of("nightly-report").await?;
        story.complete(&run, 60).await?;
        let said = story.kubectl.run(&["logs", "-l", "app=nightly-report"])?;
        assert!(said.starts_with("report of 20"), "{said}");
        let next =
            story.kubectl.run(&["get", "bcj", "nightly-report", "-o", "jsonpath={.status.nextScheduleTimes[0]}"])?;
        assert!(next.contains("T02:30:00+0"), "{next}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn every_five_minutes_waits_for_the_run_before() -> Result<()> {
    tell(shared().await?, "five-minutes", async |story| {
        story.apply_example("every-five-minutes")?;
        story.kubectl.run(&["annotate", "bcj", "every-five-minutes", "batchjob.dev/trigger=now"])?;
        let run = story.run_of("every-five-minutes").await?;
        story.complete(&run, 60).await?;
        Ok(())
    })
    .await
}

/// As if it had been there for hours, and nobody else.
#[tokio::test]
async fn hourly_export_makes_up_for_what_was_missed() -> Result<()> {
    tell(shared().await?, "hourly-export", async |story| {
        story.apply_example("hourly-export")?;
        wait_for("the operator has seen it", Duration::from_secs(30), async || {
            let seen = story.kubectl.run(&["get", "bcj", "hourly-export", "-o", "jsonpath={.status.decidedUntil}"])?;
            Ok((!seen.is_empty()).then_some(()))
        })
        .await?;
        let long_ago = ago(Duration::from_secs(4 * 3600));
        let patch = format!(r#"{{"status":{{"decidedUntil":"{long_ago}"}}}}"#);
        story.kubectl.run(&["patch", "bcj", "hourly-export", "--subresource=status", "--type=merge", "-p", &patch])?;
        let lines = wait_for("four hours are exported", Duration::from_secs(120), async || {
            let said = story.kubectl.say(&["logs", "-l", "app=hourly-export", "--tail=-1"], "")?;
            let lines: Vec<String> =
                said.text.lines().filter(|line| line.starts_with("exporting ")).map(str::to_owned).collect();
            Ok((said.succeeded && lines.len() >= 4).then_some(lines))
        })
        .await?;
        assert!(lines.iter().all(|line| line.ends_with(":00:00Z")), "{lines:?}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_spread_fleet_has_slots_of_its_own_and_one_place() -> Result<()> {
    tell(shared().await?, "spread-fleet", async |story| {
        story.apply_example("spread-fleet")?;
        let names = ["cleanup-orders", "cleanup-invoices"];
        for name in names {
            story.kubectl.run(&["annotate", "bcj", name, "batchjob.dev/trigger=now"])?;
        }
        let mut next = Vec::new();
        for name in names {
            let run = story.run_of(name).await?;
            story.complete(&run, 60).await?;
            next.push(story.kubectl.run(&["get", "bcj", name, "-o", "jsonpath={.status.nextScheduleTimes[0]}"])?);
        }
        assert_ne!(next[0], next[1]);
        Ok(())
    })
    .await
}
