//! What a failure means: podFailurePolicy (KEP-3329, and FailIndex of KEP-3850).
//!
//! The rules are gone through in their order, and the first that matches is the answer; a failure that none matches is
//! counted. As `pkg/controller/job/pod_failure_policy.go` has it: an exit code is looked for in the app containers
//! first, then in the init containers; 0 is no failure; a container that has not ended says nothing.

use k8s_openapi::api::batch::v1 as api;

use super::attempt::Attempt;
use crate::observed::{Container, ContainerState, PodCondition, Role};
use crate::plan::PolicyAction;

/// The rules, in their order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FailurePolicy {
    rules: Vec<Rule>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Rule {
    action: PolicyAction,
    on: On,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum On {
    ExitCodes {
        /// None: any container.
        container: Option<String>,
        /// Whether the code has to be one of `values`, or none of them.
        is_in: bool,
        values: Vec<i32>,
    },
    PodConditions(Vec<PodCondition>),
}

/// The rule that matches, and what it matches on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Match {
    pub action: PolicyAction,
    /// The rule's place in the list, from 0.
    pub rule: usize,
    /// "Container main for pod ns/x failed with exit code 42", "Pod ns/x has condition DisruptionTarget".
    what: String,
}

impl Match {
    /// In upstream's words.
    pub fn message(&self) -> String {
        format!("{} matching {} rule at index {}", self.what, self.action.as_str(), self.rule)
    }
}

impl FailurePolicy {
    /// The error names the field and what to write instead.
    pub fn read(policy: &api::PodFailurePolicy) -> Result<FailurePolicy, String> {
        let rules = policy
            .rules
            .iter()
            .enumerate()
            .map(|(n, rule)| Rule::read(rule).map_err(|error| format!("spec.podFailurePolicy.rules[{n}]{error}")));
        Ok(FailurePolicy { rules: rules.collect::<Result<_, _>>()? })
    }

    /// The first rule that matches the failure.
    pub fn judge(&self, namespace: &str, failed: &Attempt<'_>) -> Option<Match> {
        self.rules.iter().enumerate().find_map(|(rule, Rule { action, on })| {
            let pod = &failed.pod.name;
            let what = match on {
                On::ExitCodes { .. } => {
                    let (container, code) = on.matching_container(&failed.pod.containers)?;
                    format!("Container {container} for pod {namespace}/{pod} failed with exit code {code}")
                }
                On::PodConditions(patterns) => {
                    let found = failed.pod.conditions.iter().find(|condition| patterns.contains(condition))?;
                    format!("Pod {namespace}/{pod} has condition {}", found.type_)
                }
            };
            Some(Match { action: *action, rule, what })
        })
    }
}

impl Rule {
    fn read(rule: &api::PodFailurePolicyRule) -> Result<Rule, String> {
        let action = match &*rule.action {
            "FailJob" => PolicyAction::FailJob,
            "FailIndex" => PolicyAction::FailIndex,
            "Ignore" => PolicyAction::Ignore,
            "Count" => PolicyAction::Count,
            other => return Err(format!(".action is {other}: write FailJob, FailIndex, Ignore or Count")),
        };
        let patterns = rule.on_pod_conditions.as_deref().unwrap_or_default();
        let on = match (&rule.on_exit_codes, patterns) {
            (Some(codes), []) => On::exit_codes(codes)?,
            (None, [_, ..]) => On::PodConditions(patterns.iter().map(pattern).collect()),
            _ => return Err(": write one of onExitCodes and onPodConditions".to_owned()),
        };
        Ok(Rule { action, on })
    }
}

fn pattern(pattern: &api::PodFailurePolicyOnPodConditionsPattern) -> PodCondition {
    // As the API server fills it in.
    let status = pattern.status.as_deref().unwrap_or("True");
    PodCondition { type_: pattern.type_.as_str().into(), status: status.into() }
}

