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
        let count = count.transpose()?;
        let indexes = rule.succeeded_indexes.as_deref().map(IndexSet::parse);
        // What the CRD cannot say where the text is very long.
        if let (Some(count), Some(indexes)) = (count, &indexes)
            && count as usize > indexes.len()
        {
            let n = indexes.len();
            return Err(format!(".succeededCount is {count}: write at most {n}, as many as succeededIndexes names"));
        }
        Ok(Rule { indexes, count })
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

    /// `TestMatchSuccessPolicy` in `success_policy_test.go`, with its names: the rules, the succeeded indexes, and the rule that
    /// is met.
    #[test]
    fn rules_are_met_as_upstream_has_it() {
        for (name, rules, succeeded, met) in [
            ("successPolicy is null", json!([]), "0", None),
            ("any rules are nothing", json!([]), "0", None),
            ("rules.succeededIndexes is invalid format", json!([{ "succeededIndexes": "invalid-form" }]), "0", None),
            (
                "rules.succeededIndexes is specified; succeededIndexes matched rules",
                json!([{ "succeededIndexes": "0-2" }]),
                "0-2,4-7",
                Some(0),
            ),
            (
                "rules.succeededIndexes is specified; succeededIndexes didn't match rules",
                json!([{ "succeededIndexes": "3" }]),
                "0-2",
                None,
            ),
            (
                "rules.succeededCount is specified; succeededIndexes matched rules",
                json!([{ "succeededCount": 2 }]),
                "0-2",
                Some(0),
            ),
            (
                "rules.succeededCount is specified; succeededIndexes didn't match rules",
                json!([{ "succeededCount": 4 }]),
                "0-2",
                None,
            ),
            (
                "multiple rules; rules.succeededIndexes is specified; succeededIndexes met one of rules",
                json!([{ "succeededIndexes": "9" }, { "succeededIndexes": "4,6" }]),
                "0-2,4-7",
                Some(1),
            ),
            (
                "multiple rules; rules.succeededIndexes is specified; succeededIndexes met all rules",
                json!([{ "succeededIndexes": "0,1" }, { "succeededIndexes": "5" }]),
                "0-2,4-7",
                Some(0),
            ),
            (
                "rules.succeededIndexes and rules.succeededCount are specified; succeededIndexes met all rules",
                json!([{ "succeededIndexes": "3-6", "succeededCount": 2 }]),
                "0-2,4-7",
                Some(0),
            ),
            (
                "rules.succeededIndexes and rules.succeededCount are specified; succeededIndexes didn't match rules",
                json!([{ "succeededIndexes": "3-6", "succeededCount": 2 }]),
                "0-2,6-7",
                None,
            ),
            (
                "rules.succeededIndexes is specified; succeededIndexes are nothing",
                json!([{ "succeededCount": 4 }]),
                "",
                None,
            ),
            (
                "rules.succeededIndexes is specified; succeededIndexes matched rules; rules is proper subset of succeededIndexes",
                json!([{ "succeededIndexes": "2-4,6-8" }]),
                "1-5,6-9",
                Some(0),
            ),
            (
                "rules.succeededIndexes is specified; succeededIndexes matched rules; rules equals succeededIndexes",
                json!([{ "succeededIndexes": "2-4,6-9" }]),
                "2-4,6-9",
                Some(0),
            ),
            (
                "rules.succeededIndexes is specified; succeededIndexes matched rules; rules is subset of succeededIndexes",
                json!([{ "succeededIndexes": "2-4,8-12" }]),
                "2-5,7-15",
                Some(0),
            ),
            (
                "rules.succeededIndexes is specified; succeededIndexes didn't match rules; rules is an empty set",
                json!([{ "succeededIndexes": "" }]),
                "1-3",
                None,
            ),
            (
                "rules.succeededIndexes is specified; succeededIndexes didn't match rules; succeededIndexes is an empty set",
                json!([{ "succeededIndexes": "" }]),
                "",
                None,
            ),
            (
                "rules.succeededIndexes is specified; succeededIndexes didn't match rules; rules and succeededIndexes are empty set",
                json!([{ "succeededIndexes": "" }]),
                "",
                None,
            ),
            (
                "rules.succeededIndexes is specified; succeededIndexes didn't match rules; all elements of rules.succeededIndexes aren't included in succeededIndexes",
                json!([{ "succeededIndexes": "10-12,14-16" }]),
                "1-3,5-7",
                None,
            ),
            (
                "rules.succeededIndexes is specified; succeededIndexes didn't match rules; rules overlaps succeededIndexes at first",
                json!([{ "succeededIndexes": "1-3,5-7" }]),
                "2-4,6-8",
                None,
            ),
            (
                "rules.succeededIndexes and rules.succeededCount are specified; succeededIndexes matched rules; rules overlaps succeededIndexes at first",
                json!([{ "succeededIndexes": "1-3,5-7", "succeededCount": 4 }]),
                "2-4,6-8",
                Some(0),
            ),
            (
                "rules.succeededIndexes is specified; succeededIndexes didn't match rules; rules overlaps succeededIndexes at last",
                json!([{ "succeededIndexes": "2-4,6-9" }]),
                "1-3,5-7",
                None,
            ),
            (
                "rules.succeededIndexes and rules.succeededCount are specified; succeededIndexes matched rules; rules overlaps succeededIndexes at last",
                json!([{ "succeededIndexes": "2-4,6-9", "succeededCount": 4 }]),
                "1-3,5-7",
                Some(0),
            ),
            (
                "rules.succeededIndexes is specified; succeededIndexes didn't match rules; rules completely overlaps succeededIndexes",
                json!([{ "succeededIndexes": "0-4,6-9" }]),
                "1-3,7-8",
                None,
            ),
            (
                "rules.succeededIndexes and rules.succeededCount are specified; succeededIndexes matched rules; rules completely overlaps succeededIndexes",
                json!([{ "succeededIndexes": "0-4,6-9", "succeededCount": 5 }]),
                "1-3,7-8",
                Some(0),
            ),
            (
                "rules.succeededIndexes is specified; succeededIndexes didn't match rules; rules overlaps multiple succeededIndexes at last",
                json!([{ "succeededIndexes": "0-6,8-9" }]),
                "1-3,5-9",
                None,
            ),
            (
                "rules.succeededIndexes and rules.succeededCount are specified; succeededIndexes matched rules; rules overlaps multiple succeededIndexes at last",
                json!([{ "succeededIndexes": "0-6,8-9", "succeededCount": 7 }]),
                "1-3,5-9",
                Some(0),
            ),
            (
                "rules.succeededIndexes is specified; succeededIndexes didn't match rules; rules overlaps succeededIndexes at first, and rules equals succeededIndexes at last",
                json!([{ "succeededIndexes": "0-5,7-9" }]),
                "1-5,7-10",
                None,
            ),
            (
                "rules.succeededIndexes and rules.succeededCount are specified; succeededIndexes matched rules; rules overlaps succeededIndexes at first, and rules equals succeededIndexes at last",
                json!([{ "succeededIndexes": "0-5,7-9", "succeededCount": 8 }]),
                "1-5,7-10",
                Some(0),
            ),
            (
                "rules.succeededIndexes is specified; succeededIndexes didn't match rules; the first rules overlaps succeededIndexes at first",
                json!([{ "succeededIndexes": "0-3,6-9" }]),
                "1-10",
                None,
            ),
            (
                "rules.succeededIndexes and rules.succeededCount are specified; succeededIndexes matched rules; the first rules overlaps succeededIndexes at first",
                json!([{ "succeededIndexes": "0-3,6-9", "succeededCount": 7 }]),
                "1-10",
                Some(0),
            ),
        ] {
            let policy = policy(rules).expect("valid");
            assert_eq!(policy.met(&IndexSet::parse(succeeded), 10), met, "{name}");
        }
    }

    #[test]
    fn indexes_beyond_the_end_do_not_count() {
        let met = |rule, succeeded| policy(json!([rule])).expect("valid").met(&IndexSet::parse(succeeded), 10);
        assert_eq!(met(json!({ "succeededIndexes": "8-20" }), "8,9"), Some(0), "those that there are have succeeded");
        assert_eq!(met(json!({ "succeededIndexes": "10-20", "succeededCount": 1 }), "0-9"), None);
    }

    #[test]
    fn errors_name_the_rule_and_what_to_write() {
        let error = |rule| policy(json!([rule])).expect_err("invalid");
        assert_eq!(error(json!({})), "spec.successPolicy.rules[0]: write succeededIndexes, succeededCount or both");
        assert_eq!(
            error(json!({ "succeededCount": -1 })),
            "spec.successPolicy.rules[0].succeededCount is -1: write 1 or more"
        );
        assert_eq!(
            error(json!({ "succeededIndexes": "0,4", "succeededCount": 3 })),
            "spec.successPolicy.rules[0].succeededCount is 3: write at most 2, as many as succeededIndexes names"
        );
    }
}
