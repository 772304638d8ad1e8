//! What the operator has asked of the API server; but watches, which are no work for as long as nothing happens.

use std::collections::BTreeMap;

use anyhow::Result;
use batchjob_tests::kubernetes::Kubernetes;
use batchjob_tests::support::Audit;
use batchjob_tests::support::audit::Request;
use jiff::Timestamp;

pub struct Asked(Audit);

impl Asked {
    pub fn of(kubernetes: &Kubernetes) -> Asked {
        Asked(Audit::of(kubernetes, "\"userAgent\":\"batchjob-operator/"))
    }

    /// So far, in the order of the answers.
    pub fn requests(&mut self) -> Result<impl Iterator<Item = &Request>> {
        Ok(self.0.requests()?.iter().filter(|request| request.verb != "watch"))
    }

    /// Of the namespace, from `from` on until before `to`.
    pub fn within(&mut self, namespace: &str, from: Timestamp, to: Timestamp) -> Result<Vec<Request>> {
        let is_meant = |it: &&Request| it.namespace == namespace && (from..to).contains(&it.at);
        Ok(self.requests()?.filter(is_meant).cloned().collect())
    }
}

/// "3 create pods 403, 1 patch events 200".
pub fn summary(requests: &[Request]) -> String {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for request in requests {
        *counts.entry(format!("{} {}", request.what(), request.code)).or_default() += 1;
    }
    counts.iter().map(|(what, n)| format!("{n} {what}")).collect::<Vec<_>>().join(", ")
}
