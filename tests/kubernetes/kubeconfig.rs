//! How does a client find the cluster and prove who it is?

use std::path::Path;

use anyhow::{Context, Result};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::certificates::Identity;

/// A kubeconfig with everything in it, so that it can be copied elsewhere.
pub(crate) fn text(server: &str, authority: &str, client: &Identity) -> String {
    let (authority, certificate, key) =
        (STANDARD.encode(authority), STANDARD.encode(&client.certificate), STANDARD.encode(&client.key));
    format!(
        "apiVersion: v1
kind: Config
clusters:
- name: batchjob
  cluster:
    server: {server}
    certificate-authority-data: {authority}
users:
- name: batchjob
  user:
    client-certificate-data: {certificate}
    client-key-data: {key}
contexts:
- name: batchjob
  context:
    cluster: batchjob
    user: batchjob
current-context: batchjob
"
    )
}

/// A client for that kubeconfig and no other: neither `~/.kube/config` nor a proxy of the environment is asked.
pub(crate) async fn client(path: &Path) -> Result<kube::Client> {
    let kubeconfig = kube::config::Kubeconfig::read_from(path).with_context(|| format!("read {}", path.display()))?;
    let mut config = kube::Config::from_custom_kubeconfig(kubeconfig, &Default::default()).await?;
    config.proxy_url = None;
    kube::Client::try_from(config).context("make a client")
}
