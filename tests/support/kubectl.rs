//! kubectl, as a user types it: for what a user reads, and for the manifests that a user writes.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::kubernetes::Kubernetes;

/// kubectl with one cluster and one namespace.
#[derive(Clone, Debug)]
pub struct Kubectl {
    binary: PathBuf,
    kubeconfig: PathBuf,
    /// What it knows of the API server: in `~/.kube/cache` it would meet what a dead cluster on the same port had.
    cache: PathBuf,
    namespace: String,
}

/// What it said.
#[derive(Clone, Debug)]
pub struct Said {
    pub succeeded: bool,
    /// Standard output and standard error, in this order.
    pub text: String,
}

impl Kubectl {
    pub fn new(kubernetes: &Kubernetes, namespace: &str) -> Kubectl {
        Kubectl {
            binary: kubernetes.binaries().kubectl.clone(),
            kubeconfig: kubernetes.kubeconfig(),
            cache: kubernetes.folder().join("kubectl-cache"),
            namespace: namespace.to_owned(),
        }
    }

    /// Runs it, whatever comes of it.
    pub fn say(&self, arguments: &[&str], input: &str) -> Result<Said> {
        let mut child = Command::new(&self.binary)
            .arg("--kubeconfig")
            .arg(&self.kubeconfig)
            .arg("--cache-dir")
            .arg(&self.cache)
            .args(["--namespace", &self.namespace])
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("start kubectl")?;
        // It reads its input to the end before it writes more than fits a pipe.
        child.stdin.take().context("kubectl has an input")?.write_all(input.as_bytes())?;
        let output = child.wait_with_output()?;
        let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
        Ok(Said { succeeded: output.status.success(), text })
    }

    /// Runs it and wants it to succeed.
    pub fn run(&self, arguments: &[&str]) -> Result<String> {
        let said = self.say(arguments, "")?;
        ensure!(said.succeeded, "kubectl {}: {}", arguments.join(" "), said.text);
        Ok(said.text)
    }

    /// `kubectl apply -f -`.
    pub fn apply(&self, manifest: &str) -> Result<String> {
        let said = self.say(&["apply", "-f", "-"], manifest)?;
        ensure!(said.succeeded, "kubectl apply: {}", said.text);
        Ok(said.text)
    }
}
