//! The client of a Vault: against a real OpenBao, and against servers that answer what
//! no Vault should.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use flotilla_certs::vault::{Vault, VaultAuth, VaultError, VaultSettings};
use flotilla_certs::{Authority, CertError, Dial, Identity, LeafRequest, Usage, check_leaf};
use flotilla_testing::bao::Bao;
use http::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

fn settings(address: &str, token: &str) -> VaultSettings {
    VaultSettings {
        address: address.to_owned(),
        namespace: None,
        ca_file: None,
        auth: VaultAuth::Token(token.to_owned()),
        mount: "pki".to_owned(),
        role: "operator".to_owned(),
        timeout: Duration::from_secs(10),
    }
}

fn client(settings: VaultSettings) -> Vault {
    Vault::new(settings, Dial::tcp()).unwrap()
}

fn request() -> LeafRequest {
    let identity = Identity::controller("cluster.local", "avapigw-system", "flotilla-0").unwrap();
    let names = vec!["localhost".to_owned(), "flotilla.avapigw-system.svc".to_owned()];
    let addresses = vec!["127.0.0.1".parse().unwrap(), "::1".parse().unwrap()];
    LeafRequest { lifetime: Duration::from_secs(3600), ..LeafRequest::controller(identity, names, addresses) }
}

async fn issue(
    vault: &Vault,
) -> Result<(flotilla_certs::CertificatePem, flotilla_certs::TrustRoots), VaultError> {
    vault.issue(&request(), SystemTime::now()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_real_vault_signs_what_was_asked_for_and_says_no_in_its_own_words() {
    let folder = tempfile::tempdir().unwrap();
    let Some(bao) = Bao::start(folder.path()).await else { return };
    let first = bao.pki("pki", "operator").await;
    let with_tls = VaultSettings { ca_file: Some(bao.ca_file()), ..settings(&bao.url(), &bao.root_token) };
    let vault = client(with_tls.clone());
    let (leaf, roots) = issue(&vault).await.unwrap();
    let validity = check_leaf("own", &leaf, first.roots(), Usage::Client, SystemTime::now()).unwrap();
    let left = validity.not_after.duration_since(SystemTime::now()).unwrap();
    assert!(left <= Duration::from_secs(3600) && left > Duration::from_secs(3000), "{left:?}");
    assert!(roots.same(first.roots()));
    let (again, _) = issue(&vault).await.unwrap();
    assert_ne!(leaf.private_key, again.private_key, "every certificate has a key of its own");

    // The file with Vault's own authority may change.
    let own_ca = folder.path().join("own-ca.crt");
    std::fs::copy(bao.ca_file(), &own_ca).unwrap();
    let follows = client(VaultSettings { ca_file: Some(own_ca.clone()), ..with_tls.clone() });
    std::fs::write(&own_ca, first.roots().pem()).unwrap();
    assert!(matches!(issue(&follows).await.unwrap_err(), VaultError::Away { .. }));
    std::fs::write(&own_ca, "nothing").unwrap();
    assert!(matches!(issue(&follows).await.unwrap_err(), VaultError::Certificate(_)));
    std::fs::copy(bao.ca_file(), &own_ca).unwrap();
    issue(&follows).await.unwrap();

    // Below an intermediate the chain comes along, and the intermediate is who is trusted.
    bao.write("sys/mounts/inter", json!({"type": "pki"})).await;
    let asked = bao
        .write("inter/intermediate/generate/internal", json!({"common_name": "inter", "key_type": "ec"}))
        .await;
    let signed = json!({"csr": asked["data"]["csr"], "common_name": "inter", "use_csr_values": true});
    let signed = bao.write("pki/root/sign-intermediate", signed).await;
    let chain = format!("{}\n{}", signed["data"]["certificate"].as_str().unwrap(), first.roots().pem());
    bao.write("inter/intermediate/set-signed", json!({"certificate": chain})).await;
    let role = bao.request(Method::GET, "pki/roles/operator", Value::Null).await.unwrap();
    bao.write("inter/roles/operator", role["data"].clone()).await;
    let below = client(VaultSettings { mount: "inter".to_owned(), ..with_tls.clone() });
    let (leaf, _) = issue(&below).await.unwrap();
    assert_eq!(leaf.chain("own").unwrap().len(), 2, "the leaf and the intermediate");
    check_leaf("own", &leaf, first.roots(), Usage::Server, SystemTime::now()).unwrap();

    // What cannot go well, and in which words.
    let narrow = json!({
        "allowed_domains": "localhost", "allow_bare_domains": true, "allow_ip_sans": true, "key_type": "any",
        "allowed_uri_sans": "spiffe://cluster.local/*", "use_csr_sans": false, "require_cn": false,
        "allow_any_name": false,
    });
    bao.write("pki/roles/narrow", narrow).await;
    let nameless = json!({"allow_any_name": true, "key_type": "any", "no_store": true, "use_csr_sans": true,
        "allow_ip_sans": true, "server_flag": true, "client_flag": false, "require_cn": false,
        "allowed_uri_sans": "spiffe://*"});
    bao.write("pki/roles/servers", nameless).await;
    let at = |change: &dyn Fn(&mut VaultSettings)| {
        let mut settings = with_tls.clone();
        change(&mut settings);
        client(settings)
    };
    let wrong_ca = folder.path().join("wrong.crt");
    std::fs::write(&wrong_ca, Authority::generate("other", SystemTime::now()).unwrap().roots().pem())
        .unwrap();
    for (vault, words) in [
        (at(&|s| s.role = "nobody".to_owned()), &["unknown role", "--vault-pki-role"][..]),
        (at(&|s| s.role = "narrow".to_owned()), &["400", "--vault-pki-role"]),
        (at(&|s| s.role = "servers".to_owned()), &["cannot be used as a client's certificate"]),
        (at(&|s| s.mount = "elsewhere".to_owned()), &["404", "--vault-pki-mount"]),
        (at(&|s| s.auth = VaultAuth::Token("s.wrong".to_owned())), &["permission denied", "token"]),
        (at(&|s| s.ca_file = Some(wrong_ca.clone())), &["is not available", "TLS", "--vault-cacert"]),
        (at(&|s| s.address = s.address.replace("https", "http")), &["--vault-addr"]),
        (
            at(&|s| s.auth = VaultAuth::TokenFile("/nowhere/token".into())),
            &["--vault-token-file", "/nowhere"],
        ),
        (at(&|s| s.namespace = Some("nowhere".to_owned())), &["--vault"]),
    ] {
        let text = issue(&vault).await.unwrap_err().to_string();
        for word in words {
            assert!(text.contains(word), "{word}: {text}");
        }
    }
}

/// Renewing what is not valid yet gives what begins later still.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_valid_yet_is_kept_until_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let Some(bao) = Bao::start(folder.path()).await else { return };
    bao.pki("pki", "operator").await;
    let vault = client(settings(&bao.open_url(), &bao.root_token));
    let issued = async || {
        let listed = bao.request(Method::GET, "pki/certs?list=true", Value::Null).await.unwrap();
        listed["data"]["keys"].as_array().unwrap().len()
    };
    let (now, before) = (SystemTime::now(), issued().await);
    // Certificates begin five minutes ago: a clock that is behind by less has no trouble.
    vault.issue(&request(), now - Duration::from_secs(200)).await.unwrap();
    assert_eq!(issued().await, before + 1);
    // One that is behind by more waits with what it has.
    let behind = now - Duration::from_secs(400);
    for _ in 0..3 {
        let early = vault.issue(&request(), behind).await.unwrap_err();
        assert!(matches!(early, VaultError::Certificate(CertError::NotYetValid { .. })), "{early}");
        assert_eq!(issued().await, before + 2);
    }
    let (first, _) = vault.issue(&request(), now).await.unwrap();
    assert_eq!(issued().await, before + 2);
    let (second, _) = vault.issue(&request(), now).await.unwrap();
    assert_eq!(issued().await, before + 3);
    assert_ne!(first.private_key, second.private_key, "it is used once");
    // What is kept and cannot be used after all is not kept for ever.
    vault.issue(&request(), behind).await.unwrap_err();
    let late = now + Duration::from_secs(2 * 3600);
    let ended = vault.issue(&request(), late).await.unwrap_err();
    assert!(matches!(ended, VaultError::Certificate(CertError::Expired { .. })), "{ended}");
    vault.issue(&request(), now).await.unwrap();
    // Another hour: the clock is wrong by more than anybody waits for, so each is new.
    let before = issued().await;
    for more in 1..3 {
        vault.issue(&request(), now - Duration::from_secs(3600)).await.unwrap_err();
        assert_eq!(issued().await, before + more);
    }
}

/// A token file is read again when its token is refused.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_that_ended_is_read_again_from_its_file() {
    let folder = tempfile::tempdir().unwrap();
    let Some(bao) = Bao::start(folder.path()).await else { return };
    bao.pki("pki", "operator").await;
    let file = folder.path().join("token");
    let token = async || {
        let made = bao.write("auth/token/create", json!({"policies": ["root"], "ttl": "1h"})).await;
        made["auth"]["client_token"].as_str().unwrap().to_owned()
    };
    let first = token().await;
    std::fs::write(&file, &first).unwrap();
    let vault =
        client(VaultSettings { auth: VaultAuth::TokenFile(file.clone()), ..settings(&bao.open_url(), "") });
    issue(&vault).await.unwrap();
    bao.write("auth/token/revoke", json!({"token": first})).await;
    assert!(matches!(issue(&vault).await.unwrap_err(), VaultError::Denied { .. }));
    std::fs::write(&file, format!("{}\n", token().await)).unwrap();
    issue(&vault).await.unwrap();
}

