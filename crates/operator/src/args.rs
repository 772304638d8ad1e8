//! Every flag with its default. `--help` is made from this file, and the README's table is checked against it.

use std::net::SocketAddr;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::lease::Timing;

/// Runs BatchJobs: watches them and their pods, decides what is next, writes it.
#[derive(Debug, Parser)]
#[command(name = "batchjob-operator", version, max_term_width = 100)]
pub struct Command {
    #[command(subcommand)]
    pub other: Option<Other>,
    #[command(flatten)]
    pub operator: OperatorArgs,
}

#[derive(Debug, Subcommand)]
pub enum Other {
    /// Run a small BatchJob with this image to its end, and say whether all is well: what `helm test` runs
    Selftest(SelftestArgs),
    /// Take our finalizer off every pod, so that nothing waits for an operator that is gone: what `helm uninstall` runs
    Release(ReleaseArgs),
    /// Do nothing and succeed: what the pods of the selftest run
    Noop,
}

#[derive(Clone, Debug, Args)]
pub struct OperatorArgs {
    /// Where /healthz, /readyz and /metrics are served
    #[arg(long, env = "BATCHJOB_LISTEN", default_value = "0.0.0.0:8080", value_name = "ADDRESS")]
    pub listen: SocketAddr,

    /// Look after the jobs of this namespace only; empty means all namespaces
    #[arg(long, env = "BATCHJOB_WATCH_NAMESPACE", default_value = "", value_name = "NAMESPACE")]
    pub watch_namespace: String,

    /// Run the batch/v1 Jobs with spec.managedBy: batchjob.dev/operator too
    #[arg(
        long,
        env = "BATCHJOB_MANAGED_JOBS",
        default_value = "false",
        value_name = "BOOL",
        action = clap::ArgAction::Set
    )]
    pub managed_jobs: bool,

    /// Run BatchCronJobs too
    #[arg(
        long,
        env = "BATCHJOB_CRON_JOBS",
        default_value = "true",
        value_name = "BOOL",
        action = clap::ArgAction::Set
    )]
    pub cron_jobs: bool,

    /// How many jobs are looked at at the same time
    #[arg(long, env = "BATCHJOB_WORKERS", default_value = "16", value_name = "N", value_parser = at_least_one)]
    pub workers: usize,

    /// How many requests may wait for the API server's answer at the same time, watches aside
    #[arg(
        long,
        env = "BATCHJOB_MAX_REQUESTS_IN_FLIGHT",
        default_value = "64",
        value_name = "N",
        value_parser = at_least_one
    )]
    pub max_requests_in_flight: usize,

    /// How long a request may take before it is given up and, if that is safe, tried again: 500ms, 30s, 1m
    #[arg(long, env = "BATCHJOB_REQUEST_TIMEOUT", default_value = "30s", value_name = "DURATION", value_parser = duration)]
    pub request_timeout: Duration,

    /// Have one operator lead and the others stand by; without it there must be only one
    #[arg(
        long,
        env = "BATCHJOB_LEADER_ELECT",
        default_value = "true",
        value_name = "BOOL",
        action = clap::ArgAction::Set
    )]
    pub leader_elect: bool,

    /// The Lease that the leader holds
    #[arg(long, env = "BATCHJOB_LEADER_ELECT_RESOURCE_NAME", default_value = "batchjob-operator", value_name = "NAME")]
    pub leader_elect_resource_name: String,

    /// Where that Lease is; empty means the namespace of the operator's pod, or of the kubeconfig
    #[arg(long, env = "BATCHJOB_LEADER_ELECT_RESOURCE_NAMESPACE", default_value = "", value_name = "NAMESPACE")]
    pub leader_elect_resource_namespace: String,

    /// A leader that has not renewed the Lease for so long is replaced
    #[arg(
        long,
        env = "BATCHJOB_LEADER_ELECT_LEASE_DURATION",
        default_value = "15s",
        value_name = "DURATION",
        value_parser = duration
    )]
    pub leader_elect_lease_duration: Duration,

    /// A leader that could not renew the Lease for so long stops writing; less than the lease duration
    #[arg(
        long,
        env = "BATCHJOB_LEADER_ELECT_RENEW_DEADLINE",
        default_value = "10s",
        value_name = "DURATION",
        value_parser = duration
    )]
    pub leader_elect_renew_deadline: Duration,

    /// How often the leader renews the Lease; less than half the renew deadline
    #[arg(
        long,
        env = "BATCHJOB_LEADER_ELECT_RETRY_PERIOD",
        default_value = "2s",
        value_name = "DURATION",
        value_parser = duration
    )]
    pub leader_elect_retry_period: Duration,

    /// One JSON object a line, or text for people
    #[arg(long, env = "BATCHJOB_LOG_FORMAT", default_value = "human", value_name = "FORMAT")]
    pub log_format: LogFormat,

    /// error, warn, info, debug or trace; or a filter such as info,batchjob_operator=debug
    #[arg(long, env = "BATCHJOB_LOG_LEVEL", default_value = "info", value_name = "FILTER")]
    pub log_level: String,
}

