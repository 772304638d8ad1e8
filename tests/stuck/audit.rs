//! Who has sent what to the API server: its audit log is the one count that does not depend on what the sender says.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Seek as _, SeekFrom};
use std::path::PathBuf;

use anyhow::{Context, Result};
use batchjob_tests::kubernetes::Kubernetes;
use jiff::Timestamp;
use serde::Deserialize;

/// Reads the log as it grows.
pub struct Audit {
    path: PathBuf,
    at: u64,
    requests: Vec<Request>,
}

/// A request of the operator's that was answered; but watches, which are no work for as long as nothing happens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    pub at: Timestamp,
    /// "create pods", "update batchjobs/status".
    pub what: String,
    /// Empty: of no namespace, or of all.
    pub namespace: String,
    pub is_write: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Line {
    verb: String,
    #[serde(default)]
    user_agent: String,
    request_received_timestamp: Timestamp,
    object_ref: Option<ObjectRef>,
    response_status: Option<ResponseStatus>,
}

#[derive(Deserialize)]
struct ResponseStatus {
    code: Option<u16>,
}

#[derive(Deserialize)]
struct ObjectRef {
    #[serde(default)]
    resource: String,
    #[serde(default)]
    namespace: String,
    subresource: Option<String>,
}

impl Audit {
    /// Of everything from the start of the cluster, which was started with `audit`.
    pub fn of(kubernetes: &Kubernetes) -> Audit {
        Audit { path: kubernetes.audit_log(), at: 0, requests: Vec::new() }
    }

    /// What the operator has sent so far, in the order of the answers.
    pub fn requests(&mut self) -> Result<&[Request]> {
        let mut file = File::open(&self.path).with_context(|| format!("open {}", self.path.display()))?;
        file.seek(SeekFrom::Start(self.at))?;
        let mut reader = BufReader::new(file);
        let mut line = String::new();
        while reader.read_line(&mut line)? > 0 && line.ends_with('\n') {
            self.at += line.len() as u64;
            if line.contains("\"userAgent\":\"batchjob-operator/") {
                self.requests.extend(read(&line)?);
            }
            line.clear();
        }
        Ok(&self.requests)
    }

    /// Of the namespace, from `from` on until before `to`.
    pub fn within(&mut self, namespace: &str, from: Timestamp, to: Timestamp) -> Result<Vec<Request>> {
        let is_meant = |it: &&Request| it.namespace == namespace && (from..to).contains(&it.at);
        Ok(self.requests()?.iter().filter(is_meant).cloned().collect())
    }
}

fn read(line: &str) -> Result<Option<Request>> {
    let line: Line = serde_json::from_str(line).with_context(|| format!("read {line}"))?;
    if line.verb == "watch" || !line.user_agent.starts_with("batchjob-operator/") {
        return Ok(None);
    }
    let object =
        line.object_ref.unwrap_or(ObjectRef { resource: String::new(), namespace: String::new(), subresource: None });
    let subresource = object.subresource.map(|name| format!("/{name}")).unwrap_or_default();
    let code = line.response_status.and_then(|status| status.code).unwrap_or_default();
    Ok(Some(Request {
        at: line.request_received_timestamp,
        what: format!("{} {}{subresource} {code}", line.verb, object.resource),
        namespace: object.namespace,
        is_write: !matches!(line.verb.as_str(), "get" | "list"),
    }))
}

/// "3 create pods 403, 1 patch events 200".
pub fn summary(requests: &[Request]) -> String {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for request in requests {
        *counts.entry(&request.what).or_default() += 1;
    }
    counts.iter().map(|(what, n)| format!("{n} {what}")).collect::<Vec<_>>().join(", ")
}