/// Answers every request with what `answer` makes of its path, and counts.
struct Scripted {
    address: String,
    seen: Arc<Mutex<Vec<String>>>,
    task: JoinHandle<()>,
}

impl Drop for Scripted {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Scripted {
    async fn start(answer: impl Fn(&str) -> Vec<u8> + Send + Sync + 'static) -> Scripted {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (kept, answer) = (seen.clone(), Arc::new(answer));
        let task = tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut head = Vec::new();
                while !head.windows(4).any(|end| end == b"\r\n\r\n") {
                    let mut more = [0; 4096];
                    match stream.read(&mut more).await {
                        Ok(count) if count > 0 => head.extend(&more[..count]),
                        _ => break,
                    }
                }
                let head = String::from_utf8_lossy(&head).into_owned();
                kept.lock().unwrap().push(head.clone());
                let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
                let _ = stream.write_all(&answer(&path)).await;
                let _ = stream.shutdown().await;
            }
        });
        Scripted { address, seen, task }
    }

    fn client(&self) -> Vault {
        let timeout = Duration::from_secs(2);
        client(VaultSettings { timeout, ..settings(&self.address, "s.token") })
    }
}

fn answer(status: &str, headers: &str, body: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n{headers}\r\n{body}", body.len()).into_bytes()
}

