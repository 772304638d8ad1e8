//! `conformance`: every test that upstream has for Jobs, and which of ours stand for it.
//!
//! ```text
//! upstream's source ──names──► upstream.txt ─┐
//!                                            ├──► docs/conformance.md
//!                              mapping.yaml ─┘
//! ```
//!
//! Without a command it checks both files, against the source where it is on this machine and against our own tests,
//! and writes the document.

mod document;
mod go;
mod mapping;
mod ours;
mod upstream;

use std::fs;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};

use document::Totals;
use upstream::Upstream;

/// So many of upstream's cases are open, and so many are asked through one door alone. Both may only go down: whoever
/// fills a row writes the new number here.
const MAX_OPEN: usize = 1;
const MAX_ONE_DOOR: usize = 1;

const UPSTREAM: &str = "tests/conformance/upstream.txt";
const MAPPING: &str = "tests/conformance/mapping.yaml";
const DOCUMENT: &str = "docs/conformance.md";

/// Upstream's tests and ours: writes docs/conformance.md.
#[derive(Parser)]
#[command(name = "conformance", version)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Read the names of upstream's tests from its source anew, after a change of its version
    Names,
}

fn main() -> Result<ExitCode> {
    match Arguments::parse().command {
        Some(Command::Names) => {
            let source =
                Upstream::of_source()?.context("find the source of Kubernetes: `make kubernetes` fetches it")?;
            fs::write(ours::repository().join(UPSTREAM), source.text())?;
            Ok(ExitCode::SUCCESS)
        }
        None => write_document(),
    }
}

fn write_document() -> Result<ExitCode> {
    let read = |path| fs::read_to_string(ours::repository().join(path)).with_context(|| format!("read {path}"));
    let upstream = Upstream::parse(&read(UPSTREAM)?).context(UPSTREAM)?;
    let mut problems = Vec::new();
    check_names(&upstream, &mut problems)?;
    let files = mapping::judge(&upstream, &read(MAPPING)?, &mut problems).context(MAPPING)?;
    let text = document::write(&upstream.version, &files, &mut problems)?;
    // With rows missing the numbers say nothing.
    if problems.is_empty() {
        let totals = Totals::sum(files.iter().map(Totals::of));
        for (name, max, n) in [("MAX_OPEN", MAX_OPEN, totals.n_open), ("MAX_ONE_DOOR", MAX_ONE_DOOR, totals.n_one_door)]
        {
            match n.cmp(&max) {
                std::cmp::Ordering::Greater => problems.push(format!("{name} is {max}, and now there are {n}")),
                std::cmp::Ordering::Less => problems.push(format!("only {n} are left: write {name} = {n}")),
                std::cmp::Ordering::Equal => {}
            }
        }
    }
    if problems.is_empty() {
        fs::write(ours::repository().join(DOCUMENT), text)?;
        return Ok(ExitCode::SUCCESS);
    }
    // Rows that share a reason share its problem.
    problems.dedup();
    problems.iter().for_each(|problem| eprintln!("error: {problem}"));
    eprintln!("{} problems: {DOCUMENT} is not written", problems.len());
    Ok(ExitCode::FAILURE)
}

/// The names are those of the version that the tests run on.
fn check_names(upstream: &Upstream, problems: &mut Vec<String>) -> Result<()> {
    let renew = "run `cargo run -p batchjob-tests --bin conformance names`";
    let pinned = upstream::pinned_version()?;
    if upstream.version != pinned {
        problems.push(format!("{UPSTREAM} is of {}, and Kubernetes is now {pinned}: {renew}", upstream.version));
    }
    let Some(source) = Upstream::of_source()? else {
        eprintln!("the source of Kubernetes {pinned} is not on this machine: {UPSTREAM} is not compared with it");
        return Ok(());
    };
    problems.extend(upstream.lacks(&source).iter().map(|name| format!("{UPSTREAM} lacks {name}: {renew}")));
    problems.extend(source.lacks(upstream).iter().map(|name| format!("upstream has no {name} any more: {renew}")));
    Ok(())
}
