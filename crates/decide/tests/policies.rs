//! The policies as upstream's unit tests have them: its cases with its names, each as a job, its pods and how the job stands
//! once nothing more is wanted.
//!
//! Upstream looks at one sync of its controller, this at as many passes as it takes: a pod that is ended together with the
//! job is counted when it is seen to go. What upstream writes on a pod (how often its index has failed) is in the ledger
//! here, so a second attempt comes with `"openIndexes": "0:2/1"`. Every case is asked of both doors.

mod made;
mod stored;

use std::sync::Arc;

use batchjob_crd::{BatchJobStatus, condition};
use batchjob_decide::job::name::PodNames;
use batchjob_decide::job::pod;
use batchjob_decide::observed::{
    Condition, Container, ContainerState, Deletion, Door, Job, Observed, Pod, PodCondition, PodPhase, Role,
};
use batchjob_decide::plan::{AttemptId, PodRef, Start};
use batchjob_decide::{Action, decide};
use made::{DOORS, at, job};
use serde_json::{Value, json};
use stored::stored;

/// What has no other time happened so long ago that no delay is left.
const LONG_AGO: i64 = 1;
const NOW: i64 = 100_000;
/// More passes than any case can need.
const MAX_PASSES: usize = 5;

/// A pod of a case. They are named by their place: "mypod-0".
#[derive(Clone)]
struct Actor {
    id: AttemptId,
    pod: Pod,
}

impl Actor {
    fn of(index: u32, attempt: u32, phase: PodPhase) -> Actor {
        let pod = Pod {
            created: Some(at(LONG_AGO)),
            is_held: true,
            is_selected: true,
            node: Some("node-1".into()),
            phase,
            ..Pod::default()
        };
        Actor { id: AttemptId { index, attempt }, pod }
    }

    fn with(mut self, container: Container) -> Actor {
        self.pod.containers = [Vec::from(self.pod.containers), vec![container]].concat().into();
        self
    }

    fn has(mut self, type_: &str) -> Actor {
        let condition = PodCondition { type_: type_.into(), status: "True".into() };
        self.pod.conditions = [Vec::from(self.pod.conditions), vec![condition]].concat().into();
        self
    }

    fn deleted(mut self) -> Actor {
        self.pod.deletion = Some(Deletion { asked: at(NOW), grace_seconds: 30 });
        self
    }

    fn let_go(mut self) -> Actor {
        self.pod.is_held = false;
        self
    }
}

fn running(index: u32, attempt: u32) -> Actor {
    Actor::of(index, attempt, PodPhase::Running)
}

fn succeeded(index: u32, attempt: u32) -> Actor {
    Actor::of(index, attempt, PodPhase::Succeeded)
}

fn failed(index: u32, attempt: u32) -> Actor {
    Actor::of(index, attempt, PodPhase::Failed)
}

fn exited(index: u32, attempt: u32, exit_code: i32) -> Actor {
    failed(index, attempt).with(main("main-container", exit_code))
}

fn main(name: &str, exit_code: i32) -> Container {
    ended(name, Role::Main, exit_code, LONG_AGO)
}

fn ended(name: &str, role: Role, exit_code: i32, second: i64) -> Container {
    let state = ContainerState::Terminated { exit_code, reason: "Error".into(), finished_at: Some(at(second)) };
    Container { name: name.into(), role, restarts: 0, state, last_exit_code: None }
}

/// A condition that an earlier pass has written.
fn decided(condition: &str, reason: &str, message: &str) -> Value {
    json!([{ "type": condition, "status": "True", "reason": reason, "message": message,
        "lastTransitionTime": at(LONG_AGO), "observedGeneration": 1 }])
}

/// The job and its pods, on which plans are carried out.
struct Case {
    job: Job,
    pods: Vec<Pod>,
}

impl Case {
    fn new(door: Door, spec: &Value, status: &Value, actors: &[Actor]) -> Case {
        let status = serde_json::from_value::<BatchJobStatus>(status.clone()).expect("a status");
        let job = job(door, "foobar", spec, status);
        let names = PodNames::of(&job);
        let named = |actor: &Actor| {
            let name: Box<str> = names.write(actor.id).into();
            Pod { uid: name.clone(), name, ..actor.pod.clone() }
        };
        Case { pods: actors.iter().map(named).collect(), job }
    }

