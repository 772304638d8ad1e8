//! etcd, kube-apiserver, kube-controller-manager and kube-scheduler: their flags, and the order in which they start.

use std::process::Command;

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::Api;

use super::Options;
use super::address::{SERVICES, free_ports};
use super::certificates::Authority;
use super::launch::Launch;
use super::machine::Machine;

/// Who has asked for what, once it is answered, without what was in it; a watch also when it has begun.
const AUDIT_POLICY: &str = "\
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: Metadata
";

/// Starts what keeps and serves the objects, and waits until the API server says it is ready.
pub(crate) async fn start_api(launch: &mut Launch<'_>, options: &Options) -> Result<Authority> {
    let [api_port, etcd_port, peer_port] = match launch.machine {
        Machine::Host => free_ports()?,
        // The network is the node's own: nobody else can have taken them.
        Machine::Own { .. } => [6443, 2379, 2380],
    };
    start_etcd(launch, options, etcd_port, peer_port)?;
    let authority = Authority::create(launch.folder, launch.machine.address(), api_port)?;
    let kubeconfig = authority.write_kubeconfig("kubeconfig", "admin", Some("system:masters"))?;
    start_api_server(launch, options, &authority, api_port, etcd_port)?;

    let client = super::kubeconfig::client(&kubeconfig).await?;
    launch
        .until_ready("kube-apiserver", async || {
            let request = http::Request::get("/readyz").body(Vec::new())?;
            Ok(client.request_text(request).await? == "ok")
        })
        .await?;
    launch.steps.done("etcd and kube-apiserver");
    Ok(authority)
}

/// Starts what acts on the objects, and waits for the first sign of life: without its service account no pod can be made.
pub(crate) async fn start_controllers(launch: &mut Launch<'_>, options: &Options, authority: &Authority) -> Result<()> {
    if options.scheduler {
        start_scheduler(launch, authority)?;
    }
    if options.controllers {
        start_controller_manager(launch, options, authority)?;
        let accounts: Api<ServiceAccount> = Api::namespaced(launch.client().await?, "default");
        launch
            .until_ready("kube-controller-manager", async || Ok(accounts.get_opt("default").await?.is_some()))
            .await?;
        launch.steps.done("kube-controller-manager");
    }
    Ok(())
}

fn start_etcd(launch: &mut Launch<'_>, options: &Options, port: u16, peer_port: u16) -> Result<()> {
    let mut command = launch.machine.command(&launch.binaries.etcd);
    let (client, peer) = (format!("http://127.0.0.1:{port}"), format!("http://127.0.0.1:{peer_port}"));
    flags(
        &mut command,
        &[
            ("data-dir", &launch.folder.join("etcd").display().to_string()),
            ("listen-client-urls", &client),
            ("advertise-client-urls", &client),
            ("listen-peer-urls", &peer),
            ("initial-advertise-peer-urls", &peer),
            ("initial-cluster", &format!("default={peer}")),
            // The data ends with the cluster: nothing is gained by waiting for the disk.
            ("unsafe-no-fsync", "true"),
            ("log-level", "warn"),
        ],
    );
    launch.etcd = matches!(launch.machine, Machine::Host).then_some(client);
    command.args(&options.etcd_flags);
    launch.start("etcd", command)
}

