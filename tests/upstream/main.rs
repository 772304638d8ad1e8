//! `make upstream`: Kubernetes' own end-to-end tests of Job, CronJob and TTL, word for word, on a node where the operator runs
//! the Jobs.
//!
//! The tests come from the pinned Kubernetes module (`e2e/`), and know nothing of us: a MutatingAdmissionPolicy writes
//! `spec.managedBy` into every new Job that has none. With `--stock` kube-controller-manager runs the Jobs, as it does without
//! us: what fails there too is not about us.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode};

use anyhow::{Context, Result, bail, ensure};
use batchjob_tests::kubernetes::image::Image;
use batchjob_tests::kubernetes::{Kubernetes, Size, cache_root, versions};
use batchjob_tests::support::{Helm, Kubectl, image_archive};
use clap::Parser;
use serde_json::Value;

/// What their names begin with. Each group runs beside the others: a test of CronJob waits for minutes, one after the other.
const GROUPS: [(&str, &str); 2] =
    [("job", r"\[sig-apps\] (Job|TTLAfterFinished)"), ("cronjob", r"\[sig-apps\] CronJob")];
/// Where the tests find their images. There is no registry: ours have these names.
const BUSYBOX: &str = "registry.k8s.io/e2e-test-images/busybox:1.37.0-2";
const PAUSE: &str = "registry.k8s.io/pause:3.10.2";

/// Tests that cannot pass here, and why.
const NOT_HERE: &[(&str, &str)] = &[];

#[derive(Parser)]
struct Arguments {
    /// Let kube-controller-manager run the Jobs
    #[arg(long)]
    stock: bool,
    /// Only the tests whose names match this
    #[arg(long)]
    focus: Option<String>,
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(&Arguments::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: &Arguments) -> Result<()> {
    let tests = build()?;
    let kubernetes = Kubernetes::start(Size::Node).await?;
    for (image, name) in [(Image::busybox()?, BUSYBOX), (Image::pause()?, PAUSE)] {
        let archive = kubernetes.folder().join("image.tar");
        image.named(name).write(&archive)?;
        kubernetes.load(&archive)?;
    }
    if !arguments.stock {
        install(&kubernetes).await?;
    }
    let groups: Vec<(&str, &str)> = match &arguments.focus {
        Some(focus) => vec![("focus", focus)],
        None => GROUPS.to_vec(),
    };
    let mut running = Vec::new();
    for (group, focus) in &groups {
        running.push(start(&tests, &kubernetes, group, focus)?);
    }
    let mut specs = Vec::new();
    for ((group, _), mut child) in groups.into_iter().zip(running) {
        // Its exit status says no more than the report.
        child.wait()?;
        let (report, log) = (kubernetes.folder().join(format!("{group}.json")), log_of(&kubernetes, group));
        fs::copy(&log, Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../target/upstream-{group}.log")))?;
        let report =
            fs::read_to_string(report).with_context(|| format!("no report of {group}: see {}", log.display()))?;
        let report: Value = serde_json::from_str(&report)?;
        let suites = report.as_array().into_iter().flatten();
        specs.extend(suites.flat_map(|suite| suite["SpecReports"].as_array().cloned().unwrap_or_default()));
    }
    let outcome = judge(&specs);
    kubernetes.stop().await?;
    outcome
}

fn log_of(kubernetes: &Kubernetes, group: &str) -> PathBuf {
    kubernetes.folder().join(format!("{group}.log"))
}

fn start(tests: &Path, kubernetes: &Kubernetes, group: &str, focus: &str) -> Result<Child> {
    let log = log_of(kubernetes, group);
    eprintln!("running {group}; its own words are in {}", log.display());
    Command::new(tests)
        .current_dir(kubernetes.folder())
        .arg(format!("--kubeconfig={}", kubernetes.kubeconfig().display()))
        .args(["--provider=skeleton", "--num-nodes=1", "--ginkgo.no-color", "--ginkgo.v", "--ginkgo.timeout=60m"])
        .arg(format!("--ginkgo.focus={focus}"))
        // The gates of gang scheduling.
        .arg("--ginkgo.skip=Feature:OffByDefault")
        .arg(format!("--ginkgo.json-report={}", kubernetes.folder().join(format!("{group}.json")).display()))
        .stdout(fs::File::create(&log)?)
        .stderr(fs::File::create(log.with_extension("err"))?)
        .spawn()
        .context("start the tests")
}

/// The tests as one binary, kept where Kubernetes' own are.
fn build() -> Result<PathBuf> {
    let version =
        versions()?.into_iter().find(|(name, _)| *name == "kubernetes").context("Kubernetes has a version")?.1;
    let binary = cache_root()?.join("e2e").join(version).join("e2e.test");
    if binary.is_file() {
        return Ok(binary);
    }
    eprintln!("building Kubernetes' end-to-end tests: some ten minutes");
    let built = Command::new("go")
        .args(["test", "-c", "-o"])
        .arg(&binary)
        .arg(".")
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("upstream/e2e"))
        .status()
        .context("start go")?;
    ensure!(built.success(), "go test -c: {built}");
    Ok(binary)
}

async fn install(kubernetes: &Kubernetes) -> Result<()> {
    kubernetes.load(&image_archive()?)?;
    let chart = Path::new(env!("CARGO_MANIFEST_DIR")).join("../charts/batchjob").display().to_string();
    let waiting = ["--create-namespace", "--wait", "--timeout", "2m", "--set", "managedJobs.enabled=true"];
    let helm = Helm::new(kubernetes, "batchjob-system");
    helm.run(&[&["install", "batchjob", &chart], waiting.as_slice()].concat()).await?;
    Kubectl::new(kubernetes, "default").apply(include_str!("every-job.yaml"))?;
    Ok(())
}

/// Prints how each test went; an error if one failed that can pass here.
fn judge(specs: &[Value]) -> Result<()> {
    let (mut n_passed, mut failed) = (0, Vec::new());
    for spec in specs.iter().filter(|spec| spec["LeafNodeType"] == "It" && spec["State"] != "skipped") {
        let containers = spec["ContainerHierarchyTexts"].as_array().into_iter().flatten().filter_map(Value::as_str);
        let name = containers.chain(spec["LeafNodeText"].as_str()).collect::<Vec<_>>().join(" ");
        let seconds = spec["RunTime"].as_f64().unwrap_or_default() / 1e9;
        if spec["State"] == "passed" {
            n_passed += 1;
            println!("passed  {seconds:6.1} s  {name}");
            continue;
        }
        let why = spec["Failure"]["Message"].as_str().unwrap_or_default().lines().next().unwrap_or_default();
        let excuse = NOT_HERE.iter().find(|(part, _)| name.contains(part));
        println!("failed  {seconds:6.1} s  {name}: {}", excuse.map_or(why, |(_, excuse)| excuse));
        if excuse.is_none() {
            failed.push(name);
        }
    }
    println!("{n_passed} passed, {} failed", failed.len());
    if n_passed == 0 || !failed.is_empty() {
        bail!("see target/upstream-*.log");
    }
    Ok(())
}
