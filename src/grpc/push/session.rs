//! One open session with a gateway: updates become calls.

use std::collections::VecDeque;
use std::time::Duration;

use flotilla_core::ids::{Frontier, Kind, SessionId};
use flotilla_core::version::Version;
use flotilla_proto::operator::{ConfigurationSnapshot, ConfigurationUpdate, UpdateType};
use flotilla_proto::push::configuration_service_client::ConfigurationServiceClient;
use flotilla_proto::push::{
    ApplyApiRouteRequest, ApplyBackendRequest, ApplyBatchRequest, ApplyGrpcBackendRequest,
    ApplyGrpcRouteRequest, DeleteApiRouteRequest, DeleteBackendRequest, DeleteGrpcBackendRequest,
    DeleteGrpcRouteRequest, GetGatewayStatusRequest, GetGatewayStatusResponse, ResourceUpdate, UpdateResult,
    VersionUpdate,
};
use prost::Message as _;
use tokio::time::Instant;
use tonic::transport::Channel;
use tonic::{Code, Request, Response, Status};

use super::metrics::PushMetrics;
use super::pace::Pace;
use super::snapshot::{Left, Step, lacking, removals};
use crate::gateway::kind_of;
use crate::peers::duration_in;

/// Bytes of the updates of one call where a gateway offers batches and does not say:
/// gRPC's usual limit is 4 MiB, and what stands around the updates counts, too.
const BATCH: usize = 4 * 1024 * 1024 - 64 * 1024;

/// Largest list of what a gateway holds.
const LIST: usize = 64 * 1024 * 1024;

/// Largest answer to anything else.
const ANSWER: usize = 1024 * 1024;

/// The version of a gateway that holds something that no version names.
pub(super) const UNKNOWN: &str = "unknown";

/// See the module.
pub(super) struct Session {
    client: ConfigurationServiceClient<Channel>,
    id: SessionId,
    /// Of the last update.
    sequence: i64,
    /// How many bytes of updates the gateway takes in one call; `None`: one update.
    batch_bytes: Option<usize>,
    /// What it holds beyond the parts of a snapshot that have come.
    left: Left,
    /// Of what it was given, what was to blame for refusals: it may hold that all the
    /// same, in the way of everything else (wire point 13).
    blamed: Left,
    /// How long one call may take.
    patience: Duration,
    metrics: PushMetrics,
}

impl Session {
    /// Opens a session; the answer says what the gateway holds.
    pub async fn open(
        channel: Channel,
        id: SessionId,
        patience: Duration,
        metrics: PushMetrics,
    ) -> Result<(Session, GetGatewayStatusResponse), Status> {
        let client = ConfigurationServiceClient::new(channel).max_decoding_message_size(ANSWER);
        let (left, blamed) = (Left::new(), Left::new());
        let mut session =
            Session { client, id, sequence: 0, batch_bytes: None, left, blamed, patience, metrics };
        let request = GetGatewayStatusRequest { open_session: session.id.to_string(), ..Default::default() };
        let status = session.status(request).await?;
        session.batch_bytes = status.offer.as_ref().filter(|offer| offer.batches).map(|offer| {
            usize::try_from(offer.max_batch_bytes).ok().filter(|bytes| *bytes > 0).unwrap_or(BATCH)
        });
        Ok((session, status))
    }

    /// Whether the gateway takes many updates in one call.
    pub fn batches(&self) -> bool {
        self.batch_bytes.is_some()
    }

    /// Asks how the gateway is; an error if another session has been opened.
    pub async fn probe(&mut self) -> Result<GetGatewayStatusResponse, Status> {
        let status = self.status(GetGatewayStatusRequest::default()).await?;
        if status.session_id != self.id.as_str() {
            return Err(Status::aborted("another session has been opened"));
        }
        Ok(status)
    }

    /// Carries updates to the gateway, at least one; answers to those that were
    /// carried, in their order. What has an answer is taken out.
    pub async fn carry(
        &mut self,
        updates: &mut VecDeque<ConfigurationUpdate>,
        pace: &mut Pace,
    ) -> Result<Vec<(String, UpdateResult)>, Status> {
        let Some(update) = updates.front() else { return Ok(Vec::new()) };
        let snapshot = update.snapshot.is_some();
        // A snapshot that is too large or took too long goes resource by resource, and so
        // does what then completes it.
        let fits = |limit: &usize| {
            update.encoded_len() <= *limit && self.left.is_empty() && (!snapshot || pace.takes_snapshots())
        };
        if let Some(limit) = self.batch_bytes.filter(fits) {
            match self.carry_batch(updates, limit, pace).await {
                Err(status) if status.code() == Code::Unimplemented => self.batch_bytes = None,
                answered => return answered,
            }
        }
        let Some(update) = updates.front().cloned() else { return Ok(Vec::new()) };
        let version = update.version.clone();
        let result = self.carry_one(update).await?;
        if snapshot {
            pace.got_through();
        }
        updates.pop_front();
        Ok(vec![(version, result)])
    }

