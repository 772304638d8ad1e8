//! An API-size cluster starts, its controllers work, and it leaves nothing: stopped, dropped, killed or broken.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use batchjob_tests::kubernetes::{Kubernetes, Options, Size};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::Api;
use kube::api::{ListParams, PostParams};
use serde_json::json;

const COMPONENTS: [&str; 3] = ["etcd", "kube-apiserver", "kube-controller-manager"];

#[tokio::test]
async fn two_run_side_by_side_and_leave_nothing() -> Result<()> {
    let without = Options { controllers: false, ..Options::from(Size::Api) };
    let (one, other) = tokio::join!(Kubernetes::start(Size::Api), Kubernetes::start(without));
    let (one, other) = (one?, other?);
    assert_eq!(one.client().await?.apiserver_version().await?.git_version, "v1.37.2");

    let job = json!({
        "metadata": {"name": "two"},
        "spec": {
            "parallelism": 2,
            "template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "none"}]}},
        },
    });
    let jobs: Api<Job> = Api::default_namespaced(one.client().await?);
    jobs.create(&PostParams::default(), &serde_json::from_value(job)?).await?;
    let pods: Api<Pod> = Api::default_namespaced(one.client().await?);
    eventually("the Job has its pods", async || Ok(pods.list(&ListParams::default()).await?.items.len() == 2)).await?;

    let jobs: Api<Job> = Api::default_namespaced(other.client().await?);
    assert_eq!(jobs.list(&ListParams::default()).await?.items.len(), 0);

    let (folders, processes) = (folders([&one, &other]), [pids(&one), pids(&other)].concat());
    assert_eq!(processes.len(), 5, "the other has no controllers");
    one.stop().await?;
    drop(other);
    assert!(folders.iter().all(|folder| !folder.exists()));
    assert!(processes.iter().all(|pid| !is_alive(*pid)));
    Ok(())
}

/// Not a test: the process that the next test kills.
#[tokio::test]
async fn held_until_killed() -> Result<()> {
    if std::env::var_os("HOLD_A_CLUSTER").is_none() {
        return Ok(());
    }
    let held = Kubernetes::start(Size::Api).await?;
    let pids: Vec<String> = pids(&held).iter().map(u32::to_string).collect();
    println!("\nheld {} {}", held.folder().display(), pids.join(" "));
    std::future::pending().await
}

#[tokio::test]
async fn ends_with_the_test_that_is_killed() -> Result<()> {
    let mut holder = Command::new(std::env::current_exe()?)
        .args(["--exact", "held_until_killed", "--nocapture"])
        .env("HOLD_A_CLUSTER", "yes")
        .stdout(Stdio::piped())
        .spawn()?;
    let output = BufReader::new(holder.stdout.take().context("its output")?);
    let mut lines = output.lines().map_while(Result::ok);
    let line = lines.find(|line| line.starts_with("held ")).context("the holder started no cluster")?;
    let words: Vec<&str> = line.split(' ').collect();
    let (folder, pids) = (Path::new(words[1]), &words[2..]);
    let pids = pids.iter().map(|pid| pid.parse()).collect::<Result<Vec<u32>, _>>()?;
    ensure!(pids.len() == COMPONENTS.len() && pids.iter().all(|pid| is_alive(*pid)), "it runs");

    holder.kill()?;
    holder.wait()?;
    eventually("the components are gone", async || Ok(pids.iter().all(|pid| !is_alive(*pid)))).await?;
    let next = Kubernetes::start(Options { controllers: false, ..Options::from(Size::Api) }).await?;
    assert!(!folder.exists(), "the next start removes what is left");
    next.stop().await
}

#[tokio::test]
async fn a_component_that_will_not_start_is_named_with_its_words() -> Result<()> {
    let options = Options { api_server_flags: vec!["--no-such-flag".to_owned()], ..Options::from(Size::Api) };
    let error = Kubernetes::start(options).await.err().context("it must not start")?.to_string();
    assert!(error.contains("kube-apiserver ended") && error.contains("unknown flag: --no-such-flag"), "{error}");
    Ok(())
}

/// `up` and `down` with a state folder of their own, and everything killed between them.
#[tokio::test]
async fn down_works_after_a_crash() -> Result<()> {
    let state = std::env::temp_dir().join(format!("batchjob-state-{}", std::process::id()));
    let cluster = |arguments: &[&str]| {
        let output =
            Command::new(env!("CARGO_BIN_EXE_cluster")).args(arguments).env("BATCHJOB_STATE", &state).output()?;
        let errors = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "cluster {arguments:?}: {errors}");
        anyhow::Ok(String::from_utf8(output.stdout)?)
    };
    let line = cluster(&["up", "--size", "api"])?;
    assert_eq!(line, format!("export KUBECONFIG={}\n", state.join("up/kubeconfig").display()));
    let record = std::fs::read_to_string(state.join("up/record"))?;
    let pid = |line: &str| line.strip_prefix("process ")?.split(' ').nth(1)?.parse().ok();
    let pids: Vec<u32> = record.lines().filter_map(pid).collect();
    assert!(pids.len() == COMPONENTS.len() && pids.iter().all(|pid| is_alive(*pid)));

    Command::new("kill").args(["-9", &pids[1].to_string()]).status()?;
    eventually("one is gone", async || Ok(!is_alive(pids[1]))).await?;
    assert!(cluster(&["kubeconfig"]).is_err(), "a cluster without all its parts is none");
    cluster(&["down"])?;
    assert!(pids.iter().all(|pid| !is_alive(*pid)) && !state.join("up").exists());
    cluster(&["down"])?;
    Ok(std::fs::remove_dir_all(&state)?)
}

#[tokio::test]
async fn namespaces_go_with_all_that_is_in_them() -> Result<()> {
    let kubernetes = Kubernetes::start(Size::Api).await?;
    let namespaces: Api<Namespace> = Api::all(kubernetes.client().await?);
    let namespace = serde_json::from_value(json!({"metadata": {"name": "short"}}))?;
    namespaces.create(&PostParams::default(), &namespace).await?;
    namespaces.delete("short", &Default::default()).await?;
    eventually("the namespace is gone", async || Ok(namespaces.get_opt("short").await?.is_none())).await?;
    kubernetes.stop().await
}

fn folders<const N: usize>(clusters: [&Kubernetes; N]) -> [PathBuf; N] {
    clusters.map(|cluster| cluster.folder().to_owned())
}

fn pids(cluster: &Kubernetes) -> Vec<u32> {
    COMPONENTS.iter().filter_map(|component| cluster.pid(component)).collect()
}

/// It runs: a zombie, which only its parent can remove, does not.
fn is_alive(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, fields)| !fields.starts_with('Z'))
}

async fn eventually(what: &str, mut is_so: impl AsyncFnMut() -> Result<bool>) -> Result<()> {
    let started = Instant::now();
    while !is_so().await? {
        ensure!(started.elapsed() < Duration::from_secs(30), "waited 30 s until {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}
