//! Writes the CustomResourceDefinitions into a folder: `cargo run -p batchjob-crd --features generate --bin crdgen -- crds`.

use std::path::Path;

use anyhow::Context as _;
use batchjob_crd::schema;

fn main() -> anyhow::Result<()> {
    let folder = std::env::args().nth(1).context("name the folder to write into")?;
    for crd in schema::all() {
        let plural = crd["spec"]["names"]["plural"].as_str().context("a CRD has a plural")?;
        let path = Path::new(&folder).join(format!("{plural}.yaml"));
        let text = serde_saphyr::to_string(&crd)?;
        std::fs::write(&path, format!("# Generated from crates/crd by `make codegen`; do not edit.\n{text}"))
            .with_context(|| format!("failed to write {}", path.display()))?;
    }
    Ok(())
}
