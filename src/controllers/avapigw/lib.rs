//! The AVAPIGW family: compiles routes and backends for gateways and plans their statuses.
