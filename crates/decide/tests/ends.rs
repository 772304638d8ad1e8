//! When a job is over, and when a pod: the tables that upstream has for both, and what is counted at the end. Every table of
//! jobs is asked of both doors.

mod made;

use std::sync::Arc;

use batchjob_crd::{BatchJobStatus, condition};
use batchjob_decide::job::attempt::Attempt;
use batchjob_decide::job::name::PodNames;
use batchjob_decide::job::status;
use batchjob_decide::observed::{Container, ContainerState, Deletion, Door, Job, Observed, Pod, PodPhase, Role};
use batchjob_decide::plan::AttemptId;
use batchjob_decide::{Action, Plan, decide};
use made::{DOORS, at, job};
use serde_json::{Value, json};

/// Types, and whether they are true.
type Conditions<'a> = &'a [(&'a str, &'a str)];

fn has(conditions: Conditions<'_>) -> BatchJobStatus {
    let conditions = conditions.iter().map(|(type_, status)| {
        json!({ "type": type_, "status": status, "reason": "R", "message": "", "lastTransitionTime": at(7) })
    });
    let conditions: Vec<Value> = conditions.collect();
    serde_json::from_value(json!({ "startTime": at(1), "conditions": conditions })).expect("a status")
}

fn pass(job: Job, pods: impl IntoIterator<Item = Pod>) -> Plan {
    let pods = pods.into_iter().map(Arc::new).collect();
    decide(&Observed { job: Arc::new(job), pods, orphans: Vec::new(), obstacle: None, now: at(100) })
}

