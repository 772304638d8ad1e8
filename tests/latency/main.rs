//! Figures, measured beside kube-controller-manager on the same cluster in the same run.
//!
//! `make latency` prints: the sizes of the binary and the image; from `kubectl apply` to the pod, to its first container
//! running and to the job's end, for a BatchJob and for the same Job, in turn; and what the operator costs when idle.

mod measure;

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};
use batchjob_tests::kubernetes::{Kubernetes, Size};
use batchjob_tests::support::{Kubectl, Operator, image_archive, operator_binary, process, wait_for};

/// How often each of the two is measured, in turn.
const N_RUNS: usize = 25;

#[tokio::main]
async fn main() -> Result<()> {
    println!("binary  {:>12} bytes", fs::metadata(operator_binary()?)?.len());
    println!("image   {:>12} bytes", fs::metadata(image_archive()?)?.len());

    let kubernetes = Kubernetes::start(Size::Node).await?;
    let kubectl = Kubectl::new(&kubernetes, "default");
    kubectl.run(&["apply", "-f", concat!(env!("CARGO_MANIFEST_DIR"), "/../crds")])?;
    let operator = Operator::start(&kubernetes, &[]).await?;

    measure::measure(&kubernetes, &kubectl, N_RUNS).await?;

    // Idle: nothing runs, and nothing has for a while.
    kubectl.run(&["delete", "batchjobs,jobs", "--all"])?;
    let pods = "the pods are gone";
    wait_for(pods, Duration::from_secs(60), async || {
        Ok(kubectl.run(&["get", "pods", "-o", "name"])?.is_empty().then_some(()))
    })
    .await?;
    let before = process::cpu(operator.pid())?;
    tokio::time::sleep(Duration::from_secs(10)).await;
    let used = process::cpu(operator.pid())? - before;
    println!(
        "idle    {:>12} bytes resident, {} ms of CPU in 10 s",
        process::resident(operator.pid())?,
        used.as_millis()
    );
    let manager = kubernetes.pid("kube-controller-manager").context("kube-controller-manager runs")?;
    println!(
        "        {:>12} bytes resident: kube-controller-manager, which does much else",
        process::resident(manager)?
    );
    kubernetes.stop().await
}