#[tokio::test]
async fn nonsense_is_an_error_whatever_it_is_and_never_a_hang() {
    let pem = Authority::generate("x", SystemTime::now()).unwrap().roots().pem().to_owned();
    let stranger = Authority::generate("y", SystemTime::now()).unwrap();
    let theirs = stranger.issue_leaf(&request(), SystemTime::now()).unwrap().certificate;
    let signed = |certificate: &str, issuer: &str| {
        json!({"data": {"certificate": certificate, "issuing_ca": issuer, "ca_chain": []}}).to_string()
    };
    let cases: Vec<Vec<u8>> = vec![
        Vec::new(),
        b"SSH-2.0-OpenSSH_9\r\n".to_vec(),
        vec![0xff; 5000],
        answer("200 OK", "", ""),
        answer("200 OK", "", "<html>"),
        answer("200 OK", "", "{\"data\":{}}"),
        answer("200 OK", "", &"[".repeat(100_000)),
        answer("200 OK", "", &"x".repeat(3_000_000)),
        answer("200 OK", "", &signed(&theirs, &pem)),
        answer("200 OK", "", &signed(&theirs, stranger.roots().pem())),
        answer("200 OK", "", &signed("", "")),
        b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{".to_vec(),
        answer("204 No Content", "", ""),
        answer("301 Moved Permanently", "location: http://127.0.0.1:1/\r\n", ""),
        answer("307 Temporary Redirect", "", ""),
        answer("307 Temporary Redirect", "location: gopher://x/\r\n", ""),
        answer("400 Bad Request", "", "{\"errors\":[\"no\"]}"),
        answer("403 Forbidden", "", "\u{1b}[31m"),
        answer("500 Internal Server Error", "", "{\"errors\":[]}"),
        answer("503 Service Unavailable", "", "{\"errors\":[\"Vault is sealed\"]}"),
    ];
    for case in cases {
        let shown = String::from_utf8_lossy(&case[..case.len().min(80)]).into_owned();
        let server = Scripted::start(move |_| case.clone()).await;
        let error = issue(&server.client()).await.err().unwrap_or_else(|| panic!("{shown} is taken"));
        let text = error.to_string();
        assert!(text.len() < 1000 && !text.contains('\u{1b}'), "{shown}: {text}");
    }
    // One that accepts and never says a word.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let timeout = Duration::from_millis(200);
    let address = format!("http://{}", silent.local_addr().unwrap());
    let vault = client(VaultSettings { timeout, ..settings(&address, "t") });
    assert!(matches!(issue(&vault).await.unwrap_err(), VaultError::Timeout { .. }));
    drop(silent);
    assert!(matches!(issue(&vault).await.unwrap_err(), VaultError::Away { .. }));
}

#[tokio::test]
async fn a_standby_node_leads_to_the_active_one_with_token_and_namespace() {
    let active =
        Scripted::start(|_| answer("503 Service Unavailable", "", "{\"errors\":[\"reached\"]}")).await;
    let target = active.address.clone();
    let standby = Scripted::start(move |path| {
        answer("307 Temporary Redirect", &format!("location: {target}{path}\r\n"), "")
    })
    .await;
    let namespace = Some("team/edge".to_owned());
    let vault = client(VaultSettings { namespace, ..settings(&standby.address, "s.token") });
    let error = issue(&vault).await.unwrap_err().to_string();
    assert!(error.contains("reached"), "{error}");
    let head = active.seen.lock().unwrap()[0].to_lowercase();
    for wanted in ["post /v1/pki/sign/operator", "x-vault-token: s.token", "x-vault-namespace: team/edge"] {
        assert!(head.contains(wanted), "{head}");
    }
    let itself = Arc::new(Mutex::new(String::new()));
    let target = itself.clone();
    let circle = Scripted::start(move |path| {
        let location = format!("location: {}{path}\r\n", target.lock().unwrap());
        answer("307 Temporary Redirect", &location, "")
    })
    .await;
    *itself.lock().unwrap() = circle.address.clone();
    let error = issue(&circle.client()).await.unwrap_err().to_string();
    assert!(error.contains("from one address to the next"), "{error}");
}

/// With each try one login and no more.
#[tokio::test]
async fn a_refused_token_is_tried_once_more_and_not_for_ever() {
    let server = Scripted::start(|path| match path {
        "/v1/auth/kubernetes/login" => answer("200 OK", "", "{\"auth\":{\"client_token\":\"s.x\"}}"),
        _ => answer("403 Forbidden", "", "{\"errors\":[\"permission denied\"]}"),
    })
    .await;
    let folder = tempfile::tempdir().unwrap();
    let jwt: &Path = &folder.path().join("jwt");
    std::fs::write(jwt, "a.b.c").unwrap();
    let auth = VaultAuth::Kubernetes {
        mount: "kubernetes".to_owned(),
        role: "flotilla".to_owned(),
        token_file: jwt.to_owned(),
    };
    let vault = client(VaultSettings { auth, ..settings(&server.address, "") });
    let paths = || {
        let seen = std::mem::take(&mut *server.seen.lock().unwrap());
        seen.iter().map(|head| head.split(' ').nth(1).unwrap().to_owned()).collect::<Vec<_>>()
    };
    let (login, sign) = ("/v1/auth/kubernetes/login", "/v1/pki/sign/operator");
    assert!(matches!(issue(&vault).await.unwrap_err(), VaultError::Denied { .. }));
    assert_eq!(paths(), [login, sign]);
    assert!(matches!(issue(&vault).await.unwrap_err(), VaultError::Denied { .. }));
    assert_eq!(paths(), [sign, login, sign]);
    std::fs::write(jwt, "two words").unwrap();
    let error = issue(&vault).await.unwrap_err();
    assert!(error.to_string().contains("--vault-k8s-token-file"), "{error}");
    assert!(!matches!(error, VaultError::Certificate(CertError::File { .. })));
}