    /// Pass after pass until nothing more is wanted. Answers with what has started.
    fn settle(&mut self) -> Vec<Start> {
        let mut started = Vec::new();
        for _ in 0..MAX_PASSES {
            let pods = self.pods.iter().cloned().map(Arc::new).collect();
            let job = Arc::new(self.job.clone());
            let plan = decide(&Observed { job, pods, orphans: Vec::new(), obstacle: None, now: at(NOW) });
            if plan.is_empty() {
                return started;
            }
            for action in plan.actions {
                match action {
                    Action::CreatePod(start) => {
                        started.push(start);
                        let name: Box<str> = PodNames::of(&self.job).write(start.id).into();
                        let phase = PodPhase::Pending;
                        let pod = Actor::of(start.id.index, start.id.attempt, phase).pod;
                        self.pods.push(Pod { uid: name.clone(), name, node: None, ..pod });
                    }
                    Action::DeletePod(pod) => {
                        self.find(&pod).deletion = Some(Deletion { asked: at(NOW), grace_seconds: 30 });
                    }
                    Action::ReleasePod(pod) => self.find(&pod).is_held = false,
                    Action::WriteStatus(status) => {
                        self.job.status = stored(&self.job, *status).expect("it comes back as it was written");
                    }
                    other => panic!("{other:?} is for other tests"),
                }
            }
        }
        panic!("no rest after {MAX_PASSES} passes: {:#?}", self.job.status);
    }

    fn find(&mut self, pod: &PodRef) -> &mut Pod {
        self.pods.iter_mut().find(|found| found.uid == pod.uid).expect("it is there")
    }

    /// "active 1, failed 1; FailureTarget, Failed because PodFailurePolicy: Container …", with what is 0 or empty left out,
    /// and without what ours say beyond upstream's words.
    fn stands(&self) -> String {
        let status = &self.job.status;
        let counts = [
            ("active", status.active),
            ("failed", status.failed),
            ("succeeded", status.succeeded),
            ("terminating", status.terminating),
        ];
        let counts =
            counts.map(|(name, count)| count.filter(|&count| count > 0).map(|count| format!("{name} {count}")));
        let indexes = [("completed", &status.completed_indexes), ("failed", &status.failed_indexes)];
        let is_indexed = self.job.spec.completion_mode.is_some();
        let indexes = indexes.map(|(name, set)| {
            set.as_ref().filter(|set| is_indexed && !set.is_empty()).map(|set| format!("{name} indexes {set}"))
        });
        let words: Vec<String> = counts.into_iter().chain(indexes).flatten().collect();
        let of_job =
            [condition::SUCCESS_CRITERIA_MET, condition::FAILURE_TARGET, condition::COMPLETE, condition::FAILED];
        let conditions: Vec<_> = status
            .conditions
            .iter()
            .filter(|found| of_job.contains(&&*found.type_) && found.status == "True")
            .collect();
        let types: Vec<&str> = conditions.iter().map(|found| &*found.type_).collect();
        let Some(last) = conditions.last() else { return words.join(", ") };
        let alike = conditions.iter().all(|found| (&found.reason, &found.message) == (&last.reason, &last.message));
        assert!(alike, "interim and final condition differ: {conditions:#?}");
        let mut message = last.message.split(": ").next().unwrap_or_default().to_owned();
        for (n, pod) in self.pods.iter().enumerate() {
            message = message.replace(&*pod.name, &format!("mypod-{n}"));
        }
        format!("{}; {} because {}: {message}", words.join(", "), types.join(", "), last.reason)
    }
}

/// How the job stands in the end, whichever door it came through.
fn stands(spec: &Value, status: &Value, actors: &[Actor]) -> String {
    let [ours, theirs] = DOORS.map(|door| {
        let mut case = Case::new(door, spec, status, actors);
        case.settle();
        case.stands()
    });
    assert_eq!(ours, theirs, "BatchJob and managed Job");
    ours
}

fn with(mut spec: Value, fields: Value) -> Value {
    if let (Value::Object(spec), Value::Object(fields)) = (&mut spec, fields) {
        spec.extend(fields);
    }
    spec
}

fn on_exit_codes(action: &str, operator: &str, values: &[i32]) -> Value {
    json!({ "action": action, "onExitCodes": { "operator": operator, "values": values } })
}

