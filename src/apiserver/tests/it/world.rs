//! A server with certificates, clients for it, and the definition that the tests use.

use std::time::Duration;

use flotilla_apiserver::{ApiServer, Identity, Options, TlsOptions};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, DynamicObject, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::{ApiResource, GroupVersionKind};
use kube::{Client, Config};
use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use serde_json::{Value, json};

/// How long a condition may take to come true on a busy machine.
pub const DEADLINE: Duration = Duration::from_secs(20);

/// A certificate and its key, as PEM.
pub struct Pair {
    pub certificate: String,
    pub key: String,
}

/// A certificate authority.
pub struct Ca {
    issuer: Issuer<'static, KeyPair>,
    pub pem: String,
}

impl Ca {
    pub fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "test CA");
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    pub fn server(&self) -> Pair {
        let params = CertificateParams::new(vec!["127.0.0.1".to_owned(), "localhost".to_owned()]).unwrap();
        self.sign(params, ExtendedKeyUsagePurpose::ServerAuth)
    }

    pub fn client(&self, user: &str, group: &str) -> Pair {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, user);
        params.distinguished_name.push(DnType::OrganizationName, group);
        self.sign(params, ExtendedKeyUsagePurpose::ClientAuth)
    }

    fn sign(&self, mut params: CertificateParams, usage: ExtendedKeyUsagePurpose) -> Pair {
        params.extended_key_usages = vec![usage];
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap().pem();
        Pair { certificate, key: key.serialize_pem() }
    }
}

/// A running server and what is needed to reach it.
pub struct World {
    pub server: ApiServer,
    pub ca: Ca,
}

impl World {
    pub async fn start() -> Self {
        Self::start_with(Options::default()).await
    }

    /// With TLS, a token `root-token` for an administrator, and otherwise `options`.
    pub async fn start_with(mut options: Options) -> Self {
        let ca = Ca::new();
        let pair = ca.server();
        options.tls = Some(TlsOptions {
            certificate_pem: pair.certificate,
            private_key_pem: pair.key,
            client_ca_pem: Some(ca.pem.clone()),
        });
        options.tokens.push(("root-token".to_owned(), Identity::admin("root")));
        let server = ApiServer::start(options).await.unwrap();
        Self { server, ca }
    }

    /// A client of an administrator without a socket.
    pub fn local(&self) -> Client {
        Client::new(self.server.service(Identity::admin("local")), "default")
    }

    /// A client with a certificate, over TLS.
    pub async fn client(&self, user: &str, group: &str) -> Client {
        let config = self.kubeconfig(Login::Certificate(self.ca.client(user, group)));
        connect(config).await
    }

    /// A client with a bearer token, over TLS.
    pub async fn client_with_token(&self, token: &str) -> Client {
        connect(self.kubeconfig(Login::Token(token.to_owned()))).await
    }

    /// A kubeconfig for a login.
    pub fn kubeconfig(&self, login: Login) -> Kubeconfig {
        serde_json::from_value(self.kubeconfig_json(login)).unwrap()
    }

    /// A kubeconfig for a login, as kubectl reads it.
    pub fn kubeconfig_json(&self, login: Login) -> Value {
        let user = match login {
            Login::Certificate(pair) => json!({"client-certificate-data": encode(&pair.certificate),
                "client-key-data": encode(&pair.key)}),
            Login::Token(token) => json!({"token": token}),
            Login::Nobody => json!({}),
        };
        let cluster =
            json!({"server": self.server.url(), "certificate-authority-data": encode(&self.ca.pem)});
        json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "test",
            "clusters": [{"name": "test", "cluster": cluster}],
            "users": [{"name": "test", "user": user}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
        })
    }
}

/// How a client shows who it is.
pub enum Login {
    Certificate(Pair),
    Token(String),
    Nobody,
}

/// A client for a kubeconfig.
pub async fn connect(kubeconfig: Kubeconfig) -> Client {
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
    Client::try_from(config).unwrap()
}

fn encode(text: &str) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(text)
}