#[derive(Clone, Debug, Args)]
pub struct SelftestArgs {
    /// Where the BatchJob is made
    #[arg(long, default_value = "default")]
    pub namespace: String,
    /// The image of its pods: one that holds this program
    #[arg(long)]
    pub image: String,
    /// How long it may take
    #[arg(long, default_value = "90s", value_name = "DURATION", value_parser = duration)]
    pub timeout: Duration,
}

#[derive(Clone, Debug, Args)]
pub struct ReleaseArgs {
    /// The pods of this namespace only; empty means all namespaces
    #[arg(long, default_value = "")]
    pub namespace: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    Json,
    Human,
}

impl OperatorArgs {
    /// None for all namespaces.
    pub fn namespace(&self) -> Option<&str> {
        Some(self.watch_namespace.as_str()).filter(|namespace| !namespace.is_empty())
    }

    /// The times of the election, if they go together.
    pub fn election_timing(&self) -> Result<Timing, String> {
        let timing = Timing {
            lease_duration: self.leader_elect_lease_duration,
            renew_deadline: self.leader_elect_renew_deadline,
            retry_period: self.leader_elect_retry_period,
        };
        let Timing { lease_duration, renew_deadline, retry_period } = timing;
        if lease_duration < Duration::from_secs(1) || lease_duration.subsec_nanos() > 0 {
            // A Lease holds whole seconds.
            return Err("--leader-elect-lease-duration: write whole seconds, 1s or more".to_owned());
        }
        if renew_deadline >= lease_duration {
            return Err(format!(
                "--leader-elect-renew-deadline: write less than the lease duration, {lease_duration:?}"
            ));
        }
        if retry_period * 2 >= renew_deadline {
            return Err(format!(
                "--leader-elect-retry-period: write less than half the renew deadline, {renew_deadline:?}"
            ));
        }
        Ok(timing)
    }
}

fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("write 1 or more".to_owned()),
        Ok(n) => Ok(n),
        Err(_) => Err("write a whole number".to_owned()),
    }
}

/// "500ms", "30s", "1m 30s".
fn duration(text: &str) -> Result<Duration, String> {
    let written = || format!("{text:?} is no duration: write a number and a unit, such as 500ms, 30s or 1m");
    let duration: jiff::SignedDuration = text.parse().map_err(|_| written())?;
    match Duration::try_from(duration) {
        Ok(Duration::ZERO) | Err(_) => Err("write more than 0s".to_owned()),
        Ok(duration) => Ok(duration),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_flags_are_well_formed() {
        Command::command().debug_assert();
    }

    #[test]
    fn an_empty_namespace_means_all() {
        let namespace = |words: &[&str]| {
            let command = Command::try_parse_from(std::iter::once(&"x").chain(words)).expect("valid");
            command.operator.namespace().map(str::to_owned)
        };
        assert_eq!(namespace(&["--watch-namespace="]), None);
        assert_eq!(namespace(&["--watch-namespace=team"]), Some("team".to_owned()));
    }

    #[test]
    fn errors_say_what_to_write() {
        let error = |word: &str| Command::try_parse_from(["x", word]).expect_err("invalid").to_string();
        assert!(error("--workers=0").contains("write 1 or more"), "{}", error("--workers=0"));
        assert!(error("--request-timeout=5").contains("such as 500ms, 30s or 1m"), "{}", error("--request-timeout=5"));
        assert!(error("--managed-jobs=yes").contains("true, false"), "{}", error("--managed-jobs=yes"));
        assert!(error("--log-format=xml").contains("json, human"), "{}", error("--log-format=xml"));
    }
}
