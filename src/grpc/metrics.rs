//! What is counted about gateways, peers and the connections of both.
//!
//! Labels are closed sets: methods, status codes, kinds of batches. Names of
//! gateways and objects never become labels.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use flotilla_core::delivery::Holdings;
use prometheus::{
    Gauge, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, Opts, Registry,
};
use tokio::time::Instant;

/// The status of a call that went well, as a label.
pub(crate) const OK: &str = "OK";

/// The counters of this crate; clones share them.
#[derive(Debug, Clone)]
pub struct Metrics {
    /// `avapigw_operator_gateways_connected`: gateways with a stream here.
    pub gateways_connected: IntGauge,
    /// `flotilla_unconfirmed_gateways`: those of them that showed no certificate.
    pub unconfirmed: IntGauge,
    /// `avapigw_operator_config_push_total`: batches written to streams.
    pub pushes: IntCounter,
    /// `avapigw_operator_config_push_errors_total`: batches that a gateway
    /// rejected, did not acknowledge in time, or whose stream was gone.
    pub push_errors: IntCounter,
    /// `avapigw_operator_grpc_requests_total{method,status}`
    pub requests: IntCounterVec,
    /// `avapigw_operator_grpc_request_duration_seconds{method}`; a stream is
    /// observed when it ends.
    pub request_duration: HistogramVec,
    /// `flotilla_delivery_seconds`: from handing a batch to the transport to
    /// its last acknowledgement.
    pub delivery_seconds: Histogram,
    /// `flotilla_delivery_lag_seconds`: from reading a write of the API server
    /// until every gateway of this replica has acknowledged it.
    pub delivery_lag: Histogram,
    /// `flotilla_delivery_pending_since_timestamp_seconds`: when the oldest write was
    /// read that a gateway of this replica has not acknowledged, in seconds since
    /// 1970; 0 when there is none.
    pub delivery_pending_since: Gauge,
    /// `avapigw_operator_grpc_config_applied_total`: updates that gateways
    /// said they took, of those that change what they hold.
    pub config_applied: IntCounter,
    /// `avapigw_operator_grpc_reaped_gateways_total`: gateways that were taken for
    /// gone because their heartbeats stayed out.
    pub reaped: IntCounter,
    /// `flotilla_batches_total{kind}` with `full`, `increments`, `version`.
    pub batches: IntCounterVec,
    /// `flotilla_batch_bytes_total`: encoded bytes handed to streams.
    pub bytes: IntCounter,
    /// `flotilla_batches_encoded_total`: how often a batch was encoded; the
    /// ratio to `flotilla_batches_total` shows how well they are shared.
    pub encoded: IntCounter,
    /// `flotilla_rejected_total`: resources that a gateway rejected (NACK).
    pub rejected: IntCounter,
    /// `flotilla_zombie_heartbeats_total`: heartbeats of gateways without a stream.
    pub zombies: IntCounter,
    /// `flotilla_unknown_versions_total`: versions that could not be resumed.
    pub unknown_versions: IntCounter,
    /// `flotilla_unexpected_acks_total`: acknowledgements of things never sent.
    pub unexpected_acks: IntCounter,
    /// `flotilla_gateway_digests_total{result}`: what gateways say they hold,
    /// compared with what they are to hold: `equal`, `different` or `apart`.
    pub gateway_digests: IntCounterVec,
    /// `flotilla_forwarded_total{message,outcome}`: acknowledgements (`ack`) and
    /// heartbeats (`heartbeat`) for gateways of other replicas, `sent` or
    /// `dropped`.
    pub forwarded: IntCounterVec,
    /// `flotilla_streams_ended_total{reason}`
    pub streams_ended: IntCounterVec,
    /// `flotilla_connections`: connections that are open.
    pub connections: IntGauge,
    /// `flotilla_connections_refused_total{reason}` with `handshake`, `timeout`,
    /// `limit` (too many connections), `busy` (too many handshakes at once),
    /// `pings` (too many of them: an open connection was ended).
    pub refused: IntCounterVec,
    /// `flotilla_peers_connected`: members to which our stream is up.
    pub peers_connected: IntGauge,
    /// The two of [`METHODS`], found once: looking them up costs as much as counting.
    well: Arc<[(IntCounter, Histogram)]>,
}

