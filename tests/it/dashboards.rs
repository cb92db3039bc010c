//! Dashboards and alerts that were made for the published operator, and for Kubernetes controllers in general, find
//! their metrics here: names, labels and types, as samples and not only as descriptions.

use flotilla_core::ids::Kind;

use crate::fleet::objects::answering;
use crate::fleet::waiting::{SOON, within};
use crate::fleet::{Against, Fleet};

/// How lines of `/metrics` begin after a route was delivered.
const PROMISED: [&str; 49] = [
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
    "avapigw_operator_ingress_resources_processed_total{result=\"success\"} ",
    "avapigw_operator_ingress_resources_processed_total{result=\"error\"} ",
    "avapigw_operator_ingress_conversion_errors_total ",
    "flotilla_build_info{version=",
    "avapigw_operator_build_info{version=",
    "# TYPE process_cpu_seconds_total counter",
    "process_resident_memory_bytes ",
    "process_open_fds ",
    "process_max_fds ",
    "process_start_time_seconds ",
    "avapigw_operator_reconcile_total{controller=\"apiroute\",result=\"success\"} ",
    "avapigw_operator_reconcile_total{controller=\"ingress\",result=\"error\"} ",
    "avapigw_operator_reconcile_errors_total{controller=\"apiroute\"} ",
    "avapigw_operator_reconcile_duration_seconds_bucket{controller=\"apiroute\",le=",
    "avapigw_operator_resources_total{kind=\"APIRoute\"} 1",
    "avapigw_operator_status_update_total{kind=\"APIRoute\",result=\"success\"} ",
    "avapigw_operator_status_update_errors_total{kind=\"APIRoute\"} 0",
    "avapigw_operator_status_update_duration_seconds_bucket{kind=\"APIRoute\",le=",
    "avapigw_operator_grpc_active_gateways 1",
    "avapigw_operator_grpc_config_applied_total ",
    "avapigw_operator_grpc_reaped_gateways_total 0",
    "avapigw_operator_finalizer_operations_total{controller=\"apiroute\",operation=\"add\"} 1",
    "avapigw_operator_finalizer_operations_total{controller=\"grpcbackend\",operation=\"remove\"} 0",
    "avapigw_operator_finalizer_operations_total{controller=\"ingress\",operation=\"remove\"} 0",
    "flotilla_events_total{result=\"dropped\"} 0",
    "avapigw_operator_webhook_validations_total{operation=\"CREATE\",resource=\"APIRoute\",result=\"denied\"} 0",
    "avapigw_operator_webhook_validation_warnings_total{resource=\"Ingress\"} 0",
    "# TYPE avapigw_operator_webhook_duplicate_check_total counter",
    "avapigw_operator_cert_issued_total{provider=\"selfsigned\"} 1",
    "avapigw_operator_cert_rotations_total{provider=\"selfsigned\"} 0",
    "avapigw_operator_cert_errors_total{operation=\"renew\",provider=\"selfsigned\"} 0",
    "# TYPE avapigw_operator_cert_expiry_seconds gauge",
    "avapigw_operator_cert_expiry_seconds{common_name=\"flotilla-0\"} ",
    "# TYPE avapigw_operator_webhook_validations_total counter",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metrics_that_dashboards_know_are_measured() {
    let Some(mut fleet) = Fleet::start(Against::Embedded).await else { return };
    fleet.tenants.namespaces(["team".to_owned()]).await;
    fleet.add_replicas_with(1, &["--enable-ingress-controller=true", "--finalizers=true"]).await;
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
    for (counted, label) in [
        ("controller_runtime_reconcile_total", "apiroute"),
        ("avapigw_operator_config_push_total", ""),
        ("avapigw_operator_grpc_config_applied_total", ""),
        ("avapigw_operator_status_update_total", "result=\"success\""),
        ("avapigw_operator_reconcile_total", "result=\"success\""),
        ("process_resident_memory_bytes", ""),
        // Of a certificate that has just been issued for 30 days.
        ("avapigw_operator_cert_expiry_seconds", ""),
    ] {
        let count = fleet.replicas[0].metric(counted, label).await.unwrap();
        assert!(count > 0.5, "{counted}: {count}");
    }
}
