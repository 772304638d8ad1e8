//! containerd, kubelet and kube-proxy: what makes a machine a node, on which containers run.

use std::fs::{self, File};
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Node;
use kube::Api;
use serde_json::json;

use super::address::{API_SERVICE, CLUSTER_DNS, PODS};
use super::binaries::Binaries;
use super::certificates::Authority;
use super::control_plane::flags;
use super::folder::Folder;
use super::image::{Image, PAUSE};
use super::launch::{Launch, Launched};
use super::machine::{Machine, output};
use super::process::{Lifetime, Process};
use super::{cgroup, prerequisites};

/// The node's name.
const NODE: &str = "node-1";
const KUBELET: &str = "kubelet";
const CONFIG: &str = "config/kubelet.json";
const KUBECONFIG: &str = "config/kubelet.kubeconfig";
/// In the namespaces' own `/run`.
const SOCKET: &str = "/run/containerd/containerd.sock";

/// Starts containerd and gives it the images that every cluster has.
pub(crate) fn start_runtime(launch: &mut Launch<'_>) -> Result<()> {
    let config = launch.folder.write("config/containerd.toml", containerd_config(launch)?)?;
    fs::create_dir_all(launch.folder.join("config/cni"))?;
    launch.folder.write("config/cni/10-bridge.conflist", serde_json::to_string_pretty(&cni_config())?)?;
    let mut command = launch.machine.command(&launch.binaries.containerd);
    command.arg("--config").arg(config);
    launch.start("containerd", command)
}

/// Starts kubelet and kube-proxy. They come up while the controllers do.
pub(crate) fn start_kubelet(launch: &mut Launch<'_>, authority: &Authority) -> Result<()> {
    let address = launch.machine.address().to_string();
    authority.write_server("kubelet", &[NODE, &address])?;
    let cgroup = launch.folder.record().add_cgroup()?;
    cgroup::create(&cgroup)?;

    let user = format!("system:node:{NODE}");
    authority.write_kubeconfig(KUBECONFIG, &user, Some("system:nodes"))?;
    launch.folder.write(CONFIG, serde_json::to_string_pretty(&kubelet_config(launch, &cgroup))?)?;
    launch.start(KUBELET, kubelet(launch.folder, &launch.machine, launch.binaries))?;

    let kubeconfig = authority.write_kubeconfig("config/kube-proxy.kubeconfig", "system:kube-proxy", None)?;
    let config = serde_json::to_string_pretty(&proxy_config(&kubeconfig))?;
    let config = launch.folder.write("config/kube-proxy.json", config)?.display().to_string();
    let mut command = launch.machine.command(&launch.binaries.kube_proxy);
    flags(&mut command, &[("config", &*config), ("hostname-override", NODE), ("v", "1")]);
    launch.start("kube-proxy", command)
}

/// Starts kubelet, with what was configured last.
fn kubelet(folder: &Folder, machine: &Machine, binaries: &Binaries) -> Command {
    let mut command = machine.command(&binaries.kubelet);
    let [config, kubeconfig] = [CONFIG, KUBECONFIG].map(|file| folder.join(file).display().to_string());
    let address = machine.address().to_string();
    let all = [("config", &*config), ("kubeconfig", &kubeconfig), ("hostname-override", NODE), ("node-ip", &address)];
    flags(&mut command, &all);
    flags(&mut command, &[("v", "1")]);
    command
}

/// Ends kubelet and starts it again, with these fields of its configuration changed. The containers run on.
pub(crate) fn restart_kubelet(launched: &mut Launched, changes: &serde_json::Value) -> Result<()> {
    let Launched { folder, machine, binaries, processes, .. } = launched;
    let path = folder.join(CONFIG);
    let mut config: serde_json::Value = serde_json::from_slice(&fs::read(&path)?)?;
    let fields = config.as_object_mut().context("a configuration has fields")?;
    fields.extend(changes.as_object().context("changes are fields")?.clone());
    fs::write(&path, serde_json::to_string_pretty(&config)?)?;
    let old = processes.iter_mut().find(|process| process.name == KUBELET).context("kubelet was started")?;
    old.end()?;
    *old = Process::start(KUBELET, kubelet(folder, machine, binaries), folder, Lifetime::Ours)?;
    Ok(())
}

