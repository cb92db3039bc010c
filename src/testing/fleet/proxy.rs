//! A TCP proxy between gateways and a replica that can be closed, as when a
//! network fails: connections break and new ones are refused.

use std::net::{Ipv4Addr, SocketAddr};

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::task::JoinSet;

use super::process::free_port;

/// A proxy to one address.
pub struct Proxy {
    port: u16,
    to: SocketAddr,
    open: Option<JoinHandle<()>>,
    closed: Option<JoinHandle<()>>,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.close();
    }
}

impl Proxy {
    /// An open proxy to a local port.
    pub async fn start(to: u16) -> Proxy {
        let to = SocketAddr::from((Ipv4Addr::LOCALHOST, to));
        let mut proxy = Proxy { port: free_port(), to, open: None, closed: None };
        proxy.open().await;
        proxy
    }

    /// Where it listens.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Leads to another local port from the next [`Proxy::open`] on.
    pub fn lead_to(&mut self, to: u16) {
        self.to.set_port(to);
    }

    /// Listens again.
    pub async fn open(&mut self) {
        if let Some(task) = self.closed.take() {
            // Until then its port is taken.
            let _ = task.await;
        }
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, self.port)).await.unwrap();
        let to = self.to;
        self.open = Some(tokio::spawn(async move {
            // Connections end with this task.
            let mut connections = JoinSet::new();
            while let Ok((mut from, _)) = listener.accept().await {
                connections.spawn(async move {
                    if let Ok(mut target) = TcpStream::connect(to).await {
                        // Either side may end it in any way.
                        let _ = copy_bidirectional(&mut from, &mut target).await;
                    }
                });
            }
        }));
    }

    /// Cuts every connection and refuses new ones.
    pub fn close(&mut self) {
        if let Some(task) = self.open.take() {
            task.abort();
            self.closed = Some(task);
        }
    }
}
