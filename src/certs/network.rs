//! What connections run over: TCP, or what a simulation puts in its place.
//!
//! Everything above, TLS included, is the same in both.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

/// Bytes in both directions.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// A connection that was dialled, before TLS.
pub type Connection = Box<dyn Stream>;

type Dialled = Pin<Box<dyn Future<Output = io::Result<Connection>> + Send>>;

/// How to reach `host:port`.
#[derive(Clone)]
pub struct Dial(Arc<dyn Fn(String) -> Dialled + Send + Sync>);

impl Dial {
    /// By TCP, without delay for small messages.
    pub fn tcp() -> Self {
        Dial::by(|authority| async move {
            let stream = TcpStream::connect(authority).await?;
            stream.set_nodelay(true)?;
            Ok(stream)
        })
    }

    /// By `connect`, which is given `host:port`.
    pub fn by<F, S>(connect: impl Fn(String) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = io::Result<S>> + Send + 'static,
        S: Stream + 'static,
    {
        Dial(Arc::new(move |authority| {
            let connecting = connect(authority);
            Box::pin(async move { Ok(Box::new(connecting.await?) as Connection) })
        }))
    }

    /// Connects.
    ///
    /// # Errors
    /// What the network says.
    pub async fn connect(&self, authority: impl Into<String>) -> io::Result<Connection> {
        (self.0)(authority.into()).await
    }
}

impl Default for Dial {
    fn default() -> Self {
        Dial::tcp()
    }
}

impl std::fmt::Debug for Dial {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Dial")
    }
}
