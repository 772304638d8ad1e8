//! Who has asked the API server for what: its audit log is the one count that does not depend on what the sender says.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Seek as _, SeekFrom};
use std::path::PathBuf;

use anyhow::{Context, Result};
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;

use crate::kubernetes::Kubernetes;

/// Reads the log as it grows.
pub struct Audit {
    path: PathBuf,
    mark: String,
    at: u64,
    requests: Vec<Request>,
}

/// A request that was answered; a watch, that has begun.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    pub at: Timestamp,
    pub took: SignedDuration,
    pub verb: String,
    /// "pods", "batchjobs/status"; of what is no resource, the path.
    pub resource: String,
    /// Empty: of no namespace, or of all.
    pub namespace: String,
    pub code: u16,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Line {
    stage: String,
    verb: String,
    #[serde(rename = "requestURI")]
    uri: String,
    request_received_timestamp: Timestamp,
    stage_timestamp: Timestamp,
    object_ref: Option<ObjectRef>,
    response_status: Option<ResponseStatus>,
}

#[derive(Deserialize)]
struct ResponseStatus {
    code: Option<u16>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ObjectRef {
    resource: Option<String>,
    namespace: String,
    subresource: Option<String>,
}

impl Audit {
    /// Of everything from the start of the cluster, which was started with [`audit`](crate::kubernetes::Options::audit), as
    /// far as `mark` is in its line: `"userAgent":"kubectl/`.
    pub fn of(kubernetes: &Kubernetes, mark: impl Into<String>) -> Audit {
        let mark = mark.into();
        Audit { path: kubernetes.audit_log(), mark, at: 0, requests: Vec::new() }
    }

    /// What was asked so far, in the order of the answers.
    pub fn requests(&mut self) -> Result<&[Request]> {
        let mut file = File::open(&self.path).with_context(|| format!("open {}", self.path.display()))?;
        file.seek(SeekFrom::Start(self.at))?;
        let mut reader = BufReader::new(file);
        let mut line = String::new();
        // The last line may not be written to its end.
        while reader.read_line(&mut line)? > 0 && line.ends_with('\n') {
            self.at += line.len() as u64;
            if line.contains(&self.mark) {
                let found: Line = serde_json::from_str(&line).with_context(|| format!("read {line}"))?;
                // A watch is told of twice: when it has begun, or was refused, and when it ends.
                if found.verb != "watch" || found.stage == "ResponseStarted" {
                    self.requests.push(found.into());
                }
            }
            line.clear();
        }
        Ok(&self.requests)
    }
}

impl Request {
    pub fn what(&self) -> String {
        format!("{} {}", self.verb, self.resource)
    }

    pub fn is_write(&self) -> bool {
        !matches!(&*self.verb, "get" | "list" | "watch")
    }
}

impl From<Line> for Request {
    fn from(line: Line) -> Request {
        let at = line.request_received_timestamp;
        let ObjectRef { resource, namespace, subresource } = line.object_ref.unwrap_or_default();
        let part = subresource.map(|part| format!("/{part}")).unwrap_or_default();
        Request {
            at,
            took: line.stage_timestamp.duration_since(at),
            verb: line.verb,
            resource: resource.unwrap_or(line.uri) + &part,
            namespace,
            code: line.response_status.and_then(|status| status.code).unwrap_or_default(),
        }
    }
}