fn on_condition(action: &str, type_: &str) -> Value {
    json!({ "action": action, "onPodConditions": [{ "type": type_, "status": "True" }] })
}

fn rules(rules: impl Into<Vec<Value>>) -> Value {
    json!({ "podFailurePolicy": { "rules": rules.into() } })
}

/// `TestSyncJobWithJobPodFailurePolicy` in `job_controller_test.go`.
#[test]
fn pod_failure_policy_decides_as_upstream_has_it() {
    let ignore_and_fail =
        || rules([on_exit_codes("Ignore", "In", &[1, 2, 3]), on_exit_codes("FailJob", "In", &[5, 6, 7])]);
    let for_main = || {
        let mut policy = ignore_and_fail();
        for rule in policy["podFailurePolicy"]["rules"].as_array_mut().expect("rules") {
            rule["onExitCodes"]["containerName"] = "main-container".into();
        }
        policy
    };
    let no_retry = |policy| with(policy, json!({ "backoffLimit": 0 }));
    let two = |policy| with(policy, json!({ "completions": 2, "parallelism": 2 }));
    let indexed = |policy| with(policy, json!({ "completionMode": "Indexed", "completions": 1 }));
    let none = || json!({});
    let code_5 = |pod| {
        format!(
            "Container main-container for pod default/{pod} failed with exit code 5 matching FailJob rule at index 1"
        )
    };
    let target = |pod| {
        let conditions = decided(condition::FAILURE_TARGET, "PodFailurePolicy", &code_5(pod));
        json!({ "conditions": conditions })
    };
    let fails = "failed 1; FailureTarget, Failed because PodFailurePolicy: ";
    let fails_for = |cause: &str| format!("{fails}{cause}");
    let fails_with_both =
        format!("failed 2, terminating 1; FailureTarget because PodFailurePolicy: {}", code_5("mypod-1"));
    let past_the_limit =
        "failed 1; FailureTarget, Failed because BackoffLimitExceeded: Job has reached the specified backoff limit";
    for (name, spec, status, pods, expected) in [
        (
            "default handling for pod failure if the container matching the exit codes does not match the containerName restriction",
            for_main(),
            none(),
            vec![failed(0, 1).with(main("monitoring-container", 5)).with(main("main-container", 42))],
            "active 1, failed 1".to_owned(),
        ),
        (
            "running pod should not result in job fail based on OnExitCodes",
            ignore_and_fail(),
            none(),
            vec![running(0, 1).with(main("main-container", 5))],
            "active 1".to_owned(),
        ),
        (
            "fail job based on OnExitCodes",
            ignore_and_fail(),
            none(),
            vec![exited(0, 1, 5)],
            fails_for(&code_5("mypod-0")),
        ),
        (
            "job marked already as failure target with failed pod",
            ignore_and_fail(),
            target("mypod-0"),
            vec![exited(0, 1, 5)],
            fails_for(&code_5("mypod-0")),
        ),
        (
            "job marked already as failure target with failed pod, message based on already deleted pod",
            ignore_and_fail(),
            target("already-deleted-pod"),
            vec![exited(0, 1, 5)],
            fails_for(&code_5("already-deleted-pod")),
        ),
        (
            "fail job with multiple pods",
            two(ignore_and_fail()),
            none(),
            vec![running(0, 1), exited(1, 1, 5)],
            fails_with_both.clone(),
        ),
        (
            "fail job with multiple pods; JobManagedBy enabled delays setting terminal condition",
            two(ignore_and_fail()),
            none(),
            vec![running(0, 1), exited(1, 1, 5)],
            fails_with_both,
        ),
        (
            "fail indexed job based on OnExitCodes",
            indexed(ignore_and_fail()),
            none(),
            vec![exited(0, 1, 5)],
            fails_for(&code_5("mypod-0")),
        ),
        (
            "fail job based on OnExitCodes with NotIn operator",
            rules([on_exit_codes("FailJob", "NotIn", &[5, 6, 7])]),
            none(),
            vec![exited(0, 1, 42)],
            fails_for(
                "Container main-container for pod default/mypod-0 failed with exit code 42 matching FailJob rule at index 0",
            ),
        ),
        (
            "default handling job based on OnExitCodes with NotIn operator",
            rules([on_exit_codes("FailJob", "NotIn", &[5, 6, 7])]),
            none(),
            vec![exited(0, 1, 5)],
            "active 1, failed 1".to_owned(),
        ),
        (
            "fail job based on OnExitCodes for InitContainer",
            ignore_and_fail(),
            none(),
            vec![exited(0, 1, 143).with(ended("init-container", Role::Init, 5, LONG_AGO))],
            fails_for(
                "Container init-container for pod default/mypod-0 failed with exit code 5 matching FailJob rule at index 1",
            ),
        ),
        (
            "ignore pod failure; both rules are matching, the first is executed only",
            no_retry(ignore_and_fail()),
            none(),
            vec![failed(0, 1).with(main("container1", 2)).with(main("container2", 6))],
            "active 1".to_owned(),
        ),
        (
            "ignore pod failure based on OnExitCodes",
            no_retry(ignore_and_fail()),
            none(),
            vec![exited(0, 1, 1)],
            "active 1".to_owned(),
        ),
        (
            "default job based on OnExitCodes",
            no_retry(ignore_and_fail()),
            none(),
            vec![exited(0, 1, 10)],
            past_the_limit.to_owned(),
        ),
        (
            "default job based on OnExitCodes; JobManagedBy enabled triggers adding interim condition",
            no_retry(ignore_and_fail()),
            none(),
            vec![exited(0, 1, 10)],
            past_the_limit.to_owned(),
        ),
        (
            "count pod failure based on OnExitCodes; both rules are matching, the first is executed only",
            rules([on_exit_codes("Count", "In", &[1, 2]), on_exit_codes("Ignore", "In", &[2, 3])]),
            none(),
            vec![exited(0, 1, 2)],
            "active 1, failed 1".to_owned(),
        ),
        (
            "count pod failure based on OnPodConditions; both rules are matching, the first is executed only",
            rules([on_condition("Count", "ResourceLimitExceeded"), on_condition("Ignore", "DisruptionTarget")]),
            none(),
            vec![exited(0, 1, 0).has("ResourceLimitExceeded").has("DisruptionTarget")],
            "active 1, failed 1".to_owned(),
        ),
        (
            "ignore pod failure based on OnPodConditions",
            no_retry(rules([on_condition("Ignore", "DisruptionTarget")])),
            none(),
            vec![failed(0, 1).has("DisruptionTarget")],
            "active 1".to_owned(),
        ),
        (
            "ignore pod failure based on OnPodConditions, ignored failures delays pod recreation",
            no_retry(rules([on_condition("Ignore", "DisruptionTarget")])),
            none(),
            vec![failed(0, 1).has("DisruptionTarget").deleted()],
            String::new(),
        ),
        (
            "fail job based on OnPodConditions",
            rules([on_condition("FailJob", "DisruptionTarget")]),
            none(),
            vec![failed(0, 1).has("DisruptionTarget")],
            fails_for("Pod default/mypod-0 has condition DisruptionTarget matching FailJob rule at index 0"),
        ),
        (
            "terminating Pod not considered failed when JobPodFailurePolicy is used",
            no_retry(rules([on_condition("Count", "DisruptionTarget")])),
            none(),
            vec![running(0, 1).deleted()],
            "terminating 1".to_owned(),
        ),
    ] {
        assert_eq!(stands(&spec, &status, &pods), expected, "{name}");
    }
}