/// A definition like those of gateway routes.
pub fn definition() -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "apiroutes.test.example"},
        "spec": {
            "group": "test.example", "scope": "Namespaced",
            "names": {"plural": "apiroutes", "kind": "APIRoute", "shortNames": ["ar"], "categories": ["routing"]},
            "versions": [{
                "name": "v1alpha1", "served": true, "storage": true,
                "subresources": {"status": {}},
                "selectableFields": [{"jsonPath": ".spec.host"}],
                "additionalPrinterColumns": [
                    {"name": "Ready", "type": "string",
                     "jsonPath": ".status.conditions[?(@.type=='Ready')].status"},
                    {"name": "Host", "type": "string", "jsonPath": ".spec.host", "priority": 1},
                    {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}],
                "schema": {"openAPIV3Schema": schema()}
            }]
        }
    })
}

fn schema() -> Value {
    let condition = json!({
        "type": "object", "required": ["type", "status"],
        "properties": {
            "type": {"type": "string"}, "status": {"type": "string"},
            "reason": {"type": "string"}, "message": {"type": "string"},
            "lastTransitionTime": {"type": "string", "format": "date-time"},
            "observedGeneration": {"type": "integer"}}
    });
    let spec = json!({
        "type": "object", "required": ["host"], "description": "Spec is what is wanted.",
        "properties": {
            "host": {"type": "string", "minLength": 1, "description": "Host is matched."},
            "port": {"type": "integer", "minimum": 1, "maximum": 65535, "default": 8080},
            "weight": {"type": "integer", "minimum": 0, "maximum": 100}},
        "x-kubernetes-validations": [{"rule": "!has(self.weight) || self.weight != 13",
            "message": "weight must not be unlucky"}]
    });
    let status = json!({"type": "object", "properties": {
        "observedGeneration": {"type": "integer"},
        "conditions": {"type": "array", "items": condition}}});
    json!({"type": "object", "description": "APIRoute routes requests.",
        "properties": {"spec": spec, "status": status}})
}

/// An object of that definition.
pub fn route(name: &str) -> DynamicObject {
    let value = json!({"apiVersion": "test.example/v1alpha1", "kind": "APIRoute",
        "metadata": {"name": name}, "spec": {"host": "a.example"}});
    serde_json::from_value(value).unwrap()
}

/// The definition's resource.
pub fn routes(client: &Client, namespace: &str) -> Api<DynamicObject> {
    Api::namespaced_with(client.clone(), namespace, &route_resource())
}

/// The definition's resource in all namespaces.
pub fn all_routes(client: &Client) -> Api<DynamicObject> {
    Api::all_with(client.clone(), &route_resource())
}

pub fn route_resource() -> ApiResource {
    ApiResource::from_gvk_with_plural(
        &GroupVersionKind::gvk("test.example", "v1alpha1", "APIRoute"),
        "apiroutes",
    )
}

/// Creates the definition.
pub async fn define(client: &Client) {
    let definition: CustomResourceDefinition = serde_json::from_value(definition()).unwrap();
    Api::all(client.clone()).create(&PostParams::default(), &definition).await.unwrap();
}

/// Waits until `check` gives something.
pub async fn eventually<T, F: Future<Output = Option<T>>>(what: &str, mut check: impl FnMut() -> F) -> T {
    let found = tokio::time::timeout(DEADLINE, async {
        loop {
            if let Some(found) = check().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    found.await.unwrap_or_else(|_| panic!("not within {DEADLINE:?}: {what}"))
}

/// The code of the error that a request ended with.
pub fn code<T: std::fmt::Debug>(result: Result<T, kube::Error>) -> u16 {
    match result {
        Err(kube::Error::Api(status)) => status.code,
        other => panic!("no API error: {other:?}"),
    }
}

/// The message of the error that a request ended with.
pub fn message<T: std::fmt::Debug>(result: Result<T, kube::Error>) -> String {
    match result {
        Err(kube::Error::Api(status)) => status.message,
        other => panic!("no API error: {other:?}"),
    }
}
