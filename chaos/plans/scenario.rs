//! What the tenants do in every run. It goes in phases, and each phase ends
//! when everything has settled, so that the n-th occurrence of something means
//! the same in every run. Where changes follow each other at once, it is for
//! the plans that hide the state between them.

use std::time::Duration;

use anyhow::Context as _;
use flotilla_core::ids::Kind;
use flotilla_testing::fleet::Fleet;
use flotilla_testing::fleet::objects::{Tenants, answering, backend, leading};
use flotilla_testing::fleet::waiting::attempt;
use serde_json::{Value, json};

use crate::proxy::Theatre;

/// Namespaces of the tenants.
pub const NAMESPACES: [&str; 2] = ["team-a", "team-b"];

/// Objects with a state that lasts for a moment only: a gateway may hear of it
/// or not, in the reference run too.
pub const FLEETING: [&str; 2] = ["APIRoute team-a/one", "APIRoute team-b/one"];

/// The phases, by name, in their order.
pub const PHASES: [&str; 7] = ["start", "create", "change", "recreate", "break", "mend", "backend"];

/// What is there before the first replica starts.
pub async fn furnish(tenants: &Tenants) {
    tenants.namespaces(NAMESPACES.map(str::to_owned)).await;
    for namespace in NAMESPACES {
        tenants.create(Kind::Backend, namespace, "api", backend(8080)).await;
        tenants.create(Kind::ApiRoute, namespace, "one", leading(namespace, "one", "api")).await;
    }
    let [namespace, _] = NAMESPACES;
    tenants.create(Kind::GrpcBackend, namespace, "orders", backend(9000)).await;
    let spec = json!({
        "match": [{"service": {"exact": "shop.Orders"}}],
        "route": [{"destination": {"host": "orders", "port": 9000}}],
    });
    tenants.create(Kind::GrpcRoute, namespace, "orders", spec).await;
}

/// Plays all phases. `patience` is how long a phase may take to settle.
///
/// # Errors
/// When one does not settle.
pub async fn play(fleet: &Fleet, theatre: &Theatre, patience: Duration) -> anyhow::Result<()> {
    for (number, name) in (0..).zip(PHASES) {
        theatre.stage().phase = number;
        act(&fleet.tenants, name).await;
        settled(fleet, patience).await.with_context(|| format!("phase {name}"))?;
    }
    Ok(())
}

/// Waits until every gateway holds what the API server holds and every status
/// says so.
///
/// # Errors
/// What was still different at the end.
pub async fn settled(fleet: &Fleet, patience: Duration) -> anyhow::Result<()> {
    attempt(patience, "everything is equal", async || fleet.is_settled().await.map(drop))
        .await
        .map_err(anyhow::Error::msg)
}

async fn act(tenants: &Tenants, phase: &str) {
    let [a, b] = NAMESPACES;
    let timeout = |text: &str| json!({"timeout": text});
    match phase {
        "create" => {
            for namespace in NAMESPACES {
                tenants.create(Kind::ApiRoute, namespace, "two", answering(namespace, "two", "2")).await;
            }
        }
        "change" => {
            tenants.change(Kind::ApiRoute, a, "one", timeout("11s")).await;
            tenants.change(Kind::ApiRoute, a, "one", timeout("12s")).await;
            tenants.change(Kind::Backend, b, "api", backend(8081)).await;
        }
        "recreate" => {
            tenants.delete(Kind::ApiRoute, b, "one").await;
            let mut spec = leading(b, "one", "api");
            spec["timeout"] = "13s".into();
            tenants.create(Kind::ApiRoute, b, "one", spec).await;
            tenants.delete(Kind::ApiRoute, a, "two").await;
        }
        "break" => {
            tenants.change(Kind::ApiRoute, b, "two", uneven()).await;
        }
        "mend" => {
            tenants.change(Kind::ApiRoute, b, "two", json!({"route": null})).await;
        }
        "backend" => {
            tenants.delete(Kind::Backend, a, "api").await;
            tenants.change(Kind::GrpcBackend, a, "orders", backend(9001)).await;
        }
        _ => {}
    }
}

/// Destinations whose weights add up to nothing sensible: the schema takes
/// them, validation does not.
fn uneven() -> Value {
    let destination = |host: &str| json!({"destination": {"host": host, "port": 8080}, "weight": 30});
    json!({"route": [destination("api"), destination("other")]})
}