fn start_api_server(
    launch: &mut Launch<'_>,
    options: &Options,
    authority: &Authority,
    port: u16,
    etcd_port: u16,
) -> Result<()> {
    let address = launch.machine.address().to_string();
    let pki = |name: &str| launch.folder.join("pki").join(name).display().to_string();
    authority.write_client("apiserver-kubelet-client", "kube-apiserver", Some("system:masters"))?;

    let mut command = launch.machine.command(&launch.binaries.kube_apiserver);
    flags(
        &mut command,
        &[
            ("etcd-servers", &format!("http://127.0.0.1:{etcd_port}")),
            ("advertise-address", &address),
            ("secure-port", &port.to_string()),
            ("service-cluster-ip-range", SERVICES),
            ("authorization-mode", "Node,RBAC"),
            ("enable-admission-plugins", "NodeRestriction"),
            ("allow-privileged", "true"),
            ("client-ca-file", &pki("ca.crt")),
            ("tls-cert-file", &pki("apiserver.crt")),
            ("tls-private-key-file", &pki("apiserver.key")),
            ("kubelet-certificate-authority", &pki("ca.crt")),
            ("kubelet-client-certificate", &pki("apiserver-kubelet-client.crt")),
            ("kubelet-client-key", &pki("apiserver-kubelet-client.key")),
            ("kubelet-preferred-address-types", "InternalIP"),
            ("service-account-issuer", "https://kubernetes.default.svc.cluster.local"),
            ("service-account-key-file", &pki("service-accounts.pub")),
            ("service-account-signing-key-file", &pki("service-accounts.key")),
            ("profiling", "false"),
            ("v", "1"),
        ],
    );
    match launch.machine {
        // No pod will ever look for it, and the API server refuses to name a loopback address to one.
        Machine::Host => flags(&mut command, &[("bind-address", &address), ("endpoint-reconciler-type", "none")]),
        Machine::Own { .. } => flags(&mut command, &[("bind-address", "0.0.0.0")]),
    }
    if options.audit {
        let policy = launch.folder.write("config/audit-policy.yaml", AUDIT_POLICY)?;
        let log = launch.folder.log("audit");
        let (policy, log) = (policy.display().to_string(), log.display().to_string());
        // A file of one size: it ends with the cluster.
        let limit = ("audit-log-maxsize", "100000");
        flags(&mut command, &[("audit-policy-file", &policy), ("audit-log-path", &log), limit]);
    }
    command.args(&options.api_server_flags);
    launch.start("kube-apiserver", command)
}

fn start_controller_manager(launch: &mut Launch<'_>, options: &Options, authority: &Authority) -> Result<()> {
    let name = "kube-controller-manager";
    let kubeconfig =
        authority.write_kubeconfig(&format!("config/{name}.kubeconfig"), &format!("system:{name}"), None)?;
    let pki = |name: &str| launch.folder.join("pki").join(name).display().to_string();
    let mut command = launch.machine.command(&launch.binaries.kube_controller_manager);
    flags(
        &mut command,
        &[
            ("kubeconfig", &kubeconfig.display().to_string()),
            ("use-service-account-credentials", "true"),
            ("service-account-private-key-file", &pki("service-accounts.key")),
            ("root-ca-file", &pki("ca.crt")),
            ("cluster-signing-cert-file", &pki("ca.crt")),
            ("cluster-signing-key-file", &pki("ca.key")),
            ("leader-elect", "false"),
            ("secure-port", "0"),
            // Each controller fetches a token of its own first: at the usual 20 requests a second that takes longer
            // than everything else in a start.
            ("kube-api-qps", "200"),
            ("kube-api-burst", "400"),
            ("profiling", "false"),
            ("v", "1"),
        ],
    );
    command.args(&options.controller_flags);
    launch.start(name, command)
}

fn start_scheduler(launch: &mut Launch<'_>, authority: &Authority) -> Result<()> {
    let name = "kube-scheduler";
    let kubeconfig = authority
        .write_kubeconfig(&format!("config/{name}.kubeconfig"), &format!("system:{name}"), None)
        .context("make the scheduler's kubeconfig")?;
    let mut command = launch.machine.command(&launch.binaries.kube_scheduler);
    let kubeconfig = kubeconfig.display().to_string();
    let all = [("kubeconfig", &*kubeconfig), ("leader-elect", "false"), ("secure-port", "0"), ("v", "1")];
    flags(&mut command, &all);
    launch.start(name, command)
}

pub(crate) fn flags(command: &mut Command, flags: &[(&str, &str)]) {
    command.args(flags.iter().map(|(name, value)| format!("--{name}={value}")));
}