/// `TestSyncJobWithJobSuccessPolicy` in `job_controller_test.go`.
#[test]
fn success_policy_decides_as_upstream_has_it() {
    let indexed = |completions: u32, fields| {
        with(json!({ "completionMode": "Indexed", "completions": completions, "parallelism": completions }), fields)
    };
    let one_of_0_and_1 =
        || json!({ "successPolicy": { "rules": [{ "succeededIndexes": "0,1", "succeededCount": 1 }] } });
    let only = |rule| json!({ "successPolicy": { "rules": [rule] } });
    let fail_job = || rules([on_condition("FailJob", "DisruptionTarget")]);
    let limit = |limit: u32| json!({ "backoffLimitPerIndex": limit });
    let none = || json!({});
    let matched = "Matched rules at index 0";
    let met = || json!({ "conditions": decided(condition::SUCCESS_CRITERIA_MET, "SuccessPolicy", matched) });
    let met_by_index_1 = || with(met(), json!({ "succeeded": 1, "completedIndexes": "1" }));
    let is_met = |n_terminating: u32| {
        format!(
            "failed 1, succeeded 1, terminating {n_terminating}, completed indexes 1; SuccessCriteriaMet because SuccessPolicy: {matched}"
        )
    };
    let is_complete = |failed_indexes: &str| {
        format!(
            "failed 1, succeeded 1, completed indexes 1{failed_indexes}; SuccessCriteriaMet, Complete because SuccessPolicy: {matched}"
        )
    };
    let disrupted = "Pod default/mypod-0 has condition DisruptionTarget matching FailJob rule at index 0";
    let some_run_on = || vec![failed(0, 1), succeeded(1, 1), running(1, 2), running(2, 1)];
    for (name, spec, status, pods, expected) in [
        (
            "job with successPolicy; job has SuccessCriteriaMet condition if job meets to successPolicy and some indexes fail",
            indexed(3, one_of_0_and_1()),
            none(),
            vec![failed(0, 1), running(0, 2), succeeded(1, 1), running(2, 1)],
            is_met(2),
        ),
        (
            "job with podFailurePolicy and successPolicy; job has SuccessCriteriaMet condition if job meets to successPolicy and doesn't meet to podFailurePolicy",
            indexed(2, with(one_of_0_and_1(), fail_job())),
            none(),
            vec![failed(0, 1), running(0, 2), succeeded(1, 1)],
            is_met(1),
        ),
        (
            "job with backoffLimitPerIndex and successPolicy; job has SuccessCriteriaMet condition if job meets to successPolicy and doesn't meet backoffLimitPerIndex",
            indexed(2, with(one_of_0_and_1(), limit(2))),
            none(),
            vec![failed(0, 1), running(0, 2), succeeded(1, 1)],
            is_met(1),
        ),
        (
            "job with successPolicy; job has both Complete and SuccessCriteriaMet condition when job meets to successPolicy and all pods have been already removed",
            indexed(2, with(one_of_0_and_1(), limit(2))),
            met(),
            vec![failed(0, 1), succeeded(1, 1)],
            is_complete(""),
        ),
        (
            "job with successPolicy; job has SuccessCriteriaMet condition when job meets to successPolicy and some pods still are running",
            indexed(3, with(one_of_0_and_1(), limit(3))),
            met(),
            some_run_on(),
            is_met(2),
        ),
        (
            "job with successPolicy; JobManagedBy feature enabled; job has SuccessCriteriaMet condition when job meets to successPolicy and some pods still are running",
            indexed(3, with(one_of_0_and_1(), limit(3))),
            met(),
            some_run_on(),
            is_met(2),
        ),
        (
            "job with successPolicy and podFailurePolicy; job has a failed condition when job meets to both successPolicy and podFailurePolicy",
            indexed(2, with(one_of_0_and_1(), fail_job())),
            none(),
            vec![failed(0, 1).has("DisruptionTarget"), running(0, 2), succeeded(1, 1)],
            format!("failed 2, succeeded 1, terminating 1, completed indexes 1; FailureTarget because PodFailurePolicy: {disrupted}"),
        ),
        (
            "job with successPolicy and backoffLimitPerIndex; job has a failed condition when job meets to both successPolicy and backoffLimitPerIndex",
            indexed(2, with(one_of_0_and_1(), limit(1))),
            json!({ "openIndexes": "0:2/1" }),
            vec![failed(0, 2), succeeded(1, 1)],
            "failed 1, succeeded 1, completed indexes 1, failed indexes 0; FailureTarget, Failed because FailedIndexes: Job has failed indexes".to_owned(),
        ),
        (
            "job with successPolicy and backoffLimit; job has a failed condition when job meets to both successPolicy and backoffLimit",
            indexed(2, with(one_of_0_and_1(), json!({ "backoffLimit": 1 }))),
            none(),
            vec![failed(0, 1), failed(0, 2), succeeded(1, 1)],
            "failed 2, succeeded 1, completed indexes 1; FailureTarget, Failed because BackoffLimitExceeded: Job has reached the specified backoff limit".to_owned(),
        ),
        (
            "job with successPolicy and podFailurePolicy; job with SuccessCriteriaMet has never been transitioned to FailureTarget and Failed even if job meets podFailurePolicy",
            indexed(2, with(only(json!({ "succeededCount": 1 })), fail_job())),
            met_by_index_1(),
            vec![failed(0, 1).has("DisruptionTarget"), succeeded(1, 1)],
            is_complete(""),
        ),
        (
            "job with successPolicy and backoffLimitPerIndex; job with SuccessCriteriaMet has never been transitioned to FailureTarget and Failed even if job meet backoffLimitPerIndex",
            indexed(2, with(only(json!({ "succeededIndexes": "1" })), limit(1))),
            with(met_by_index_1(), json!({ "openIndexes": "0:2/1" })),
            vec![failed(0, 2), succeeded(1, 1)],
            is_complete(", failed indexes 0"),
        ),
        (
            "job with successPolicy and backoffLimit; job with SuccessCriteriaMet has never been transitioned to FailureTarget and Failed even if job meets backoffLimit",
            indexed(2, with(one_of_0_and_1(), json!({ "backoffLimit": 0 }))),
            met_by_index_1(),
            vec![failed(0, 1), succeeded(1, 1)],
            is_complete(""),
        ),
        (
            "job with successPolicy and podFailureTarget; job with FailureTarget has never been transitioned to SuccessCriteriaMet even if job meets successPolicy",
            indexed(2, with(one_of_0_and_1(), fail_job())),
            json!({ "failed": 1, "completedIndexes": "1", "openIndexes": "0:2/1",
                "conditions": decided(condition::FAILURE_TARGET, "PodFailurePolicy", disrupted) }),
            vec![failed(0, 1).has("DisruptionTarget").let_go(), succeeded(1, 1)],
            format!("failed 1, succeeded 1, completed indexes 1; FailureTarget, Failed because PodFailurePolicy: {disrupted}"),
        ),
        (
            "job without successPolicy; job got SuccessCriteriaMet and Completion with CompletionsReached reason conditions",
            indexed(1, none()),
            none(),
            vec![succeeded(0, 1)],
            "succeeded 1, completed indexes 0; SuccessCriteriaMet, Complete because CompletionsReached: Reached expected number of succeeded pods".to_owned(),
        ),
    ] {
        assert_eq!(stands(&spec, &status, &pods), expected, "{name}");
    }
}

