//! The listening side: streams that other members dialled.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use flotilla_certs::{Identity, Role};
use flotilla_core::ids::{Epoch, Instance, MemberName, Revision};
use flotilla_proto::peer::peer_message::Message;
use flotilla_proto::peer::peer_service_server::{self, PeerServiceServer};
use flotilla_proto::peer::{
    AdmitRequest, AdmitResponse, Hello, HistoryRequest, HistoryResponse, PeerMessage,
};
use futures::stream::BoxStream;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::StreamExt;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;
use tonic::{Code, Request, Response, Status, Streaming};
use tracing::{info, warn};

use super::{AdmissionSource, HistorySource, PeerEvent, PeersConfig, admit, convert};
use crate::acceptor::Peer;

/// Largest message between members: a table of many positions, or a long history.
const MESSAGE_LIMIT: usize = 32 * 1024 * 1024;

/// The service that other members dial.
#[derive(Clone)]
pub struct PeerService {
    config: Arc<PeersConfig>,
    streams: Streams,
    history: HistorySource,
    /// `None`: this member decides about no admissions.
    admission: Option<AdmissionSource>,
    shutdown: CancellationToken,
    /// One per stream that we listen to; [`super::PeersTask`] waits for them.
    tasks: TaskTracker,
}

/// The streams that we listen to, in the order in which they began.
#[derive(Clone)]
struct Streams {
    events: mpsc::Sender<PeerEvent>,
    /// The newest stream of each member. An older one, whose end may be noticed
    /// long after its successor began, says nothing any more.
    newest: Arc<Mutex<BTreeMap<MemberName, Newest>>>,
}

/// One stream's right to say something.
struct Stream {
    streams: Streams,
    member: MemberName,
    number: u64,
}

struct Newest {
    number: u64,
    /// Ends the stream when a newer one takes its place.
    _guard: DropGuard,
}

impl PeerService {
    pub(super) fn new(
        config: Arc<PeersConfig>,
        events: mpsc::Sender<PeerEvent>,
        history: HistorySource,
        shutdown: CancellationToken,
        tasks: TaskTracker,
    ) -> Self {
        let streams = Streams { events, newest: Arc::default() };
        PeerService { config, streams, history, admission: None, shutdown, tasks }
    }

    /// Answers other members' questions about admissions from `source`.
    pub fn with_admission(self, source: AdmissionSource) -> Self {
        PeerService { admission: Some(source), ..self }
    }

    /// The service as tonic's routes take it.
    pub fn into_server(self) -> PeerServiceServer<Self> {
        PeerServiceServer::new(self)
            .max_decoding_message_size(MESSAGE_LIMIT)
            .max_encoding_message_size(MESSAGE_LIMIT)
    }

    /// The service as an [`Acceptor`](crate::acceptor::Acceptor) takes it.
    pub fn into_routes(self) -> tonic::service::Routes {
        tonic::service::Routes::new(self.into_server())
    }

    /// Only controllers of our own fleet may speak here.
    fn authorise(&self, extensions: &http::Extensions) -> Result<Identity, Status> {
        let peer = Peer::of(extensions)?;
        let identity = peer.with_role(Role::Controller)?;
        let own = &self.config.identity;
        if identity.trust_domain != own.trust_domain || identity.namespace != own.namespace {
            return Err(Status::permission_denied(format!(
                "{identity} is no member of this fleet: its members are in trust domain {} and namespace {}",
                own.trust_domain, own.namespace
            )));
        }
        Ok(identity.clone())
    }

    fn hello(&self) -> PeerMessage {
        let hello = Hello {
            member: self.config.identity.name.to_string(),
            instance: self.config.instance.to_string(),
            highest_epoch: 0,
            frontier: None,
            incarnation: self.config.incarnation.to_string(),
        };
        PeerMessage { message: Some(Message::Hello(hello)) }
    }

