//! Who runs the jobs, as a process that is killed and started again.

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use batchjob_tests::kubernetes::Kubernetes;
use batchjob_tests::support::{Operator, process, wait_for};
use rustix::process::{Pid, Signal, kill_process, test_kill_process};

/// kube-controller-manager. The first is the cluster's, the next ones are ours.
pub struct Manager {
    pid: u32,
    command: Vec<String>,
    child: Option<Child>,
}

impl Manager {
    pub fn of(kubernetes: &Kubernetes) -> Result<Manager> {
        let pid = kubernetes.pid("kube-controller-manager").context("kube-controller-manager runs")?;
        Ok(Manager { pid, command: process::command(pid)?, child: None })
    }

    /// SIGKILL, and then the same again.
    pub async fn restart(&mut self, kubernetes: &Kubernetes) -> Result<()> {
        self.kill()?;
        // Its port is none, and nothing else of it lasts: it may start as soon as it is dead.
        wait_for("it is dead", Duration::from_secs(10), async || Ok(self.is_dead()?.then_some(()))).await?;
        let log = fs::OpenOptions::new().append(true).open(kubernetes.log("kube-controller-manager"))?;
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "--"])
            .args(&self.command)
            .process_group(0)
            .env_clear()
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("start kube-controller-manager")?;
        self.pid = child.id();
        self.child = Some(child);
        Ok(())
    }

    fn kill(&mut self) -> Result<()> {
        match &mut self.child {
            Some(child) => Ok(child.kill()?),
            None => Ok(kill_process(self.pid()?, Signal::KILL)?),
        }
    }

    fn pid(&self) -> Result<Pid> {
        i32::try_from(self.pid).ok().and_then(Pid::from_raw).context("a pid")
    }

    fn is_dead(&mut self) -> Result<bool> {
        if let Some(child) = &mut self.child {
            return Ok(child.try_wait()?.is_some());
        }
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid)).unwrap_or_default();
        // The cluster, whose child it is, takes its exit status when it ends.
        let is_zombie = stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with(['Z', 'X']));
        Ok(is_zombie || test_kill_process(self.pid()?).is_err())
    }

    pub fn check(&mut self) -> Result<()> {
        ensure!(!self.is_dead()?, "kube-controller-manager has ended by itself");
        Ok(())
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            // It may have ended already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

pub async fn operator(kubernetes: &Kubernetes) -> Result<Operator> {
    Operator::start(kubernetes, &["--managed-jobs", "true"]).await
}
