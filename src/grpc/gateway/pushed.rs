//! The stream of a gateway that is called instead of reading a body.
//!
//! To the delivery task it is a stream like any other; what comes out of it are
//! messages, which a task of `crate::push` carries to the gateway one after the other.

use std::sync::Arc;

use flotilla_core::compile::Compiler;
use flotilla_core::delivery::Ack;
use flotilla_core::digest::Sums;
use flotilla_core::ids::{GatewayId, SessionId};
use flotilla_core::policy::Asking;
use flotilla_proto::operator::ConfigurationUpdate;
use prost::Message as _;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::body::{self, Outgoing};
use super::handle::{Contact, Control};
use super::{DeliveryGone, DeliveryHandle};
use crate::acceptor::ConnectionHandle;

/// What is to be carried to a gateway. Dropping it ends its session.
pub(crate) struct PushedUpdates {
    updates: mpsc::Receiver<Outgoing>,
    /// Woken when this is dropped.
    gone: Arc<Notify>,
}

impl PushedUpdates {
    /// The next batch, in sending order and without sequences; `None` when the
    /// delivery task has ended the session.
    ///
    /// # Errors
    /// INTERNAL when the batch is not what its encoder made of it.
    pub async fn next(&mut self) -> Option<Result<Vec<ConfigurationUpdate>, Status>> {
        let Outgoing { batch, .. } = self.updates.recv().await?;
        let decode = |bytes: &bytes::Bytes| ConfigurationUpdate::decode(bytes.clone());
        let updates: Result<Vec<_>, _> = batch.updates.iter().map(decode).collect();
        Some(updates.map_err(|error| Status::internal(format!("a batch cannot be read back: {error}"))))
    }
}

impl Drop for PushedUpdates {
    fn drop(&mut self) {
        self.updates.close();
        self.gone.notify_one();
    }
}

impl<C: Compiler> DeliveryHandle<C> {
    /// A session with a gateway that was dialled; `batches`: it takes many updates in
    /// one call. `closing` is cancelled when its
    /// connection is to end; the other receiver says why the session ended.
    ///
    /// # Errors
    /// [`DeliveryGone`].
    pub(crate) async fn push_to(
        &self,
        session: SessionId,
        asking: Asking,
        version: String,
        batches: bool,
        closing: CancellationToken,
    ) -> Result<(PushedUpdates, oneshot::Receiver<Status>), DeliveryGone> {
        let (handle, updates, ended) = body::handle(ConnectionHandle::new(closing));
        let updates = PushedUpdates { updates, gone: self.gone.clone() };
        let contact = Contact::Dialled { batches };
        self.told(Control::Connected { session, asking, version, contact, handle }).await?;
        Ok((updates, ended))
    }

    /// What a gateway that was called said to one update.
    ///
    /// # Errors
    /// [`DeliveryGone`].
    pub(crate) async fn answered(&self, ack: Ack) -> Result<(), DeliveryGone> {
        self.told(Control::Acknowledged { ack, forward: false }).await
    }

    /// A gateway that was called said how it is.
    ///
    /// # Errors
    /// [`DeliveryGone`].
    pub(crate) async fn probed(
        &self,
        session: SessionId,
        gateway: GatewayId,
        version: String,
        sums: Option<Box<Sums>>,
    ) -> Result<(), DeliveryGone> {
        self.told(Control::Heartbeat { session, gateway, version, sums, forward: false }).await
    }
}
