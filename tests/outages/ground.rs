//! The clusters that outages are played on.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, ensure};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::audit::Audit;
use crate::kubernetes::{Kubernetes, Options, Size};
use crate::support::serve_batch_jobs;

/// How an API server is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Temper {
    /// As usual.
    Plain,
    /// It forgets what was two seconds ago, and answers every watch from etcd; it takes few writes at a time, and has little
    /// room for them; and it ends watches and connections where a client leaves that to it.
    Harsh,
}

/// A cluster.
pub struct Ground {
    pub kubernetes: Kubernetes,
    pub audit: Audit,
    folder: PathBuf,
}

impl Drop for Ground {
    fn drop(&mut self) {
        // A file more in target/ is nobody's loss.
        let _ = fs::remove_dir_all(&self.folder);
    }
}

impl Ground {
    pub async fn start(temper: Temper) -> Result<Ground> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let tests = Path::new(env!("CARGO_MANIFEST_DIR")).canonicalize()?;
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let folder = tests.join(format!("../target/outages/{}-{number}", std::process::id()));
        fs::create_dir_all(&folder)?;
        let log = folder.join("audit.log");
        let mut api_server_flags = vec![
            format!("--audit-policy-file={}", tests.join("outages/audit-policy.yaml").display()),
            format!("--audit-log-path={}", log.display()),
        ];
        let mut etcd_flags = Vec::new();
        if temper == Temper::Harsh {
            let flags = [
                "--watch-cache=false",
                "--etcd-compaction-interval=2s",
                "--min-request-timeout=5",
                "--goaway-chance=0.02",
                "--enable-priority-and-fairness=false",
                "--max-mutating-requests-inflight=4",
            ];
            api_server_flags.extend(flags.map(str::to_owned));
            etcd_flags.push(format!("--quota-backend-bytes={}", 32 << 20));
        }
        let options = Options {
            api_server_flags,
            etcd_flags,
            // Pods of nodes that do not exist are garbage to one of them.
            controller_flags: vec!["--controllers=*,-pod-garbage-collector-controller".to_owned()],
            ..Options::from(Size::Api)
        };
        let kubernetes = Kubernetes::start(options).await?;
        serve_batch_jobs(&kubernetes).await?;
        Ok(Ground { kubernetes, audit: Audit { log }, folder })
    }

    /// Where the API server listens.
    pub fn server(&self) -> Result<SocketAddr> {
        let address = self.kubernetes.server().strip_prefix("https://").context("an address")?;
        Ok(address.parse()?)
    }

    /// Asks etcd for something, by its JSON gateway; answers with the JSON.
    pub async fn etcd(&self, path: &str, body: &str) -> Result<String> {
        let mut stream = TcpStream::connect(self.etcd_address()?).await?;
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: etcd\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).await?;
        stream.write_all(body.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        ensure!(answer.starts_with("HTTP/1.1 200"), "etcd {path}: {answer}");
        let (from, to) = (answer.find('{').context("an answer")?, answer.rfind('}').context("an answer")?);
        Ok(answer[from..=to].to_owned())
    }

    fn etcd_address(&self) -> Result<String> {
        let pid = self.kubernetes.pid("kube-apiserver").context("kube-apiserver runs")?;
        let command = fs::read_to_string(format!("/proc/{pid}/cmdline"))?;
        let address = command.split('\0').find_map(|flag| flag.strip_prefix("--etcd-servers=http://"));
        Ok(address.context("--etcd-servers")?.to_owned())
    }
}
