//! The nodes: pods of jobs run until they are told to go, and the pod of the chart's hook runs as a process.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use batchjob_tests::kubernetes::Kubernetes;
use batchjob_tests::support::kubelet::{ago, condition, container, gone_or};
use batchjob_tests::support::operator_binary;
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Pod, ServiceAccount};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt as _};
use serde_json::json;
use tokio::task::JoinHandle;

use crate::kubelet::phase;

/// How often it looks at all pods.
const LOOK: Duration = Duration::from_millis(250);

/// All nodes, until it is dropped.
pub struct Node(JoinHandle<()>);

impl Drop for Node {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Who runs what.
struct Kubelet {
    client: Client,
    kubeconfig: String,
    folder: PathBuf,
}

impl Node {
    pub async fn start(kubernetes: &Kubernetes) -> Result<Node> {
        let kubelet = Kubelet {
            client: kubernetes.client().await?,
            kubeconfig: std::fs::read_to_string(kubernetes.kubeconfig())?,
            folder: kubernetes.folder().to_owned(),
        };
        Ok(Node(tokio::spawn(async move {
            let mut looks = tokio::time::interval(LOOK);
            let pods: Api<Pod> = Api::all(kubelet.client.clone());
            loop {
                looks.tick().await;
                let Ok(list) = pods.list(&ListParams::default()).await else { continue };
                let steps = list.items.iter().map(|pod| kubelet.step(pod));
                for failed in futures::future::join_all(steps).await.into_iter().filter_map(Result::err) {
                    eprintln!("the node: {failed:#}");
                }
            }
        })))
    }
}

impl Kubelet {
    async fn step(&self, pod: &Pod) -> Result<()> {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), &pod.namespace().context("a namespace")?);
        let is_hook = pod.labels().get("app.kubernetes.io/component").is_some_and(|it| it == "release-pods");
        let has_node = pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_some());
        match phase(pod) {
            "Pending" if is_hook => {
                let result = self.run(pod).await;
                let (end, exit_code) = if result.is_ok() { ("Succeeded", 0) } else { ("Failed", 1) };
                self.says(&pods, pod, end, &json!({ "terminated": { "exitCode": exit_code } })).await?;
                result
            }
            // Nobody gives it a node: the operator's own pod, in whose place there is a process.
            _ if !has_node => Ok(()),
            "Succeeded" | "Failed" if pod.metadata.deletion_grace_period_seconds.is_some_and(|seconds| seconds > 0) => {
                gone_or(pods.delete(&pod.name_any(), &DeleteParams::default().grace_period(0)).await.map(drop))
            }
            "Succeeded" | "Failed" => Ok(()),
            _ if pod.metadata.deletion_timestamp.is_some() => {
                let ended =
                    json!({ "terminated": { "exitCode": 143, "reason": "Error", "finishedAt": ago(Duration::ZERO) } });
                self.says(&pods, pod, "Failed", &ended).await?;
                gone_or(pods.delete(&pod.name_any(), &DeleteParams::default().grace_period(0)).await.map(drop))
            }
            "Pending" => {
                self.says(&pods, pod, "Running", &json!({ "running": { "startedAt": ago(Duration::ZERO) } })).await
            }
            _ => Ok(()),
        }
    }

    async fn says(&self, pods: &Api<Pod>, pod: &Pod, phase: &str, state: &serde_json::Value) -> Result<()> {
        let ready = condition("Ready", phase == "Running", ago(Duration::ZERO));
        let main = container(&pod.spec.as_ref().context("a spec")?.containers[0].name, state, 0);
        let status = json!({ "status": { "phase": phase, "containerStatuses": [main], "conditions": [ready] } });
        gone_or(pods.patch_status(&pod.name_any(), &PatchParams::default(), &Patch::Merge(status)).await.map(drop))
    }

    /// Runs the pod's container to its end.
    async fn run(&self, pod: &Pod) -> Result<()> {
        let spec = pod.spec.as_ref().context("a spec")?;
        let account = spec.service_account_name.as_deref().context("a service account")?;
        let namespace = pod.namespace().context("a namespace")?;
        let file = self.folder.join(format!("{}.kubeconfig", pod.name_any()));
        std::fs::write(&file, kubeconfig_of(&self.client, &self.kubeconfig, &namespace, account).await?)?;
        let mut command = Command::new(operator_binary()?);
        command.args(spec.containers[0].args.iter().flatten()).env("KUBECONFIG", file);
        let output = tokio::task::spawn_blocking(move || command.output()).await??;
        let [out, error] = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        ensure!(output.status.success(), "{} has failed: {out}{error}", pod.name_any());
        Ok(())
    }
}

/// The administrator's kubeconfig with the token of a service account in place of the certificate.
pub async fn kubeconfig_of(client: &Client, admins: &str, namespace: &str, account: &str) -> Result<String> {
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), namespace);
    let request = TokenRequest { spec: Some(TokenRequestSpec::default()), ..TokenRequest::default() };
    let request = accounts.create_token_request(account, &PostParams::default(), &request).await;
    let token = request.with_context(|| format!("a token for {namespace}/{account}"))?;
    let token = token.status.and_then(|status| status.token).context("a token")?;
    let lines = admins.lines().filter(|line| !line.trim_start().starts_with("client-certificate-data:"));
    let lines = lines.map(|line| match line.trim_start().starts_with("client-key-data:") {
        true => format!("    token: {token}\n"),
        false => format!("{line}\n"),
    });
    Ok(lines.collect())
}
