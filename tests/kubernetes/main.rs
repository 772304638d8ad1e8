//! `cluster`: the real Kubernetes of the demo and the tests, by hand.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use batchjob_tests::kubernetes::image::Image;
use batchjob_tests::kubernetes::{Binaries, Size, check, install, sweep, up, versions};
use clap::{Parser, Subcommand};

/// A real Kubernetes on this machine, built from pinned Go modules.
#[derive(Parser)]
#[command(name = "cluster", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Build what is missing of Kubernetes, etcd, containerd, Helm and kwok
    Build {
        #[arg(long, value_enum, default_value = "node")]
        size: Size,
    },
    /// Say what the machine lacks for a cluster, and the command that installs it
    Prerequisites {
        #[arg(long, value_enum, default_value = "node")]
        size: Size,
        /// Install it by apt-get (as root)
        #[arg(long)]
        install: bool,
    },
    /// Start a cluster that stays
    Up {
        #[arg(long, value_enum, default_value = "node")]
        size: Size,
    },
    /// End that cluster and remove all it left
    Down,
    /// Remove what test runs have left behind
    Sweep,
    /// Print the path of its kubeconfig
    Kubeconfig,
    /// Print what a shell needs to use it: eval "$(cluster env)"
    Env,
    /// Print the versions that are built
    Versions,
    /// Load an OCI archive into its node
    Load { archive: PathBuf },
    /// Make an OCI archive from one static binary
    Image {
        #[arg(long)]
        binary: PathBuf,
        #[arg(long, default_value = "localhost/batchjob-operator:dev")]
        name: String,
        #[arg(long)]
        out: PathBuf,
    },
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Arguments::parse().command).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(command: Command) -> Result<()> {
    match command {
        Command::Build { size } => Binaries::build(size).map(drop)?,
        Command::Prerequisites { size, install: true } => install(size)?,
        Command::Prerequisites { size, install: false } => {
            check(size)?;
            eprintln!("everything is there");
        }
        Command::Up { size } => {
            up::up(size).await?;
            println!("export KUBECONFIG={}", up::kubeconfig()?.display());
        }
        Command::Down => up::down()?,
        Command::Sweep => sweep()?,
        Command::Kubeconfig => println!("{}", up::kubeconfig()?.display()),
        Command::Env => print_environment()?,
        Command::Versions => {
            for (module, version) in versions()? {
                println!("{module} {version}");
            }
        }
        Command::Load { archive } => up::load(&archive)?,
        Command::Image { binary, name, out } => Image::of_binary(&binary, &name)?.write(&out)?,
    }
    Ok(())
}

/// The kubeconfig, and kubectl, helm and kwok on the PATH, in front of any the machine has.
fn print_environment() -> Result<()> {
    let binaries = Binaries::find()?;
    let folders = [&binaries.kubectl, &binaries.helm, &binaries.kwok].map(|binary| {
        let folder = binary.parent().unwrap_or(binary);
        folder.display().to_string()
    });
    println!("export KUBECONFIG={}", up::kubeconfig()?.display());
    println!("export PATH={}:$PATH", folders.join(":"));
    // A node is not on this machine's loopback, so a user's proxy would be asked for it.
    println!("export NO_PROXY=\"${{NO_PROXY:+$NO_PROXY,}}198.18.0.0/15\"");
    Ok(())
}
