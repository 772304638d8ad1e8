//! Nodes that kwok plays: each process of kwok is the kubelet of one node, or of several. It can be stopped as a kubelet can.

use std::fs::File;
use std::path::Path;
use std::process::{Child, Command};

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process};

use crate::kubernetes::Kubernetes;

/// A kubelet of kwok's. Dropping it kills it.
pub struct Kwok(Child);

/// What it is the kubelet of.
#[derive(Clone, Copy, Debug)]
pub enum Nodes<'a> {
    /// The node of that name.
    Named(&'a str),
    /// Those with that label, "name=value".
    Labelled(&'a str),
}

impl Kwok {
    /// Starts it. `stages` say how nodes and pods live; each node renews its lease every 2 s.
    pub fn start(kubernetes: &Kubernetes, stages: &Path, nodes: Nodes<'_>) -> Result<Kwok> {
        let (flag, name) = match nodes {
            Nodes::Named(name) => (format!("--manage-single-node={name}"), name),
            Nodes::Labelled(label) => (format!("--manage-nodes-with-label-selector={label}"), label),
        };
        let log = File::create(kubernetes.log(&format!("kwok-{name}")))?;
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "--"])
            .arg(&kubernetes.binaries().kwok)
            .arg("--kubeconfig")
            .arg(kubernetes.kubeconfig())
            .arg("--config")
            .arg(stages)
            // It renews four times as often.
            .args([&*flag, "--node-lease-duration-seconds=8", "--node-ip=10.0.0.1"])
            // It reads a configuration of the user's too.
            .env("HOME", kubernetes.folder())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("start kwok")?;
        Ok(Kwok(child))
    }

    /// SIGSTOP: the node is silent.
    pub fn pause(&self) -> Result<()> {
        Ok(kill_process(Pid::from_child(&self.0), Signal::STOP)?)
    }

    /// SIGCONT: the node is back, and knows nothing of what has happened.
    pub fn resume(&self) -> Result<()> {
        Ok(kill_process(Pid::from_child(&self.0), Signal::CONT)?)
    }

    /// SIGKILL: the node is lost.
    pub fn kill(mut self) -> Result<()> {
        self.0.kill()?;
        self.0.wait()?;
        Ok(())
    }
}

impl Drop for Kwok {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
