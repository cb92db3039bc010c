//! Listens to what gateways say they apply, from moments after their start on, so
//! that also a loss is seen that was made good before anybody looked.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use http_body_util::BodyExt as _;
use serde::Deserialize;
use tokio::task::AbortHandle;
use tokio::time::timeout;

use super::http;
use super::waiting::SOON;

/// One line of `/events`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Event {
    /// When, in milliseconds since 1970.
    pub at_ms: f64,
    /// `namespace/name` of the gateway.
    pub gateway: String,
    /// `added`, `modified` or `removed`.
    pub change: String,
    /// Kind of the resource.
    pub kind: String,
    /// `namespace/name` of the resource.
    pub key: String,
    /// Its generation.
    pub generation: i64,
}

#[derive(Debug, Default)]
struct Heard {
    events: Vec<Event>,
    /// Why listening ended; what comes then is not heard.
    ended: Option<String>,
}

/// What one process of gateways applied.
pub struct Events {
    heard: Arc<Mutex<Heard>>,
    task: AbortHandle,
}

impl Drop for Events {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Milliseconds since 1970. Gateways are processes of this machine, so their
/// clock is ours.
pub fn now_ms() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64() * 1000.0
}

impl Events {
    /// Listens; returns when the subscription is in force.
    pub async fn listen(admin: SocketAddr) -> Events {
        let heard = Arc::new(Mutex::new(Heard::default()));
        let (_, mut body) = http::open(admin, "/events").await.unwrap();
        let mut lines = Lines::default();
        timeout(SOON, lines.read(&mut body, &heard)).await.unwrap().unwrap();
        let into = heard.clone();
        let task = tokio::spawn(async move {
            let ended = loop {
                if let Err(ended) = lines.read(&mut body, &into).await {
                    break ended;
                }
            };
            into.lock().unwrap_or_else(PoisonError::into_inner).ended = Some(ended);
        });
        Events { heard, task: task.abort_handle() }
    }

    /// Everything heard so far.
    ///
    /// # Panics
    /// When something may have been missed.
    pub fn all(&self) -> Vec<Event> {
        let heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        assert_eq!(heard.ended, None, "a gateway's events ended");
        heard.events.clone()
    }

    /// The keys that were removed from any gateway, each as often as it was.
    pub fn removed(&self) -> Vec<String> {
        let removed = self.all().into_iter().filter(|event| event.change == "removed");
        removed.map(|event| format!("{} {} from {}", event.kind, event.key, event.gateway)).collect()
    }
}

#[derive(Default)]
struct Lines {
    buffer: Vec<u8>,
}

impl Lines {
    /// Reads the next piece of the answer.
    async fn read(&mut self, body: &mut hyper::body::Incoming, heard: &Mutex<Heard>) -> Result<(), String> {
        let frame = body.frame().await.ok_or("the answer ended")?.map_err(|error| error.to_string())?;
        let Some(data) = frame.data_ref() else { return Ok(()) };
        self.buffer.extend_from_slice(data);
        while let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.buffer.drain(..=end).collect();
            let value: serde_json::Value =
                serde_json::from_slice(&line).map_err(|error| error.to_string())?;
            if let Some(dropped) = value.get("dropped") {
                return Err(format!("{dropped} events were dropped"));
            }
            if value.get("change").is_some() {
                let event = serde_json::from_value(value).map_err(|error| error.to_string())?;
                heard.lock().unwrap_or_else(PoisonError::into_inner).events.push(event);
            }
        }
        Ok(())
    }
}