/// `TestSyncJobWithJobBackoffLimitPerIndex` in `job_controller_test.go`. In two cases upstream has not counted the failed
/// pod yet, because that pod alone knows of the failure until there is a next one; the ledger counts it at once.
#[test]
fn backoff_limit_per_index_decides_as_upstream_has_it() {
    let spec = |completions: u32, limit: u32, fields| {
        let indexed = json!({ "completionMode": "Indexed", "completions": completions, "parallelism": completions });
        with(with(indexed, json!({ "backoffLimitPerIndex": limit })), fields)
    };
    let none = || json!({});
    let once = || json!({ "openIndexes": "0:2/1" });
    let rule = |action| rules([on_exit_codes(action, "In", &[3])]);
    let has_failed_indexes = "failed 1, succeeded 1, completed indexes 1, failed indexes 0; FailureTarget, Failed because FailedIndexes: Job has failed indexes";
    let has_too_many = "failed 3, succeeded 1, terminating 1, completed indexes 1, failed indexes 0,2; FailureTarget because MaxFailedIndexesExceeded: Job has exceeded the specified maximal number of failed indexes";
    let too_many = || vec![failed(0, 2), succeeded(1, 1), failed(2, 2), running(3, 1)];
    for (name, spec, status, pods, expected) in [
        (
            "successful job after a single failure within index",
            spec(2, 1, none()),
            none(),
            vec![failed(0, 1), succeeded(0, 2), succeeded(1, 1)],
            "failed 1, succeeded 2, completed indexes 0,1; SuccessCriteriaMet, Complete because CompletionsReached: Reached expected number of succeeded pods",
        ),
        (
            "single failed pod, not counted as the replacement pod creation is delayed",
            spec(2, 1, none()),
            none(),
            vec![failed(0, 1)],
            "active 2, failed 1",
        ),
        (
            "single failed pod replaced already",
            spec(2, 1, none()),
            none(),
            vec![failed(0, 1), Actor::of(0, 2, PodPhase::Pending)],
            "active 2, failed 1",
        ),
        (
            "replacement pod creation delayed by per-index backoff while another index runs",
            spec(2, 1, none()),
            none(),
            vec![running(0, 1), failed(1, 1).with(ended("x", Role::Main, 0, NOW))],
            "active 1, failed 1",
        ),
        (
            "single failed index due to exceeding the backoff limit per index, the job continues",
            spec(2, 1, none()),
            once(),
            vec![failed(0, 2)],
            "active 1, failed 1, failed indexes 0",
        ),
        (
            "single failed index due to FailIndex action, the job continues",
            spec(2, 1, rule("FailIndex")),
            none(),
            vec![exited(0, 1, 3)],
            "active 1, failed 1, failed indexes 0",
        ),
        (
            "job failed index due to FailJob action",
            spec(2, 1, with(rule("FailJob"), json!({ "backoffLimit": 6 }))),
            none(),
            vec![failed(0, 1).with(main("x", 3))],
            "failed 1; FailureTarget, Failed because PodFailurePolicy: Container x for pod default/mypod-0 failed with exit code 3 matching FailJob rule at index 0",
        ),
        (
            "job pod failure ignored due to matching Ignore action",
            spec(2, 1, with(rule("Ignore"), json!({ "backoffLimit": 6 }))),
            none(),
            vec![failed(0, 1).with(main("x", 3))],
            "active 2",
        ),
        (
            "job failed due to exceeding backoffLimit before backoffLimitPerIndex",
            spec(2, 1, json!({ "backoffLimit": 1 })),
            none(),
            vec![failed(0, 1), failed(1, 1)],
            "failed 2; FailureTarget, Failed because BackoffLimitExceeded: Job has reached the specified backoff limit",
        ),
        (
            "job failed due to failed indexes",
            spec(2, 1, none()),
            once(),
            vec![failed(0, 2), succeeded(1, 1)],
            has_failed_indexes,
        ),
        (
            "job failed due to failed indexes; JobManagedBy enabled",
            spec(2, 1, none()),
            once(),
            vec![failed(0, 2), succeeded(1, 1)],
            has_failed_indexes,
        ),
        (
            "job failed due to exceeding max failed indexes",
            spec(4, 1, json!({ "maxFailedIndexes": 1 })),
            json!({ "openIndexes": "0:2/1,2:2/1" }),
            too_many(),
            has_too_many,
        ),
        (
            "job failed due to exceeding max failed indexes; JobManagedBy enabled",
            spec(4, 1, json!({ "maxFailedIndexes": 1 })),
            json!({ "openIndexes": "0:2/1,2:2/1" }),
            too_many(),
            has_too_many,
        ),
    ] {
        assert_eq!(stands(&spec, &status, &pods), expected, "{name}");
    }
}

