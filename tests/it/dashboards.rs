//! Dashboards and alerts that were made for the published operator, and for Kubernetes controllers in general, find
//! their metrics here: names, labels and types, as samples and not only as descriptions.

use flotilla_core::ids::Kind;

use crate::fleet::objects::answering;
use crate::fleet::waiting::{SOON, within};
use crate::fleet::{Against, Fleet};

/// How lines of `/metrics` begin after a route was delivered.
const PROMISED: [&str; 17] = [
    "# TYPE controller_runtime_reconcile_total counter",
    "controller_runtime_reconcile_total{controller=\"apiroute\"} ",
    "controller_runtime_reconcile_total{controller=\"ingress\"} ",
    "# TYPE controller_runtime_reconcile_errors_total counter",
    "controller_runtime_reconcile_errors_total{controller=\"apiroute\"} ",
    "# TYPE controller_runtime_reconcile_time_seconds histogram",
    "controller_runtime_reconcile_time_seconds_bucket{controller=\"apiroute\",le=",
    "avapigw_operator_crds_total{type=\"apiroute\"} 1",
    "avapigw_operator_crds_total{type=\"grpcbackend\"} 0",
    "avapigw_operator_gateways_connected 1",
    "# TYPE avapigw_operator_config_push_total counter",
    "avapigw_operator_config_push_total ",
    "avapigw_operator_config_push_errors_total ",
    "avapigw_operator_grpc_requests_total{method=\"RegisterGateway\",status=\"OK\"} ",
    "avapigw_operator_grpc_request_duration_seconds_bucket{method=\"RegisterGateway\",le=",
    "avapigw_operator_ingress_resources_processed_total ",
    "avapigw_operator_ingress_conversion_errors_total ",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metrics_that_dashboards_know_are_measured() {
    let Some(mut fleet) = Fleet::start(Against::Embedded).await else { return };
    fleet.tenants.namespaces(["team".to_owned()]).await;
    fleet.add_replicas_with(1, &["--enable-ingress-controller=true"]).await;
    fleet.add_gateways("gateway", 1).await;
    fleet.tenants.create(Kind::ApiRoute, "team", "one", answering("team", "one", "hi")).await;
    fleet.settled().await;
    within(SOON, "every promised metric", async || {
        let text = fleet.replicas[0].metrics().await?;
        let there = |start: &&str| text.lines().any(|line| line.starts_with(*start));
        let lacking: Vec<&str> = PROMISED.into_iter().filter(|start| !there(start)).collect();
        lacking.is_empty().then_some(()).ok_or_else(|| format!("{lacking:?} in\n{text}"))
    })
    .await;
    for counted in ["controller_runtime_reconcile_total", "avapigw_operator_config_push_total"] {
        let label = if counted.starts_with("controller") { "apiroute" } else { "" };
        let count = fleet.replicas[0].metric(counted, label).await.unwrap();
        assert!(count > 0.5, "{counted}: {count}");
    }
}