    async fn carry_batch(
        &mut self,
        updates: &mut VecDeque<ConfigurationUpdate>,
        limit: usize,
        pace: &mut Pace,
    ) -> Result<Vec<(String, UpdateResult)>, Status> {
        let mut bytes = 0;
        let fits = |update: &&ConfigurationUpdate| {
            bytes += update.encoded_len();
            bytes <= limit
        };
        let count = updates.iter().take(pace.most()).take_while(fits).count();
        // How long a snapshot takes says nothing about other updates, nor they about it.
        let snapshot = updates.iter().take(count).position(|update| update.snapshot.is_some());
        let count = snapshot.map_or(count, |index| index + 1);
        let part = updates.iter().take(count).cloned().map(|update| {
            self.sequence += 1;
            ConfigurationUpdate { sequence: self.sequence, ..update }
        });
        let request = ApplyBatchRequest { updates: part.collect(), session_id: self.id.to_string() };
        let (mut client, request) = (self.client.clone(), self.request(request));
        let began = Instant::now();
        let answer = self.called("ApplyBatch", client.apply_batch(request)).await;
        match &answer {
            Ok(_) if snapshot.is_none() => pace.took(count, began.elapsed()),
            // Whoever notices first that the time is over: we or the transport.
            Err(status) if matches!(status.code(), Code::DeadlineExceeded | Code::Cancelled) => {
                pace.late(count, snapshot.is_some());
            }
            _ => {}
        }
        let results = answer?.results;
        if results.len() != count {
            let text = format!("{} results for {count} updates of a batch", results.len());
            return Err(Status::internal(text));
        }
        let versions = updates.drain(..count).map(|update| update.version);
        Ok(versions.zip(results).collect())
    }

    async fn carry_one(&mut self, update: ConfigurationUpdate) -> Result<UpdateResult, Status> {
        let version = update.version.clone();
        // What is left of a snapshot in parts goes when they have all come.
        let completes = !self.left.is_empty() && is_complete(&version);
        let carried = if completes { unfinished(&version) } else { version.clone() };
        let mut result = match (update.r#type(), update.resource, update.snapshot) {
            (UpdateType::FullSync, _, Some(snapshot)) => return self.synchronise(snapshot, &version).await,
            (kind @ (UpdateType::Added | UpdateType::Modified | UpdateType::Deleted), Some(resource), _) => {
                let delete = kind == UpdateType::Deleted;
                let kind = kind_of(resource.r#type())
                    .ok_or_else(|| Status::internal("a resource is of a kind that no call takes"))?;
                let step = Step { kind, resource, delete };
                self.left.remove(&step.key());
                self.step(step, carried).await?
            }
            _ if completes => UpdateResult { success: true, ..UpdateResult::default() },
            _ => return self.advance(version).await,
        };
        if completes && result.success {
            let began = Instant::now();
            let (routes, backends) = removals(&std::mem::take(&mut self.left));
            let steps = routes.into_iter().chain(backends).collect();
            // Without its last version it is synchronised again by whoever goes on.
            if self.steps(steps, &version).await?.is_none() {
                result.config_version = self.advance(version).await?.config_version;
            }
            // What it removes takes it time like everything else.
            let took = duration_in(result.apply_duration) + began.elapsed();
            result.apply_duration = took.try_into().ok();
        }
        Ok(result)
    }

    /// A full synchronisation, resource by resource: see [`super::snapshot`].
    async fn synchronise(
        &mut self,
        snapshot: ConfigurationSnapshot,
        version: &str,
    ) -> Result<UpdateResult, Status> {
        let began = Instant::now();
        let request = GetGatewayStatusRequest { list_resources: true, ..Default::default() };
        let held = self.status(request).await?.resources;
        let (steps, left) = lacking(&held, snapshot);
        let complete = is_complete(version);
        let (gone, left) = left.into_iter().partition(|key| complete || self.blamed.contains(key));
        self.left = left;
        // Routes that are to go, go first: one of them may be in the way of all others.
        let (routes, backends) = removals(&gone);
        let steps = routes.into_iter().chain(steps).chain(backends).collect();
        let mut result = match self.steps(steps, version).await? {
            None => self.advance(version.to_owned()).await?,
            // The session leaves out whom this names and comes with another snapshot, of
            // which the gateway then holds nearly everything.
            Some(error_message) => UpdateResult { error_message, ..UpdateResult::default() },
        };
        result.apply_duration = began.elapsed().try_into().ok();
        Ok(result)
    }

    /// Takes steps on the way to a version; the first refusal that lasts.
    async fn steps(&mut self, steps: Vec<Step>, version: &str) -> Result<Option<String>, Status> {
        let unfinished = unfinished(version);
        let mut refused = Vec::new();
        for step in steps {
            let again = step.clone();
            if !self.step(step, unfinished.clone()).await?.success {
                refused.push(again);
            }
        }
        // What stood in the way of some may be gone by now.
        let mut words = None;
        for step in refused {
            // The gateway need not say whom it means: it was asked about one.
            let named = format!("{} {}/{}", step.kind, step.resource.namespace, step.resource.name);
            let key = step.key();
            let result = self.step(step, unfinished.clone()).await?;
            if !result.success {
                if words.is_none() {
                    self.blamed.insert(key);
                }
                words.get_or_insert(format!("{named}: {}", result.error_message));
            }
        }
        Ok(words)
    }

    /// One resource's call.
    async fn step(&mut self, step: Step, config_version: String) -> Result<UpdateResult, Status> {
        self.sequence += 1;
        let key = step.key();
        let update = Some(ResourceUpdate {
            session_id: self.id.to_string(),
            config_version,
            sequence: self.sequence,
            resource: Some(step.resource),
        });
        let mut client = self.client.clone();
        let result = match (step.kind, step.delete) {
            (Kind::ApiRoute, false) => {
                let request = self.request(ApplyApiRouteRequest { update });
                self.called("ApplyAPIRoute", client.apply_api_route(request)).await?.result
            }
            (Kind::GrpcRoute, false) => {
                let request = self.request(ApplyGrpcRouteRequest { update });
                self.called("ApplyGRPCRoute", client.apply_grpc_route(request)).await?.result
            }
            (Kind::Backend, false) => {
                let request = self.request(ApplyBackendRequest { update });
                self.called("ApplyBackend", client.apply_backend(request)).await?.result
            }
            (Kind::GrpcBackend, false) => {
                let request = self.request(ApplyGrpcBackendRequest { update });
                self.called("ApplyGRPCBackend", client.apply_grpc_backend(request)).await?.result
            }
            (Kind::ApiRoute, true) => {
                let request = self.request(DeleteApiRouteRequest { update });
                self.called("DeleteAPIRoute", client.delete_api_route(request)).await?.result
            }
            (Kind::GrpcRoute, true) => {
                let request = self.request(DeleteGrpcRouteRequest { update });
                self.called("DeleteGRPCRoute", client.delete_grpc_route(request)).await?.result
            }
            (Kind::Backend, true) => {
                let request = self.request(DeleteBackendRequest { update });
                self.called("DeleteBackend", client.delete_backend(request)).await?.result
            }
            (Kind::GrpcBackend, true) => {
                let request = self.request(DeleteGrpcBackendRequest { update });
                self.called("DeleteGRPCBackend", client.delete_grpc_backend(request)).await?.result
            }
        };
        let result = result.ok_or_else(|| Status::internal("the gateway's answer has no result"))?;
        if result.success {
            self.blamed.remove(&key);
        }
        Ok(result)
    }

    /// Moves the gateway's version and nothing else.
    async fn advance(&mut self, config_version: String) -> Result<UpdateResult, Status> {
        self.sequence += 1;
        let (session_id, sequence) = (self.id.to_string(), self.sequence);
        let advance = Some(VersionUpdate { session_id, config_version, sequence });
        let status = self.status(GetGatewayStatusRequest { advance, ..Default::default() }).await?;
        Ok(UpdateResult { success: true, config_version: status.last_config_version, ..Default::default() })
    }

    async fn status(&mut self, request: GetGatewayStatusRequest) -> Result<GetGatewayStatusResponse, Status> {
        let largest = if request.list_resources { LIST } else { ANSWER };
        let (client, request) = (self.client.clone(), self.request(request));
        let mut client = client.max_decoding_message_size(largest);
        self.called("GetGatewayStatus", client.get_gateway_status(request)).await
    }

    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.set_timeout(self.patience);
        request
    }

