//! A release of the chart for one namespace, its operator as a process, and jobs at work.

use std::time::Duration;

use anyhow::{Context, Result};
use batchjob_crd::{BatchJob, keys};
use batchjob_tests::kubernetes::Kubernetes;
use batchjob_tests::support::{Helm, Kubectl, Namespace, Operator, wait_for};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Namespace as Object, Pod};
use kube::api::{DeleteParams, ListParams, PostParams};
use kube::{Api, Client};
use serde_json::json;

use super::node::kubeconfig_of;
use crate::kubelet::phase;
use crate::stage::{is_held, repository, template};

/// Every kind of which the chart has an object, where there is one.
const KINDS: &str = "deployments,services,serviceaccounts,pods,roles,rolebindings,clusterroles,clusterrolebindings,\
                     validatingadmissionpolicies,validatingadmissionpolicybindings";

pub struct Release {
    pub name: String,
    /// Of its objects.
    full_name: String,
    /// The namespace of the jobs.
    pub namespace: String,
    /// It is in that namespace too.
    is_with_jobs: bool,
    client: Client,
    helm: Helm,
    kubectl: Kubectl,
    deployments: Api<Deployment>,
    operator: Option<Operator>,
    log: std::path::PathBuf,
}

impl Release {
    /// Installs the chart for a new namespace, in `system` or else in that namespace itself, and waits until four pods run: two
    /// of a BatchJob, one of a BatchJob that will be deleted, and one of a managed Job.
    pub async fn install(kubernetes: &Kubernetes, system: Option<&str>, name: &str) -> Result<Release> {
        let namespace = Namespace::new(kubernetes, name).await?;
        let system = system.unwrap_or(&namespace.name);
        let client = kubernetes.client().await?;
        let helm = Helm::new(kubernetes, system);
        let (chart, watched) = (repository("charts/batchjob"), format!("watchNamespace={}", namespace.name));
        let chart = chart.display().to_string();
        // The operator is a process here, and one of them. What a cluster has once it need not have for each of the releases.
        let values = [
            "replicas=1",
            "crds.enabled=false",
            "managedJobs.enabled=true",
            "admissionWarnings.enabled=false",
            "rbac.aggregate=false",
            &watched,
        ];
        let values = values.into_iter().flat_map(|value| ["--set", value]);
        helm.run(&["install", name, &chart].into_iter().chain(values).collect::<Vec<_>>()).await?;

        let full_name = if name.contains("batchjob") { name.to_owned() } else { format!("{name}-batchjob") };
        let deployments: Api<Deployment> = Api::namespaced(client.clone(), system);
        let spec = deployments.get(&full_name).await?.spec.template.spec.context("a pod's spec")?;
        let account = spec.service_account_name.as_deref().context("a service account")?;
        let admins = std::fs::read_to_string(kubernetes.kubeconfig())?;
        let kubeconfig = kubernetes.folder().join(format!("{full_name}.kubeconfig"));
        std::fs::write(&kubeconfig, kubeconfig_of(&client, &admins, system, account).await?)?;
        let arguments = spec.containers[0].args.iter().flatten().map(String::as_str);
        // These two are set already.
        let arguments: Vec<&str> =
            arguments.filter(|it| !it.starts_with("--listen=") && !it.starts_with("--log-level=")).collect();
        let mut operator = Operator::spawn(kubernetes, &kubeconfig, &arguments)?;
        operator.until_ready().await?;

        let log = operator.log.clone();
        let release = Release {
            name: name.to_owned(),
            full_name,
            is_with_jobs: system == namespace.name,
            namespace: namespace.name.clone(),
            client,
            helm,
            kubectl: Kubectl::new(kubernetes, system),
            deployments,
            operator: Some(operator),
            log,
        };
        release.put_to_work().await?;
        Ok(release)
    }

