//! Generates the protocol types from `proto/` with a compiler written in Rust,
//! so that building needs no protoc.

use std::path::Path;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = Path::new(&std::env::var("CARGO_MANIFEST_DIR")?).join("../../proto");
    println!("cargo::rerun-if-changed={}", root.display());
    let files = ["avapigw/operator/v1alpha1/configuration.proto", "flotilla/peer/v1/peer.proto"]
        .map(|file| root.join(file));
    let descriptors = protox::compile(files, [&root])?;
    // Every bytes field is `Bytes`: specs are shared between messages, not copied.
    tonic_prost_build::configure().bytes(".").compile_fds(descriptors)?;
    Ok(())
}
