//! The operator as a process beside the cluster, which can be killed; and its image, for those who install it.

use std::fs::{self, File};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::wait_for;
use crate::kubernetes::Kubernetes;

/// The operator as a process. Dropping it kills it.
pub struct Operator {
    child: Child,
    pub log: PathBuf,
    /// Where health and metrics are served.
    pub address: String,
}

impl Operator {
    /// Starts it and waits until it is ready.
    pub async fn start(kubernetes: &Kubernetes, arguments: &[&str]) -> Result<Operator> {
        let mut operator = Operator::spawn(kubernetes, &kubernetes.kubeconfig(), arguments)?;
        operator.until_ready().await?;
        Ok(operator)
    }

    /// Waits until it is ready; an error if it ends before.
    pub async fn until_ready(&mut self) -> Result<()> {
        let is_running = wait_for("the operator is ready", Duration::from_secs(30), async || {
            if !self.is_running()? {
                return Ok(Some(false));
            }
            Ok(self.get("/readyz").await?.starts_with("HTTP/1.1 200").then_some(true))
        });
        let is_running = is_running.await.with_context(|| self.tail())?;
        ensure!(is_running, "the operator has ended: {}", self.tail());
        Ok(())
    }

    /// Starts it with that kubeconfig, and waits for nothing.
    pub fn spawn(kubernetes: &Kubernetes, kubeconfig: &Path, arguments: &[&str]) -> Result<Operator> {
        // A port that is free now. On 127.0.0.1 a client's connection could take it before the operator does: those
        // come from there, whichever of the loopback addresses they go to. Nor can another operator that this process
        // starts at the same time: each has a loopback address of its own.
        static COUNT: AtomicU16 = AtomicU16::new(0);
        let [high, low] = COUNT.fetch_add(1, Ordering::Relaxed).to_be_bytes();
        let address = std::net::TcpListener::bind((Ipv4Addr::new(127, 1, high, low), 0))?.local_addr()?.to_string();
        let log = kubernetes.folder().join(format!("operator-{}.log", address.replace(':', "-")));
        // With pdeathsig it ends with the test, however that ends.
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "--"])
            .arg(operator_binary()?)
            .env("KUBECONFIG", kubeconfig)
            .env_remove("KUBERNETES_SERVICE_HOST")
            .args(["--listen", &address, "--log-level", "info"])
            // One that is killed and started again would wait for its own lease.
            .args((!arguments.iter().any(|it| it.starts_with("--leader-elect"))).then_some("--leader-elect=false"))
            .args(arguments)
            .stderr(File::create(&log)?)
            .spawn()
            .context("start the operator")?;
        Ok(Operator { child, log, address })
    }

    pub fn is_running(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_none())
    }

    /// The whole answer, with its head.
    pub async fn get(&self, path: &str) -> Result<String> {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let mut stream = tokio::net::TcpStream::connect(&self.address).await?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", self.address);
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok(answer)
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// SIGKILL: it has no chance to finish anything.
    pub fn kill(mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// SIGTERM, and how it ended; an error if it has not ended within `limit`.
    pub async fn terminate(mut self, limit: Duration) -> Result<std::process::ExitStatus> {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
        wait_for("the operator ends after SIGTERM", limit, async || Ok(self.child.try_wait()?)).await
    }

    /// The end of its log.
    pub fn tail(&self) -> String {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- the operator\n{}", self.tail());
        }
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The operator's static binary, as `make operator` builds it.
pub fn operator_binary() -> Result<PathBuf> {
    let target = format!("target/{}-unknown-linux-gnu/release/batchjob-operator", std::env::consts::ARCH);
    built(&target, "make operator")
}

/// The operator's image, as `make image` builds it.
pub fn image_archive() -> Result<PathBuf> {
    built("target/image/batchjob-operator.tar", "make image")
}

fn built(path: &str, by: &str) -> Result<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path);
    path.canonicalize().with_context(|| format!("find {}: run {by} first", path.display()))
}