    /// Hands on what one stream says, until it ends.
    async fn listen(&self, member: MemberName, hello: Hello, mut stream: Streaming<PeerMessage>) -> Status {
        let instance = Instance::from(hello.instance);
        let (own, superseded) = self.streams.enter(&member);
        info!(%member, %instance, "a peer's stream begins");
        let frontier = convert::frontier_in(hello.frontier).unwrap_or_default();
        let first = PeerEvent::Hello {
            member: member.clone(),
            instance: instance.clone(),
            highest_epoch: Epoch(hello.highest_epoch),
            frontier,
        };
        let told = async {
            own.tell(first).await?;
            while let Some(message) = stream.message().await? {
                if let Some(message) = message.message {
                    own.tell(event(&member, &instance, message)?).await?;
                }
            }
            Ok::<_, Status>(())
        };
        let status = tokio::select! {
            told = told => match told {
                Ok(()) => Status::ok("the peer has ended its stream"),
                Err(status) => status,
            },
            () = superseded.cancelled() => Status::aborted("a newer stream of the same member took over"),
            () = self.shutdown.cancelled() => Status::unavailable("this member is going away"),
        };
        info!(%member, %instance, %status, "a peer's stream ended");
        // A member that already has a newer stream is not lost, and an error
        // says just that, or that we are going away.
        let _ = own.tell(PeerEvent::Lost { member, instance }).await;
        status
    }
}

impl Streams {
    /// Makes this the member's newest stream; the token is cancelled when
    /// another takes its place.
    fn enter(&self, member: &MemberName) -> (Stream, CancellationToken) {
        let mut newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        let number = newest.get(member).map_or(0, |before| before.number + 1);
        let superseded = CancellationToken::new();
        newest.insert(member.clone(), Newest { number, _guard: superseded.clone().drop_guard() });
        (Stream { streams: self.clone(), member: member.clone(), number }, superseded)
    }
}

impl Stream {
    /// Says something, unless a newer stream of the member has begun. The
    /// question is asked when there is room in the queue, and nothing comes
    /// between the answer and the event's place in it: so whatever an older
    /// stream said stands before everything that a newer one says.
    ///
    /// # Errors
    /// When nobody listens any more, or a newer stream took over.
    async fn tell(&self, event: PeerEvent) -> Result<(), Status> {
        let room = self.streams.events.reserve().await;
        let room = room.map_err(|_| Status::unavailable("this member is going away"))?;
        let newest = self.streams.newest.lock().unwrap_or_else(PoisonError::into_inner);
        if newest.get(&self.member).is_none_or(|newest| newest.number != self.number) {
            return Err(Status::aborted("a newer stream of the same member took over"));
        }
        room.send(event);
        Ok(())
    }
}

/// An instance that the member may speak for: its own, by name. Whoever is
/// believed to have departed loses its namespaces to others.
fn own_instance(member: &MemberName, instance: &str) -> Result<Instance, Status> {
    let random = instance.strip_prefix(member.as_str()).and_then(|rest| rest.strip_prefix('/'));
    if random.is_none_or(str::is_empty) {
        return Err(Status::permission_denied(format!(
            "{member} speaks for another's instance {instance:?}"
        )));
    }
    Ok(Instance::from(instance))
}

fn event(member: &MemberName, instance: &Instance, message: Message) -> Result<PeerEvent, Status> {
    let (member, instance) = (member.clone(), instance.clone());
    Ok(match message {
        Message::Hello(hello) => PeerEvent::Hello {
            member,
            instance,
            highest_epoch: Epoch(hello.highest_epoch),
            frontier: convert::frontier_in(hello.frontier)?,
        },
        Message::Settled(settled) => {
            let instance = own_instance(&member, &settled.instance)?;
            PeerEvent::Settled { member, instance, epoch: Epoch(settled.epoch) }
        }
        Message::Departed(departed) => {
            let instance = own_instance(&member, &departed.instance)?;
            PeerEvent::Departed { member, instance }
        }
        Message::Applied(table) => PeerEvent::Applied { member, instance, table: convert::table_in(table)? },
        Message::Testimony(testimony) => {
            PeerEvent::Testimony { member, testimony: Arc::new(convert::testimony_in(testimony)?) }
        }
        Message::Loads(loads) => PeerEvent::Loads { member, report: Arc::new(convert::loads_in(loads)?) },
        Message::ForwardedAck(ack) => PeerEvent::ForwardedAck(convert::ack_in(ack)?),
        Message::ForwardedHeartbeat(heartbeat) => {
            let (session, gateway, version) = convert::heartbeat_in(heartbeat)?;
            PeerEvent::ForwardedHeartbeat { session, gateway, version }
        }
    })
}