    /// Waits for a call, and counts it.
    async fn called<T>(
        &self,
        rpc: &str,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, Status> {
        let answer = match tokio::time::timeout(self.patience, call).await {
            Ok(answer) => answer.map(Response::into_inner),
            Err(_) => Err(Status::deadline_exceeded(format!("{rpc}: no answer in {:?}", self.patience))),
        };
        let code = answer.as_ref().err().map_or(Code::Ok, Status::code);
        self.metrics.called(rpc, code);
        answer
    }
}

/// Whether a gateway of this version has everything: one that is somewhere in a
/// snapshot has nothing that could be named.
fn is_complete(version: &str) -> bool {
    version.parse().is_ok_and(|version: Version| version.low != Frontier::default())
}

/// The version of a gateway that is on its way to a snapshot's: it holds nothing
/// beyond that, and what it lacks nobody can tell, so it is synchronised fully by
/// whoever goes on.
fn unfinished(version: &str) -> String {
    match version.parse::<Version>() {
        Ok(version) => Version { low: Frontier::default(), ..version }.to_string(),
        Err(_) => UNKNOWN.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use flotilla_core::ids::Revision;

    use super::*;

    #[test]
    fn a_gateway_that_is_interrupted_in_a_snapshot_keeps_how_far_it_may_be() {
        let version = "f1.0a1b2c3d.00000000.00000001.1_2_3_4-5_6_7_8~2";
        let before: Version = version.parse().unwrap();
        let after: Version = unfinished(version).parse().unwrap();
        assert_eq!(after.low, Frontier([Revision(0); 4]));
        assert_eq!((after.high, after.scope), (before.high, before.scope));
        assert!(is_complete(version) && !is_complete(&after.to_string()) && !is_complete(UNKNOWN));
    }
}