impl On {
    fn exit_codes(codes: &api::PodFailurePolicyOnExitCodesRequirement) -> Result<On, String> {
        let is_in = match &*codes.operator {
            "In" => true,
            "NotIn" => false,
            other => return Err(format!(".onExitCodes.operator is {other}: write In or NotIn")),
        };
        Ok(On::ExitCodes { container: codes.container_name.clone(), is_in, values: codes.values.clone() })
    }

    /// The name and exit code of the first container that matches.
    fn matching_container<'c>(&self, containers: &'c [Container]) -> Option<(&'c str, i32)> {
        let On::ExitCodes { container: meant, is_in, values } = self else { return None };
        let (app, init): (Vec<_>, Vec<_>) = containers.iter().partition(|container| container.role == Role::Main);
        app.into_iter().chain(init).find_map(|container| {
            let ContainerState::Terminated { exit_code, .. } = container.state else { return None };
            let is_meant = meant.as_ref().is_none_or(|meant| **meant == *container.name);
            let matches = is_meant && exit_code != 0 && values.contains(&exit_code) == *is_in;
            matches.then_some((&*container.name, exit_code))
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::observed::{Pod, PodPhase};
    use crate::plan::AttemptId;

    fn policy(rules: Value) -> Result<FailurePolicy, String> {
        let policy = serde_json::from_value(json!({ "rules": rules })).expect("a policy");
        FailurePolicy::read(&policy)
    }

    fn container(name: &str, role: Role, state: ContainerState) -> Container {
        Container { name: name.into(), role, restarts: 0, state, last_exit_code: None }
    }

    fn ended(name: &str, role: Role, exit_code: i32) -> Container {
        container(name, role, ContainerState::Terminated { exit_code, reason: "Error".into(), finished_at: None })
    }

    fn judge(rules: Value, pod: &Pod) -> Option<Match> {
        let attempt = Attempt { id: AttemptId { index: 0, attempt: 1 }, pod };
        policy(rules).expect("valid").judge("default", &attempt)
    }

    fn exit_codes(action: &str, operator: &str, values: &[i32]) -> Value {
        json!({ "action": action, "onExitCodes": { "operator": operator, "values": values } })
    }

    fn condition(action: &str, type_: &str, status: &str) -> Value {
        json!({ "action": action, "onPodConditions": [{ "type": type_, "status": status }] })
    }

    fn pod(containers: impl Into<Box<[Container]>>) -> Pod {
        Pod { name: "mypod".into(), phase: PodPhase::Failed, containers: containers.into(), ..Pod::default() }
    }

    fn exited(exit_code: i32) -> Pod {
        pod([ended("main-container", Role::Main, exit_code)])
    }

    fn has(conditions: &[(&str, &str)]) -> Pod {
        let condition = |&(type_, status): &(&str, &str)| PodCondition { type_: type_.into(), status: status.into() };
        Pod { conditions: conditions.iter().map(condition).collect(), ..pod([]) }
    }

    /// `TestMatchPodFailurePolicy` in `pod_failure_policy_test.go`, with its names: the action, or for `FailJob` the message.
    /// Only what is ignored is not counted, so the table has no column for it.
    #[test]
    fn rules_match_as_upstream_has_it() {
        let init_and_main = pod([
            ended("init-container", Role::Init, 0),
            ended("main-container", Role::Main, 111),
            ended("suppport-container", Role::Main, 0),
        ]);
        let with_support = pod([ended("main-container", Role::Main, 1), ended("suppport-container", Role::Main, 0)]);
        let one_says_nothing =
            pod([container("foo", Role::Main, ContainerState::Unknown), ended("bar", Role::Main, 2)]);
        let disrupted = || has(&[("DisruptionTarget", "True")]);
        let ignored_if = |status| json!([condition("Ignore", "DisruptionTarget", status)]);
        let many = json!([
            exit_codes("Count", "NotIn", &[8]),
            exit_codes("Ignore", "In", &[1, 2, 3]),
            exit_codes("FailJob", "NotIn", &[5, 6, 7]),
            condition("Count", "ResourceLimitExceeded", "True"),
            condition("Ignore", "DisruptionTarget", "True"),
        ]);
        let windows = [-1073741676, -1073741510];
        for (name, rules, pod, said) in [
            ("no policy rules", json!([]), exited(2), None),
            (
                "ignore rule matched for exit codes",
                json!([exit_codes("Ignore", "In", &[1, 2, 3])]),
                exited(2),
                Some("Ignore"),
            ),
            (
                "ignore rule matched on negative exit codes - needed for Windows support",
                json!([exit_codes("Ignore", "In", &windows)]),
                exited(-1073741676),
                Some("Ignore"),
            ),
            (
                "FailJob rule matched for exit codes",
                json!([exit_codes("FailJob", "In", &[1, 2, 3])]),
                exited(2),
                Some(
                    "Container main-container for pod default/mypod failed with exit code 2 matching FailJob rule at index 0",
                ),
            ),
            (
                "successful containers are skipped by the rules",
                json!([exit_codes("FailJob", "NotIn", &[111])]),
                init_and_main,
                None,
            ),
            (
                "FailIndex rule matched for exit codes",
                json!([exit_codes("FailIndex", "In", &[1, 2, 3])]),
                exited(2),
                Some("FailIndex"),
            ),
            (
                "pod failure policy with NotIn operator and value 0",
                json!([exit_codes("FailJob", "NotIn", &[0])]),
                with_support,
                Some(
                    "Container main-container for pod default/mypod failed with exit code 1 matching FailJob rule at index 0",
                ),
            ),
            (
                "second jobfail rule matched for exit codes",
                json!([exit_codes("Count", "In", &[1, 2, 3]), exit_codes("FailJob", "In", &[4, 5, 6])]),
                exited(6),
                Some(
                    "Container main-container for pod default/mypod failed with exit code 6 matching FailJob rule at index 1",
                ),
            ),
            (
                "count rule matched for exit codes",
                json!([exit_codes("Count", "In", &[1, 2, 3])]),
                one_says_nothing,
                Some("Count"),
            ),
            (
                "FailIndex rule matched for pod conditions",
                json!([condition("FailIndex", "DisruptionTarget", "True")]),
                disrupted(),
                Some("FailIndex"),
            ),
            ("ignore rule matched for pod conditions", ignored_if("True"), disrupted(), Some("Ignore")),
            (
                "ignore rule matches by the status=False",
                ignored_if("False"),
                has(&[("DisruptionTarget", "False")]),
                Some("Ignore"),
            ),
            (
                "ignore rule matches by the status=Unknown",
                ignored_if("Unknown"),
                has(&[("DisruptionTarget", "Unknown")]),
                Some("Ignore"),
            ),
            (
                "ignore rule does not match when status for pattern is False, but actual True",
                ignored_if("False"),
                disrupted(),
                None,
            ),
            (
                "ignore rule does not match when status for pattern is True, but actual False",
                ignored_if("True"),
                has(&[("DisruptionTarget", "False")]),
                None,
            ),
            (
                "default - do not match condition with status=False",
                json!([{ "action": "Ignore", "onPodConditions": [{ "type": "DisruptionTarget" }] }]),
                has(&[("DisruptionTarget", "False")]),
                None,
            ),
            (
                "job fail rule matched for pod conditions",
                json!([condition("FailJob", "DisruptionTarget", "True")]),
                disrupted(),
                Some("Pod default/mypod has condition DisruptionTarget matching FailJob rule at index 0"),
            ),
            (
                "count rule matched for pod conditions",
                json!([condition("Count", "DisruptionTarget", "True")]),
                disrupted(),
                Some("Count"),
            ),
            ("no rule matched", many, exited(32), Some("Count")),
        ] {
            let found = judge(rules, &pod).map(|found| match found.action {
                PolicyAction::FailJob => found.message(),
                action => action.as_str().to_owned(),
            });
            assert_eq!(found.as_deref(), said, "{name}");
        }
    }

    /// The three other cases of `TestMatchPodFailurePolicy`. Upstream leaves out a rule that it does not know, and so acts on
    /// a policy that nobody wrote; here the job waits until it is read by somebody who knows the rule.
    #[test]
    fn a_rule_that_is_not_known_is_refused_and_not_left_out() {
        let disrupted = "DisruptionTarget";
        for (name, rule, named) in [
            (
                "unknown action for rule matching by exit codes - skip rule with unknown action",
                exit_codes("UnknownAction", "In", &[1, 2]),
                "spec.podFailurePolicy.rules[0].action is UnknownAction: write FailJob, FailIndex, Ignore or Count",
            ),
            (
                "unknown action for rule matching by pod conditions - skip rule with unknown action",
                condition("UnkonwnAction", disrupted, "True"),
                "spec.podFailurePolicy.rules[0].action is UnkonwnAction: write FailJob, FailIndex, Ignore or Count",
            ),
            (
                "unknown operator - rule with unknown action is skipped for onExitCodes",
                exit_codes("Ignore", "UnknownOperator", &[1, 2]),
                "spec.podFailurePolicy.rules[0].onExitCodes.operator is UnknownOperator: write In or NotIn",
            ),
        ] {
            let second = exit_codes("FailJob", "In", &[2, 3]);
            assert_eq!(policy(json!([rule, second])), Err(named.to_owned()), "{name}");
        }
    }

    #[test]
    fn a_code_is_looked_for_only_in_containers_that_have_ended() {
        let running = pod([container("main", Role::Main, ContainerState::Running), ended("init", Role::Init, 0)]);
        assert_eq!(judge(json!([exit_codes("Ignore", "NotIn", &[9])]), &running), None);
    }

    #[test]
    fn app_containers_are_looked_at_before_init_containers_and_sidecars() {
        let in_42 = json!([exit_codes("FailJob", "In", &[42])]);
        let message = |containers: [Container; 3]| judge(in_42.clone(), &pod(containers)).map(|found| found.message());
        let named = |name: &str| {
            Some(format!(
                "Container {name} for pod default/mypod failed with exit code 42 matching FailJob rule at index 0"
            ))
        };
        let inits = |code| [ended("init", Role::Init, code), ended("proxy", Role::Sidecar, 42)];
        let [init, proxy] = inits(42);
        assert_eq!(message([init, proxy, ended("main", Role::Main, 42)]), named("main"));
        let [init, proxy] = inits(42);
        assert_eq!(message([init, proxy, ended("main", Role::Main, 1)]), named("init"));
        let [init, proxy] = inits(0);
        assert_eq!(message([init, proxy, ended("main", Role::Main, 1)]), named("proxy"));
    }

    #[test]
    fn a_rule_for_one_container_looks_at_that_one() {
        let codes = |name| json!({ "containerName": name, "operator": "In", "values": [3] });
        let rule = |name| json!([{ "action": "FailJob", "onExitCodes": codes(name) }]);
        let failed = pod([ended("main", Role::Main, 1), ended("other", Role::Main, 3)]);
        assert!(judge(rule("other"), &failed).is_some());
        assert!(judge(rule("main"), &failed).is_none());
    }

    #[test]
    fn any_condition_of_a_rule_is_enough_and_true_is_meant_where_no_status_is_written() {
        let failed = has(&[("Ready", "False"), ("DisruptionTarget", "True")]);
        let without_status = json!([{ "action": "Ignore", "onPodConditions": [{ "type": "DisruptionTarget" }] }]);
        assert!(judge(without_status, &failed).is_some());
        let any = json!([{ "type": "Other" }, { "type": "Ready", "status": "False" }]);
        assert!(judge(json!([{ "action": "Ignore", "onPodConditions": any }]), &failed).is_some());
    }

    #[test]
    fn errors_name_the_rule_and_what_to_write() {
        let error = |rule| policy(json!([exit_codes("Count", "In", &[1]), rule])).expect_err("invalid");
        assert_eq!(
            error(exit_codes("Retry", "In", &[1])),
            "spec.podFailurePolicy.rules[1].action is Retry: write FailJob, FailIndex, Ignore or Count"
        );
        assert_eq!(
            error(json!({ "action": "Count" })),
            "spec.podFailurePolicy.rules[1]: write one of onExitCodes and onPodConditions"
        );
    }
}
