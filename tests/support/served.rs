//! BatchJobs on a cluster: the CRD of this repository, as soon as the API server serves it.

use std::time::Duration;

use anyhow::Result;
use batchjob_crd::BatchJob;
use kube::Api;
use kube::api::ListParams;

use super::{Kubectl, wait_for};
use crate::kubernetes::Kubernetes;

/// Applies the CRD, and waits until BatchJobs can be listed: `kubectl wait --for=condition=Established` fails while the
/// new CRD has no conditions at all.
pub async fn serve_batch_jobs(kubernetes: &Kubernetes) -> Result<()> {
    let kubectl = Kubectl::new(kubernetes, "default");
    kubectl.run(&["apply", "-f", concat!(env!("CARGO_MANIFEST_DIR"), "/../crds/batchjobs.yaml")])?;
    let jobs: Api<BatchJob> = Api::all(kubernetes.client().await?);
    let limit = Duration::from_secs(60);
    wait_for("BatchJobs are served", limit, async || Ok(jobs.list(&ListParams::default()).await.ok())).await?;
    Ok(())
}
