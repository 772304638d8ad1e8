//! What is read off: the requests that the API server has answered, and the order and the times of what a watch tells.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use http::Request;
use kube::Client;

/// The figures of one run.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    /// From the first create of a job until all was over.
    pub took: Duration,
    /// How many pods ended in it.
    pub pods: usize,
    /// The time that the controller has had a core.
    pub cpu: Duration,
    /// The most memory that it has had, in bytes.
    pub memory: u64,
    /// What was written by it, or for it: by verb and resource.
    pub writes: BTreeMap<String, u64>,
    /// From a pod's end to the create of the one that takes its place.
    pub successor: Vec<Duration>,
    /// From a job's create to that of its first pod.
    pub first_pod: Vec<Duration>,
}

impl Figures {
    pub fn pods_per_second(&self) -> f64 {
        self.pods as f64 / self.took.as_secs_f64()
    }

    pub fn cpu_per_thousand(&self) -> f64 {
        1000.0 * self.cpu.as_secs_f64() / self.pods as f64
    }

    pub fn mebibytes(&self) -> f64 {
        self.memory as f64 / f64::from(1 << 20)
    }

    /// "post pods 1.00, patch batchjobs/status 0.03": for each pod.
    pub fn written(&self) -> String {
        let per_pod = |(what, n): (&String, &u64)| format!("{what} {:.2}", *n as f64 / self.pods as f64);
        self.writes.iter().map(per_pod).collect::<Vec<_>>().join(", ")
    }

    pub fn writes_per_pod(&self) -> f64 {
        self.writes.values().sum::<u64>() as f64 / self.pods as f64
    }
}

/// Which of so many it is, by percent; None if there are none.
pub fn percentile(delays: &[Duration], percent: usize) -> Option<Duration> {
    let mut delays = delays.to_vec();
    delays.sort();
    delays.get(delays.len().checked_sub(1)? * percent / 100).copied()
}

/// When each pod of a job was created, and when each ended, as the watch has told.
#[derive(Clone, Debug, Default)]
pub struct Times {
    pub job: Option<Instant>,
    pub created: Vec<Instant>,
    pub ended: Vec<Instant>,
}

impl Times {
    /// So many run at a time: the n-th end makes room for the pod that many creates later.
    pub fn successors(&self, parallelism: usize) -> impl Iterator<Item = Duration> {
        let later = self.created.iter().skip(parallelism);
        self.ended.iter().zip(later).map(|(ended, created)| created.saturating_duration_since(*ended))
    }

    pub fn first_pod(&self) -> Option<Duration> {
        Some(self.created.first()?.saturating_duration_since(self.job?))
    }
}

/// What the API server has answered so far: `apiserver_request_total`, without reads.
pub async fn writes(client: &Client) -> Result<BTreeMap<String, u64>> {
    let text = client.request_text(Request::get("/metrics").body(Vec::new())?).await?;
    let mut counts = BTreeMap::new();
    for line in text.lines().filter_map(|line| line.strip_prefix("apiserver_request_total{")) {
        let (labels, value) = line.rsplit_once("} ").with_context(|| format!("{line}: labels, and a number"))?;
        let label = |name: &str| {
            let after = labels.split_once(&format!("{name}=\""))?.1;
            Some(after.split_once('"')?.0)
        };
        let verb = label("verb").unwrap_or_default();
        if !matches!(verb, "POST" | "PUT" | "PATCH" | "APPLY" | "DELETE" | "DELETECOLLECTION") {
            continue;
        }
        let (resource, sub) = (label("resource").unwrap_or_default(), label("subresource").unwrap_or_default());
        let separator = if sub.is_empty() { "" } else { "/" };
        // Numbers are floats there; these are whole.
        let n = value.trim().parse::<f64>().with_context(|| format!("{line}: a number"))? as u64;
        *counts.entry(format!("{} {resource}{separator}{sub}", verb.to_lowercase())).or_default() += n;
    }
    Ok(counts)
}

/// What came in between, of what a controller writes: kwok's words about pods, leases and nodes are left out.
pub fn between(before: &BTreeMap<String, u64>, after: &BTreeMap<String, u64>) -> BTreeMap<String, u64> {
    const OTHERS: [&str; 6] =
        ["pods/status", "leases", "nodes", "nodes/status", "endpointslices", "serviceaccounts/token"];
    let grown = after.iter().map(|(what, n)| (what.clone(), n - before.get(what).copied().unwrap_or_default()));
    grown.filter(|(what, n)| *n > 0 && OTHERS.iter().all(|other| !what.ends_with(&format!(" {other}")))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_that_makes_room_is_as_many_creates_earlier() {
        let began = Instant::now();
        let at = |millis: u64| began + Duration::from_millis(millis);
        let times =
            Times { job: Some(at(0)), created: vec![at(5), at(6), at(130), at(250)], ended: vec![at(100), at(200)] };
        let successors: Vec<Duration> = times.successors(2).collect();
        assert_eq!(successors, [Duration::from_millis(30), Duration::from_millis(50)]);
        assert_eq!(times.first_pod(), Some(Duration::from_millis(5)));
    }

    #[test]
    fn percentiles_are_of_what_there_is() {
        let delays: Vec<Duration> = (1..=100).rev().map(Duration::from_millis).collect();
        assert_eq!(percentile(&delays, 50), Some(Duration::from_millis(50)));
        assert_eq!(percentile(&delays, 100), Some(Duration::from_millis(100)));
        assert_eq!(percentile(&[], 50), None);
    }
}
