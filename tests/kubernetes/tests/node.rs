//! A node runs containers, which reach the API server and nothing outside; and the machine is afterwards what it was.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use batchjob_tests::kubernetes::image::{BUSYBOX, Image};
use batchjob_tests::kubernetes::{Kubernetes, Size};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{LogParams, PostParams};
use serde_json::{Value, json};

#[tokio::test]
async fn pods_run_and_the_machine_is_left_as_it_was() -> Result<()> {
    let before = traces()?;
    let kubernetes = Kubernetes::start(Size::Node).await?;
    let pods: Api<Pod> = Api::default_namespaced(kubernetes.client().await?);

    // kubectl is static, as the operator's binary will be. What it says here it learned through the service address.
    let archive = kubernetes.folder().join("kubectl.tar");
    Image::of_binary(&kubernetes.binaries().kubectl, "localhost/kubectl:1")?.write(&archive)?;
    kubernetes.load(&archive)?;
    run(&pods, "inside", json!({"image": "localhost/kubectl:1", "args": ["version", "--v=6"]})).await?;
    run(&pods, "exits", json!({"image": BUSYBOX, "command": ["sh", "-c", "id -u; exit 7"]})).await?;
    run(&pods, "absent", json!({"image": "example.com/absent:1"})).await?;
    run(&pods, "stays", json!({"image": BUSYBOX, "command": ["sleep", "1000"]})).await?;

    let inside = until(&pods, "inside", |pod| phase(pod) == Some("Succeeded")).await?;
    assert_eq!(exit_code(&inside), Some(0));
    let log = pods.logs("inside", &LogParams::default()).await?;
    assert!(log.contains("Server Version: v1.37.2") && log.contains("10.96.0.1"), "{log}");

    let failed = until(&pods, "exits", |pod| phase(pod) == Some("Failed")).await?;
    assert_eq!((exit_code(&failed), pods.logs("exits", &LogParams::default()).await?.as_str()), (Some(7), "0\n"));

    until(&pods, "absent", |pod| matches!(waiting(pod), Some("ErrImagePull" | "ImagePullBackOff"))).await?;

    until(&pods, "stays", |pod| phase(pod) == Some("Running")).await?;
    let during = traces()?;
    assert_ne!(before, during, "what is looked for is there while a node runs");
    assert_eq!(during.iptables, before.iptables, "the rules are the node's own");
    kubernetes.stop().await?;
    assert_eq!(before, traces()?);
    Ok(())
}

/// What a node could leave on a machine.
#[derive(Debug, PartialEq, Eq)]
struct Traces {
    cgroups: Vec<String>,
    cards: Vec<String>,
    mounts: Vec<String>,
    iptables: String,
    shims: usize,
    kernel: Vec<String>,
}

fn traces() -> Result<Traces> {
    let mut cgroups = Vec::new();
    for tree in list("/sys/fs/cgroup")? {
        let below = list(&format!("/sys/fs/cgroup/{tree}")).unwrap_or_default();
        cgroups.extend(below.into_iter().filter(|name| name.contains("batchjob") || name.contains("kubepods")));
    }
    let commands = list("/proc")?.into_iter().filter_map(|pid| fs::read_to_string(format!("/proc/{pid}/comm")).ok());
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    let kernel = ["vm/overcommit_memory", "kernel/panic", "kernel/panic_on_oops"];
    Ok(Traces {
        cgroups,
        cards: list("/sys/class/net")?,
        mounts: mounts.lines().filter(|mount| is_of_a_node(mount)).map(str::to_owned).collect(),
        iptables: String::from_utf8(Command::new("iptables").args(["-t", "nat", "-S"]).output()?.stdout)?,
        shims: commands.filter(|command| command.starts_with("containerd-shim")).count(),
        kernel: kernel.iter().map(|name| fs::read_to_string(format!("/proc/sys/{name}"))).collect::<Result<_, _>>()?,
    })
}

fn is_of_a_node(mount: &str) -> bool {
    ["batchjob", "kubelet", "containerd", "netns"].iter().any(|word| mount.contains(word))
}

fn list(folder: &str) -> Result<Vec<String>> {
    let entries = fs::read_dir(folder).with_context(|| format!("list {folder}"))?;
    let mut names =
        entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect::<Result<Vec<_>>>()?;
    names.sort();
    Ok(names)
}

async fn run(pods: &Api<Pod>, name: &str, mut container: Value) -> Result<()> {
    container["name"] = json!("main");
    let pod = json!({"metadata": {"name": name}, "spec": {"restartPolicy": "Never", "containers": [container]}});
    pods.create(&PostParams::default(), &serde_json::from_value(pod)?).await?;
    Ok(())
}

async fn until(pods: &Api<Pod>, name: &str, is_so: impl Fn(&Pod) -> bool) -> Result<Pod> {
    let started = Instant::now();
    loop {
        let pod = pods.get(name).await?;
        if is_so(&pod) {
            return Ok(pod);
        }
        ensure!(started.elapsed() < Duration::from_secs(30), "{name} after 30 s: {:#?}", pod.status);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn phase(pod: &Pod) -> Option<&str> {
    pod.status.as_ref()?.phase.as_deref()
}

fn exit_code(pod: &Pod) -> Option<i32> {
    let status = pod.status.as_ref()?.container_statuses.as_ref()?.first()?;
    Some(status.state.as_ref()?.terminated.as_ref()?.exit_code)
}

fn waiting(pod: &Pod) -> Option<&str> {
    let status = pod.status.as_ref()?.container_statuses.as_ref()?.first()?;
    status.state.as_ref()?.waiting.as_ref()?.reason.as_deref()
}
