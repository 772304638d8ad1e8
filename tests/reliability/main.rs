//! Writes what was measured into `docs/reliability.md`: a row for each `docs/reliability/*.json`, which the long runs
//! write. What is around the rows is written by hand.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use batchjob_oracle::Report;

const BEGIN: &str = "<!-- made by `make codegen` from docs/reliability/*.json -->\n";
const END: &str = "<!-- until here -->\n";

fn main() -> Result<()> {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs");
    let page = docs.join("reliability.md");
    let text = fs::read_to_string(&page).with_context(|| format!("read {}", page.display()))?;
    fs::write(&page, filled(&text, &rows(&reports(&docs.join("reliability"))?))?)?;
    Ok(())
}

fn reports(folder: &Path) -> Result<Vec<Report>> {
    let mut paths: Vec<_> = fs::read_dir(folder)
        .with_context(|| format!("list {}", folder.display()))?
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<_>>()?;
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "json"));
    paths.sort();
    paths.iter().map(|path| Report::read(path)).collect()
}

fn rows(reports: &[Report]) -> String {
    let mut text =
        "| promise | how it was tested | how much | time | violations | commit, day | again by |\n".to_owned();
    text += "|---|---|---|---|---|---|---|\n";
    for report in reports {
        let counts: Vec<String> = report.counts.iter().map(|(what, n)| format!("{} {what}", grouped(*n))).collect();
        let Report { promise, how, command, seconds, violations, date, commit, .. } = report;
        let short = &commit[..commit.len().min(8)];
        let (counts, time) = (counts.join(", "), time(*seconds));
        // Writing into a String does not fail.
        let _ = writeln!(
            text,
            "| {promise} | {how} | {counts} | {time} | **{violations}** | {short}, {date} | `{command}` |"
        );
    }
    for report in reports.iter().filter(|report| !report.details.is_empty()) {
        let _ = writeln!(text, "\n`{}`:\n", report.command);
        for detail in &report.details {
            let _ = writeln!(text, "- {detail}");
        }
    }
    text
}

/// The page with these rows between its marks.
fn filled(page: &str, rows: &str) -> Result<String> {
    let (Some((before, _)), Some((_, after))) = (page.split_once(BEGIN), page.split_once(END)) else {
        bail!("docs/reliability.md has lost the marks that the rows stand between");
    };
    Ok(format!("{before}{BEGIN}\n{rows}\n{END}{after}"))
}

/// 1,234,567
fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn time(seconds: u64) -> String {
    if seconds < 600 { format!("{seconds} s") } else { format!("{} min", seconds / 60) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_take_the_place_of_rows() -> Result<()> {
        let page = format!("# Head\n{BEGIN}old{END}tail\n");
        let once = filled(&page, "new\n")?;
        assert_eq!(once, format!("# Head\n{BEGIN}\nnew\n\n{END}tail\n"));
        assert_eq!(filled(&once, "new\n")?, once);
        Ok(())
    }

    #[test]
    fn large_numbers_are_read_in_groups() {
        assert_eq!([0, 999, 1000, 10_000_000].map(grouped), ["0", "999", "1,000", "10,000,000"]);
    }
}