    async fn put_to_work(&self) -> Result<()> {
        let jobs: Api<BatchJob> = Api::namespaced(self.client.clone(), &self.namespace);
        let managed: Api<Job> = Api::namespaced(self.client.clone(), &self.namespace);
        let spec = json!({ "template": template(json!({ "nodeName": "node-1" })), "parallelism": 1, "completions": 1 });
        for (name, n) in [("etl", 2), ("going", 1)] {
            let mut spec = spec.clone();
            (spec["parallelism"], spec["completions"]) = (n.into(), n.into());
            let job = json!({ "apiVersion": "batchjob.dev/v1alpha1", "kind": "BatchJob", "metadata": { "name": name }, "spec": spec });
            jobs.create(&PostParams::default(), &serde_json::from_value(job)?).await?;
        }
        let mut spec = spec;
        spec["managedBy"] = keys::MANAGED_BY.into();
        let job = json!({ "apiVersion": "batch/v1", "kind": "Job", "metadata": { "name": "managed" }, "spec": spec });
        managed.create(&PostParams::default(), &serde_json::from_value(job)?).await?;

        let pods: Api<Pod> = Api::namespaced(self.client.clone(), &self.namespace);
        let at_work = async || {
            let mut found = pods.list(&ListParams::default()).await?.items;
            found.retain(|pod| phase(pod) == "Running" && is_held(pod));
            Ok((found.len() == 4).then_some(()))
        };
        wait_for("four pods run", Duration::from_secs(120), at_work).await.with_context(|| self.log())?;
        Ok(())
    }

    /// A job is deleted in the foreground, and still there as the first step is done.
    pub async fn begin(&self) -> Result<()> {
        let jobs: Api<BatchJob> = Api::namespaced(self.client.clone(), &self.namespace);
        jobs.delete("going", &DeleteParams::foreground()).await?;
        Ok(())
    }

    pub fn kill(&mut self) -> Result<()> {
        self.operator.take().map_or(Ok(()), Operator::kill)
    }

    /// `helm uninstall`; a node ends the operator when its pod is to go.
    pub async fn uninstall(&mut self, more: &[&str]) -> Result<()> {
        let arguments = [&["uninstall", &*self.name], more].concat();
        let operator = self.operator.take();
        let end = async {
            let gone = async || Ok(self.deployments.get_opt(&self.full_name).await?.is_none().then_some(()));
            wait_for("the deployment is gone", Duration::from_secs(60), gone).await?;
            terminate(operator).await
        };
        tokio::try_join!(self.helm.run(&arguments), end)?;
        Ok(())
    }

    /// Asks for it and does not wait. If it is the operator's own too, a node ends that.
    pub async fn delete_namespace(&mut self) -> Result<()> {
        let namespaces: Api<Object> = Api::all(self.client.clone());
        namespaces.delete(&self.namespace, &DeleteParams::default()).await?;
        if self.is_with_jobs {
            terminate(self.operator.take()).await?;
        }
        Ok(())
    }

    /// What there still is of it and of its jobs, in words.
    pub async fn left(&self) -> Result<Vec<String>> {
        let namespaces: Api<Object> = Api::all(self.client.clone());
        let namespace = namespaces.get_opt(&self.namespace).await?;
        let selector = format!("app.kubernetes.io/instance={}", self.name);
        let (kubectl, get) =
            (self.kubectl.clone(), ["get", KINDS, "--selector", &selector, "--output", "name"].map(str::to_owned));
        let said = tokio::task::spawn_blocking(move || kubectl.run(&get.each_ref().map(String::as_str))).await??;
        let mut left: Vec<String> = said.lines().filter(|line| line.contains('/')).map(str::to_owned).collect();
        left.extend(namespace.map(|namespace| {
            let conditions = namespace.status.and_then(|status| status.conditions).unwrap_or_default();
            let conditions = conditions.into_iter().filter(|condition| condition.status == "True");
            let why: Vec<String> = conditions.filter_map(|condition| condition.message).collect();
            format!("namespace {}: {}", self.namespace, why.join("; "))
        }));
        Ok(left)
    }

    /// The end of the operator's log.
    pub fn log(&self) -> String {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }
}

async fn terminate(operator: Option<Operator>) -> Result<()> {
    if let Some(operator) = operator {
        operator.terminate(Duration::from_secs(30)).await?;
    }
    Ok(())
}
