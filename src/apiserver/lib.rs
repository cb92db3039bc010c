//! An embedded Kubernetes-compatible API server.
//!
//! It serves namespaces, ConfigMaps, Secrets, Services, Events, Leases, Ingresses, EndpointSlices and custom
//! resources from memory, so that kubectl and kube-rs find what they expect: it is the control plane of the
//! standalone mode and the test bed in which faults are injected. It is one process and keeps nothing: for high
//! availability there is Kubernetes.
//!
//! A request's way: [`server`](ApiServer) accepts it, `http` understands, authenticates and authorises it,
//! [`Faults`] may strike, `registry` says what the object becomes, and `store` keeps it and tells the watches.
//!
//! ```no_run
//! # async fn example() -> Result<(), flotilla_apiserver::Error> {
//! use flotilla_apiserver::{ApiServer, Identity, Options};
//!
//! let options = Options { tokens: vec![("secret".into(), Identity::admin("root"))], ..Options::default() };
//! let server = ApiServer::start(options).await?;
//! // … clients talk to server.url() …
//! server.shutdown().await;
//! # Ok(())
//! # }
//! ```

pub mod patch;
pub mod schema;
pub mod table;

mod apply;
mod auth;
mod faults;
mod http;
mod options;
mod registry;
mod server;
mod state;
mod status;
mod store;
mod tls;
mod verb;

pub use crate::http::{Body, Cut, Place, Query, asked};
pub use auth::{Identity, MASTERS, Permission};
pub use faults::{Effect, Faults, Matcher, Rule, RuleId};
pub use options::{Error, Options, TlsOptions};
pub use server::{ApiServer, LocalService};
pub use store::Backup;
pub use verb::{RequestKind, Verb};
