//! One request to Vault: a connection of its own, a deadline, a bound on the answer.
//!
//! Requests are rare (some a minute), so nothing is kept open between them; then
//! nothing has to be found out to be dead either.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST, LOCATION};
use http::{HeaderValue, Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::ServerName;
use serde_json::Value;
use tokio_rustls::TlsConnector;

use super::{VaultError, VaultSettings, answer};
use crate::{Connection, Dial, TrustRoots, provider};

/// Largest answer. A certificate with its chain has some kilobytes.
const LARGEST: usize = 1024 * 1024;

/// Standby nodes may send us to the active one.
const REDIRECTS: usize = 2;

/// Whom a connection to Vault believes.
enum Tls {
    /// What this machine trusts, read at the start.
    Machine(Arc<ClientConfig>),
    /// A file, read for every request: Vault's own authority is replaced some day, too.
    File(PathBuf),
}

impl Tls {
    async fn config(&self) -> Result<Arc<ClientConfig>, VaultError> {
        match self {
            Tls::Machine(config) => Ok(config.clone()),
            Tls::File(path) => {
                let path = path.clone();
                let read = tokio::task::spawn_blocking(move || believing(TrustRoots::read(&path)?.store()?));
                read.await.map_err(|error| VaultError::setting("--vault-cacert", &error.to_string()))?
            }
        }
    }
}

/// Requests to one address.
pub(super) struct Http {
    address: Uri,
    namespace: Option<HeaderValue>,
    tls: Option<Tls>,
    dial: Dial,
    timeout: Duration,
}

impl Http {
    /// Checks the settings; reads files.
    pub(super) fn new(settings: &VaultSettings, dial: Dial) -> Result<Self, VaultError> {
        let wrong = |problem: &str| {
            VaultError::setting(
                "--vault-addr",
                &format!("{:?}: {problem}; use http(s)://HOST:PORT", settings.address),
            )
        };
        if settings.address.contains('@') {
            // Not said again, and before all else: the address stands in errors.
            let problem = "it names a user; give a token or a role by the other flags instead";
            return Err(VaultError::setting("--vault-addr", problem));
        }
        let address: Uri = settings.address.parse().map_err(|_| wrong("it is no URL"))?;
        if address.host().is_none() || address.path_and_query().is_some_and(|path| path.as_str() != "/") {
            return Err(wrong("it needs a host and no path"));
        }
        let tls = match address.scheme_str() {
            Some("http") => None,
            Some("https") => Some(tls(settings)?),
            _ => return Err(wrong("it is neither http nor https")),
        };
        let namespace = settings.namespace.as_deref().filter(|name| !name.is_empty()).map(|name| {
            HeaderValue::from_str(name)
                .map_err(|_| VaultError::setting("--vault-namespace", "it cannot stand in a header"))
        });
        Ok(Http { address, namespace: namespace.transpose()?, tls, dial, timeout: settings.timeout })
    }

    /// Sends one request below `/v1/` and returns what a success answers.
    pub(super) async fn send(
        &self,
        method: Method,
        path: &str,
        token: Option<&str>,
        body: Option<Value>,
    ) -> Result<Vec<u8>, VaultError> {
        let sending = self.follow(&method, path, token, body);
        tokio::time::timeout(self.timeout, sending).await.map_err(|_| VaultError::Timeout {
            address: self.address.to_string(),
            request: format!("{method} {path}"),
            after: self.timeout,
        })?
    }

    async fn follow(
        &self,
        method: &Method,
        path: &str,
        token: Option<&str>,
        body: Option<Value>,
    ) -> Result<Vec<u8>, VaultError> {
        let request = format!("{method} {path}");
        let body = Bytes::from(body.map(|body| body.to_string()).unwrap_or_default());
        let mut target = self.address.clone();
        for _ in 0..=REDIRECTS {
            let (status, location, answer) = self.once(&target, method, path, token, body.clone()).await?;
            let message = || answer::words(&answer);
            return match status.as_u16() {
                200..=299 => Ok(answer),
                307 | 308 => {
                    target = self.elsewhere(&request, location)?;
                    continue;
                }
                401 | 403 => Err(VaultError::Denied { request, message: message() }),
                // 472 and 473: the secondary of a replication, a standby node.
                408 | 412 | 429 | 472 | 473 | 500..=599 => Err(VaultError::Away {
                    address: target.to_string(),
                    problem: format!("{request}: {status}: {}", message()),
                }),
                status if answer::is_vaults(&answer) => {
                    Err(VaultError::Refused { request, status, message: message() })
                }
                _ => Err(VaultError::nonsense(&request, &format!("{status}: {}", message()))),
            };
        }
        Err(VaultError::nonsense(&request, "it leads from one address to the next"))
    }

    /// Where a standby node sends us. Never from TLS to none: the token would follow.
    fn elsewhere(&self, request: &str, location: Option<HeaderValue>) -> Result<Uri, VaultError> {
        let wrong = || VaultError::nonsense(request, "it leads to an address that cannot be used");
        let location = location.as_ref().and_then(|location| location.to_str().ok()).ok_or_else(wrong)?;
        let location: Uri = location.parse().map_err(|_| wrong())?;
        if location.authority().is_none() || location.scheme() != self.address.scheme() {
            return Err(wrong());
        }
        Ok(location)
    }

    async fn once(
        &self,
        target: &Uri,
        method: &Method,
        path: &str,
        token: Option<&str>,
        body: Bytes,
    ) -> Result<(StatusCode, Option<HeaderValue>, Vec<u8>), VaultError> {
        let away = |problem: String| VaultError::Away { address: target.to_string(), problem };
        let host = target.host().unwrap_or_default();
        let port = target.port_u16().unwrap_or(if self.tls.is_some() { 443 } else { 80 });
        let stream = self.dial.connect(format!("{host}:{port}")).await;
        let mut stream: Connection = stream.map_err(|error| away(error.to_string()))?;
        if let Some(tls) = &self.tls {
            let name = ServerName::try_from(host.trim_matches(['[', ']']).to_owned())
                .map_err(|error| away(error.to_string()))?;
            let secured = TlsConnector::from(tls.config().await?).connect(name, stream).await;
            let hint = "its certificate is checked by --vault-cacert, or by what this machine trusts";
            stream = Box::new(secured.map_err(|error| away(format!("TLS: {error}; {hint}")))?);
        }
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| away(error.to_string()))?;
        let mut request = Request::builder()
            .method(method)
            .uri(format!("/v1/{path}"))
            .header(HOST, target.authority().map_or("", |authority| authority.as_str()))
            .header("X-Vault-Request", "true");
        if let Some(token) = token {
            let mut value = HeaderValue::from_str(token)
                .map_err(|_| VaultError::setting("--vault-token", "it cannot stand in a header"))?;
            value.set_sensitive(true);
            request = request.header("X-Vault-Token", value);
        }
        if let Some(namespace) = &self.namespace {
            request = request.header("X-Vault-Namespace", namespace);
        }
        if !body.is_empty() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        let request = request.body(Full::new(body)).map_err(|error| away(error.to_string()))?;
        let exchange = async {
            let answer = sender.send_request(request).await.map_err(|error| away(error.to_string()))?;
            let (head, body) = answer.into_parts();
            let body = Limited::new(body, LARGEST).collect().await;
            let body = body.map_err(|error| VaultError::nonsense(path, &error.to_string()))?;
            Ok((head.status, head.headers.get(LOCATION).cloned(), body.to_bytes().to_vec()))
        };
        // The connection is driven from here, so nothing is left when this is given up.
        let mut exchange = std::pin::pin!(exchange);
        tokio::select! {
            outcome = &mut exchange => outcome,
            // It may end with the last byte of the answer.
            _ = connection => exchange.await,
        }
    }
}

