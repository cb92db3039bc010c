//! The speaking side: one stream to every other member, dialled again whenever
//! it breaks.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use flotilla_certs::{ClientTls, Connection, Dial};
use flotilla_core::ids::{Kind, MemberName, Revision};
use flotilla_proto::peer::peer_message::Message;
use flotilla_proto::peer::peer_service_client::PeerServiceClient;
use flotilla_proto::peer::{Departed, Hello, HistoryRequest, PeerMessage, Settled};
use http::Uri;
use hyper_util::rt::TokioIo;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_rustls::client::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::transport::{Channel, Endpoint};
use tonic::{Status, Streaming};
use tracing::{debug, info, warn};

use super::lines::Line;
use super::{FORWARDS, History, Outbox, PeerAddress, Peers, convert};
use crate::dial::{Answering, deepest, secured};

pub(super) type Client = PeerServiceClient<Channel>;

/// Messages handed to HTTP/2 before the stream waits for the other side.
const IN_HAND: usize = 4;

/// How long the last words of a stream may take.
const FAREWELL: Duration = Duration::from_secs(1);

/// How often a quiet connection between members is pinged, and how long the answer may
/// take: after both, a member whose machine vanished is dialled anew, and those that it
/// dialled take their connection for lost.
pub const PING: Duration = Duration::from_secs(5);

/// Keeps a stream to every member that the addresses list.
pub struct PeersTask {
    peers: Peers,
    addresses: watch::Receiver<Vec<PeerAddress>>,
    shutdown: CancellationToken,
    tasks: TaskTracker,
}

impl PeersTask {
    pub(super) fn new(
        peers: Peers,
        addresses: watch::Receiver<Vec<PeerAddress>>,
        shutdown: CancellationToken,
        tasks: TaskTracker,
    ) -> Self {
        PeersTask { peers, addresses, shutdown, tasks }
    }

    /// Runs until shutdown, or until nobody can change the addresses any more.
    /// What was announced last is told before it returns.
    pub async fn run(mut self) {
        // Members being dialled, with the token that ends it.
        let mut dialled: BTreeMap<MemberName, (PeerAddress, CancellationToken)> = BTreeMap::new();
        let own = MemberName(self.peers.config.identity.name.clone());
        loop {
            let wanted: BTreeMap<MemberName, PeerAddress> = self
                .addresses
                .borrow_and_update()
                .iter()
                .filter(|peer| peer.member != own)
                .map(|peer| (peer.member.clone(), peer.clone()))
                .collect();
            dialled.retain(|member, (address, end)| {
                let keep = wanted.get(member) == Some(address);
                if !keep {
                    end.cancel();
                }
                keep
            });
            for (member, address) in wanted {
                dialled.entry(member).or_insert_with(|| {
                    let end = self.shutdown.child_token();
                    let dialler =
                        Dialler { peers: self.peers.clone(), address: address.clone(), end: end.clone() };
                    self.tasks.spawn(dialler.run());
                    (address, end)
                });
            }
            tokio::select! {
                () = self.shutdown.cancelled() => break,
                changed = self.addresses.changed() => if changed.is_err() { break },
            }
        }
        self.shutdown.cancelled().await;
        self.tasks.close();
        self.tasks.wait().await;
    }
}

