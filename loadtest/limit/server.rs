//! The yardstick's server. It is told what to send on its standard input, each message
//! behind its length as four bytes: first what every stream begins with, then an empty
//! message, then what is sent to all streams that are there. It listens once it knows the
//! former, and ends when its input does.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::task::{Context, Poll};

use anyhow::Context as _;
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::{self, BoxStream, StreamExt as _};
use http::{Request, Response};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncReadExt as _, BufReader, Stdin};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::broadcast;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_stream::wrappers::BroadcastStream;
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::server::{Grpc, ServerStreamingService, UnaryService};
use tonic::{Code, Status};

use super::codec::Raw;
use crate::tls;

/// What a stream may lag behind before it counts as lost.
const AHEAD: usize = 4096;

/// Flags of `limit-server`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Folder with ca.crt, tls.crt and tls.key.
    #[arg(long)]
    pub material: PathBuf,
    /// File for the port that was chosen.
    #[arg(long)]
    pub port_file: PathBuf,
}

/// Serves until standard input ends.
///
/// # Errors
/// Files that cannot be read, or a port that cannot be had.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let acceptor = TlsAcceptor::from(tls::server(&args.material)?);
    let mut orders = BufReader::new(tokio::io::stdin());
    let mut greetings = Vec::new();
    loop {
        match message(&mut orders).await? {
            Some(greeting) if !greeting.is_empty() => greetings.push(greeting),
            Some(_) => break,
            None => return Ok(()),
        }
    }
    let listener = TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).await?;
    let port = listener.local_addr()?.port();
    write_whole(&args.port_file, &port.to_string())?;
    let (updates, _) = broadcast::channel(AHEAD);
    let service = Fanout { greetings: greetings.into(), updates: updates.clone() };
    let mut connections = JoinSet::new();
    let sending = send(orders, updates);
    tokio::pin!(sending);
    loop {
        tokio::select! {
            ended = &mut sending => return ended,
            accepted = listener.accept() => {
                let (stream, _) = accepted.context("accept")?;
                connections.spawn(serve(stream, acceptor.clone(), service.clone()));
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

/// Nobody reads half of it.
fn write_whole(file: &PathBuf, text: &str) -> anyhow::Result<()> {
    let part = file.with_extension("part");
    std::fs::File::create(&part)?.write_all(text.as_bytes())?;
    std::fs::rename(part, file).with_context(|| file.display().to_string())
}

/// The next message that is ordered; `None` when the one who gives orders has ended.
async fn message(orders: &mut BufReader<Stdin>) -> anyhow::Result<Option<Bytes>> {
    let Ok(length) = orders.read_u32().await else { return Ok(None) };
    let mut message = vec![0; length as usize];
    orders.read_exact(&mut message).await.context("an order that ends early")?;
    Ok(Some(message.into()))
}

async fn send(mut orders: BufReader<Stdin>, updates: broadcast::Sender<Bytes>) -> anyhow::Result<()> {
    while let Some(update) = message(&mut orders).await? {
        // Without streams there is nobody to send it to.
        drop(updates.send(update));
    }
    Ok(())
}

/// A connection's end is its client's affair.
async fn serve(stream: TcpStream, acceptor: TlsAcceptor, service: Fanout) {
    if stream.set_nodelay(true).is_err() {
        return;
    }
    let Ok(stream) = acceptor.accept(stream).await else { return };
    let mut builder = auto::Builder::new(TokioExecutor::new()).http2_only();
    builder.http2().initial_stream_window_size(1 << 20).initial_connection_window_size(4 << 20);
    let _ = builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(service)).await;
}

#[derive(Clone)]
struct Fanout {
    greetings: Arc<[Bytes]>,
    updates: broadcast::Sender<Bytes>,
}

impl Service<Request<Incoming>> for Fanout {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Incoming>) -> Self::Future {
        let this = self.clone();
        Box::pin(async move {
            let mut grpc = Grpc::new(Raw);
            let streams = request.uri().path().ends_with("/StreamConfiguration");
            Ok(match streams {
                true => grpc.server_streaming(this, request).await,
                false => grpc.unary(this, request).await,
            })
        })
    }
}

impl UnaryService<Bytes> for Fanout {
    type Response = Bytes;
    type Future = Ready<Result<tonic::Response<Bytes>, Status>>;

    /// `success`, `received` and `acknowledged` are all field 1.
    fn call(&mut self, _: tonic::Request<Bytes>) -> Self::Future {
        ready(Ok(tonic::Response::new(Bytes::from_static(&[0x08, 1]))))
    }
}

impl ServerStreamingService<Bytes> for Fanout {
    type Response = Bytes;
    type ResponseStream = BoxStream<'static, Result<Bytes, Status>>;
    type Future = Ready<Result<tonic::Response<Self::ResponseStream>, Status>>;

    fn call(&mut self, _: tonic::Request<Bytes>) -> Self::Future {
        let updates = BroadcastStream::new(self.updates.subscribe());
        let lagged = |_| Status::new(Code::ResourceExhausted, "the stream lags behind");
        // Every stream has a clone of this list, not of what is in it.
        let greetings = self.greetings.clone();
        let greetings = (0..greetings.len()).map(move |place| Ok(greetings[place].clone()));
        let updates = updates.map(move |update| update.map_err(lagged));
        ready(Ok(tonic::Response::new(stream::iter(greetings).chain(updates).boxed())))
    }
}
