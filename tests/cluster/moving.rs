//! What docs/moving.md tells people to type is typed: every block of it, in its order, in one folder.
//!
//! A `yaml` block becomes the file that its first line names, a `sh` block is run by the shell, a `python` block by a
//! Python that has the official client. All run in namespace `default`, as they would for a reader.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use batchjob_tests::kubernetes::python;

use crate::installed::{Installed, shared};

/// A fenced block: its language and its text.
struct Block {
    language: String,
    text: String,
}

fn blocks(page: &str) -> Vec<Block> {
    let fenced = page.split("\n```").skip(1).step_by(2);
    let block = |fenced: &str| {
        let (language, text) = fenced.split_once('\n')?;
        Some(Block { language: language.to_owned(), text: format!("{text}\n") })
    };
    fenced.filter_map(block).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_command_of_the_page_does_what_it_says() -> Result<()> {
    let installed = shared().await?;
    let folder = installed.kubernetes.folder().join("moving");
    fs::create_dir_all(&folder)?;
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/moving.md"))?;
    let mut said = String::new();
    for block in blocks(&page) {
        said += &tokio::task::block_in_place(|| run(installed, &folder, &block))?;
    }
    for expected in [
        // Job and BatchJob each say it once; the second time under one label there are both.
        "loaded\n",
        "job.batch/tonight condition met",
        "cronjob.batch/nightly patched (no change)",
        "\nbatchjob.dev/operator\n",
        "squares: Complete\n",
        "cubes: Succeeded 3/3\n",
        "job.batch \"squares\" deleted",
    ] {
        ensure!(said.contains(expected), "{expected:?} in {said}");
    }
    Ok(())
}

/// What it wrote to standard output.
fn run(installed: &Installed, folder: &Path, block: &Block) -> Result<String> {
    let mut command = match &*block.language {
        "yaml" => {
            let name = block.text.lines().next().and_then(|line| line.strip_prefix("# ")).context("a file's name")?;
            fs::write(folder.join(name), &block.text)?;
            return Ok(String::new());
        }
        "sh" => Command::new("sh"),
        "python" => Command::new(python()?),
        other => bail!("nobody runs {other}: {}", block.text),
    };
    let kubectl = installed.kubernetes.binaries().kubectl.parent().context("kubectl is in a folder")?;
    command
        .current_dir(folder)
        .env("PATH", format!("{}:{}", kubectl.display(), std::env::var("PATH")?))
        .env("KUBECONFIG", installed.kubernetes.kubeconfig())
        .env("KUBECACHEDIR", installed.kubernetes.folder().join("kubectl-cache"))
        .args(if block.language == "sh" { ["-ec", &*block.text] } else { ["-c", &*block.text] });
    let output = command.output().with_context(|| format!("start the program for {}", block.language))?;
    let [out, error] = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    ensure!(output.status.success(), "{}\n{out}{error}", block.text);
    Ok(out)
}