/// Why a stream could not be had, or ended.
#[derive(Debug, thiserror::Error)]
enum DialError {
    #[error("the address is none: {0}")]
    Address(#[from] http::uri::InvalidUri),
    #[error("cannot connect: {}", deepest(.0))]
    Connect(tonic::transport::Error),
    #[error("{0}")]
    Call(#[from] Status),
    #[error("no answer in {0:?}")]
    Timeout(Duration),
    #[error("it did not say Hello")]
    NoHello,
}

struct Dialler {
    peers: Peers,
    address: PeerAddress,
    end: CancellationToken,
}

impl Dialler {
    async fn run(self) {
        let member = &self.address.member;
        let (shortest, longest) = self.peers.config.backoff;
        let mut pause = shortest;
        while !self.end.is_cancelled() {
            let began = Instant::now();
            match self.exchange().await {
                Ok(()) => debug!(%member, "our stream to a peer ended"),
                Err(error) => warn!(%member, address = self.address.address, %error, "no stream to a peer"),
            }
            // A stream that lived shows that the member is well.
            if began.elapsed() > longest {
                pause = shortest;
            }
            // Half to one and a half of the pause: members that lost each other
            // at the same moment do not dial in step.
            let jitter = rand::random_range(0.5..1.5);
            tokio::select! {
                () = self.end.cancelled() => {}
                () = tokio::time::sleep(pause.mul_f64(jitter)) => {}
            }
            pause = (pause * 2).min(longest);
        }
    }

    /// One stream from dialling to its end.
    async fn exchange(&self) -> Result<(), DialError> {
        let member = &self.address.member;
        let timeout = self.peers.config.connect_timeout;
        let mut outbox = self.peers.outbox.subscribe();
        let (words, said) = mpsc::channel(IN_HAND);
        let mut speaker = Speaker::new(words, self.peers.config.table_interval);
        let reach = async {
            let client = self.connect().await?;
            let hello = self.hello(&outbox.borrow_and_update());
            speaker.say(Message::Hello(hello)).await;
            let mut answer = client.clone().exchange(ReceiverStream::new(said)).await?.into_inner();
            let Some(PeerMessage { message: Some(Message::Hello(hello)) }) = answer.message().await? else {
                return Err(DialError::NoHello);
            };
            Ok((client, answer, hello))
        };
        // A member that is just being reached hears our last words, too.
        let given_up = async {
            self.end.cancelled().await;
            tokio::time::sleep(FAREWELL).await;
        };
        let reached = tokio::select! {
            () = given_up => return Ok(()),
            reached = tokio::time::timeout(timeout, reach) => reached.map_err(|_| DialError::Timeout(timeout))??,
        };
        let (client, mut answer, hello) = reached;
        info!(%member, instance = hello.instance, address = self.address.address, "our stream to a peer is up");

        let (forwards, mut forwarded) = mpsc::channel(FORWARDS);
        let number = self.peers.lines().enter(member.clone(), Line { forwards, client });
        self.peers.metrics.peers_connected.inc();
        let ended = tokio::select! {
            () = speaker.speak(&mut outbox, &mut forwarded) => Ok(()),
            ended = wait_for_end(&mut answer) => ended,
            () = self.end.cancelled() => {
                // The last state, then the end of our half; the other side
                // ends its half when it has read everything.
                let state = outbox.borrow_and_update().clone();
                let farewell = async {
                    speaker.catch_up(&state).await;
                    drop(speaker);
                    wait_for_end(&mut answer).await
                };
                // A peer that does not listen any more has no use for it.
                let _ = tokio::time::timeout(FAREWELL, farewell).await;
                Ok(())
            }
        };
        self.peers.metrics.peers_connected.dec();
        self.peers.lines().leave(member, number);
        Ok(ended?)
    }

    fn hello(&self, state: &Outbox) -> Hello {
        let config = &self.peers.config;
        Hello {
            member: config.identity.name.to_string(),
            instance: config.instance.to_string(),
            highest_epoch: state.settled.as_ref().map_or(0, |(_, epoch)| epoch.0),
            frontier: Some(convert::frontier_out(&state.frontier)),
            incarnation: config.incarnation.to_string(),
        }
    }

    async fn connect(&self) -> Result<Client, DialError> {
        let endpoint = Endpoint::from_shared(format!("http://{}", self.address.address))
            .map_err(DialError::Connect)?
            .http2_keep_alive_interval(PING)
            .keep_alive_timeout(PING)
            .keep_alive_while_idle(true);
        let (dial, tls) = (self.peers.config.dial.clone(), self.peers.config.tls.clone());
        let member = self.address.member.clone();
        let connector = tower::service_fn(move |uri: Uri| {
            let (dial, tls, member) = (dial.clone(), tls.clone(), member.clone());
            async move { connect(&uri, &dial, &tls, &member).await.map(TokioIo::new) }
        });
        let channel = endpoint.connect_with_connector(connector).await.map_err(DialError::Connect)?;
        const LIMIT: usize = 32 * 1024 * 1024;
        Ok(PeerServiceClient::new(channel).max_decoding_message_size(LIMIT).max_encoding_message_size(LIMIT))
    }
}

/// A connection with TLS to a member, making sure that it is that member.
async fn connect(
    uri: &Uri,
    dial: &Dial,
    tls: &ClientTls,
    member: &MemberName,
) -> io::Result<TlsStream<Connection>> {
    let (stream, Answering { identity, .. }) = secured(uri, dial, tls).await?;
    if *identity.name != *member.as_str() {
        let text = format!("reached {identity}, not member {member}; its address is out of date");
        return Err(io::Error::other(text));
    }
    Ok(stream)
}

/// Reads what the other side says on a stream that we dialled: nothing but the
/// end of it.
async fn wait_for_end(answer: &mut Streaming<PeerMessage>) -> Result<(), Status> {
    while answer.message().await?.is_some() {}
    Ok(())
}

/// Asks one member for history.
pub(super) async fn ask(
    mut client: Client,
    kind: Kind,
    since: Revision,
    timeout: Duration,
) -> Result<Option<History>, Status> {
    let request = HistoryRequest { kind: convert::kind_out(kind).into(), since: since.0 };
    let answer = tokio::time::timeout(timeout, client.history(request))
        .await
        .map_err(|_| Status::deadline_exceeded("no answer in time"))??;
    convert::history_in(answer.into_inner())
}

/// What one stream has been told, so that it is told only news.
struct Speaker {
    words: mpsc::Sender<PeerMessage>,
    told: Outbox,
    table_at: Option<Instant>,
    interval: Duration,
}

impl Speaker {
    fn new(words: mpsc::Sender<PeerMessage>, interval: Duration) -> Self {
        Speaker { words, told: Outbox::default(), table_at: None, interval }
    }

    /// Says one thing; waits while the other side does not listen. A stream
    /// that is gone is noticed by whoever reads its other half.
    async fn say(&self, message: Message) {
        let _ = self.words.send(PeerMessage { message: Some(message) }).await;
    }

    /// Tells what is new, but a table not before its time.
    async fn tell(&mut self, state: &Outbox, table_due: bool) {
        if let Some((instance, epoch)) = &state.settled
            && self.told.settled != state.settled
        {
            self.told.settled.clone_from(&state.settled);
            self.say(Message::Settled(Settled { epoch: epoch.0, instance: instance.to_string() })).await;
        }
        if let Some(table) = &state.table
            && table_due
            && !self.told.table.as_ref().is_some_and(|told| Arc::ptr_eq(told, table))
        {
            self.told.table = Some(table.clone());
            self.table_at = Some(Instant::now());
            self.say(Message::Applied(convert::table_out(table))).await;
        }
        if let Some(loads) = &state.loads
            && !self.told.loads.as_ref().is_some_and(|told| Arc::ptr_eq(told, loads))
        {
            self.told.loads = Some(loads.clone());
            self.say(Message::Loads(convert::loads_out(loads))).await;
        }
        if let Some(testimony) = &state.testimony
            && !self.told.testimony.as_ref().is_some_and(|told| Arc::ptr_eq(told, testimony))
        {
            self.told.testimony = Some(testimony.clone());
            self.say(Message::Testimony(convert::testimony_out(testimony))).await;
        }
        if let Some(instance) = &state.departed
            && self.told.departed != state.departed
        {
            self.told.departed.clone_from(&state.departed);
            self.say(Message::Departed(Departed { instance: instance.to_string() })).await;
        }
    }

    /// Tells everything that is new.
    async fn catch_up(&mut self, state: &Outbox) {
        self.tell(state, true).await;
    }

    /// Tells news until the state's owner is gone.
    async fn speak(&mut self, outbox: &mut watch::Receiver<Outbox>, forwarded: &mut mpsc::Receiver<Message>) {
        loop {
            let state = outbox.borrow_and_update().clone();
            let due = self.table_at.map_or_else(Instant::now, |at| at + self.interval);
            let now = Instant::now();
            self.tell(&state, due <= now).await;
            let waiting = match (&state.table, &self.told.table) {
                (Some(new), Some(told)) => !Arc::ptr_eq(new, told),
                (Some(_), None) => true,
                (None, _) => false,
            };
            tokio::select! {
                changed = outbox.changed() => if changed.is_err() { return },
                () = tokio::time::sleep_until(due), if waiting => {}
                message = forwarded.recv() => match message {
                    Some(message) => self.say(message).await,
                    // Our line was replaced.
                    None => return,
                },
            }
        }
    }
}