/// `TestIsIndexFailed` and `TestCalculateFailedIndexes` in `indexed_job_utils_test.go`: the failed indexes of two.
#[test]
fn failed_indexes_are_those_that_upstream_finds() {
    let limit = |limit: u32| json!({ "backoffLimitPerIndex": limit });
    let fail_index = || rules([on_exit_codes("FailIndex", "In", &[3])]);
    let none = || json!({});
    for (name, fields, status, pods, expected) in [
        (
            "failed pod exceeding backoffLimitPerIndex, when backoffLimitPerIndex=0",
            limit(0),
            none(),
            vec![failed(0, 1)],
            Some("0"),
        ),
        (
            "failed pod exceeding backoffLimitPerIndex, when backoffLimitPerIndex=1",
            limit(1),
            json!({ "openIndexes": "1:2/1" }),
            vec![failed(1, 2)],
            Some("1"),
        ),
        (
            "matching FailIndex pod failure policy",
            with(limit(1), fail_index()),
            none(),
            vec![exited(0, 1, 3)],
            Some("0"),
        ),
        (
            "one new index failed",
            limit(1),
            json!({ "openIndexes": "1:2/1" }),
            vec![failed(0, 1), failed(1, 2)],
            Some("1"),
        ),
        // Let go because it was counted, which here the ledger says and not the finalizer.
        (
            "pod without finalizer is ignored",
            limit(0),
            json!({ "openIndexes": "0:2/0" }),
            vec![failed(0, 1).let_go()],
            None,
        ),
        ("pod outside completions is ignored", limit(0), none(), vec![failed(3, 1).let_go()], None),
        ("extend the failed indexes", limit(0), json!({ "failedIndexes": "0" }), vec![failed(1, 1)], Some("0,1")),
        ("prev failed indexes empty", limit(0), json!({ "failedIndexes": "" }), vec![failed(1, 1)], Some("1")),
        (
            "prev failed indexes outside the completions",
            limit(0),
            json!({ "failedIndexes": "9" }),
            vec![failed(1, 1)],
            Some("1"),
        ),
    ] {
        let spec = with(json!({ "completionMode": "Indexed", "completions": 2, "parallelism": 2 }), fields);
        for door in DOORS {
            let mut case = Case::new(door, &spec, &status, &pods);
            case.settle();
            assert_eq!(case.job.status.failed_indexes.as_deref(), expected, "{door:?}: {name}");
        }
    }
}