/// The calls that are served.
const METHODS: [&str; 8] = [
    "AcknowledgeConfiguration",
    "Heartbeat",
    "RegisterGateway",
    "StreamConfiguration",
    "GetConfiguration",
    "GetGatewayStatus",
    "Exchange",
    "History",
];

/// A call's method as a label: a closed set, whatever clients send.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Method(Option<usize>);

impl Method {
    /// The method of a request's path.
    pub(crate) fn of(path: &str) -> Self {
        let name = path.rsplit('/').next().unwrap_or_default();
        Method(METHODS.iter().position(|method| *method == name))
    }

    /// Its name.
    pub(crate) fn name(self) -> &'static str {
        self.0.map_or("other", |index| METHODS[index])
    }
}

impl Metrics {
    /// Makes and registers them.
    ///
    /// # Errors
    /// When one of the names is registered already.
    pub fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let seconds = |name: &str, help: &str| {
            HistogramOpts::new(name, help).buckets(vec![
                0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
            ])
        };
        let requests = IntCounterVec::new(
            Opts::new("avapigw_operator_grpc_requests_total", "Calls that ended, by method and status."),
            &["method", "status"],
        )?;
        let request_duration = HistogramVec::new(
            seconds("avapigw_operator_grpc_request_duration_seconds", "How long calls took."),
            &["method"],
        )?;
        let well = METHODS.map(|method| {
            (requests.with_label_values(&[method, OK]), request_duration.with_label_values(&[method]))
        });
        let metrics = Metrics {
            gateways_connected: IntGauge::new(
                "avapigw_operator_gateways_connected",
                "Gateways that have a configuration stream to this replica.",
            )?,
            unconfirmed: IntGauge::new(
                "flotilla_unconfirmed_gateways",
                "Gateways with a configuration stream to this replica that showed no certificate.",
            )?,
            pushes: IntCounter::new(
                "avapigw_operator_config_push_total",
                "Batches of configuration written to gateways.",
            )?,
            push_errors: IntCounter::new(
                "avapigw_operator_config_push_errors_total",
                "Batches that were rejected, not acknowledged in time, or not delivered.",
            )?,
            requests,
            request_duration,
            well: Arc::new(well),
            delivery_seconds: Histogram::with_opts(seconds(
                "flotilla_delivery_seconds",
                "From handing a batch to the transport to its last acknowledgement.",
            ))?,
            delivery_lag: Histogram::with_opts(seconds(
                "flotilla_delivery_lag_seconds",
                "From reading a write of the API server until every gateway of this replica has acknowledged it.",
            ))?,
            delivery_pending_since: Gauge::new(
                "flotilla_delivery_pending_since_timestamp_seconds",
                "When the oldest write was read that a gateway of this replica has not acknowledged; 0: none.",
            )?,
            config_applied: IntCounter::new(
                "avapigw_operator_grpc_config_applied_total",
                "Updates of configuration that gateways have applied, once for each gateway.",
            )?,
            reaped: IntCounter::new(
                "avapigw_operator_grpc_reaped_gateways_total",
                "Gateways whose streams were ended because their heartbeats stayed out.",
            )?,
            batches: IntCounterVec::new(
                Opts::new("flotilla_batches_total", "Batches handed to streams, by kind."),
                &["kind"],
            )?,
            bytes: IntCounter::new("flotilla_batch_bytes_total", "Encoded bytes handed to streams.")?,
            encoded: IntCounter::new("flotilla_batches_encoded_total", "Batches encoded.")?,
            rejected: IntCounter::new("flotilla_rejected_total", "Resources that gateways rejected.")?,
            zombies: IntCounter::new(
                "flotilla_zombie_heartbeats_total",
                "Heartbeats of gateways that have no stream.",
            )?,
            unknown_versions: IntCounter::new(
                "flotilla_unknown_versions_total",
                "Gateways' versions that could not be resumed.",
            )?,
            unexpected_acks: IntCounter::new(
                "flotilla_unexpected_acks_total",
                "Acknowledgements of versions that were never sent.",
            )?,
            gateway_digests: IntCounterVec::new(
                Opts::new(
                    "flotilla_gateway_digests_total",
                    "Digests that gateways offered, compared with what they are to hold, by outcome.",
                ),
                &["result"],
            )?,
            forwarded: IntCounterVec::new(
                Opts::new("flotilla_forwarded_total", "Messages of other replicas' gateways passed on."),
                &["message", "outcome"],
            )?,
            streams_ended: IntCounterVec::new(
                Opts::new("flotilla_streams_ended_total", "Streams that this replica ended, by reason."),
                &["reason"],
            )?,
            connections: IntGauge::new("flotilla_connections", "TLS connections that are open.")?,
            refused: IntCounterVec::new(
                Opts::new("flotilla_connections_refused_total", "Connections refused, by reason."),
                &["reason"],
            )?,
            peers_connected: IntGauge::new("flotilla_peers_connected", "Members to which our stream is up.")?,
        };
        registry.register(Box::new(metrics.gateways_connected.clone()))?;
        registry.register(Box::new(metrics.unconfirmed.clone()))?;
        registry.register(Box::new(metrics.pushes.clone()))?;
        registry.register(Box::new(metrics.push_errors.clone()))?;
        registry.register(Box::new(metrics.requests.clone()))?;
        registry.register(Box::new(metrics.request_duration.clone()))?;
        registry.register(Box::new(metrics.delivery_seconds.clone()))?;
        registry.register(Box::new(metrics.delivery_lag.clone()))?;
        registry.register(Box::new(metrics.delivery_pending_since.clone()))?;
        registry.register(Box::new(metrics.config_applied.clone()))?;
        registry.register(Box::new(metrics.reaped.clone()))?;
        registry.register(Box::new(metrics.batches.clone()))?;
        registry.register(Box::new(metrics.bytes.clone()))?;
        registry.register(Box::new(metrics.encoded.clone()))?;
        registry.register(Box::new(metrics.rejected.clone()))?;
        registry.register(Box::new(metrics.zombies.clone()))?;
        registry.register(Box::new(metrics.unknown_versions.clone()))?;
        registry.register(Box::new(metrics.unexpected_acks.clone()))?;
        registry.register(Box::new(metrics.gateway_digests.clone()))?;
        for holdings in [Holdings::Equal, Holdings::Different, Holdings::Apart] {
            metrics.gateway_digests.with_label_values(&[name(holdings)]).inc_by(0);
        }
        registry.register(Box::new(metrics.forwarded.clone()))?;
        registry.register(Box::new(metrics.streams_ended.clone()))?;
        registry.register(Box::new(metrics.connections.clone()))?;
        registry.register(Box::new(metrics.refused.clone()))?;
        registry.register(Box::new(metrics.peers_connected.clone()))?;
        Ok(metrics)
    }

    /// Shows since when a gateway lacks what it is to have.
    pub(crate) fn delivery_pending(&self, since: Option<Instant>) {
        let at = since.and_then(|since| SystemTime::now().checked_sub(since.elapsed()));
        let at = at.and_then(|at| at.duration_since(UNIX_EPOCH).ok());
        self.delivery_pending_since.set(at.map_or(0.0, |at| at.as_secs_f64()));
    }

    /// Counts what a gateway says it holds.
    pub(crate) fn compared(&self, holdings: Holdings) {
        self.gateway_digests.with_label_values(&[name(holdings)]).inc();
    }

    /// Counts a call that ended.
    pub(crate) fn call(&self, method: Method, status: &str, took: Duration) {
        match method.0.map(|index| &self.well[index]) {
            Some((requests, durations)) if status == OK => {
                requests.inc();
                durations.observe(took.as_secs_f64());
            }
            _ => {
                self.requests.with_label_values(&[method.name(), status]).inc();
                self.request_duration.with_label_values(&[method.name()]).observe(took.as_secs_f64());
            }
        }
    }
}

fn name(holdings: Holdings) -> &'static str {
    match holdings {
        Holdings::Apart => "apart",
        Holdings::Equal => "equal",
        Holdings::Different => "different",
    }
}
