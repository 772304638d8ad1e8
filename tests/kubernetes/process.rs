//! Start a component, know whether it still runs, and show what it said last.

use std::env;
use std::fs::{self, File};
use std::io;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Sender, channel};
use std::sync::{LazyLock, Mutex};
use std::thread;

use anyhow::{Context, Result, bail};

use super::folder::Folder;
use super::record::{Identity, child_of};

/// Who outlives whom.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lifetime {
    /// The component ends when this process does, even by SIGKILL.
    Ours,
    /// The component stays until `down`.
    Detached,
}

/// A component that was started.
pub(crate) struct Process {
    pub(crate) name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts a component: its output goes to its log, its pid to the record.
    pub(crate) fn start(name: &str, command: Command, folder: &Folder, lifetime: Lifetime) -> Result<Process> {
        let log = folder.log(name);
        // One that is started again goes on in its log.
        let output = File::options().create(true).append(true).open(&log);
        let output = output.with_context(|| format!("create {}", log.display()))?;
        let errors = output.try_clone()?;
        let mut command = bound(command, folder, lifetime);
        command.stdout(output).stderr(errors);
        Process::spawn(name, command, folder, lifetime)
    }

    /// Starts something that answers on its standard output, and hands that over.
    pub(crate) fn start_piped(
        name: &str,
        command: Command,
        folder: &Folder,
        lifetime: Lifetime,
    ) -> Result<(Process, std::process::ChildStdout)> {
        let log = folder.log(name);
        let errors = File::create(&log).with_context(|| format!("create {}", log.display()))?;
        let mut command = bound(command, folder, lifetime);
        command.stdout(Stdio::piped()).stderr(errors);
        let mut process = Process::spawn(name, command, folder, lifetime)?;
        let output = process.child.stdout.take().context("the output is a pipe")?;
        Ok((process, output))
    }

    fn spawn(name: &str, mut command: Command, folder: &Folder, lifetime: Lifetime) -> Result<Process> {
        let child = match lifetime {
            Lifetime::Ours => spawn_from_lasting_thread(command),
            Lifetime::Detached => command.spawn(),
        };
        let child = child.with_context(|| format!("start {name}"))?;
        folder.record().add_process(name, child.id())?;
        Ok(Process { name: name.to_owned(), child, log: folder.log(name) })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The pid of the component itself: `nsenter` stands before it as its parent.
    pub(crate) fn component_pid(&self) -> Option<u32> {
        let command = fs::read_to_string(format!("/proc/{}/comm", self.pid())).ok()?;
        if command.trim() == "nsenter" { child_of(self.pid()) } else { Some(self.pid()) }
    }

    /// Fails, with its last words, if the component has ended.
    pub(crate) fn check(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            Some(status) => bail!("{} ended ({status}):\n{}", self.name, self.last_lines()),
            None => Ok(()),
        }
    }

    /// Ends the component at once, and waits for it.
    pub(crate) fn end(&mut self) -> Result<()> {
        let component = self.component_pid().and_then(Identity::of);
        component.with_context(|| format!("{} runs no more", self.name))?.kill();
        // nsenter stops when its child is stopped, and then would not see that it ends.
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// The end of its log.
    pub(crate) fn last_lines(&self) -> String {
        let text = fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        let last = &lines[lines.len().saturating_sub(20)..];
        format!("--- last lines of {}\n{}", self.log.display(), last.join("\n"))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Takes the exit status, so that an ended child does not stay as a zombie. A living one is not touched.
        let _ = self.child.try_wait();
    }
}

/// Ties a command to this process, or cuts it loose.
fn bound(command: Command, folder: &Folder, lifetime: Lifetime) -> Command {
    let mut bound = match lifetime {
        Lifetime::Detached => command,
        Lifetime::Ours => {
            let mut tied = Command::new("setpriv");
            tied.args(["--pdeathsig", "KILL", "--"]).arg(command.get_program()).args(command.get_args());
            tied
        }
    };
    // Its own process group: a Ctrl-C in the terminal is for the one who typed it. And an environment of its own:
    // a proxy, a KUBECONFIG or a GODEBUG of the user must not change what a cluster does.
    bound.process_group(0).stdin(Stdio::null()).env_clear().env("PATH", search_path()).env("HOME", folder.path());
    bound
}

/// The PATH, with the folders where a node's programs are.
pub(crate) fn search_path() -> String {
    let path = env::var("PATH").unwrap_or_default();
    format!("{path}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
}

/// The kernel sends the death signal of prctl(2) when the *thread* that started the child ends, not the process. A test
/// ends its threads long before the cluster that it shares with others may end; this thread ends with the process.
fn spawn_from_lasting_thread(command: Command) -> io::Result<Child> {
    type Order = (Command, Sender<io::Result<Child>>);
    static ORDERS: LazyLock<Mutex<Sender<Order>>> = LazyLock::new(|| {
        let (orders, to_do) = channel::<Order>();
        thread::spawn(move || {
            for (mut command, answer) in to_do {
                // The one who asked waits for the answer; if it is gone there is nobody to tell.
                let _ = answer.send(command.spawn());
            }
        });
        Mutex::new(orders)
    });
    let gone = || io::Error::other("the thread that starts components is gone");
    let (answer, answered) = channel();
    ORDERS.lock().map_err(|_| gone())?.send((command, answer)).map_err(|_| gone())?;
    answered.recv().map_err(|_| gone())?
}