/// `TestGetNewIndexFailureCountValue` in `indexed_job_utils_test.go`: the annotations of the pod that comes next.
#[test]
fn the_next_pod_is_told_how_often_its_index_has_failed() {
    let ignoring = || rules([on_condition("Ignore", "DisruptionTarget")]);
    for (name, index, status, pods, failures, ignored) in [
        ("first pod created", 0, json!({}), vec![], "0", None),
        ("failed pod being replaced with 0 index failure count", 0, json!({}), vec![failed(0, 1)], "1", None),
        (
            "failed pod being replaced with >0 index failure count",
            0,
            json!({ "failed": 3, "openIndexes": "0:4/3" }),
            vec![failed(0, 4)],
            "4",
            None,
        ),
        (
            "failed pod being replaced, matching the ignore rule",
            3,
            json!({ "failed": 3, "openIndexes": "3:4/3" }),
            vec![failed(3, 4).has("DisruptionTarget")],
            "3",
            Some("1"),
        ),
    ] {
        let indexed =
            json!({ "completionMode": "Indexed", "completions": 4, "parallelism": 4, "backoffLimitPerIndex": 9 });
        let spec = with(indexed, ignoring());
        for door in DOORS {
            let mut case = Case::new(door, &spec, &status, &pods);
            let started = case.settle();
            let start = started.into_iter().find(|start| start.id.index == index).expect("its index goes on");
            let annotations = pod::build(&case.job, start).metadata.annotations.unwrap_or_default();
            let told = |key: &str| annotations.get(&format!("batch.kubernetes.io/job-index-{key}")).map(String::as_str);
            let both = (told("failure-count"), told("ignored-failure-count"));
            assert_eq!(both, (Some(failures), ignored), "{door:?}: {name}");
        }
    }
}

