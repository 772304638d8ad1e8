//! Are the tests good enough? Puts one deliberate bug after the other into `decide` and `operator`, and asks the rings
//! that need no cluster whether they see it: `make mutations`.
//!
//! The bugs are in `mutations.yaml`: a text that is there once, and what it is replaced by. All is done in a copy of what is
//! committed, below `target/mutations`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use batchjob_oracle::Report;
use batchjob_tests::support::stamped;
use clap::Parser;
use serde::Deserialize;

/// Puts deliberate bugs into the operator, one after the other, and says which tests see them.
#[derive(Debug, Parser)]
struct Args {
    /// These bugs alone
    #[arg(long, value_delimiter = ',')]
    names: Vec<String>,
    /// How many lives the simulation plays with each
    #[arg(long, default_value_t = 20_000)]
    lives: u64,
    /// Where the result is written
    #[arg(long)]
    report: Option<PathBuf>,
}

/// A deliberate bug.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Mutation {
    name: String,
    /// What it does wrong, in a sentence.
    what: String,
    file: PathBuf,
    from: String,
    to: String,
}

impl Mutation {
    fn put_into(&self, good: &str) -> Result<String> {
        let n_places = good.matches(&self.from).count();
        ensure!(n_places == 1, "{}: its text is {n_places} times in {}", self.name, self.file.display());
        Ok(good.replacen(&self.from, &self.to, 1))
    }
}

/// Who may see a bug, in the order in which they are asked. All are asked.
const RINGS: [(&str, &[&str]); 3] = [
    (
        "unit tests, stories and kept cases",
        &[
            "test",
            "--quiet",
            "--locked",
            "--package",
            "batchjob-decide",
            "--package",
            "batchjob-operator",
            "--package",
            "batchjob-sim",
        ],
    ),
    ("simulation", &simulation("--lives")),
    ("simulation of schedules", &simulation("--slots")),
];

/// What is played of it, and how much, comes last.
const fn simulation(what: &'static str) -> [&'static str; 11] {
    ["run", "--quiet", "--locked", "--profile", "sim", "--package", "batchjob-sim", "--", "--most-failures", "3", what]
}

fn main() -> Result<()> {
    let args = Args::parse();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize()?;
    let mut mutations = mutations(&root)?;
    if !args.names.is_empty() {
        mutations.retain(|mutation| args.names.contains(&mutation.name));
        ensure!(mutations.len() == args.names.len(), "of {:?} not all are there", args.names);
    }
    let tree = root.join("target/mutations/tree");
    copy(&root, &tree)?;
    let began = Instant::now();
    ensure!(seen_by(&tree, args.lives)?.is_empty(), "the tests fail without any mutation");
    let mut lines = Vec::new();
    let mut unseen = 0;
    for mutation in &mutations {
        let path = tree.join(&mutation.file);
        let good = fs::read_to_string(&path)?;
        fs::write(&path, mutation.put_into(&good)?)?;
        let seen = seen_by(&tree, args.lives);
        fs::write(&path, good)?;
        let seen = seen?;
        unseen += u64::from(seen.is_empty());
        let by = if seen.is_empty() { "nobody".to_owned() } else { seen.join(" and ") };
        let line = format!("{}: {}: seen by {by}", mutation.name, mutation.what);
        println!("{line}");
        lines.push(line);
    }
    let report = Report {
        name: "mutations".to_owned(),
        promise: "The tests see a bug".to_owned(),
        how: "deliberate bugs in what decides and what acts, one at a time, against the tests that need no cluster"
            .to_owned(),
        command: "make mutations".to_owned(),
        counts: Report::count([("mutations", mutations.len() as u64), ("lives each", args.lives)]),
        violations: unseen,
        details: lines,
        ..stamped(began.elapsed())?
    };
    if let Some(folder) = &args.report {
        report.write(folder)?;
    }
    ensure!(unseen == 0, "{unseen} mutations were seen by nobody");
    Ok(())
}

fn mutations(root: &Path) -> Result<Vec<Mutation>> {
    let text = fs::read_to_string(root.join("tests/mutations/mutations.yaml")).context("read mutations.yaml")?;
    serde_saphyr::from_str(&text).context("read mutations.yaml")
}

/// What is committed, and nothing else.
fn copy(root: &Path, tree: &Path) -> Result<()> {
    if tree.exists() {
        fs::remove_dir_all(tree).context("remove the last copy")?;
    }
    fs::create_dir_all(tree)?;
    let mut archive = Command::new("git")
        .args(["archive", "HEAD"])
        .current_dir(root)
        .stdout(Stdio::piped())
        .spawn()
        .context("git archive")?;
    let stdout = archive.stdout.take().context("git archive has no output")?;
    let is_unpacked = Command::new("tar").arg("-x").current_dir(tree).stdin(stdout).status()?.success();
    ensure!(archive.wait()?.success() && is_unpacked, "failed to copy what is committed");
    Ok(())
}

/// The rings whose tests fail. A tree that does not build is an error.
fn seen_by(tree: &Path, lives: u64) -> Result<Vec<&'static str>> {
    let cargo = |arguments: &[&str]| {
        let mut command = Command::new("cargo");
        command.args(arguments).current_dir(tree).env("CARGO_TARGET_DIR", tree.join("../target"));
        command
    };
    let builds = cargo(&["build", "--quiet", "--locked", "--profile", "sim", "--package", "batchjob-sim"]).output()?;
    ensure!(builds.status.success(), "it does not build: {}", String::from_utf8_lossy(&builds.stderr));
    let mut seen = Vec::new();
    for (ring, arguments) in RINGS {
        let mut command = cargo(arguments);
        if ring.starts_with("simulation") {
            command.arg(lives.to_string());
        }
        if !command.output().with_context(|| format!("run the {ring}"))?.status.success() {
            seen.push(ring);
        }
    }
    Ok(seen)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Who changes the code changes the bug with it, and not whoever plays them all next.
    #[test]
    fn every_bug_can_be_put_in() -> Result<()> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let mutations = mutations(&root)?;
        assert!(mutations.len() >= 10, "{}", mutations.len());
        for mutation in mutations {
            let good = fs::read_to_string(root.join(&mutation.file))?;
            assert_ne!(mutation.put_into(&good)?, good, "{}", mutation.name);
        }
        Ok(())
    }
}
