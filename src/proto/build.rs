//! Generates the protocol types from `proto/` with a compiler written in Rust,
//! so that building needs no protoc.

use std::path::Path;

/// Packages of their own.
const OWN: [&str; 2] = ["avapigw/operator/v1alpha1/configuration.proto", "flotilla/peer/v1/peer.proto"];

/// The package that uses messages of the first of those.
const PUSH: &str = "flotilla/gateway/v1/configuration.proto";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = Path::new(&std::env::var("CARGO_MANIFEST_DIR")?).join("../../proto");
    println!("cargo::rerun-if-changed={}", root.display());
    // First, because it also writes an empty file for what it takes from elsewhere.
    tonic_prost_build::configure()
        .bytes(".")
        .extern_path(".avapigw.operator.v1alpha1", "crate::operator")
        // A controller serves one of the calls.
        .generate_default_stubs(true)
        .compile_fds(protox::compile([root.join(PUSH)], [&root])?)?;
    let descriptors = protox::compile(OWN.map(|file| root.join(file)), [&root])?;
    // Every bytes field is `Bytes`: specs are shared between messages, not copied.
    tonic_prost_build::configure().bytes(".").compile_fds(descriptors)?;
    Ok(())
}
