//! Start-up: flags, logs, client, and then the tasks, until SIGTERM.

use std::io::IsTerminal as _;
use std::process::ExitCode;

use anyhow::Context as _;
use batchjob_operator::args::{Command, LogFormat, OperatorArgs, Other};
use batchjob_operator::{operator, release, selftest};
use clap::Parser as _;
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    let command = Command::parse();
    let result = match &command.other {
        Some(Other::Noop) => Ok(()),
        Some(Other::Selftest(args)) => in_runtime(selftest::run(args.clone())),
        Some(Other::Release(args)) => in_runtime(release::run(args.clone())),
        None => start_logging(&command.operator).and_then(|()| in_runtime(operator::run(command.operator))),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn in_runtime(work: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("failed to start")?;
    let result = runtime.block_on(work);
    // What is left are watches, and requests whose answers nobody waits for.
    runtime.shutdown_background();
    result
}

fn start_logging(args: &OperatorArgs) -> anyhow::Result<()> {
    let filter = EnvFilter::builder().parse(&args.log_level).with_context(|| {
        format!("--log-level {:?} is no filter: write error, warn, info, debug or trace", args.log_level)
    })?;
    // kube-client logs every 5xx as an error of its own; the pass that met it says more.
    let filter = filter.add_directive("kube_client::client::builder=off".parse()?);
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match args.log_format {
        LogFormat::Json => subscriber.json().flatten_event(true).with_current_span(false).init(),
        LogFormat::Human => subscriber.with_ansi(std::io::stderr().is_terminal()).init(),
    }
    Ok(())
}
