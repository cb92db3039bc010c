//! Acknowledgements, read and answered by hand.
//!
//! This is the one call that comes once for every update and every gateway: what it
//! costs, a change costs as often as there are gateways. So it goes past the router,
//! the codec and the generated server, only those fields are decoded that are looked
//! at, and the answer does not wait until delivery has weighed it. The other calls
//! of a gateway are rare and go the usual way.
//!
//! What is read is one gRPC message of a unary call (a byte that says whether it is
//! compressed, four for its length, then Protocol Buffers), see the protocol's
//! description, "gRPC over HTTP2".

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::SystemTime;

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use flotilla_core::delivery::Ack;
use flotilla_core::ids::GatewayId;
use flotilla_proto::operator::AcknowledgeConfigurationResponse;
use http::{HeaderValue, Response, header};
use http_body::{Body as _, Frame};
use prost::Message;
use prost_types::Timestamp;
use tonic::Status;
use tonic::body::Body;

use super::encode::PREFIX;
use super::service::{REQUEST_LIMIT, named_session, shorten};
use crate::acceptor::trailers;
use crate::peers::duration_in;

/// The path of the call.
pub(super) const PATH: &str = "/avapigw.operator.v1alpha1.ConfigurationService/AcknowledgeConfiguration";

/// `AcknowledgeConfigurationRequest`, as far as it is looked at; decoding skips the rest.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Acknowledgement {
    #[prost(string, tag = "1")]
    session_id: String,
    #[prost(message, optional, tag = "2")]
    pub(super) gateway: Option<Claim>,
    #[prost(string, tag = "3")]
    config_version: String,
    #[prost(bool, tag = "4")]
    success: bool,
    #[prost(string, tag = "5")]
    error_message: String,
    #[prost(message, optional, tag = "6")]
    apply_duration: Option<prost_types::Duration>,
}

/// `GatewayInfo`, as far as it is looked at.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Claim {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(string, tag = "2")]
    pub(super) namespace: String,
}

impl Acknowledgement {
    /// Reads it from a request.
    ///
    /// # Errors
    /// What tonic answers to the same: OUT_OF_RANGE for what is too large, UNIMPLEMENTED for
    /// what is compressed, INTERNAL for what is no message.
    pub(super) async fn read(mut body: hyper::body::Incoming) -> Result<Self, Status> {
        let mut whole = Bytes::new();
        let mut parts = BytesMut::new();
        while let Some(frame) = std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
            let frame =
                frame.map_err(|error| Status::cancelled(format!("the request broke off: {error}")))?;
            let Ok(data) = frame.into_data() else { continue };
            if whole.is_empty() && parts.is_empty() {
                // Nearly always all there is.
                whole = data;
            } else {
                parts.extend_from_slice(&std::mem::take(&mut whole));
                parts.extend_from_slice(&data);
            }
            let length = whole.len().max(parts.len());
            if length > PREFIX + REQUEST_LIMIT {
                return Err(Status::out_of_range(format!(
                    "a request of more than {REQUEST_LIMIT} bytes; shorten what it says"
                )));
            }
        }
        if whole.is_empty() {
            whole = parts.freeze();
        }
        Self::decoded(whole)
    }

    fn decoded(mut message: Bytes) -> Result<Self, Status> {
        if message.len() < PREFIX {
            return Err(Status::internal("the request is missing"));
        }
        if message.get_u8() != 0 {
            return Err(Status::unimplemented("compressed requests are not taken"));
        }
        if message.get_u32() as usize != message.len() {
            return Err(Status::internal("a request whose length is not what it says"));
        }
        Self::decode(message).map_err(|error| Status::internal(format!("not an acknowledgement: {error}")))
    }

    /// What it means to delivery, from a gateway that is who it says it is.
    pub(super) fn from(self, gateway: GatewayId) -> Ack {
        Ack {
            session: named_session(&self.session_id),
            gateway,
            version: self.config_version,
            result: if self.success { Ok(()) } else { Err(shorten(self.error_message)) },
            apply_duration: duration_in(self.apply_duration),
        }
    }
}

/// The answer.
pub(super) fn answer(received: bool) -> Response<Body> {
    let server_time = Some(Timestamp::from(SystemTime::now()));
    let answer = AcknowledgeConfigurationResponse { received, server_time };
    let length = answer.encoded_len();
    let mut message = Vec::with_capacity(PREFIX + length);
    message.put_u8(0);
    // A bool and a time.
    message.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
    answer.encode_raw(&mut message);
    with_body(Answer { message: Some(message.into()), ended: false })
}

/// The head of an answer that comes in this body.
pub(super) fn with_body<B>(body: B) -> Response<Body>
where
    B: http_body::Body<Data = Bytes, Error = Status> + Send + 'static,
{
    let mut response = Response::new(Body::new(body));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    response
}

/// One message, then the status OK.
struct Answer {
    message: Option<Bytes>,
    ended: bool,
}

impl http_body::Body for Answer {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if let Some(message) = self.message.take() {
            return Poll::Ready(Some(Ok(Frame::data(message))));
        }
        if std::mem::replace(&mut self.ended, true) {
            return Poll::Ready(None);
        }
        Poll::Ready(Some(Ok(trailers(&Status::ok("")))))
    }

    fn is_end_stream(&self) -> bool {
        self.ended
    }
}

#[cfg(test)]
mod tests {
    use flotilla_proto::operator::{AcknowledgeConfigurationRequest, GatewayInfo};

    use super::*;

    fn framed(compressed: u8, message: &[u8]) -> Bytes {
        let mut framed = vec![compressed];
        framed.extend(u32::try_from(message.len()).unwrap().to_be_bytes());
        framed.extend_from_slice(message);
        framed.into()
    }

    #[test]
    fn what_is_looked_at_is_what_the_protocol_says() {
        let whole = AcknowledgeConfigurationRequest {
            session_id: "a/1".to_owned(),
            gateway: Some(GatewayInfo {
                name: "gw".to_owned(),
                namespace: "edge".to_owned(),
                version: "1".to_owned(),
                pod_name: "p".to_owned(),
                labels: [("a".to_owned(), "b".to_owned())].into(),
                ..GatewayInfo::default()
            }),
            config_version: "v7".to_owned(),
            success: false,
            error_message: "no".to_owned(),
            apply_duration: Some(prost_types::Duration { seconds: 1, nanos: 5 }),
        };
        let read = Acknowledgement::decoded(framed(0, &whole.encode_to_vec())).unwrap();
        let claim = read.gateway.clone().unwrap();
        assert_eq!((claim.name, claim.namespace), ("gw".to_owned(), "edge".to_owned()));
        assert_eq!(read.session_id, whole.session_id);
        assert_eq!(read.config_version, whole.config_version);
        assert_eq!((read.success, &read.error_message), (false, &whole.error_message));
        assert_eq!(read.apply_duration, whole.apply_duration);
    }

    #[test]
    fn what_is_no_message_is_refused() {
        for bytes in [
            Bytes::new(),
            Bytes::from_static(&[0, 0, 0]),
            framed(1, b""),
            framed(0, &[0xff; 9]),
            framed(0, b"").slice(..4),
            [framed(0, b""), framed(0, b"")].concat().into(),
        ] {
            Acknowledgement::decoded(bytes).unwrap_err();
        }
    }
}
