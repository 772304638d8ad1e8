//! Jobs that need nothing, and what that costs: a third is suspended, a third is over, and the pods of a third run.

use std::time::{Duration, Instant};

use anyhow::Result;
use batchjob_crd::BatchJob;
use batchjob_oracle::Report;
use batchjob_tests::kubernetes::{Kubernetes, Options, Size};
use batchjob_tests::support::kubelet::{NODE, ago, condition, container};
use batchjob_tests::support::{Namespace, Operator, process, serve_batch_jobs, stamped, wait_for};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt as _};
use serde_json::json;

use crate::asked::{Asked, summary};

/// How many requests of the test are under way at once.
const AT_ONCE: usize = 64;
/// Nothing was written for so long: it has settled.
const QUIET: Duration = Duration::from_secs(10);
const WINDOW: Duration = Duration::from_secs(60);
/// Of a core.
const MAX_CPU_PERCENT: f64 = 1.0;

pub async fn measure(n_jobs: usize) -> Result<Report> {
    let began = Instant::now();
    let options = Options {
        audit: true,
        controller_flags: vec!["--controllers=*,-pod-garbage-collector-controller".to_owned()],
        ..Options::from(Size::Api)
    };
    let kubernetes = Kubernetes::start(options).await?;
    serve_batch_jobs(&kubernetes).await?;
    let mut asked = Asked::of(&kubernetes);
    let operator = Operator::start(&kubernetes, &["--managed-jobs", "true"]).await?;
    let namespace = Namespace::new(&kubernetes, "idle").await?;

    let creating = Instant::now();
    let jobs: Api<BatchJob> = Api::namespaced(namespace.client.clone(), &namespace.name);
    let created = stream::iter(0..n_jobs).map(async |n| {
        jobs.create(&PostParams::default(), &job(n)?).await?;
        anyhow::Ok(())
    });
    created.buffer_unordered(AT_ONCE).try_collect::<()>().await?;
    let created = creating.elapsed();
    println!("{n_jobs} jobs are created after {created:.0?}");

    let n_running = (0..n_jobs).filter(|n| n % 3 == 2).count();
    let pods: Api<Pod> = Api::namespaced(namespace.client.clone(), &namespace.name);
    let found = wait_for("every job that runs has its pod", Duration::from_secs(900), async || {
        let found = pods.list_metadata(&ListParams::default()).await?.items;
        Ok(Some(found).filter(|found| found.len() == n_running))
    })
    .await?;
    stream::iter(found).map(|pod| run(&pods, pod.name_any())).buffer_unordered(AT_ONCE).try_collect::<()>().await?;
    println!("their pods run after {:.0?}", creating.elapsed());
    let mut n_writes = 0;
    let mut since = Instant::now();
    wait_for("the operator has nothing left to write", Duration::from_secs(900), async || {
        let n = asked.requests()?.filter(|request| request.is_write()).count();
        if n != n_writes {
            (n_writes, since) = (n, Instant::now());
        }
        Ok((since.elapsed() >= QUIET).then_some(()))
    })
    .await?;
    let settled = creating.elapsed();
    println!("all is settled after {settled:.0?}");

    let before = asked.requests()?.count();
    let (used, began_window) = (process::cpu(operator.pid())?, Instant::now());
    // What is measured is what happens in this time.
    tokio::time::sleep(WINDOW).await;
    let used = process::cpu(operator.pid())?.saturating_sub(used);
    let percent = 100.0 * used.as_secs_f64() / began_window.elapsed().as_secs_f64();
    let requests = asked.requests()?.skip(before).cloned().collect::<Vec<_>>();
    let n_writes_idle = requests.iter().filter(|request| request.is_write()).count();
    let memory = process::resident(operator.pid())?;

    let is_right = wait_for("they are as they should be", Duration::from_secs(60), async || {
        let jobs = jobs.list(&ListParams::default()).await?.items;
        let phase =
            |job: &BatchJob| job.status.as_ref().and_then(|status| status.phase).map(|phase| format!("{phase:?}"));
        let n = |name: &str| jobs.iter().filter(|job| phase(job).as_deref() == Some(name)).count();
        Ok((n("Suspended") + n("Succeeded") + n("Running") == n_jobs && n("Running") == n_running).then_some(()))
    });
    let mut broken: Vec<String> = is_right.await.err().map(|error| format!("{error:#}")).into_iter().collect();
    if n_writes_idle > 0 {
        broken.push(format!("{n_writes_idle} writes: {}", summary(&requests)));
    }
    if percent >= MAX_CPU_PERCENT {
        broken.push(format!("{percent:.2} % of a core"));
    }
    kubernetes.stop().await?;

    let details = vec![
        format!(
            "{n_jobs} jobs were created in {:.0} s, and all was settled after {:.0} s",
            created.as_secs_f64(),
            settled.as_secs_f64()
        ),
        format!(
            "in {} s then: {} requests ({}), {percent:.2} % of a core",
            WINDOW.as_secs(),
            requests.len(),
            summary(&requests)
        ),
        format!("{:.0} MiB resident", memory as f64 / f64::from(1 << 20)),
    ];
    let counts = [
        ("jobs", n_jobs as u64),
        ("windowSeconds", WINDOW.as_secs()),
        ("writes", n_writes_idle as u64),
        ("requests", requests.len() as u64),
        ("cpuMillis", used.as_millis() as u64),
        ("residentKibibytes", memory / 1024),
    ];
    Ok(Report {
        name: "idle".to_owned(),
        promise: "Jobs that need nothing cost nothing: no writes, and less than a hundredth of a core".to_owned(),
        how: format!(
            "{n_jobs} BatchJobs on a real API server, a third suspended, a third over, a third with a pod that runs"
        ),
        command: "make stuck".to_owned(),
        counts: Report::count(counts),
        violations: broken.len() as u64,
        details: broken.into_iter().map(|line| format!("BROKEN: {line}")).chain(details).collect(),
        ..stamped(began.elapsed())?
    })
}

fn job(n: usize) -> Result<BatchJob> {
    let template = json!({ "spec": {
        "nodeName": NODE, "restartPolicy": "Never", "terminationGracePeriodSeconds": 1,
        "containers": [{ "name": "main", "image": "none" }],
    }});
    let spec = match n % 3 {
        0 => json!({ "suspend": true, "template": template }),
        1 => json!({ "completions": 0, "template": template }),
        _ => json!({ "template": template }),
    };
    Ok(serde_json::from_value(json!({
        "apiVersion": "batchjob.dev/v1alpha1", "kind": "BatchJob", "metadata": { "name": format!("idle-{n}") }, "spec": spec,
    }))?)
}

/// What the kubelet says.
async fn run(pods: &Api<Pod>, name: String) -> Result<()> {
    let now = ago(Duration::ZERO);
    let statuses = [container("main", &json!({ "running": { "startedAt": now } }), 0)];
    let status =
        json!({ "phase": "Running", "containerStatuses": statuses, "conditions": [condition("Ready", true, now)] });
    pods.patch_status(&name, &PatchParams::default(), &Patch::Merge(json!({ "status": status }))).await?;
    Ok(())
}
