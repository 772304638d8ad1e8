//! How long from `kubectl apply` to the pod, to its container, to the end?

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use batchjob_tests::kubernetes::Kubernetes;
use batchjob_tests::support::Kubectl;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{WatchEvent, WatchParams};
use tokio::sync::mpsc;

/// The same work as either kind.
const KINDS: [(&str, &str); 2] = [("BatchJob", "batchjob.dev/v1alpha1"), ("Job", "batch/v1")];

/// Milliseconds since `kubectl apply` was started.
#[derive(Clone, Copy, Default)]
struct Times {
    pod: f64,
    container: f64,
    end: f64,
}

pub(crate) async fn measure(kubernetes: &Kubernetes, kubectl: &Kubectl, n_runs: usize) -> Result<()> {
    let pods: Api<Pod> = Api::default_namespaced(kubernetes.client().await?);
    let mut times: [Vec<Times>; 2] = Default::default();
    // The first of each is not counted: it warms up what both use.
    for run in 0..=n_runs {
        for (kind, times) in KINDS.iter().zip(&mut times) {
            let measured = once(&pods, kubectl, kind, run).await.with_context(|| format!("{} {run}", kind.0))?;
            if run > 0 {
                times.push(measured);
            }
        }
    }
    println!("from kubectl apply, median of {n_runs} (fastest, slowest), in ms:");
    println!("{:<22}{:>26}{:>26}{:>8}", "", KINDS[0].0, KINDS[1].0, "ratio");
    for (what, of) in [
        ("to the pod", (|times: &Times| times.pod) as fn(&Times) -> f64),
        ("to its container", |times| times.container),
        ("to the job's end", |times| times.end),
    ] {
        let [ours, theirs] = times.each_ref().map(|times| spread(times.iter().map(of)));
        println!("{what:<22}{:>26}{:>26}{:>8.2}", show(ours), show(theirs), ours.1 / theirs.1);
    }
    Ok(())
}

async fn once(pods: &Api<Pod>, kubectl: &Kubectl, (kind, version): &(&str, &str), run: usize) -> Result<Times> {
    let name = format!("{}-{run}", kind.to_lowercase());
    let manifest = format!(
        "{{apiVersion: {version}, kind: {kind}, metadata: {{name: {name}}}, spec: {{template: {{spec: {{restartPolicy: \
         Never, terminationGracePeriodSeconds: 0, containers: [{{name: main, image: 'busybox:1', command: ['true']}}]}}}}}}}}"
    );
    let mut events = watch(pods.clone(), format!("job-name={name}")).await?;
    let start = Instant::now();
    kubectl.apply(&manifest)?;
    let mut times = Times::default();
    let mut noted = |pod: &Pod, at: Instant| {
        let ms = at.duration_since(start).as_secs_f64() * 1000.0;
        if times.pod == 0.0 {
            times.pod = ms;
        }
        if times.container == 0.0 && has_started(pod) {
            times.container = ms;
        }
        times.container > 0.0
    };
    while let Some((pod, at)) = tokio::time::timeout(Duration::from_secs(60), events.recv()).await? {
        if noted(&pod, at) {
            break;
        }
    }
    kubectl.run(&["wait", &format!("{kind}/{name}"), "--for=condition=Complete", "--timeout=60s"])?;
    times.end = start.elapsed().as_secs_f64() * 1000.0;
    kubectl.run(&["delete", kind, &name])?;
    Ok(times)
}

/// Every state of the pods, with the time at which it was seen.
async fn watch(pods: Api<Pod>, selector: String) -> Result<mpsc::UnboundedReceiver<(Pod, Instant)>> {
    use futures::StreamExt as _;
    let (sender, receiver) = mpsc::unbounded_channel();
    let params = WatchParams::default().labels(&selector).timeout(120);
    let mut stream = pods.watch(&params, "0").await?.boxed();
    tokio::spawn(async move {
        while let Some(Ok(event)) = stream.next().await {
            if let WatchEvent::Added(pod) | WatchEvent::Modified(pod) = event
                && sender.send((pod, Instant::now())).is_err()
            {
                break;
            }
        }
    });
    Ok(receiver)
}

fn has_started(pod: &Pod) -> bool {
    let statuses = pod.status.as_ref().and_then(|status| status.container_statuses.as_ref());
    let mut states = statuses.into_iter().flatten().filter_map(|status| status.state.as_ref());
    states.any(|state| state.running.is_some() || state.terminated.is_some())
}

/// Fastest, median, slowest.
fn spread(times: impl Iterator<Item = f64>) -> (f64, f64, f64) {
    let mut times: Vec<f64> = times.collect();
    times.sort_by(f64::total_cmp);
    (times[0], times[times.len() / 2], times[times.len() - 1])
}

fn show((fastest, median, slowest): (f64, f64, f64)) -> String {
    format!("{median:.0} ({fastest:.0}, {slowest:.0})")
}
