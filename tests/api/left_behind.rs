//! Somebody takes everything away: the release, the definition of BatchJobs, the namespace of the jobs; and the operator dies for
//! good. In each of the 24 orders nothing stays behind, and what does in other cases the command of docs/rescue.md frees.
//!
//! Everything is real but the nodes: the chart is installed and uninstalled by Helm, with its hooks, and the operator and the
//! hook have the rights of their service accounts. The nodes are played (`node`), and what would run there as a container
//! runs as a process. The steps follow each other at once. The definition is the cluster's, so each order does what
//! comes before its deletion, then it is deleted once for all, then each goes on.

mod node;
mod release;

use std::fmt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use batchjob_oracle::Report;
use batchjob_tests::faults::campaign;
use batchjob_tests::kubernetes::Kubernetes;
use batchjob_tests::support::{Kubectl, stamped, wait_for};
use futures::future::try_join_all;
use futures::stream::{self, StreamExt as _, TryStreamExt as _};

use crate::stage::repository;
use node::Node;
use release::Release;

/// Nothing is to be left after this time.
const PROMISE: Duration = Duration::from_secs(60);
/// How long is waited, where many share the processors: the controllers of Kubernetes itself then take their time.
const LIMIT: Duration = Duration::from_secs(240);
/// Where the releases are.
const SYSTEM: &str = "batchjob-system";
const DEFINITION: &str = "batchjobs.batchjob.dev";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Uninstall,
    DeleteDefinition,
    DeleteNamespace,
    /// And nobody starts it again.
    KillOperator,
}

impl Step {
    const ALL: [Step; 4] = [Step::Uninstall, Step::DeleteDefinition, Step::DeleteNamespace, Step::KillOperator];
}

#[derive(Clone, Copy, Debug)]
struct Order([Step; 4]);

impl Order {
    fn all() -> Vec<Order> {
        let mut orders = Vec::new();
        for a in Step::ALL {
            for b in Step::ALL.into_iter().filter(|&step| step != a) {
                for c in Step::ALL.into_iter().filter(|&step| step != a && step != b) {
                    let last = Step::ALL.into_iter().filter(|&step| ![a, b, c].contains(&step));
                    orders.extend(last.map(|d| Order([a, b, c, d])));
                }
            }
        }
        orders
    }

    /// What is done before the definition is deleted, and what after.
    fn parts(&self) -> (&[Step], &[Step]) {
        let at = self.0.iter().position(|&step| step == Step::DeleteDefinition).unwrap_or_default();
        (&self.0[..at], &self.0[at + 1..])
    }
}

/// "order-ucnk".
impl fmt::Display for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let letter = |step| match step {
            Step::Uninstall => 'u',
            Step::DeleteDefinition => 'c',
            Step::DeleteNamespace => 'n',
            Step::KillOperator => 'k',
        };
        write!(f, "order-{}", self.0.map(letter).iter().collect::<String>())
    }
}

#[test]
fn there_are_24_orders() {
    let mut names: Vec<String> = Order::all().iter().map(Order::to_string).collect();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), 24);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_order_of_taking_it_away_leaves_nothing_stuck() -> Result<()> {
    let began = Instant::now();
    let kubernetes = campaign::kubernetes().await?;
    let kubectl = Kubectl::new(&kubernetes, SYSTEM);
    kubectl.run(&["create", "namespace", SYSTEM])?;
    let _node = Node::start(&kubernetes).await?;

    let kubernetes = &kubernetes;
    let install = async |order: Order| {
        Ok::<_, anyhow::Error>((order, Release::install(kubernetes, Some(SYSTEM), &order.to_string()).await?))
    };
    // Helm takes its time, on however many processors.
    let mut installed: Vec<(Order, Release)> =
        stream::iter(Order::all()).map(install).buffer_unordered(8).try_collect().await?;
    let mut hookless = Release::install(kubernetes, Some(SYSTEM), "without-hooks").await?;
    let mut together = Release::install(kubernetes, None, "batchjob").await?;
    eprintln!("{} releases are at work after {:.0?}", installed.len() + 2, began.elapsed());

    let begun = installed.iter_mut().map(async |(order, release)| {
        release.begin().await?;
        take_away(release, order.parts().0).await
    });
    try_join_all(begun).await?;
    hookless.begin().await?;
    hookless.kill()?;
    hookless.uninstall(&["--no-hooks"]).await?;
    kubectl.run(&["delete", "customresourcedefinition", DEFINITION, "--wait=false"])?;
    let ends = installed.iter_mut().map(async |(order, release)| {
        take_away(release, order.parts().1).await?;
        let last = Instant::now();
        until_nothing_is_left(kubernetes, release).await.with_context(|| order.to_string())?;
        anyhow::Ok(last.elapsed())
    });
    hookless.delete_namespace().await?;
    together.delete_namespace().await?;
    let ends = try_join_all(ends).await?;
    eprintln!("nothing was left of any of them after {:.1?}", ends.iter().max().unwrap_or(&Duration::ZERO));

    let last = Instant::now();
    rescue(kubernetes, &hookless, &together).await?;
    let kubectl = &kubectl;
    wait_for("the definition is gone", LIMIT, async || {
        let said = kubectl.run(&["get", "customresourcedefinition", DEFINITION, "--ignore-not-found"])?;
        Ok(said.is_empty().then_some(()))
    })
    .await?;
    report(&ends, last.elapsed(), began.elapsed())
}

