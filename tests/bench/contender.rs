//! Who runs the work, each as a process of its own whose time and memory are measured.

use std::fs::OpenOptions;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};
use batchjob_tests::kubernetes::Kubernetes;
use batchjob_tests::support::{Operator, process};

use crate::workload::{Kind, Play, Workload};

/// Who runs the work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Contender {
    /// kube-controller-manager as it comes: 20 requests a second.
    Defaults,
    /// kube-controller-manager with its client's limits lifted, and 20 workers.
    Lifted,
    /// The operator, of BatchJobs.
    Operator,
    /// The operator, of batch/v1 Jobs that name it.
    Managed,
    /// A client that creates pods, watches them and lets them go, and counts nothing: what no controller can beat that tracks
    /// its pods with a finalizer.
    Floor,
}

/// One that runs. Dropping it ends it.
pub enum Running {
    Operator(Operator),
    Process(Child),
}

impl Contender {
    pub const ALL: [Contender; 5] =
        [Contender::Defaults, Contender::Lifted, Contender::Operator, Contender::Managed, Contender::Floor];

    pub fn name(self) -> &'static str {
        match self {
            Contender::Defaults => "kube-controller-manager, default limits",
            Contender::Lifted => "kube-controller-manager, limits lifted",
            Contender::Operator => "operator, BatchJobs",
            Contender::Managed => "operator, managed Jobs",
            Contender::Floor => "floor",
        }
    }

    /// As it is chosen by.
    pub fn short(self) -> &'static str {
        match self {
            Contender::Defaults => "defaults",
            Contender::Lifted => "lifted",
            Contender::Operator => "operator",
            Contender::Managed => "managed",
            Contender::Floor => "floor",
        }
    }

    pub fn is_ours(self) -> bool {
        matches!(self, Contender::Operator | Contender::Managed)
    }

    /// With its default limits it would take hours, and the floor knows no jobs.
    pub fn takes_part(self, workload: &Workload) -> bool {
        match self {
            Contender::Defaults => workload.name == "large",
            Contender::Floor => workload.play == Play::Runs && !workload.fails,
            Contender::Lifted | Contender::Operator | Contender::Managed => true,
        }
    }

    pub fn kind(self) -> Kind {
        match self {
            Contender::Operator => Kind::BatchJob,
            Contender::Managed => Kind::ManagedJob,
            Contender::Defaults | Contender::Lifted | Contender::Floor => Kind::Job,
        }
    }

    /// Starts it. That it is ready shows a first small job.
    pub async fn start(self, kubernetes: &Kubernetes, namespace: &str, workload: &Workload) -> Result<Running> {
        match self {
            Contender::Operator => Ok(Running::Operator(Operator::start(kubernetes, &["--cron-jobs", "false"]).await?)),
            Contender::Managed => {
                let arguments = ["--cron-jobs", "false", "--managed-jobs", "true"];
                Ok(Running::Operator(Operator::start(kubernetes, &arguments).await?))
            }
            Contender::Defaults => manager(kubernetes, &[]),
            Contender::Lifted => {
                let limits = ["--kube-api-qps=10000", "--kube-api-burst=10000", "--concurrent-job-syncs=20"];
                manager(kubernetes, &limits)
            }
            Contender::Floor => floor(kubernetes, namespace, workload),
        }
    }
}

impl Running {
    pub fn pid(&self) -> u32 {
        match self {
            Running::Operator(operator) => operator.pid(),
            Running::Process(child) => child.id(),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Running::Process(child) = self {
            // It may have ended already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The Job controller of kube-controller-manager alone. All its others are in that of the cluster, with the same flags else.
fn manager(kubernetes: &Kubernetes, more: &[&str]) -> Result<Running> {
    let pid = kubernetes.pid("kube-controller-manager").context("kube-controller-manager runs")?;
    let is_kept = |flag: &String| {
        ["--controllers", "--kube-api-qps", "--kube-api-burst"].iter().all(|other| !flag.starts_with(other))
    };
    let command = process::command(pid)?.into_iter().filter(is_kept);
    let log = OpenOptions::new().create(true).append(true).open(kubernetes.log("job-controller"))?;
    let child = Command::new("setpriv")
        .args(["--pdeathsig", "KILL", "--"])
        .args(command)
        .arg("--controllers=job-controller")
        .args(more)
        .env_clear()
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .context("start kube-controller-manager")?;
    Ok(Running::Process(child))
}

fn floor(kubernetes: &Kubernetes, namespace: &str, workload: &Workload) -> Result<Running> {
    let child = Command::new("setpriv")
        .args(["--pdeathsig", "KILL", "--"])
        .arg(std::env::current_exe()?)
        .args(["floor", "--namespace", namespace])
        .args(["--pods", &(workload.jobs * workload.completions).to_string()])
        .args(["--at-once", &(workload.jobs * workload.parallelism).to_string()])
        .env("KUBECONFIG", kubernetes.kubeconfig())
        .spawn()
        .context("start the floor")?;
    Ok(Running::Process(child))
}
