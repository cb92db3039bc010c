//! Listens to what the gateways say they apply.

use std::net::SocketAddr;

use anyhow::Context as _;
use http_body_util::BodyExt as _;
use serde::Deserialize;
use tokio::sync::mpsc;

use super::http;
use super::ledger::Application;

/// One line of a gateway's `/events`.
#[derive(Deserialize)]
#[serde(untagged)]
enum Line {
    Applied(Event),
    /// The first line: from here on nothing is missed.
    #[expect(dead_code, reason = "it only has to be told from the others")]
    Subscribed {
        subscribed: bool,
    },
    /// We were too slow.
    Dropped {
        dropped: u64,
    },
}

#[derive(Deserialize)]
struct Event {
    at_ms: f64,
    gateway: String,
    change: String,
    kind: String,
    key: String,
    generation: i64,
}

/// Passes on what one gateway process applies, until its stream ends. Waits
/// when the receiver is busy; the gateway keeps a bounded number of events and
/// says when it had to drop some, which is an error here.
///
/// # Errors
/// When the stream ends, or something was lost.
pub async fn observe(admin: SocketAddr, to: mpsc::Sender<Application>) -> anyhow::Result<()> {
    let mut body = http::open(admin, "/events").await?;
    let mut buffer: Vec<u8> = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.context("a gateway's events")?;
        let Some(data) = frame.data_ref() else { continue };
        buffer.extend_from_slice(data);
        while let Some(end) = buffer.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = buffer.drain(..=end).collect();
            if line.iter().all(u8::is_ascii_whitespace) {
                continue;
            }
            let text = String::from_utf8_lossy(&line);
            let line: Line =
                serde_json::from_str(&text).with_context(|| format!("a gateway's event: {}", text.trim()))?;
            let event = match line {
                Line::Applied(event) => event,
                Line::Subscribed { .. } => continue,
                Line::Dropped { dropped } => anyhow::bail!("{dropped} events of a gateway were lost"),
            };
            let application = Application {
                generation: (event.change != "removed").then_some(event.generation),
                gateway: event.gateway,
                kind: event.kind,
                key: event.key,
                at: event.at_ms,
            };
            if to.send(application).await.is_err() {
                return Ok(());
            }
        }
    }
    anyhow::bail!("a gateway at {admin} ended its events")
}
