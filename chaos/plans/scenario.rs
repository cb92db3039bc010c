//! What the tenants do in every run. It goes in phases, and each phase ends
//! when everything has settled, so that the n-th occurrence of something means
//! the same in every run. Where changes follow each other at once, it is for
//! the plans that hide the state between them.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use flotilla_core::ids::Kind;
use flotilla_testing::fleet::Fleet;
use flotilla_testing::fleet::events::now_ms;
use flotilla_testing::fleet::objects::{Tenants, answering, backend, leading};
use flotilla_testing::fleet::waiting::attempt;
use serde_json::{Value, json};

use crate::history::History;
use crate::ingresses;
use crate::proxy::Theatre;

/// Namespaces of the tenants.
pub const NAMESPACES: [&str; 2] = ["team-a", "team-b"];

/// Objects with a state that lasts for a moment only: a gateway may hear of it
/// or not, in the reference run too.
pub const FLEETING: [&str; 2] = ["APIRoute team-a/one", "APIRoute team-b/one"];

/// The phases, by name, in their order.
pub const PHASES: [&str; 12] = [
    "start", "create", "change", "recreate", "break", "mend", "backend", "ingress", "reroute", "withdraw",
    "contest", "yield",
];
/// How it stands at the end.
pub const LAST: &str = PHASES[PHASES.len() - 1];

/// What is there before the first replica starts.
///
/// # Errors
/// When the API server does not take it.
pub async fn furnish(tenants: &Tenants) -> anyhow::Result<()> {
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
    ingresses::furnish(tenants).await
}

/// When a phase was, in milliseconds since 1970 as gateways tell them.
#[derive(Debug, Clone)]
pub struct Phase {
    /// Its name.
    pub name: String,
    /// Before its first change.
    pub began_ms: f64,
    /// When everything had settled.
    pub ended_ms: f64,
    /// Whether no fault was there to keep anything back.
    pub calm: bool,
}

/// Plays all phases; returns when they were. `patience` is how long one may take to settle.
///
/// # Errors
/// When one does not settle.
pub async fn play(
    fleet: &Fleet,
    theatre: &Theatre,
    history: &History,
    patience: Duration,
) -> anyhow::Result<Vec<Phase>> {
    let mut phases = Vec::new();
    for (number, name) in (0..).zip(PHASES) {
        theatre.stage().phase = number;
        history.phase(number);
        let (before, began_ms) = (theatre.stage().calm_since(Instant::now()), now_ms());
        act(&fleet.tenants, name).await;
        ingresses::act(&fleet.tenants, name).await?;
        settled(fleet, history, name, patience).await.with_context(|| format!("phase {name}"))?;
        let after = theatre.stage().calm_since(Instant::now());
        let calm = before.is_some() && before == after;
        phases.push(Phase { name: name.to_owned(), began_ms, ended_ms: now_ms(), calm });
    }
    Ok(phases)
}

/// Waits until every Ingress has become what it is to become by the end of this phase,
/// every gateway holds what the API server holds, every status says so, and the harness
/// has heard of it, too.
///
/// # Errors
/// What was still different at the end.
pub async fn settled(
    fleet: &Fleet,
    history: &History,
    phase: &str,
    patience: Duration,
) -> anyhow::Result<()> {
    let look = async || {
        let objects = fleet.is_settled().await?;
        history.has_heard_of(&objects)?;
        ingresses::settled(&fleet.tenants, phase, &objects).await
    };
    attempt(patience, "everything is equal", look).await.map_err(anyhow::Error::msg)
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
        // Nobody asks a webhook, so the younger of two with the same match waits for the other.
        "contest" => {
            tenants.create(Kind::ApiRoute, b, "rival", answering(b, "two", "3")).await;
        }
        "yield" => tenants.delete(Kind::ApiRoute, b, "two").await,
        _ => {}
    }
}

/// Destinations whose weights add up to nothing sensible: the schema takes
/// them, validation does not.
fn uneven() -> Value {
    let destination = |host: &str| json!({"destination": {"host": host, "port": 8080}, "weight": 30});
    json!({"route": [destination("api"), destination("other")]})
}
