//! Where does a cluster keep its files?
//!
//! ```text
//! <root>/up/              the cluster of `up`, there is one
//! <root>/tests/<n>/       the clusters of tests, one each; `lock` is held while the test lives
//!   kubeconfig  record  pki/  config/  logs/  etcd/  images/  var/
//! ```
//!
//! The root is `$BATCHJOB_STATE`, `$XDG_STATE_HOME/batchjob` or `~/.local/state/batchjob`. Not `/run`: Debian mounts it
//! noexec and small, and containers are started from here. Not `/tmp`: the record of what to end must not be swept away
//! while the processes live.

use std::env;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result};

use super::record::Record;

/// The folder of one cluster.
#[derive(Clone, Debug)]
pub(crate) struct Folder {
    path: PathBuf,
}

impl Folder {
    /// The folder of the cluster that `up` starts.
    pub(crate) fn for_up() -> Result<Folder> {
        Ok(Folder { path: root()?.join("up") })
    }

    /// A new folder for a test, and the lock that says the test lives.
    pub(crate) fn for_test() -> Result<(Folder, File)> {
        // Counted, since one test process may start several clusters.
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("{}-{}", process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let _creating = lock_all()?;
        let folder = Folder { path: root()?.join("tests").join(name) };
        folder.create()?;
        let lock = folder.lock_file()?;
        lock.try_lock().context("lock the folder of a new cluster")?;
        Ok((folder, lock))
    }

    /// The folders of tests, those of dead ones included.
    pub(crate) fn of_tests() -> Result<Vec<Folder>> {
        let tests = root()?.join("tests");
        match fs::read_dir(&tests) {
            Ok(entries) => entries.map(|entry| Ok(Folder { path: entry?.path() })).collect(),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(error).with_context(|| format!("list {}", tests.display())),
        }
    }

    /// Makes the folder, open to nobody else: it holds the administrator's key.
    pub(crate) fn create(&self) -> Result<()> {
        fs::create_dir_all(&self.path).with_context(|| format!("create {}", self.path.display()))?;
        fs::set_permissions(&self.path, fs::Permissions::from_mode(0o700)).context("close the folder to others")?;
        for name in ["pki", "config", "logs", "etcd", "images"] {
            fs::create_dir_all(self.path.join(name)).with_context(|| format!("create {name}"))?;
        }
        Ok(())
    }

    /// Removes the folder with everything in it.
    pub(crate) fn remove(&self) -> Result<()> {
        match fs::remove_dir_all(&self.path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(error).with_context(|| format!("remove {}", self.path.display()))
            }
            _ => Ok(()),
        }
    }

    pub(crate) fn exists(&self) -> bool {
        self.path.exists()
    }

    pub(crate) fn lock_file(&self) -> Result<File> {
        let path = self.path.join("lock");
        File::create(&path).with_context(|| format!("create {}", path.display()))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn join(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.path.join("kubeconfig")
    }

    pub(crate) fn log(&self, component: &str) -> PathBuf {
        self.path.join("logs").join(format!("{component}.log"))
    }

    pub(crate) fn record(&self) -> Record {
        Record::at(self.path.join("record"))
    }

    /// Writes a file below the folder and says where it is.
    pub(crate) fn write(&self, name: &str, text: impl AsRef<[u8]>) -> Result<PathBuf> {
        let path = self.path.join(name);
        fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
        Ok(path)
    }
}

/// Held while a test's folder is made or dead ones are removed: a folder without its lock looks dead.
pub(crate) fn lock_all() -> Result<File> {
    lock("tests.lock")
}

/// Held while `up` or `down` works: there is one such cluster.
pub(crate) fn lock_up() -> Result<File> {
    lock("up.lock")
}

fn lock(name: &str) -> Result<File> {
    let root = root()?;
    fs::create_dir_all(&root).with_context(|| format!("create {}", root.display()))?;
    let file = File::create(root.join(name)).with_context(|| format!("create {name}"))?;
    file.lock().with_context(|| format!("wait for {name}"))?;
    Ok(file)
}

/// Where all clusters of this user are.
pub(crate) fn root() -> Result<PathBuf> {
    if let Some(root) = env::var_os("BATCHJOB_STATE") {
        return std::path::absolute(root).context("read BATCHJOB_STATE");
    }
    if let Some(states) = env::var_os("XDG_STATE_HOME") {
        return Ok(Path::new(&states).join("batchjob"));
    }
    let home = env::var_os("HOME").context("neither BATCHJOB_STATE nor HOME says where to keep the cluster")?;
    Ok(Path::new(&home).join(".local/state/batchjob"))
}