async fn take_away(release: &mut Release, steps: &[Step]) -> Result<()> {
    for step in steps {
        match step {
            Step::Uninstall => release.uninstall(&[]).await?,
            Step::DeleteNamespace => release.delete_namespace().await?,
            Step::KillOperator => release.kill()?,
            Step::DeleteDefinition => {}
        }
    }
    Ok(())
}

/// No namespace of jobs, and nothing of the release.
async fn until_nothing_is_left(kubernetes: &Kubernetes, release: &Release) -> Result<()> {
    let what = format!("nothing is left of {}", release.name);
    let left = async || {
        let left = release.left().await?;
        ensure!(left.is_empty(), "left: {}", left.join(", "));
        Ok(Some(()))
    };
    let gone = wait_for(&what, LIMIT, left).await;
    if gone.is_err() {
        let kubectl = Kubectl::new(kubernetes, &release.namespace);
        for arguments in [["get", "namespace", &release.namespace, "-o", "yaml"], ["get", "pods", "-A", "-o", "wide"]] {
            eprintln!("{}", kubectl.say(&arguments, "")?.text);
        }
        eprintln!("--- the operator\n{}", release.log());
    }
    gone
}

/// Where no hook runs something is stuck indeed, and what the page tells to type frees it.
async fn rescue(kubernetes: &Kubernetes, hookless: &Release, together: &Release) -> Result<()> {
    let pods = Kubectl::new(kubernetes, &hookless.namespace);
    let held = pods.run(&["get", "pods", "-o", "jsonpath={.items[*].status.phase}"])?;
    // Their programs have ended, and their jobs are gone. The one that was deleted first may have been let go in time.
    ensure!((3..=4).contains(&held.split(' ').count()) && !held.contains("Running"), "held for ever: {held}");

    let page = std::fs::read_to_string(repository("docs/rescue.md"))?;
    let mut commands = page.split("```sh\n").skip(1).filter_map(|rest| rest.split_once("```").map(|(block, _)| block));
    let (free, clear) = (commands.next().context("a command")?, commands.next().context("another")?);
    shell(kubernetes, free)?;
    until_nothing_is_left(kubernetes, hookless).await?;
    wait_for("the namespace that had both is gone", LIMIT, async || {
        Ok(together.left().await?.iter().all(|left| !left.starts_with("namespace")).then_some(()))
    })
    .await?;
    shell(kubernetes, clear)?;
    until_nothing_is_left(kubernetes, together).await
}

/// Runs what a reader would type.
fn shell(kubernetes: &Kubernetes, commands: &str) -> Result<()> {
    let kubectl = kubernetes.binaries().kubectl.parent().context("kubectl is in a folder")?;
    let output = Command::new("sh")
        .args(["-ec", commands])
        .env("PATH", format!("{}:{}", kubectl.display(), std::env::var("PATH")?))
        .env("KUBECONFIG", kubernetes.kubeconfig())
        .env("KUBECACHEDIR", kubernetes.folder().join("kubectl-cache"))
        .output()?;
    ensure!(output.status.success(), "{commands}\n{}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// `REPORT=FOLDER`: `make left-behind`.
fn report(orders: &[Duration], rescue: Duration, all: Duration) -> Result<()> {
    let Some(folder) = std::env::var_os("REPORT") else { return Ok(()) };
    let longest = orders.iter().max().copied().unwrap_or_default();
    let report = Report {
        name: "left-behind".to_owned(),
        promise: "In whatever order the release, the CRD and the namespaces are taken away, and even if the operator dies for \
                  good, nothing stays that waits for it."
            .to_owned(),
        how: "Every order of helm uninstall, deleting the CRD, deleting the namespace and SIGKILL of the operator, the steps at \
              once after each other, with pods of BatchJobs and of a managed Job at work; all must be gone after 60 s."
            .to_owned(),
        command: "make left-behind".to_owned(),
        counts: Report::count([("orders", orders.len() as u64), ("rescues", 2)]),
        violations: orders.iter().filter(|&&took| took > PROMISE).count() as u64,
        details: vec![
            format!("The slowest order had nothing left {:.1} s after its last step.", longest.as_secs_f64()),
            format!("The commands of docs/rescue.md freed the rest in {:.1} s.", rescue.as_secs_f64()),
        ],
        ..stamped(all)?
    };
    report.write(&repository(&Path::new(&folder).display().to_string()))?;
    Ok(())
}
