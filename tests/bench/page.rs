//! The figures as a page: of each the median of the rounds, with the least and the most, and beside kube-controller-manager's.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};
use batchjob_tests::kubernetes::versions;
use batchjob_tests::support::stamped;

use crate::contender::Contender;
use crate::figures::{Figures, percentile};
use crate::workload::Workload;

const BEGIN: &str = "<!-- made by `make bench PAGE=1` -->\n";
const END: &str = "<!-- until here -->\n";

/// What was measured, in that order.
#[derive(Default)]
pub struct Results(Vec<(Workload, Vec<Row>)>);

/// The runs of a contender.
type Row = (Contender, Vec<Figures>);

/// A figure of a run; None if the run has none.
type Figure = fn(&Figures) -> Option<f64>;

const FIGURES: [(&str, Figure); 8] = [
    ("pods/s", |it| Some(it.pods_per_second())),
    ("CPU-s per 1,000 pods", |it| Some(it.cpu_per_thousand())),
    ("peak memory, MiB", |it| Some(it.mebibytes())),
    ("writes a pod", |it| Some(it.writes_per_pod())),
    ("successor p50, ms", |it| millis(&it.successor, 50)),
    ("successor p99, ms", |it| millis(&it.successor, 99)),
    ("first pod p50, ms", |it| millis(&it.first_pod, 50)),
    ("first pod p99, ms", |it| millis(&it.first_pod, 99)),
];

fn millis(delays: &[std::time::Duration], percent: usize) -> Option<f64> {
    percentile(delays, percent).map(|delay| 1000.0 * delay.as_secs_f64())
}

impl Results {
    pub fn add(&mut self, workload: Workload, contender: Contender, figures: Figures) {
        if self.0.last().is_none_or(|(last, _)| last.name != workload.name) {
            self.0.push((workload, Vec::new()));
        }
        let Some((_, rows)) = self.0.last_mut() else { return };
        match rows.iter_mut().find(|(known, _)| *known == contender) {
            Some((_, runs)) => runs.push(figures),
            None => rows.push((contender, vec![figures])),
        }
    }

    pub fn page(&self) -> String {
        let mut page = String::new();
        for (workload, rows) in &self.0 {
            let mut rows: Vec<&Row> = rows.iter().collect();
            rows.sort_by_key(|(contender, _)| *contender);
            // Writing into a String does not fail.
            let _ = writeln!(page, "### {}: {}\n", workload.name, workload.what);
            let titles: Vec<&str> = FIGURES.iter().map(|(title, _)| *title).collect();
            let _ = writeln!(page, "| | {} |\n|---|{}", titles.join(" | "), "---|".repeat(titles.len()));
            let beside = rows.iter().find(|(contender, _)| *contender == Contender::Lifted).map(|(_, runs)| runs);
            for (contender, runs) in &rows {
                let cells = FIGURES.map(|(_, figure)| cell(runs, beside.filter(|_| contender.is_ours()), figure));
                let _ = writeln!(page, "| {} | {} |", contender.name(), cells.join(" | "));
            }
            let _ = writeln!(page, "\nWritten for each pod, in the last round:\n");
            for (contender, runs) in rows.iter().filter(|(contender, _)| *contender != Contender::Floor) {
                let written = runs.last().map(Figures::written).unwrap_or_default();
                let _ = writeln!(page, "- {}: {written}", contender.name());
            }
            page += "\n";
        }
        page
    }
}

/// "111 (108–114), ×1.02".
fn cell(runs: &[Figures], beside: Option<&Vec<Figures>>, figure: Figure) -> String {
    let Some([least, median, most]) = spread(runs, figure) else { return "–".to_owned() };
    let ratio = beside.and_then(|runs| spread(runs, figure)).map(|[_, other, _]| median / other);
    let ratio = ratio.filter(|ratio| ratio.is_finite()).map_or(String::new(), |ratio| format!(", **×{ratio:.2}**"));
    format!("{} ({}–{}){ratio}", number(median), number(least), number(most))
}

fn spread(runs: &[Figures], figure: Figure) -> Option<[f64; 3]> {
    let mut values: Vec<f64> = runs.iter().filter_map(figure).collect();
    values.sort_by(f64::total_cmp);
    Some([*values.first()?, values[values.len() / 2], *values.last()?])
}

fn number(value: f64) -> String {
    match value {
        value if value >= 100.0 => format!("{value:.0}"),
        value if value >= 10.0 => format!("{value:.1}"),
        value => format!("{value:.2}"),
    }
}

/// Writes it into docs/performance.md, with where and when it was measured.
pub fn write(page: &str) -> Result<()> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/performance.md");
    let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    let (Some((before, _)), Some((_, after))) = (text.split_once(BEGIN), text.split_once(END)) else {
        bail!("docs/performance.md has lost the marks that the figures stand between");
    };
    let report = stamped(std::time::Duration::ZERO)?;
    let versions = versions()?;
    let kubernetes = versions.iter().find(|(name, _)| *name == "kubernetes").context("the version of Kubernetes")?;
    let where_and_when = format!(
        "{}, at {}, on {}, beside Kubernetes {}.",
        report.date,
        &report.commit[..report.commit.len().min(8)],
        machine()?,
        kubernetes.1
    );
    Ok(fs::write(&path, format!("{before}{BEGIN}\n{where_and_when}\n\n{page}{END}{after}"))?)
}

fn machine() -> Result<String> {
    let processor = fs::read_to_string("/proc/cpuinfo")?;
    let model = processor.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": ").map(|(_, it)| it));
    let cores = std::thread::available_parallelism()?;
    let kernel = String::from_utf8(Command::new("uname").arg("-r").output()?.stdout)?;
    Ok(format!("{cores} cores ({}), Linux {}", model.unwrap_or("unknown"), kernel.trim()))
}
