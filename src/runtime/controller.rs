//! `flotilla controller`: one replica.

use std::process::ExitCode;

use k8s_openapi::api::core::v1::Namespace;
use kube::api::{Api, ObjectMeta, PostParams};
use tokio_util::sync::CancellationToken;

use crate::cli::ControllerArgs;
pub use crate::replica::Replica;

/// Runs until cancelled.
///
/// # Errors
/// A flag that cannot be used, or a part that failed.
pub async fn run(args: ControllerArgs, cancel: CancellationToken) -> anyhow::Result<ExitCode> {
    Replica::open(args).await?.run(cancel).await?;
    Ok(ExitCode::SUCCESS)
}

/// Creates a namespace that may be there already: where no chart did it.
///
/// # Errors
/// Whatever the API server answers.
pub async fn create_namespace(client: &kube::Client, name: &str) -> Result<(), kube::Error> {
    let namespace = Namespace {
        metadata: ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() },
        ..Namespace::default()
    };
    match Api::<Namespace>::all(client.clone()).create(&PostParams::default(), &namespace).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.is_already_exists() => Ok(()),
        Err(error) => Err(error),
    }
}
