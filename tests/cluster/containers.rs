//! What only a kubelet tells: how pods really start, fail, restart, are deleted and end.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};
use batchjob_crd::{Phase, condition};
use serde_json::json;

use crate::installed::shared;
use crate::story::{Story, container, created_at, find, script, tell};

#[tokio::test]
async fn a_sidecar_neither_holds_the_job_nor_fails_it() -> Result<()> {
    tell(shared().await?, "sidecar", async |story| {
        let with_sidecar = |sidecar: &str| {
            let mut spec = script("Never", "sleep 3");
            spec["backoffLimit"] = json!(0);
            spec["template"]["spec"]["initContainers"] = json!([{
                "name": "sidecar", "image": "busybox:1", "restartPolicy": "Always", "command": ["sh", "-c", sidecar],
            }]);
            spec
        };
        // One would run for ever, and ends with an error when it is told to end; the other ends with errors all the time.
        story.create("stays", with_sidecar("trap 'exit 5' TERM; sleep 1000 & wait")).await?;
        story.create("crashes", with_sidecar("exit 5")).await?;
        for job in ["stays", "crashes"] {
            let status = story.complete(job, 60).await?;
            assert_eq!((status.succeeded, status.failed), (Some(1), Some(0)), "{job}");
            assert_eq!(story.attempts(job).await?.len(), 1, "{job}");
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn the_condition_tells_what_failed() -> Result<()> {
    tell(shared().await?, "told", async |story| {
        let fatal = |command: &str| {
            let mut spec = script("Never", command);
            spec["backoffLimit"] = json!(0);
            spec
        };
        let mut init = fatal("true");
        init["template"]["spec"]["initContainers"] =
            json!([{"name": "prepare", "image": "busybox:1", "command": ["sh", "-c", "exit 3"]}]);
        let mut memory = fatal("tail /dev/zero");
        memory["template"]["spec"]["containers"][0]["resources"] = json!({"limits": {"memory": "16Mi"}});
        let mut absent = fatal("true");
        absent["template"]["spec"]["containers"][0]["command"] = json!(["/absent"]);
        story.create("init", init).await?;
        story.create("memory", memory).await?;
        story.create("absent", absent).await?;
        for (job, expected) in [
            ("init", "container prepare exited with code 3"),
            ("memory", "container main exited with code 137 (OOMKilled)"),
            ("absent", "container main exited with code 128 (StartError)"),
        ] {
            let (status, failed) = story.failed(job, 60).await?;
            assert_eq!((status.failed, &*failed.reason), (Some(1), "BackoffLimitExceeded"), "{job}");
            assert!(failed.message.ends_with(&format!("index 0 attempt 1 failed: {expected}")), "{}", failed.message);
            // Events come a moment after the status.
            let is_an_event = async || {
                let described = story.kubectl.run(&["describe", "batchjob", job])?;
                let events = described.split_once("\nEvents:").context("it has events")?.1;
                Ok(events.lines().any(|it| it.contains("PodFailed") && it.ends_with(expected)).then_some(()))
            };
            story.until(&format!("an event of {job} says that {expected}"), 10, is_an_event).await?;
        }
        Ok(())
    })
    .await
}

/// The kubelet ends a pod for a reason of its own (its deadline here; an eviction is told in the same way): the exit
/// code 137 that its containers then have is not why it failed.
#[tokio::test]
async fn the_condition_tells_why_the_kubelet_ended_a_pod() -> Result<()> {
    tell(shared().await?, "ended-by-kubelet", async |story| {
        let mut spec = script("Never", "sleep 1000");
        spec["backoffLimit"] = json!(0);
        spec["template"]["spec"]["activeDeadlineSeconds"] = json!(2);
        story.create("late", spec).await?;
        let (status, failed) = story.failed("late", 60).await?;
        assert_eq!(status.failed, Some(1));
        let pod = &story.attempts("late").await?[&(0, 1)];
        let reason = pod.status.as_ref().and_then(|status| status.reason.clone());
        assert_eq!(reason.as_deref(), Some("DeadlineExceeded"), "what the kubelet says");
        assert!(failed.message.contains("DeadlineExceeded"), "{}", failed.message);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn restarts_within_a_pod_are_counted_exactly() -> Result<()> {
    tell(shared().await?, "restarts", async |story| {
        let with_limit_1 = |command: &str| {
            let mut spec = script("OnFailure", command);
            spec["backoffLimit"] = json!(1);
            spec["template"]["spec"]["containers"][0]["volumeMounts"] = json!([{"name": "past", "mountPath": "/past"}]);
            spec["template"]["spec"]["volumes"] = json!([{"name": "past", "emptyDir": {}}]);
            spec
        };
        story.create("once", with_limit_1("[ -e /past/run ] || { touch /past/run; exit 4; }")).await?;
        story.create("always", with_limit_1("exit 4")).await?;

        let mut n_restarts = 0;
        let is_over = async || {
            for pod in story.attempts("always").await?.values() {
                n_restarts = n_restarts.max(container(pod).map_or(0, |container| container.restart_count));
            }
            Ok(find(&story.status("always").await?, condition::FINISHED).is_some().then_some(()))
        };
        story.until("always is over", 60, is_over).await?;
        let (_, failed) = story.failed("always", 1).await?;
        assert_eq!((n_restarts, &*failed.reason), (1, "BackoffLimitExceeded"));
        for expected in ["backoffLimit 1, failures 2", "index 0 attempt 1 failed: container main exited with code 4"] {
            assert!(failed.message.contains(expected), "{}", failed.message);
        }

        story.complete("once", 60).await?;
        let attempts = story.attempts("once").await?;
        let restarts = attempts.values().map(|pod| container(pod).map(|container| container.restart_count));
        assert_eq!(restarts.collect::<Vec<_>>(), [Some(1)], "one pod, restarted once");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn an_image_that_cannot_be_pulled_is_told_once() -> Result<()> {
    tell(shared().await?, "pull", async |story| {
        let mut spec = script("Never", "true");
        spec["template"]["spec"]["containers"][0]["image"] = json!("example.com/absent:1");
        story.create("pull", spec).await?;
        let watch = Watch::start(story, "pull")?;

        // The kubelet changes its mind between the try and the wait: twice is often enough to see a status that does too.
        let mut words: Vec<String> = Vec::new();
        let alternates = async || {
            for pod in story.attempts("pull").await?.values() {
                let waiting = container(pod).and_then(|container| container.state.as_ref()?.waiting.as_ref());
                let word = waiting.and_then(|waiting| waiting.reason.clone()).unwrap_or_default();
                if word.contains("ImagePull") && words.last() != Some(&word) {
                    words.push(word);
                }
            }
            Ok((words.len() >= 4).then_some(()))
        };
        story.until("the kubelet alternates", 90, alternates).await?;

        let status = story.status("pull").await?;
        assert_eq!((status.phase, status.reason.as_deref()), (Some(Phase::Pending), Some("ImagePullBackOff")));
        assert_eq!((status.active, status.failed), (Some(1), Some(0)));
        let message = &find(&status, condition::RECONCILING).context("it is not over")?.message;
        let begins = "0/1 done, 1 active; index 0 attempt 1: container main: ";
        assert!(message.starts_with(begins) && message.contains("example.com/absent:1"), "{message}");
        let seen = watch.seen()?;
        let n_told = seen.iter().filter(|line| line.contains("ImagePullBackOff")).count();
        assert_eq!(n_told, 1, "{words:?}: {seen:#?}");
        Ok(())
    })
    .await
}

/// `kubectl get batchjob … --watch`: every write that people and programs see.
struct Watch {
    child: Child,
    output: PathBuf,
}

impl Watch {
    fn start(story: &Story<'_>, job: &str) -> Result<Watch> {
        let kubernetes = &story.installed.kubernetes;
        let output = kubernetes.folder().join(format!("watch-{job}"));
        let columns = "VERSION:.metadata.resourceVersion,PHASE:.status.phase,REASON:.status.reason,\
                       MESSAGES:.status.conditions[*].message";
        let child = Command::new(&kubernetes.binaries().kubectl)
            .arg("--kubeconfig")
            .arg(kubernetes.kubeconfig())
            .args(["--namespace", story.jobs.namespace().context("the jobs have a namespace")?])
            .args(["get", "batchjob", job, "--watch", "--output", &format!("custom-columns={columns}")])
            .stdin(Stdio::null())
            .stdout(File::create(&output)?)
            .spawn()
            .context("start kubectl")?;
        Ok(Watch { child, output })
    }

    fn seen(&self) -> Result<Vec<String>> {
        Ok(fs::read_to_string(&self.output)?.lines().map(str::to_owned).collect())
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test]
async fn a_deleted_pod_is_a_failure_and_is_replaced_after_the_delay() -> Result<()> {
    tell(shared().await?, "deleted", async |story| {
        // Process 1 hears no SIGTERM that it does not ask for: it is killed when its two seconds are over.
        story.create("deleted", script("Never", r#"[ "$ATTEMPT" = 2 ] || exec sleep 1000"#)).await?;
        let first = story.running("deleted", 1).await?;
        story.kubectl.run(&["delete", "pod", &first, "--wait=false"])?;
        let deletion = story.pods.get(&first).await?.metadata;
        let deadline = deletion.deletion_timestamp.context("it is being deleted")?.0.as_second();
        let asked = deadline - deletion.deletion_grace_period_seconds.context("it has a grace period")?;

        let status = story.complete("deleted", 60).await?;
        assert_eq!((status.succeeded, status.failed), (Some(1), Some(1)));
        let attempts = story.attempts("deleted").await?;
        assert_eq!(attempts.keys().copied().collect::<Vec<_>>(), [(0, 2)], "the first is gone");
        let delay = created_at(&attempts[&(0, 2)])? - asked;
        assert!((10..16).contains(&delay), "{delay} s");
        let described = story.kubectl.run(&["describe", "batchjob", "deleted"])?;
        assert!(described.contains("index 0 attempt 1 failed: the pod was deleted on node node-1"), "{described}");
        Ok(())
    })
    .await
}

/// As in a drain of the node: the program hears SIGTERM, saves what it has and exits with 0.
#[tokio::test]
async fn a_deleted_pod_that_leaves_in_peace_has_not_done_its_work() -> Result<()> {
    tell(shared().await?, "drained", async |story| {
        story.create("drained", script("Never", LEAVES_IN_PEACE)).await?;
        let first = story.running("drained", 1).await?;
        story.kubectl.run(&["delete", "pod", &first])?;
        let status = story.complete("drained", 60).await?;
        assert_eq!((status.succeeded, status.failed), (Some(1), Some(1)));
        assert_eq!(
            story.attempts("drained").await?.into_keys().collect::<Vec<_>>(),
            [(0, 2)],
            "the second did the work"
        );
        Ok(())
    })
    .await
}

/// Attempt 1 works for ever, but exits with 0 as soon as it is told to end; attempt 2 does the work.
const LEAVES_IN_PEACE: &str = r#"[ "$ATTEMPT" = 2 ] || { trap "exit 0" TERM; sleep 1000 & wait; }"#;

#[tokio::test]
async fn a_suspended_job_stops_its_pods_and_goes_on_when_it_is_resumed() -> Result<()> {
    tell(shared().await?, "resumed", async |story| {
        let mut spec = script("Never", LEAVES_IN_PEACE);
        // Without SIGTERM, or without a look at it, it would take this long.
        spec["template"]["spec"]["terminationGracePeriodSeconds"] = json!(300);
        spec["backoffLimit"] = json!(0);
        story.create("resumed", spec).await?;
        story.running("resumed", 1).await?;
        let suspend = |suspend: bool| {
            let patch = json!({"spec": {"suspend": suspend}}).to_string();
            story.kubectl.run(&["patch", "batchjob", "resumed", "--type=merge", "-p", &patch])
        };
        suspend(true)?;
        story
            .until("its pod is gone", 30, async || Ok(story.attempts("resumed").await?.is_empty().then_some(())))
            .await?;
        let status = story
            .until("it is counted", 30, async || {
                let status = story.status("resumed").await?;
                Ok((status.terminating == Some(0)).then_some(status))
            })
            .await?;
        assert_eq!(status.phase, Some(Phase::Suspended), "{status:#?}");
        assert_eq!((status.active, status.succeeded, status.failed), (Some(0), Some(0), Some(0)));

        suspend(false)?;
        let status = story.complete("resumed", 30).await?;
        assert_eq!((status.succeeded, status.failed), (Some(1), Some(0)));
        assert_eq!(story.attempts("resumed").await?.into_keys().collect::<Vec<_>>(), [(0, 2)]);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_container_knows_its_index_and_its_name() -> Result<()> {
    tell(shared().await?, "index", async |story| {
        let mut spec = script("Never", r#"echo "$JOB_COMPLETION_INDEX $(hostname)""#);
        spec["completions"] = json!(3);
        spec["parallelism"] = json!(3);
        spec["completionMode"] = json!("Indexed");
        story.create("index", spec).await?;
        story.complete("index", 60).await?;
        let mut lines = story.logs("index")?;
        lines.sort();
        assert_eq!(lines, ["0 index-0", "1 index-1", "2 index-2"]);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_deadline_ends_the_job_and_its_pods() -> Result<()> {
    tell(shared().await?, "deadline", async |story| {
        let mut spec = script("Never", "sleep 1000");
        spec["activeDeadlineSeconds"] = json!(5);
        story.create("deadline", spec).await?;
        story.running("deadline", 1).await?;
        let (status, failed) = story.failed("deadline", 60).await?;
        assert_eq!((&*failed.reason, status.reason.as_deref()), ("DeadlineExceeded", Some("DeadlineExceeded")));
        let started = status.start_time.as_ref().context("it has started")?.0.as_second();
        let decided = find(&status, condition::FAILURE_TARGET).context("it was decided")?.last_transition_time.0;
        let took = decided.as_second() - started;
        assert!((5..8).contains(&took), "{took} s");
        assert_eq!((status.active, status.terminating), (Some(0), Some(0)));
        let none_is_left = async || Ok(story.attempts("deadline").await?.is_empty().then_some(()));
        story.until("its pod is gone", 30, none_is_left).await
    })
    .await
}