/// Waits until a pod could run: the images are there, kubelet says so, and the API server's service address leads to it.
pub(crate) async fn until_ready(launch: &mut Launch<'_>) -> Result<()> {
    let (machine, binaries) = (launch.machine.clone(), launch.binaries.clone());
    let answers = async || {
        let version = output(machine.command(&binaries.ctr).args(["--address", SOCKET, "version"]));
        version.map(|_| true)
    };
    launch.until_ready("containerd", answers).await?;
    for (name, image) in [("pause", Image::pause()?), ("busybox", Image::busybox()?)] {
        let archive = launch.folder.join(&format!("images/{name}.tar"));
        image.write(&archive)?;
        load(&launch.machine, launch.binaries, &archive)?;
    }
    launch.steps.done("containerd and its images");

    let nodes: Api<Node> = Api::all(launch.client().await?);
    launch
        .until_ready("kubelet", async || {
            let node = nodes.get_opt(NODE).await?;
            let conditions = node.and_then(|node| node.status?.conditions).unwrap_or_default();
            Ok(conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True"))
        })
        .await?;
    launch.steps.done("kubelet");

    launch
        .until_ready("kube-proxy", async || {
            let rules = output(machine.command("iptables").args(["-t", "nat", "-S"]))?;
            Ok(rules.contains(API_SERVICE))
        })
        .await?;
    launch.steps.done("kube-proxy");
    Ok(())
}

/// Puts an OCI archive into containerd. It is read here and handed over: the node need not see the file.
pub(crate) fn load(machine: &Machine, binaries: &Binaries, archive: &Path) -> Result<()> {
    ensure!(matches!(machine, Machine::Own { .. }), "a cluster without a node has no images");
    let file = File::open(archive).with_context(|| format!("open {}", archive.display()))?;
    let mut command = machine.command(&binaries.ctr);
    command.args(["--address", SOCKET, "--namespace", "k8s.io", "images", "import", "-"]).stdin(file);
    output(&mut command).map(drop).with_context(|| format!("load {}", archive.display()))
}

fn containerd_config(launch: &Launch<'_>) -> Result<String> {
    let plugins = prerequisites::cni_plugins().context("find the CNI plugins")?;
    Ok(format!(
        r#"version = 3
[grpc]
address = "{SOCKET}"
[plugins.'io.containerd.cri.v1.images'.pinned_images]
sandbox = "{PAUSE}"
[plugins.'io.containerd.cri.v1.runtime']
# Not every machine lets a process lower its own score.
restrict_oom_score_adj = true
# Its profile would be loaded into the machine's kernel, and stay there.
disable_apparmor = true
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
SystemdCgroup = false
[plugins.'io.containerd.cri.v1.runtime'.cni]
bin_dirs = ["{plugins}"]
conf_dir = "{cni}"
"#,
        plugins = plugins.display(),
        cni = launch.folder.join("config/cni").display(),
    ))
}

fn cni_config() -> serde_json::Value {
    json!({
        "cniVersion": "1.0.0",
        "name": "pods",
        "plugins": [
            {
                "type": "bridge",
                "bridge": "pods",
                "isGateway": true,
                // A pod that calls a service and is its own answer.
                "hairpinMode": true,
                "ipam": {
                    "type": "host-local",
                    "ranges": [[{"subnet": PODS}]],
                    "routes": [{"dst": "0.0.0.0/0"}],
                },
            },
            {"type": "portmap", "capabilities": {"portMappings": true}},
        ],
    })
}

fn kubelet_config(launch: &Launch<'_>, cgroup: &str) -> serde_json::Value {
    let pki = |name: &str| launch.folder.join("pki").join(name).display().to_string();
    json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": launch.machine.address().to_string(),
        "authentication": {
            "anonymous": {"enabled": false},
            "webhook": {"enabled": true},
            "x509": {"clientCAFile": pki("ca.crt")},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": pki("kubelet.crt"),
        "tlsPrivateKeyFile": pki("kubelet.key"),
        "containerRuntimeEndpoint": format!("unix://{SOCKET}"),
        "cgroupRoot": format!("/{cgroup}"),
        "cgroupDriver": "cgroupfs",
        // Version 1 is on its way out of Kubernetes, and still what some machines have.
        "failCgroupV1": false,
        "enforceNodeAllocatable": [],
        "volumePluginDir": "/var/lib/kubelet/plugins",
        // There is no name server: neither the cluster's, which no test needs, nor the machine's, which is out of reach.
        // kubelet would warn about that at every pod, so it is given the address that one would have.
        "clusterDNS": [CLUSTER_DNS],
        "clusterDomain": "cluster.local",
        "resolvConf": "",
        // A test machine may be short of disk or have swap: that is no reason to evict pods or not to start.
        "evictionHard": {},
        "failSwapOn": false,
        "imageGCHighThresholdPercent": 100,
        "localStorageCapacityIsolation": false,
    })
}

fn proxy_config(kubeconfig: &Path) -> serde_json::Value {
    json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "clientConnection": {"kubeconfig": kubeconfig.display().to_string()},
        "mode": "iptables",
        "clusterCIDR": PODS,
        // Answers between two pods of one bridge would else not pass the rules that sent the question on.
        "iptables": {"masqueradeAll": true},
        // These limits are the machine's, not the namespace's.
        "conntrack": {
            "maxPerCore": 0,
            "min": 0,
            "tcpEstablishedTimeout": "0s",
            "tcpCloseWaitTimeout": "0s",
        },
    })
}