/// `TestFirstPendingIndexes` in `indexed_job_utils_test.go`, the case of the failed indexes.
#[test]
fn a_failed_index_is_not_started_again() {
    let spec = json!({ "completionMode": "Indexed", "completions": 20, "parallelism": 7, "backoffLimitPerIndex": 0 });
    let status = json!({ "completedIndexes": "1,5,9", "failedIndexes": "2,6,7" });
    let pods = [Actor::of(3, 1, PodPhase::Pending), Actor::of(12, 1, PodPhase::Pending)];
    for door in DOORS {
        let started = Case::new(door, &spec, &status, &pods).settle();
        let started: Vec<u32> = started.iter().map(|start| start.id.index).collect();
        assert_eq!(started, [0, 4, 8, 10, 11], "{door:?}: with failed indexes");
    }
}

/// `readyPods` is no part of upstream's tables: what is being ended is not ready.
#[test]
fn no_pod_is_ready_that_is_ended_with_its_job() {
    let mut ready = running(0, 1);
    ready.pod.ready = Some(Condition { is_true: true, since: Some(at(LONG_AGO)) });
    let spec = with(rules([on_exit_codes("FailJob", "In", &[5])]), json!({ "completions": 2, "parallelism": 2 }));
    let mut case = Case::new(Door::ManagedJob, &spec, &json!({}), &[ready, exited(1, 1, 5)]);
    case.settle();
    let status = &case.job.status;
    assert_eq!((status.active, status.ready, status.terminating), (Some(0), Some(0), Some(1)));
}
