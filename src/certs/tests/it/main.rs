//! Handshakes over in-memory pipes: what the configurations accept and refuse.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use flotilla_certs::{
    Alpn, Authority, CertificatePem, ClientAuth, ClientTls, Identity, LeafRequest, ServerCheck, ServerTls,
    peer_identity,
};
use rustls::ServerConfig;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::{TlsAcceptor, TlsConnector};

struct Fleet(Authority);

impl Fleet {
    fn new() -> Self {
        Fleet(Authority::generate("fleet authority", SystemTime::now()).unwrap())
    }

    fn controller(&self, trust_domain: &str, name: &str) -> CertificatePem {
        let identity = Identity::controller(trust_domain, "system", name).unwrap();
        let request = LeafRequest::controller(identity, vec!["localhost".to_owned()], Vec::new());
        self.0.issue_leaf(&request, SystemTime::now()).unwrap()
    }

    fn gateway(&self, at: SystemTime) -> CertificatePem {
        let identity = Identity::gateway("fleet.local", "edge", "gw").unwrap();
        self.0.issue_leaf(&LeafRequest::gateway(identity), at).unwrap()
    }

    fn server(&self, client_auth: ClientAuth) -> ServerTls {
        ServerTls::new(&self.controller("fleet.local", "f-0"), self.0.roots(), client_auth, Alpn::H2).unwrap()
    }

    fn client(&self, certificate: Option<&CertificatePem>) -> ClientTls {
        ClientTls::new(certificate, self.0.roots(), ServerCheck::Name, Alpn::H2).unwrap()
    }
}

/// One handshake and one byte in each direction, which TLS 1.3 needs for the
/// client to learn that its certificate was refused. Returns what each side
/// ended with; the server's is the name of the client, or "nobody".
async fn shake(
    server: Arc<ServerConfig>,
    client: &ClientTls,
    host: &'static str,
) -> (io::Result<String>, io::Result<()>) {
    let (near, far) = tokio::io::duplex(16 * 1024);
    let serve = async {
        let mut stream = TlsAcceptor::from(server).accept(near).await?;
        stream.read_u8().await?;
        stream.write_u8(1).await?;
        stream.flush().await?;
        let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
        Ok(peer_identity(chain).map_or_else(|_| "nobody".to_owned(), |who| who.to_string()))
    };
    let connect = async {
        let name = ServerName::try_from(host).unwrap();
        let mut stream = TlsConnector::from(client.config()).connect(name, far).await?;
        stream.write_u8(1).await?;
        stream.flush().await?;
        stream.read_u8().await.map(|_| ())
    };
    tokio::time::timeout(Duration::from_secs(10), async { tokio::join!(serve, connect) }).await.unwrap()
}

#[track_caller]
fn assert_problem(problem: io::Error, expected: &str) {
    assert!(problem.to_string().contains(expected), "{problem} should say {expected}");
}

#[tokio::test]
async fn both_sides_learn_who_the_other_is() {
    let fleet = Fleet::new();
    let client = fleet.client(Some(&fleet.gateway(SystemTime::now())));
    let (who, connected) = shake(fleet.server(ClientAuth::Required).config(), &client, "localhost").await;
    connected.unwrap();
    assert_eq!(who.unwrap(), "spiffe://fleet.local/ns/edge/gateway/gw");
}

#[tokio::test]
async fn a_client_without_certificate_is_let_in_only_where_that_is_optional() {
    let fleet = Fleet::new();
    let client = fleet.client(None);
    let (who, connected) = shake(fleet.server(ClientAuth::Required).config(), &client, "localhost").await;
    assert_problem(who.unwrap_err(), "no certificates");
    connected.unwrap_err();
    let (who, connected) = shake(fleet.server(ClientAuth::Optional).config(), &client, "localhost").await;
    connected.unwrap();
    assert_eq!(who.unwrap(), "nobody");
}

#[tokio::test]
async fn foreign_and_expired_clients_are_refused_even_where_certificates_are_optional() {
    let fleet = Fleet::new();
    let foreign = Fleet::new().gateway(SystemTime::now());
    let old = Authority::generate("old", SystemTime::now() - Duration::from_secs(90 * 86_400)).unwrap();
    let expired_fleet = Fleet(old);
    let expired = expired_fleet.gateway(SystemTime::now() - Duration::from_secs(60 * 86_400));
    for client_auth in [ClientAuth::Required, ClientAuth::Optional] {
        let (who, _) =
            shake(fleet.server(client_auth).config(), &fleet.client(Some(&foreign)), "localhost").await;
        assert_problem(who.unwrap_err(), "UnknownIssuer");
        let client = expired_fleet.client(Some(&expired));
        let (who, _) = shake(expired_fleet.server(client_auth).config(), &client, "localhost").await;
        assert_problem(who.unwrap_err(), "expired");
    }
}

#[tokio::test]
async fn a_client_refuses_a_server_of_another_name_or_authority() {
    let fleet = Fleet::new();
    let client = fleet.client(Some(&fleet.gateway(SystemTime::now())));
    let server = fleet.server(ClientAuth::Required).config();
    let (_, connected) = shake(server, &client, "elsewhere.example").await;
    assert_problem(connected.unwrap_err(), "not valid for name");
    let (_, connected) =
        shake(Fleet::new().server(ClientAuth::Required).config(), &client, "localhost").await;
    assert_problem(connected.unwrap_err(), "UnknownIssuer");
}

#[tokio::test]
async fn replicas_check_the_identity_and_not_the_address() {
    let fleet = Fleet::new();
    let own = fleet.controller("fleet.local", "f-1");
    let check = ServerCheck::Controller { trust_domain: "fleet.local".into() };
    let client = ClientTls::new(Some(&own), fleet.0.roots(), check, Alpn::H2).unwrap();
    let (_, connected) = shake(fleet.server(ClientAuth::Required).config(), &client, "10.1.2.3").await;
    connected.unwrap();

    let elsewhere = fleet.controller("other.local", "f-0");
    let server = ServerTls::new(&elsewhere, fleet.0.roots(), ClientAuth::Required, Alpn::H2).unwrap();
    let (_, connected) = shake(server.config(), &client, "localhost").await;
    let problem = connected.unwrap_err().to_string();
    assert!(problem.contains("spiffe://other.local/ns/system/controller/f-0"), "{problem}");
    let (_, connected) =
        shake(Fleet::new().server(ClientAuth::Required).config(), &client, "localhost").await;
    assert_problem(connected.unwrap_err(), "UnknownIssuer");
}

#[tokio::test]
async fn a_swap_changes_the_next_handshake_and_a_failed_one_changes_nothing() {
    let (old, new) = (Fleet::new(), Fleet::new());
    let server = old.server(ClientAuth::Required);
    let old_client = old.client(Some(&old.gateway(SystemTime::now())));
    shake(server.config(), &old_client, "localhost").await.1.unwrap();

    let mixed = CertificatePem {
        private_key: new.controller("fleet.local", "f-0").private_key,
        ..new.controller("fleet.local", "f-0")
    };
    server.swap(&mixed, new.0.roots()).unwrap_err();
    shake(server.config(), &old_client, "localhost").await.1.unwrap();

    server.swap(&new.controller("fleet.local", "f-0"), new.0.roots()).unwrap();
    shake(server.config(), &old_client, "localhost").await.1.unwrap_err();
    old_client.swap(Some(&new.gateway(SystemTime::now())), new.0.roots()).unwrap();
    shake(server.config(), &old_client, "localhost").await.1.unwrap();
}
