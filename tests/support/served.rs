//! BatchJobs and BatchCronJobs on a cluster: the CRDs of this repository, as soon as the API server serves them.

use std::time::Duration;

use anyhow::Result;
use batchjob_crd::{BatchCronJob, BatchJob};
use kube::Api;
use kube::api::ListParams;

use super::{Kubectl, wait_for};
use crate::kubernetes::Kubernetes;

/// Applies the CRDs, and waits until both kinds can be listed: `kubectl wait --for=condition=Established` fails while a new
/// CRD has no conditions at all.
pub async fn serve_batch_jobs(kubernetes: &Kubernetes) -> Result<()> {
    let kubectl = Kubectl::new(kubernetes, "default");
    kubectl.run(&["apply", "-f", concat!(env!("CARGO_MANIFEST_DIR"), "/../crds")])?;
    let jobs: Api<BatchJob> = Api::all(kubernetes.client().await?);
    let limit = Duration::from_secs(60);
    wait_for("BatchJobs are served", limit, async || Ok(jobs.list(&ListParams::default()).await.ok())).await?;
    let crons: Api<BatchCronJob> = Api::all(kubernetes.client().await?);
    wait_for("BatchCronJobs are served", limit, async || Ok(crons.list(&ListParams::default()).await.ok())).await?;
    Ok(())
}