#[tonic::async_trait]
impl peer_service_server::PeerService for PeerService {
    type ExchangeStream = BoxStream<'static, Result<PeerMessage, Status>>;

    async fn exchange(
        &self,
        request: Request<Streaming<PeerMessage>>,
    ) -> Result<Response<Self::ExchangeStream>, Status> {
        let identity = self.authorise(request.extensions())?;
        let mut stream = request.into_inner();
        let first = tokio::time::timeout(self.config.connect_timeout, stream.message())
            .await
            .map_err(|_| Status::deadline_exceeded("no Hello came"))??;
        let Some(PeerMessage { message: Some(Message::Hello(hello)) }) = first else {
            return Err(Status::failed_precondition("the first message must be Hello"));
        };
        if *hello.member != *identity.name {
            warn!(claimed = hello.member, %identity, "a peer claims to be another member");
            return Err(Status::permission_denied(format!(
                "you say you are member {}, but your certificate is {identity}",
                hello.member
            )));
        }
        let (theirs, ours) = (hello.incarnation.as_str(), &*self.config.incarnation);
        if !theirs.is_empty() && !ours.is_empty() && theirs != ours {
            return Err(Status::failed_precondition(format!(
                "you read the history {theirs}, this member reads {ours}: etcd was restored, and one of both is about \
                 to notice and to start anew"
            )));
        }
        // Listening is a task of its own: an answer whose connection is lost is
        // dropped without being polled again, and that end must be told too.
        let (end_in, end_out) = oneshot::channel();
        let service = self.clone();
        let own = self.hello();
        self.tasks.spawn(async move {
            let member = MemberName::from(hello.member.clone());
            // An error means that the answer is gone, and nobody wants the status.
            let _ = end_in.send(service.listen(member, hello, stream).await);
        });
        // The answer is one Hello, and then silence until listening ends.
        let end = futures::stream::once(end_out).filter_map(|ended| match ended {
            Ok(status) if status.code() == Code::Ok => None,
            Ok(status) => Some(Err(status)),
            Err(_) => Some(Err(Status::unavailable("listening ended"))),
        });
        Ok(Response::new(Box::pin(tokio_stream::once(Ok(own)).chain(end))))
    }

    async fn history(&self, request: Request<HistoryRequest>) -> Result<Response<HistoryResponse>, Status> {
        self.authorise(request.extensions())?;
        let request = request.into_inner();
        let kind = convert::kind_in(request.kind)?;
        let history = (self.history)(kind, Revision(request.since)).await;
        Ok(Response::new(convert::history_out(history)))
    }

    async fn admit(&self, request: Request<AdmitRequest>) -> Result<Response<AdmitResponse>, Status> {
        self.authorise(request.extensions())?;
        let question = admit::question_in(request.into_inner())?;
        let source = self.admission.as_ref();
        let source = source.ok_or_else(|| Status::unimplemented("this member has no webhooks"))?;
        Ok(Response::new(admit::answer_out(source(question).await)))
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    fn lost(member: &MemberName) -> PeerEvent {
        PeerEvent::Lost { member: member.clone(), instance: Instance::from("a/1") }
    }

    #[tokio::test]
    async fn the_end_of_an_older_stream_is_not_told_behind_what_a_newer_one_says() {
        let (events, mut heard) = mpsc::channel(1);
        let streams = Streams { events, newest: Arc::default() };
        let member = MemberName::from("a");
        let (older, superseded) = streams.enter(&member);
        let applied = PeerEvent::Applied {
            member: member.clone(),
            instance: Instance::from("a/1"),
            table: flotilla_core::delivery::AppliedTable::default(),
        };
        older.tell(applied.clone()).await.unwrap();
        // Its end waits for room, and meanwhile the member is back.
        let mut end = Box::pin(older.tell(lost(&member)));
        assert!((&mut end).now_or_never().is_none());
        let (newer, _) = streams.enter(&member);
        assert!(superseded.is_cancelled());
        assert!(matches!(heard.recv().await, Some(PeerEvent::Applied { .. })));
        assert!(end.await.is_err());
        newer.tell(applied).await.unwrap();
        assert!(matches!(heard.recv().await, Some(PeerEvent::Applied { .. })));
        newer.tell(lost(&member)).await.unwrap();
        assert!(matches!(heard.recv().await, Some(PeerEvent::Lost { .. })), "its own end is told");
    }
}
