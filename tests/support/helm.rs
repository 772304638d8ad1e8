//! Helm, as a user types it.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::Said;
use crate::kubernetes::Kubernetes;

/// Helm with one cluster and one namespace. What it remembers lies in the cluster's folder.
pub struct Helm {
    binary: PathBuf,
    kubeconfig: PathBuf,
    home: PathBuf,
    namespace: String,
}

impl Helm {
    pub fn new(kubernetes: &Kubernetes, namespace: &str) -> Helm {
        Helm {
            binary: kubernetes.binaries().helm.clone(),
            kubeconfig: kubernetes.kubeconfig(),
            home: kubernetes.folder().join("helm"),
            namespace: namespace.to_owned(),
        }
    }

    /// Runs it, whatever comes of it. It may take long: not on a thread that a test waits on.
    pub async fn say(&self, arguments: &[&str]) -> Result<Said> {
        let mut command = Command::new(&self.binary);
        command.arg("--kubeconfig").arg(&self.kubeconfig).args(["--namespace", &self.namespace]).args(arguments);
        for name in ["CONFIG", "CACHE", "DATA"] {
            command.env(format!("HELM_{name}_HOME"), self.home.join(name));
        }
        let output = tokio::task::spawn_blocking(move || command.output()).await?.context("start helm")?;
        let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
        Ok(Said { succeeded: output.status.success(), text })
    }

    /// Runs it and wants it to succeed.
    pub async fn run(&self, arguments: &[&str]) -> Result<String> {
        let said = self.say(arguments).await?;
        ensure!(said.succeeded, "helm {}: {}", arguments.join(" "), said.text);
        Ok(said.text)
    }
}
