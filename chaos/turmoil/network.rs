//! turmoil's TCP in the places where the adapters take TCP.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use flotilla_certs::Dial;
use flotilla_grpc::acceptor::Listener;
use http::Uri;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::Client as HttpClient;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::{TokioExecutor, TokioIo};
use kube::Client;
use tower::ServiceExt as _;
use turmoil::net::{TcpListener, TcpStream};

/// A port of a simulated host.
pub struct Port(TcpListener);

impl Port {
    /// Listens on all addresses of the host.
    pub async fn bind(port: u16) -> io::Result<Port> {
        TcpListener::bind(("0.0.0.0", port)).await.map(Port)
    }
}

impl Listener for Port {
    type Io = TcpStream;

    async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        self.0.accept().await
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }
}

/// Reaches simulated hosts by name.
pub fn dial() -> Dial {
    Dial::by(TcpStream::connect)
}

/// A client of the API server at `authority`, as the adapters take it.
pub fn kube_client(authority: &'static str) -> Client {
    let connector = tower::service_fn(move |_: Uri| {
        // hyper wants to be able to move it.
        Box::pin(async move { TcpStream::connect(authority).await.map(|stream| Wire(TokioIo::new(stream))) })
    });
    let http = HttpClient::builder(TokioExecutor::new()).build::<_, kube::client::Body>(connector);
    let service = http.map_request(move |mut request: http::Request<kube::client::Body>| {
        let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
        if let Ok(uri) = format!("http://{authority}{path}").parse() {
            *request.uri_mut() = uri;
        }
        request
    });
    Client::new(service, "default")
}

/// A connection of hyper's client.
struct Wire(TokioIo<TcpStream>);

impl Connection for Wire {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl Read for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl Write for Wire {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}
