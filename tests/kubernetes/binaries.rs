//! Where is each binary, and how does a missing one come to be?
//!
//! The cache is `<root>/<module>/<version>/<binary>`, the root being `$BATCHJOB_CACHE`, `$XDG_CACHE_HOME/batchjob` or
//! `~/.cache/batchjob`. The version of the upstream module is the key: whoever changes only an indirect requirement in
//! a go.mod removes that folder to see the effect.

use std::env;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command as Process;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};

use super::modules::{Command, MODULES, Module};
use super::{Size, prerequisites};

/// The path of each command.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "each is the binary of its name")]
pub struct Binaries {
    pub etcd: PathBuf,
    pub kube_apiserver: PathBuf,
    pub kube_controller_manager: PathBuf,
    pub kube_scheduler: PathBuf,
    pub kubectl: PathBuf,
    pub helm: PathBuf,
    pub kwok: PathBuf,
    pub kubelet: PathBuf,
    pub kube_proxy: PathBuf,
    pub containerd: PathBuf,
    /// containerd looks for it beside itself.
    pub containerd_shim: PathBuf,
    pub ctr: PathBuf,
}

impl Binaries {
    /// Builds what this size needs and the cache has not, then says where everything is.
    ///
    /// Minutes when the cache is cold, so it says on stderr what it is doing. Whoever comes second waits for the first.
    pub fn build(size: Size) -> Result<Binaries> {
        let cache = cache_root()?;
        if Self::missing(&cache, size)?.is_empty() {
            return Self::locate(&cache);
        }
        prerequisites::require_go()?;
        fs::create_dir_all(&cache).with_context(|| format!("create {}", cache.display()))?;
        let lock = File::create(cache.join("lock")).context("create the lock of the cache")?;
        lock.lock().context("wait for another build")?;
        // The other build may have made what was missing a moment ago.
        let missing = Self::missing(&cache, size)?;
        for (done, (module, command)) in missing.iter().enumerate() {
            let (version, started) = (module.version()?, Instant::now());
            eprint!("build {} of {}: {} {version} ", done + 1, missing.len(), command.binary);
            let out = path(&cache, module, command)?;
            go_build(&module.folder(), command.package, &module.linker_flags(&version), &out)?;
            eprintln!("{} s", started.elapsed().as_secs());
        }
        Self::locate(&cache)
    }

    /// Nothing would have to be built for this size.
    pub fn are_built(size: Size) -> Result<bool> {
        Ok(Self::missing(&cache_root()?, size)?.is_empty())
    }

    /// Where everything is or would be, without building.
    pub fn find() -> Result<Binaries> {
        Self::locate(&cache_root()?)
    }

    fn missing(cache: &Path, size: Size) -> Result<Vec<(&'static Module, &'static Command)>> {
        let mut missing = Vec::new();
        for module in MODULES {
            for command in module.commands.iter().filter(|command| command.size <= size) {
                if !path(cache, module, command)?.exists() {
                    missing.push((module, command));
                }
            }
        }
        Ok(missing)
    }

    fn locate(cache: &Path) -> Result<Binaries> {
        let of = |binary: &str| {
            let found = MODULES.iter().find_map(|module| {
                let command = module.commands.iter().find(|command| command.binary == binary)?;
                Some(path(cache, module, command))
            });
            found.with_context(|| format!("no module has {binary}"))?
        };
        Ok(Binaries {
            etcd: of("etcd")?,
            kube_apiserver: of("kube-apiserver")?,
            kube_controller_manager: of("kube-controller-manager")?,
            kube_scheduler: of("kube-scheduler")?,
            kubectl: of("kubectl")?,
            helm: of("helm")?,
            kwok: of("kwok")?,
            kubelet: of("kubelet")?,
            kube_proxy: of("kube-proxy")?,
            containerd: of("containerd")?,
            containerd_shim: of("containerd-shim-runc-v2")?,
            ctr: of("ctr")?,
        })
    }
}

/// Where builds are kept.
pub fn cache_root() -> Result<PathBuf> {
    if let Some(root) = env::var_os("BATCHJOB_CACHE") {
        return std::path::absolute(root).context("read BATCHJOB_CACHE");
    }
    if let Some(caches) = env::var_os("XDG_CACHE_HOME") {
        return Ok(Path::new(&caches).join("batchjob"));
    }
    let home = env::var_os("HOME").context("neither BATCHJOB_CACHE nor HOME says where to keep the builds")?;
    Ok(Path::new(&home).join(".cache/batchjob"))
}

fn path(cache: &Path, module: &Module, command: &Command) -> Result<PathBuf> {
    Ok(cache.join(module.name).join(module.version()?).join(command.binary))
}

/// A command of the Go module in that folder. Builds under another name first: a build that was killed leaves no binary that
/// looks finished.
pub fn go_build(module: &Path, package: &str, linker_flags: &str, out: &Path) -> Result<()> {
    let folder = out.parent().context("a binary has a folder")?;
    fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
    let name = out.file_name().context("a binary has a name")?.display();
    let unfinished = out.with_file_name(format!(".{name}.unfinished"));
    let output = Process::new("go")
        .current_dir(module)
        .env("CGO_ENABLED", "0")
        .env("GOWORK", "off")
        .args(["build", "-trimpath", "-ldflags", linker_flags, "-o"])
        .arg(&unfinished)
        .arg(package)
        .output()
        .context("run go")?;
    if !output.status.success() {
        bail!("go build of {package} failed:\n{}", String::from_utf8_lossy(&output.stderr));
    }
    ensure!(unfinished.exists(), "go build of {package} left no binary");
    fs::rename(&unfinished, out).with_context(|| format!("move the build to {}", out.display()))
}