/// `TestFinishedCondition` and `TestIsJobSucceeded` in `pkg/controller/job/util/utils_test.go`.
#[test]
fn only_a_final_condition_that_is_true_is_the_end() {
    const COMPLETE: &str = condition::COMPLETE;
    const FAILED: &str = condition::FAILED;
    const SUSPENDED: &str = condition::SUSPENDED;
    let cases: [(&str, Conditions<'_>, bool); 11] = [
        ("Job doesn't have any conditions", &[], false),
        ("Job is completed and condition is true", &[(COMPLETE, "True")], true),
        ("Job is completed and condition is false", &[(COMPLETE, "False")], false),
        ("Job is completed and condition is unknown", &[(COMPLETE, "Unknown")], false),
        (
            "Job has multiple conditions, one of them being complete and condition true",
            &[(SUSPENDED, "False"), (COMPLETE, "True"), (FAILED, "False")],
            true,
        ),
        ("Job is failed and condition is true", &[(FAILED, "True")], true),
        ("Job is failed and condition is false", &[(FAILED, "False")], false),
        ("Job is failed and condition is unknown", &[(FAILED, "Unknown")], false),
        (
            "Job has multiple conditions, none of them has condition true",
            &[(SUSPENDED, "False"), (COMPLETE, "False"), (FAILED, "False")],
            false,
        ),
        ("job has Complete=True condition", &[(SUSPENDED, "False"), (COMPLETE, "True")], true),
        ("job has Complete=False condition", &[(FAILED, "True"), (COMPLETE, "False")], true),
    ];
    for (name, conditions, is_over) in cases {
        assert_eq!(status::finished_at(&has(conditions)), is_over.then_some(at(7)), "{name}");
        for door in DOORS {
            let plan = pass(job(door, "etl", &json!({}), has(conditions)), []);
            let starts = plan.actions.iter().any(|action| matches!(action, Action::CreatePod(_)));
            assert_eq!(starts, !is_over, "{name}, {door:?}");
            // How it ended stands as it is.
            for action in plan.actions.iter().filter(|_| is_over) {
                let Action::WriteStatus(after) = action else { panic!("{name}, {door:?}: {action:?}") };
                assert_eq!(after.conditions, has(conditions).conditions, "{name}, {door:?}");
            }
        }
    }
}

/// `TestSingleJobFailedCondition` in `job_controller_test.go`: one that somebody wrote as False becomes true.
#[test]
fn there_is_one_condition_of_a_type() {
    for door in DOORS {
        let mut job = job(door, "etl", &json!({ "activeDeadlineSeconds": 10 }), has(&[(condition::FAILED, "False")]));
        for _ in 0..2 {
            for action in pass(job.clone(), []).actions {
                if let Action::WriteStatus(status) = action {
                    job.status = *status;
                }
            }
        }
        let failed: Vec<_> = job.status.conditions.iter().filter(|found| found.type_ == condition::FAILED).collect();
        assert!(failed.len() == 1 && failed[0].status == "True", "{door:?}: {failed:?}");
        assert_eq!(failed[0].reason, "DeadlineExceeded");
    }
}

/// "Pod with multiple containers; two containers in terminated state and one in running state; fallback to deletionTimestamp"
/// of `TestGetFinishedTime` in `backoff_utils_test.go`.
#[test]
fn while_a_container_runs_the_end_is_not_that_of_the_others() {
    let container = |state| Container { name: "c".into(), role: Role::Main, restarts: 0, state, last_exit_code: None };
    let ended = |second| {
        let finished_at = Some(at(second));
        container(ContainerState::Terminated { exit_code: 0, reason: "Completed".into(), finished_at })
    };
    let mut pod = Pod {
        created: Some(at(1)),
        deletion: Some(Deletion { asked: at(50), grace_seconds: 30 }),
        containers: [ended(20), ended(30), container(ContainerState::Running)].into(),
        ..Pod::default()
    };
    let ended_at = |pod: &Pod| Attempt { id: AttemptId { index: 0, attempt: 1 }, pod }.ended_at();
    assert_eq!(ended_at(&pod), Some(at(50)));
    pod.containers[2] = ended(40);
    assert_eq!(ended_at(&pod), Some(at(40)));
}

/// "too many finished" and "too many indexed finished" of `TestTrackJobStatusAndRemoveFinalizers`: upstream counts 500 at a
/// time, because it lists them in the status until their finalizers are gone.
#[test]
fn one_status_counts_as_many_as_have_ended() {
    const N: u32 = 1_200;
    for door in DOORS {
        for mode in ["Indexed", "NonIndexed"] {
            let spec = json!({ "completionMode": mode, "completions": N + 1, "parallelism": N, "backoffLimit": N });
            let job = job(
                door,
                "etl",
                &spec,
                BatchJobStatus { start_time: has(&[]).start_time, ..BatchJobStatus::default() },
            );
            let names = PodNames::of(&job);
            let pods: Vec<Pod> = (0..N)
                .map(|index| {
                    let name: Box<str> = names.write(AttemptId { index, attempt: 1 }).into();
                    let phase = if index % 2 == 0 { PodPhase::Succeeded } else { PodPhase::Failed };
                    let node = Some("node-1".into());
                    Pod { uid: name.clone(), name, phase, node, is_held: true, is_selected: true, ..Pod::default() }
                })
                .collect();
            let plan = pass(job, pods);
            let written: Vec<&BatchJobStatus> = plan
                .actions
                .iter()
                .filter_map(|action| if let Action::WriteStatus(status) = action { Some(&**status) } else { None })
                .collect();
            let counts: Vec<_> = written.iter().map(|status| (status.succeeded, status.failed)).collect();
            assert_eq!(counts, [(Some(N as i32 / 2), Some(N as i32 / 2))], "{door:?} {mode}");
            let first = plan.actions.iter().position(|action| matches!(action, Action::ReleasePod(_)));
            let status = plan.actions.iter().position(|action| matches!(action, Action::WriteStatus(_)));
            assert!(first > status, "none is let go before it is counted");
        }
    }
}

/// A number of an attempt that nobody comes to can be written into a status.
#[test]
fn an_index_that_can_have_no_further_attempt_fails_its_job() {
    let last = AttemptId::LAST;
    let ledgers = [
        (format!("1:{last}/0"), "3", None),
        (format!("1:{}/0", last + 1), "3", Some(1)),
        (format!("1:{}/0", last + 1), "1", None),
        (format!("0-2:{}/0", last + 1), "0", Some(1)),
        (format!("1-:{}/0", last + 1), "3", Some(1)),
        (format!("4-:{}/0", last + 1), "3", None),
        (format!("1:{}/0", last + 2), "3", None),
    ];
    for (open_indexes, completed, used_up) in ledgers {
        let spec = json!({ "completionMode": "Indexed", "completions": 4, "parallelism": 4 });
        let status = json!({ "openIndexes": open_indexes, "completedIndexes": completed, "startTime": at(1) });
        let status = serde_json::from_value(status).expect("a status");
        let plan = pass(job(Door::BatchJob, "etl", &spec, status), []);
        let starts = plan.actions.iter().any(|action| matches!(action, Action::CreatePod(_)));
        assert_eq!(starts, used_up.is_none(), "{open_indexes}: {plan:?}");
        if let Some(index) = used_up {
            let written = format!("{plan:?}");
            let message = format!("Index {index} can have no attempt after attempt {last}");
            assert!(written.contains(&message) && written.contains("BackoffLimitExceeded"), "{written}");
        }
    }
}
