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
    use serde_json::json;

    use super::*;
    use crate::observed::{Pod, PodPhase};
    use crate::plan::AttemptId;

    fn policy(rules: serde_json::Value) -> Result<FailurePolicy, String> {
        let policy = serde_json::from_value(json!({ "rules": rules })).expect("a policy");
        FailurePolicy::read(&policy)
    }

    fn ended(name: &str, role: Role, exit_code: i32) -> Container {
        let state = ContainerState::Terminated { exit_code, reason: "Error".into(), finished_at: None };
        Container { name: name.into(), role, restarts: 0, state, last_exit_code: None }
    }

    fn judge(rules: serde_json::Value, pod: &Pod) -> Option<(PolicyAction, String)> {
        let attempt = Attempt { id: AttemptId { index: 0, attempt: 1 }, pod };
        let found = policy(rules).expect("valid").judge("ns", &attempt)?;
        Some((found.action, found.message()))
    }

    fn exit_codes(action: &str, operator: &str, values: &[i32]) -> serde_json::Value {
        json!({ "action": action, "onExitCodes": { "operator": operator, "values": values } })
    }

    fn pod(containers: impl Into<Box<[Container]>>) -> Pod {
        Pod { name: "x".into(), phase: PodPhase::Failed, containers: containers.into(), ..Pod::default() }
    }

    /// `TestMatchPodFailurePolicy` in `pod_failure_policy_test.go`.
    #[test]
    fn exit_codes_match_as_upstream_has_it() {
        let failed = |code| pod([ended("main", Role::Main, code)]);
        let action = |rules, pod: &Pod| judge(rules, pod).map(|(action, _)| action);
        assert_eq!(action(json!([exit_codes("Ignore", "In", &[1, 2, 3])]), &failed(2)), Some(PolicyAction::Ignore));
        assert_eq!(action(json!([exit_codes("Ignore", "In", &[1, 2, 3])]), &failed(4)), None);
        assert_eq!(action(json!([exit_codes("FailJob", "NotIn", &[5, 6])]), &failed(1)), Some(PolicyAction::FailJob));
        assert_eq!(action(json!([exit_codes("FailJob", "NotIn", &[5, 6])]), &failed(5)), None);
        assert_eq!(action(json!([exit_codes("FailJob", "NotIn", &[5])]), &failed(0)), None, "0 is no failure");
        assert_eq!(action(json!([exit_codes("FailJob", "In", &[-1])]), &failed(-1)), Some(PolicyAction::FailJob));
        let both = json!([exit_codes("Count", "In", &[2]), exit_codes("FailIndex", "In", &[2])]);
        assert_eq!(action(both, &failed(2)), Some(PolicyAction::Count), "the first that matches");
        let mut running = failed(2);
        running.containers[0].state = ContainerState::Running;
        assert_eq!(action(json!([exit_codes("Ignore", "NotIn", &[9])]), &running), None, "it has not ended");
    }

    #[test]
    fn app_containers_are_looked_at_before_init_containers() {
        let both = pod([ended("init", Role::Init, 42), ended("main", Role::Main, 42)]);
        let (_, message) = judge(json!([exit_codes("FailJob", "In", &[42])]), &both).expect("a match");
        assert_eq!(message, "Container main for pod ns/x failed with exit code 42 matching FailJob rule at index 0");
        let init = pod([ended("init", Role::Init, 42), ended("main", Role::Main, 1)]);
        let (_, message) = judge(json!([exit_codes("FailJob", "In", &[42])]), &init).expect("a match");
        assert_eq!(message, "Container init for pod ns/x failed with exit code 42 matching FailJob rule at index 0");
    }

    #[test]
    fn a_rule_for_one_container_looks_at_that_one() {
        let rule = |name| json!([{ "action": "FailJob", "onExitCodes": { "containerName": name, "operator": "In", "values": [3] } }]);
        let failed = pod([ended("main", Role::Main, 1), ended("other", Role::Main, 3)]);
        assert!(judge(rule("other"), &failed).is_some());
        assert!(judge(rule("main"), &failed).is_none());
    }

    #[test]
    fn conditions_match_by_type_and_status_and_true_is_meant_where_none_is_written() {
        let mut failed = pod([]);
        failed.conditions = [("Ready", "False"), ("DisruptionTarget", "True")]
            .map(|(type_, status)| PodCondition { type_: type_.into(), status: status.into() })
            .into();
        let rule = |patterns| json!([{ "action": "Ignore", "onPodConditions": patterns }]);
        let (action, message) = judge(rule(json!([{ "type": "DisruptionTarget" }])), &failed).expect("a match");
        assert_eq!(action, PolicyAction::Ignore);
        assert_eq!(message, "Pod ns/x has condition DisruptionTarget matching Ignore rule at index 0");
        assert!(judge(rule(json!([{ "type": "DisruptionTarget", "status": "False" }])), &failed).is_none());
        let any = json!([{ "type": "Other" }, { "type": "Ready", "status": "False" }]);
        assert!(judge(rule(any), &failed).is_some(), "any one of them is enough");
    }

    #[test]
    fn errors_name_the_rule_and_what_to_write() {
        let error = |rule| policy(json!([exit_codes("Count", "In", &[1]), rule])).expect_err("invalid");
        assert_eq!(
            error(exit_codes("Retry", "In", &[1])),
            "spec.podFailurePolicy.rules[1].action is Retry: write FailJob, FailIndex, Ignore or Count"
        );
        assert_eq!(
            error(exit_codes("Count", "Is", &[1])),
            "spec.podFailurePolicy.rules[1].onExitCodes.operator is Is: write In or NotIn"
        );
        assert_eq!(
            error(json!({ "action": "Count" })),
            "spec.podFailurePolicy.rules[1]: write one of onExitCodes and onPodConditions"
        );
    }
}
