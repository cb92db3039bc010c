//! Installs custom resource definitions where nobody else does: in standalone
//! and demo mode. In a cluster the chart does it.

use std::time::Duration;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::PostParams;
use kube::{Api, Client};
use tokio::time::{Instant, sleep};

use crate::Error;

/// Creates or updates the definitions and waits until all are established.
///
/// # Errors
/// Whatever the API server answers, or `Transient` when a definition is not
/// established within `deadline`.
pub async fn install(
    client: &Client,
    definitions: &[CustomResourceDefinition],
    deadline: Duration,
) -> Result<(), Error> {
    let api = Api::<CustomResourceDefinition>::all(client.clone());
    let until = Instant::now() + deadline;
    for definition in definitions {
        put(&api, definition).await?;
    }
    for definition in definitions {
        let name = definition.metadata.name.as_deref().unwrap_or_default();
        let what = format!("get customresourcedefinition {name}");
        while !established(&api.get(name).await.map_err(|e| Error::from_kube(&what, e))?) {
            if Instant::now() >= until {
                return Err(Error::timeout(format!("establish {name}"), deadline));
            }
            sleep(Duration::from_millis(50)).await;
        }
    }
    Ok(())
}

async fn put(api: &Api<CustomResourceDefinition>, wanted: &CustomResourceDefinition) -> Result<(), Error> {
    let name = wanted.metadata.name.as_deref().unwrap_or_default();
    let what = format!("put customresourcedefinition {name}");
    // Several replicas may do this at the same moment: whoever is late reads
    // again, a few times.
    for _ in 0..5 {
        let attempt = match api.get_opt(name).await.map_err(|e| Error::from_kube(&what, e))? {
            None => api.create(&PostParams::default(), wanted).await.map(drop),
            Some(found) if found.spec == wanted.spec => return Ok(()),
            Some(found) => {
                let mut wanted = wanted.clone();
                wanted.metadata.resource_version = found.metadata.resource_version;
                api.replace(name, &PostParams::default(), &wanted).await.map(drop)
            }
        };
        match attempt.map_err(|e| Error::from_kube(&what, e)) {
            Err(Error::Conflict { .. }) => {}
            other => return other,
        }
    }
    Err(Error::Conflict { what })
}

fn established(definition: &CustomResourceDefinition) -> bool {
    let conditions = definition.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.is_some_and(|all| all.iter().any(|one| one.type_ == "Established" && one.status == "True"))
}
