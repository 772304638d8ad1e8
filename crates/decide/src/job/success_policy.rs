//! When less than everything is enough: successPolicy (KEP-3998).

use k8s_openapi::api::batch::v1 as api;

use super::indexes::IndexSet;

/// The rules, any of which is enough.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SuccessPolicy {
    rules: Vec<Rule>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Rule {
    /// None: all indexes.
    indexes: Option<IndexSet>,
    /// So many of them; None: all of them.
    count: Option<u32>,
}

impl SuccessPolicy {
    /// The error names the field and what to write instead.
    pub fn read(policy: &api::SuccessPolicy) -> Result<SuccessPolicy, String> {
        let rules = policy
            .rules
            .iter()
            .enumerate()
            .map(|(n, rule)| Rule::read(rule).map_err(|error| format!("spec.successPolicy.rules[{n}]{error}")));
        Ok(SuccessPolicy { rules: rules.collect::<Result<_, _>>()? })
    }

    /// The place in the list of the first rule that is met. Of the indexes that a rule names, those from `completions` on
    /// do not count: the job was made smaller since (`matchSuccessPolicy` in `pkg/controller/job/success_policy.go`).
    pub fn met(&self, succeeded: &IndexSet, completions: u32) -> Option<usize> {
        if succeeded.is_empty() {
            return None;
        }
        self.rules.iter().position(|rule| rule.is_met(succeeded, completions))
    }
}

impl Rule {
    fn read(rule: &api::SuccessPolicyRule) -> Result<Rule, String> {
        let count = rule
            .succeeded_count
            .map(|count| u32::try_from(count).map_err(|_| format!(".succeededCount is {count}: write 1 or more")));
        if rule.succeeded_indexes.is_none() && count.is_none() {
            return Err(": write succeededIndexes, succeededCount or both".to_owned());
        }
        Ok(Rule { indexes: rule.succeeded_indexes.as_deref().map(IndexSet::parse), count: count.transpose()? })
    }

    fn is_met(&self, succeeded: &IndexSet, completions: u32) -> bool {
        let Some(indexes) = &self.indexes else {
            return self.count.is_some_and(|count| succeeded.len() >= count as usize);
        };
        let indexes = indexes.below(completions);
        let n_succeeded = succeeded.n_common(&indexes);
        let is_all = n_succeeded == indexes.len();
        !indexes.is_empty() && (is_all || self.count.is_some_and(|count| n_succeeded >= count as usize))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn policy(rules: serde_json::Value) -> Result<SuccessPolicy, String> {
        SuccessPolicy::read(&serde_json::from_value(json!({ "rules": rules })).expect("a policy"))
    }

    /// Groups of `TestMatchSuccessPolicy` in `success_policy_test.go`.
    #[test]
    fn rules_are_met_as_upstream_has_it() {
        for (rules, succeeded, met) in [
            (json!([]), "0-9", None),
            (json!([{ "succeededIndexes": "0-2" }]), "", None),
            (json!([{ "succeededIndexes": "0-2" }]), "0-1", None),
            (json!([{ "succeededIndexes": "0-2" }]), "0-4", Some(0)),
            (json!([{ "succeededIndexes": "0,2,4" }]), "0-4", Some(0)),
            (json!([{ "succeededIndexes": "0,2,4" }]), "0,1,2,3", None),
            (json!([{ "succeededCount": 2 }]), "5", None),
            (json!([{ "succeededCount": 2 }]), "5,9", Some(0)),
            (json!([{ "succeededIndexes": "0-5", "succeededCount": 3 }]), "1,3,8,9", None),
            (json!([{ "succeededIndexes": "0-5", "succeededCount": 3 }]), "1,3,5", Some(0)),
            (json!([{ "succeededIndexes": "9" }, { "succeededCount": 1 }]), "0", Some(1)),
            (json!([{ "succeededIndexes": "8-20" }]), "8,9", Some(0)),
            (json!([{ "succeededIndexes": "10-20", "succeededCount": 1 }]), "0-9", None),
        ] {
            let policy = policy(rules.clone()).expect("valid");
            assert_eq!(policy.met(&IndexSet::parse(succeeded), 10), met, "{rules} with {succeeded:?}");
        }
    }

    #[test]
    fn errors_name_the_rule_and_what_to_write() {
        let error = |rule| policy(json!([rule])).expect_err("invalid");
        assert_eq!(error(json!({})), "spec.successPolicy.rules[0]: write succeededIndexes, succeededCount or both");
        assert_eq!(
            error(json!({ "succeededCount": -1 })),
            "spec.successPolicy.rules[0].succeededCount is -1: write 1 or more"
        );
    }
}
