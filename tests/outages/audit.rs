//! How much the operator asks: from the API server's own audit log.

use std::collections::HashSet;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

/// The log of one API server.
pub struct Audit {
    pub log: PathBuf,
}

/// One request.
#[derive(Clone, Debug)]
pub struct Asked {
    pub at: Timestamp,
    /// Until it was answered; a watch, until it began.
    pub took: SignedDuration,
    /// "list pods", "update batchjobs/status", "get /version".
    pub what: String,
    pub is_write: bool,
    pub code: u64,
}

impl Audit {
    /// What the operator in that namespace has asked and been answered so far, in order. A watch has been answered when
    /// it has begun.
    pub fn of(&self, namespace: &str) -> Result<Vec<Asked>> {
        let user = format!("system:serviceaccount:{namespace}:{}", super::identity::NAME);
        let log = fs::read_to_string(&self.log).with_context(|| format!("read {}", self.log.display()))?;
        let (mut seen, mut asked) = (HashSet::new(), Vec::new());
        // The last line may not be written to its end.
        for line in log.lines().filter(|line| line.contains(&user)) {
            let Ok(event) = serde_json::from_str::<Value>(line) else { continue };
            let is_new = event["user"]["username"] == *user && seen.insert(event["auditID"].to_string());
            if is_new {
                asked.push(Asked::read(&event)?);
            }
        }
        asked.sort_by_key(|asked| asked.at);
        Ok(asked)
    }
}

impl Asked {
    fn read(event: &Value) -> Result<Asked> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let (verb, object) = (text(&event["verb"]), &event["objectRef"]);
        let what = match (object["resource"].as_str(), object["subresource"].as_str()) {
            (Some(resource), Some(part)) => format!("{resource}/{part}"),
            (Some(resource), None) => resource.to_owned(),
            (None, _) => text(&event["requestURI"]),
        };
        let time =
            |field: &str| text(&event[field]).parse::<Timestamp>().with_context(|| format!("{field} of a request"));
        let at = time("requestReceivedTimestamp")?;
        Ok(Asked {
            at,
            took: time("stageTimestamp")?.duration_since(at),
            // The Lease is renewed whether or not there is work.
            is_write: !matches!(&*verb, "get" | "list" | "watch") && what != "leases",
            what: format!("{verb} {what}"),
            code: event["responseStatus"]["code"].as_u64().unwrap_or_default(),
        })
    }
}

/// For how long of that time nothing was asked that was not answered yet.
pub fn idle(asked: &[Asked], from: Timestamp, to: Timestamp) -> SignedDuration {
    // In the order in which they came.
    let mut busy_until = from;
    let mut idle = SignedDuration::ZERO;
    for asked in asked.iter().filter(|asked| asked.at + asked.took > from && asked.at < to) {
        idle += asked.at.duration_since(busy_until).max(SignedDuration::ZERO);
        busy_until = busy_until.max(asked.at + asked.took);
    }
    idle + to.duration_since(busy_until).max(SignedDuration::ZERO)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_is_the_time_between_requests() {
        let second = |s| Timestamp::UNIX_EPOCH + SignedDuration::from_secs(s);
        let asked = |at, took| Asked {
            at: second(at),
            took: SignedDuration::from_secs(took),
            what: String::new(),
            is_write: false,
            code: 200,
        };
        let all = [asked(0, 2), asked(3, 4), asked(4, 1), asked(9, 5)];
        // From 1: at work until 2, from 3 to 7, and from 9 on.
        assert_eq!(idle(&all, second(1), second(12)).as_secs(), 1 + 2);
        assert_eq!(idle(&[], second(1), second(12)).as_secs(), 11);
    }
}
