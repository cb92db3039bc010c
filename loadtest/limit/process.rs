//! The yardstick's server as a process, and the orders to it.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context as _;
use tokio::io::AsyncWriteExt as _;
use tokio::process::{Child, ChildStdin, Command};
use tokio::time::{Instant, sleep};

const START: Duration = Duration::from_secs(20);

/// A running yardstick. It ends when dropped.
pub struct Limit {
    child: Child,
    orders: ChildStdin,
    /// Where gateways connect to.
    pub port: u16,
}

impl Limit {
    /// Starts this binary as a bare server with the files of a folder. It sends the greetings,
    /// none of which is empty, to every stream that comes.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn start(material: &Path, greetings: &[Vec<u8>]) -> anyhow::Result<Limit> {
        let port_file = material.join("limit.port");
        let mut child = Command::new(std::env::current_exe()?)
            .arg("limit-server")
            .arg("--material")
            .arg(material)
            .arg("--port-file")
            .arg(&port_file)
            .stdin(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("the yardstick's server cannot be started")?;
        let mut orders = child.stdin.take().context("it has no standard input")?;
        for greeting in greetings {
            order(&mut orders, greeting).await?;
        }
        order(&mut orders, &[]).await?;
        let until = Instant::now() + START;
        loop {
            if let Ok(text) = tokio::fs::read_to_string(&port_file).await {
                return Ok(Limit { child, orders, port: text.parse().context("its port")? });
            }
            anyhow::ensure!(child.try_wait()?.is_none(), "the yardstick's server ended at once");
            anyhow::ensure!(Instant::now() < until, "the yardstick's server is not there after {START:?}");
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Has a message sent to every stream that is there.
    ///
    /// # Errors
    /// When the server is gone.
    pub async fn send(&mut self, message: &[u8]) -> anyhow::Result<()> {
        order(&mut self.orders, message).await
    }

    /// Its process.
    pub fn id(&self) -> Option<u32> {
        self.child.id()
    }
}

async fn order(orders: &mut ChildStdin, message: &[u8]) -> anyhow::Result<()> {
    let length = u32::try_from(message.len()).context("a message over 4 GiB")?;
    let order = [&length.to_be_bytes()[..], message].concat();
    orders.write_all(&order).await.context("the yardstick's server is gone")?;
    orders.flush().await.context("the yardstick's server is gone")
}
