//! Prints the CustomResourceDefinition of `BatchJob`: `cargo run -p batchjob-crd --features generate --bin crdgen`.

fn main() -> Result<(), serde_saphyr::SerializeError> {
    println!("# Generated from crates/crd by `make codegen`; do not edit.");
    print!("{}", serde_saphyr::to_string(&batchjob_crd::schema::crd())?);
    Ok(())
}
