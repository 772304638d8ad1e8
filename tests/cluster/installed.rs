//! A cluster with the operator in it, installed as its README says: two replicas, one of which leads. The shared one runs
//! plain Jobs too.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use batchjob_tests::kubernetes::{Kubernetes, Size};
use batchjob_tests::support::{Helm, Kubectl, image_archive, wait_for};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::{Api, ResourceExt as _};
use tokio::sync::OnceCell;

/// Where the operator is: a namespace that lets in no pod that is not `restricted`.
pub const SYSTEM: &str = "batchjob-system";
/// That it runs managed Jobs, and gets those of labelled namespaces.
pub const MANAGED_JOBS: [&str; 4] =
    ["--set", "managedJobs.enabled=true", "--set", "managedJobs.mutatingAdmissionPolicy.enabled=true"];
const OPERATOR: &str = "app.kubernetes.io/component=operator";
/// Called as the release is.
const LEASE: &str = "batchjob";

/// A node, the operator's image on it, and the chart installed.
pub struct Installed {
    pub kubernetes: Kubernetes,
    pub helm: Helm,
}

/// The cluster that tests share.
pub async fn shared() -> Result<&'static Installed> {
    static SHARED: OnceCell<Installed> = OnceCell::const_new();
    SHARED.get_or_try_init(|| Installed::new(&MANAGED_JOBS)).await
}

/// A cluster for one test that does to the operator what others could not bear. Like the shared one it ends with this
/// process: no test waits for the kernel to take a node apart.
pub async fn alone(values: &[&str]) -> Result<&'static Installed> {
    Ok(Box::leak(Box::new(Installed::new(values).await?)))
}

impl Installed {
    async fn new(values: &[&str]) -> Result<Installed> {
        let kubernetes = Kubernetes::start(Size::Node).await?;
        kubernetes.load(&image_archive()?)?;
        let system = Kubectl::new(&kubernetes, SYSTEM);
        system.run(&["create", "namespace", SYSTEM])?;
        system.run(&["label", "namespace", SYSTEM, "pod-security.kubernetes.io/enforce=restricted"])?;
        let helm = Helm::new(&kubernetes, SYSTEM);
        let installed = Installed { kubernetes, helm };
        installed.install("batchjob", values).await?;
        Ok(installed)
    }

    /// `helm install … --wait`, and what was in the way if it fails.
    pub async fn install(&self, release: &str, more: &[&str]) -> Result<()> {
        let said =
            self.helm.say(&[&["install", release, &chart()?, "--wait", "--timeout", "2m"], more].concat()).await?;
        if !said.succeeded {
            eprintln!("--- the operator\n{}", self.operator_log());
        }
        ensure!(said.succeeded, "helm install {release}: {}", said.text);
        Ok(())
    }

    pub fn kubectl(&self, namespace: &str) -> Kubectl {
        Kubectl::new(&self.kubernetes, namespace)
    }

    /// The operator's pods that were not told to go.
    pub async fn operator_pods(&self) -> Result<Vec<Pod>> {
        let pods: Api<Pod> = Api::namespaced(self.kubernetes.client().await?, SYSTEM);
        let mut items = pods.list(&ListParams::default().labels(OPERATOR)).await?.items;
        items.retain(|pod| pod.metadata.deletion_timestamp.is_none());
        Ok(items)
    }

    /// The one of them that works: the one that holds the Lease; where there is no election, the only one.
    pub async fn leader(&self) -> Result<Pod> {
        let leases: Api<Lease> = Api::namespaced(self.kubernetes.client().await?, SYSTEM);
        let holder = leases.get_opt(LEASE).await?.and_then(|lease| lease.spec?.holder_identity);
        let mut pods = self.operator_pods().await?;
        if let Some(holder) = &holder {
            pods.retain(|pod| holder.starts_with(&format!("{}_", pod.name_any())));
        }
        ensure!(pods.len() == 1, "{} pods of the operator may lead, and {holder:?} has the lease", pods.len());
        pods.pop().context("there is one")
    }

    /// The process of the one that works, as this machine sees it: the one in the cgroup of that pod.
    pub async fn operator_pid(&self) -> Result<u32> {
        wait_for("the operator's process", Duration::from_secs(60), async || {
            let uid = self.leader().await?.metadata.uid.context("a pod has a uid")?;
            for entry in std::fs::read_dir("/proc")? {
                let Ok(pid) = entry?.file_name().to_string_lossy().parse() else { continue };
                let read = |name: &str| std::fs::read_to_string(format!("/proc/{pid}/{name}")).unwrap_or_default();
                if read("cgroup").contains(&uid) && read("cmdline").starts_with("/batchjob-operator") {
                    return Ok(Some(pid));
                }
            }
            Ok(None)
        })
        .await
    }

    pub fn operator_log(&self) -> String {
        let state = ["describe", "pods"].as_slice();
        let log = &["logs", "--selector", OPERATOR, "--tail", "60"];
        let say =
            |arguments| self.kubectl(SYSTEM).say(arguments, "").map_or_else(|error| error.to_string(), |it| it.text);
        say(state) + &say(log)
    }
}

/// The chart's folder.
pub fn chart() -> Result<String> {
    let chart = Path::new(env!("CARGO_MANIFEST_DIR")).join("../charts/batchjob").canonicalize()?;
    Ok(chart.display().to_string())
}