fn tls(settings: &VaultSettings) -> Result<Tls, VaultError> {
    if let Some(path) = &settings.ca_file {
        // Mistakes show at the start.
        believing(TrustRoots::read(path)?.store()?)?;
        return Ok(Tls::File(path.clone()));
    }
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        return Err(VaultError::setting(
            "--vault-cacert",
            "this machine trusts no authority; name the file with that of Vault's certificate",
        ));
    }
    Ok(Tls::Machine(believing(roots)?))
}

fn believing(roots: RootCertStore) -> Result<Arc<ClientConfig>, VaultError> {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| VaultError::setting("--vault-addr", &error.to_string()))?;
    Ok(Arc::new(builder.with_root_certificates(roots).with_no_client_auth()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vault::{Vault, VaultAuth};

    fn settings(address: &str) -> VaultSettings {
        VaultSettings {
            address: address.to_owned(),
            namespace: None,
            ca_file: None,
            auth: VaultAuth::Token("t".to_owned()),
            mount: "pki".to_owned(),
            role: "operator".to_owned(),
            timeout: Duration::from_secs(5),
        }
    }

    fn refused(settings: VaultSettings) -> String {
        Vault::new(settings, Dial::tcp()).err().unwrap().to_string()
    }

    #[test]
    fn settings_that_cannot_be_used_are_refused_by_flag_and_remedy() {
        for address in ["", "vault", "vault:8200", "ftp://vault", "http://vault/v1", "http://", "http:// x"] {
            let text = refused(settings(address));
            assert!(
                text.contains("--vault-addr") && text.contains("use http(s)://HOST:PORT"),
                "{address}: {text}"
            );
        }
        for address in ["https://user:pa55@vault:8200", "http://user:pa55@vault/v1", "user:pa55@vault"] {
            let text = refused(settings(address));
            assert!(text.starts_with("--vault-addr: it names a user") && !text.contains("pa55"), "{text}");
        }
        for mount in ["", "/pki", "pki/", "a//b", "../sys", "a?b", "a b"] {
            let text = refused(VaultSettings { mount: mount.to_owned(), ..settings("http://vault:8200") });
            assert!(text.contains("--vault-pki-mount"), "{mount}: {text}");
        }
        let text = refused(VaultSettings { role: "a/../b".to_owned(), ..settings("http://vault:8200") });
        assert!(text.contains("--vault-pki-role"), "{text}");
        let namespace = Some("a\r\nX: y".to_owned());
        let text = refused(VaultSettings { namespace, ..settings("http://vault:8200") });
        assert!(text.contains("--vault-namespace"), "{text}");
        let ca_file = Some(PathBuf::from("/nowhere/ca.crt"));
        let text = refused(VaultSettings { ca_file, ..settings("https://vault:8200") });
        assert!(text.contains("/nowhere/ca.crt"), "{text}");
        assert!(Vault::new(settings("http://[::1]:8200"), Dial::tcp()).is_ok());
    }

    #[test]
    fn a_token_is_not_printed() {
        let text = format!(
            "{:?}",
            VaultSettings { auth: VaultAuth::Token("s.SECRET".to_owned()), ..settings("http://v") }
        );
        assert!(!text.contains("SECRET"), "{text}");
    }
}
