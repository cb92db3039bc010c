//! What Vault answers, read without trusting it.
//!
//! Pure: from bytes to what is asked for, or a word about why not.

use serde::Deserialize;

use super::VaultError;
use crate::material::{certificate_pem, parse};
use crate::{CertificatePem, TrustRoots};

/// How much of Vault's own words is repeated.
const WORDS: usize = 300;

#[derive(Deserialize)]
struct Answer<T> {
    data: Option<T>,
}

fn data<T: serde::de::DeserializeOwned>(request: &str, body: &[u8]) -> Result<T, VaultError> {
    let read = serde_json::from_slice::<Answer<T>>(body);
    let read = read.map_err(|error| VaultError::nonsense(request, &error.to_string()))?;
    read.data.ok_or_else(|| VaultError::nonsense(request, "it has no data"))
}

/// The answer of `sign/<role>`: the chain as PEM, leaf first, without those who signed
/// themselves: whoever trusts these has them.
pub(super) fn signed(request: &str, body: &[u8]) -> Result<String, VaultError> {
    #[derive(Deserialize)]
    struct Data {
        certificate: String,
        #[serde(default)]
        ca_chain: Option<Vec<String>>,
    }
    let data: Data = data(request, body)?;
    let mut pem = data.certificate;
    for certificate in data.ca_chain.into_iter().flatten() {
        pem.push('\n');
        pem.push_str(&certificate);
    }
    // Read and written anew: what stands between certificates is left out.
    let chain = CertificatePem { certificate: pem, private_key: String::new() }.chain(request)?;
    let mut kept = String::new();
    for (place, certificate) in chain.iter().enumerate() {
        let parsed = parse(request, certificate)?;
        if place == 0 || parsed.subject() != parsed.issuer() {
            kept.push_str(&certificate_pem(certificate));
        }
    }
    Ok(kept)
}

/// The answer of `auth/<mount>/login`.
pub(super) fn token(request: &str, body: &[u8]) -> Result<String, VaultError> {
    #[derive(Deserialize)]
    struct Login {
        auth: Option<Auth>,
    }
    #[derive(Deserialize)]
    struct Auth {
        client_token: String,
    }
    let read = serde_json::from_slice::<Login>(body);
    // Not serde's words: they may repeat a part of the token.
    let read = read.map_err(|_| VaultError::nonsense(request, "it is no JSON of a login"))?;
    match read.auth {
        Some(auth)
            if !auth.client_token.is_empty() && auth.client_token.chars().all(|c| c.is_ascii_graphic()) =>
        {
            Ok(auth.client_token)
        }
        _ => Err(VaultError::nonsense(request, "it holds no token")),
    }
}

/// The answer of `issuers`: their ids.
pub(super) fn issuers(request: &str, body: &[u8]) -> Result<Vec<String>, VaultError> {
    #[derive(Deserialize)]
    struct Data {
        keys: Vec<String>,
    }
    let data: Data = data(request, body)?;
    let legal = |id: &String| !id.is_empty() && id.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
    match data.keys.iter().all(legal) {
        true => Ok(data.keys),
        false => Err(VaultError::nonsense(request, "the id of an issuer is none")),
    }
}

/// The answer of `issuer/<id>/json`: its own certificate as PEM.
pub(super) fn issuer(request: &str, body: &[u8]) -> Result<String, VaultError> {
    #[derive(Deserialize)]
    struct Data {
        certificate: String,
    }
    let data: Data = data(request, body)?;
    // One and no more, so that nobody is trusted who merely stands beside it.
    let roots = TrustRoots::from_pem(request, &data.certificate)?;
    match roots.count() {
        1 => Ok(data.certificate),
        count => Err(VaultError::nonsense(request, &format!("an issuer has {count} certificates"))),
    }
}

#[derive(Deserialize)]
struct Errors {
    errors: Vec<String>,
}

/// Whether a Vault says no, and not somebody in front of it or in its place.
pub(super) fn is_vaults(body: &[u8]) -> bool {
    serde_json::from_slice::<Errors>(body).is_ok()
}

/// Vault's own words about what is wrong, cut to a line.
pub(super) fn words(body: &[u8]) -> String {
    let text = match serde_json::from_slice::<Errors>(body) {
        Ok(errors) if !errors.errors.is_empty() => errors.errors.join("; "),
        Ok(_) => "without a reason".to_owned(),
        Err(_) => String::from_utf8_lossy(body).into_owned(),
    };
    let line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(WORDS).collect();
    line.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::{Authority, Identity, LeafRequest, check_issued};

    fn now() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(20_000 * 86_400)
    }

    fn request() -> LeafRequest {
        let identity = Identity::controller("fleet.local", "sys", "f-0").unwrap();
        LeafRequest::controller(identity, vec!["localhost".to_owned()], vec!["127.0.0.1".parse().unwrap()])
    }

    fn good() -> (Authority, CertificatePem, Value) {
        let authority = Authority::generate("vault", now()).unwrap();
        let pem = authority.issue_leaf(&request(), now()).unwrap();
        let answer = json!({
            "request_id": "x", "lease_duration": 0, "warnings": null, "auth": null,
            "data": {
                "certificate": pem.certificate,
                "issuing_ca": authority.roots().pem(),
                "ca_chain": [authority.roots().pem()],
                "serial_number": "7b", "expiration": 1_795_382_895,
            },
        });
        (authority, pem, answer)
    }

    /// What becomes of an answer to a request for this key.
    fn taken(
        authority: &Authority,
        key: &str,
        body: &[u8],
        at: SystemTime,
    ) -> Result<CertificatePem, VaultError> {
        let signed = signed("pki/sign/operator", body)?;
        let pem = CertificatePem { certificate: signed, private_key: key.to_owned() };
        check_issued("what pki/sign/operator issued", &pem, authority.roots(), &request(), at)?;
        Ok(pem)
    }

    #[test]
    fn a_chain_is_kept_without_those_who_signed_themselves() {
        let (authority, pem, answer) = good();
        let taken = taken(&authority, &pem.private_key, answer.to_string().as_bytes(), now()).unwrap();
        assert_eq!(taken.chain("x").unwrap(), pem.chain("x").unwrap());
    }

    #[test]
    fn what_vault_should_not_have_answered_is_refused_by_name() {
        let (authority, pem, answer) = good();
        let check = |change: &dyn Fn(&mut Value), key: &str, at: SystemTime, words: &str| {
            let mut answer = answer.clone();
            change(&mut answer);
            let error = taken(&authority, key, answer.to_string().as_bytes(), at).unwrap_err().to_string();
            assert!(error.contains("pki/sign/operator") && error.contains(words), "{words}: {error}");
        };
        let same = |_: &mut Value| {};
        let put = |certificate: String| {
            move |answer: &mut Value| answer["data"]["certificate"] = json!(certificate)
        };
        let key = &pem.private_key;
        let other = authority.issue_leaf(&request(), now()).unwrap();
        check(&same, &other.private_key, now(), "does not belong");
        check(&put(other.certificate), key, now(), "does not belong");
        check(&same, key, now() + Duration::from_secs(31 * 86_400), "expired");
        check(&same, key, now() - Duration::from_secs(86_400), "not valid before");
        check(&put(String::new()), key, now(), "does not belong");
        check(&put("no certificate".to_owned()), key, now(), "does not belong");
        check(&|answer| answer["data"]["certificate"] = json!(7), key, now(), "makes no sense");
        check(&|answer| answer["data"] = Value::Null, key, now(), "it has no data");
        check(
            &|answer| answer["data"]["ca_chain"] = json!(["-----BEGIN CERTIFICATE-----"]),
            key,
            now(),
            "unreadable",
        );
        let foreign = Authority::generate("vault", now()).unwrap().issue_leaf(&request(), now()).unwrap();
        check(&put(foreign.certificate), &foreign.private_key, now(), "not signed by the trusted authority");
        let nameless = LeafRequest { dns_names: Vec::new(), ..request() };
        let nameless = authority.issue_leaf(&nameless, now()).unwrap();
        check(&put(nameless.certificate), &nameless.private_key, now(), "does not name localhost");
        for body in ["", "{", "[]", "<html>", "null", "{\"data\":[]}", "\u{0}"] {
            let error = taken(&authority, key, body.as_bytes(), now()).unwrap_err();
            assert!(matches!(error, VaultError::Nonsense { .. }), "{body}: {error}");
        }
    }

    #[test]
    fn tokens_and_ids_that_could_smuggle_structure_are_none() {
        let login = |token: &str| token_of(&json!({"auth": {"client_token": token}}).to_string());
        assert_eq!(login("s.abc").unwrap(), "s.abc");
        for wrong in ["", "a b", "a\r\nX-Vault-Token: b", "ä"] {
            assert!(login(wrong).is_err(), "{wrong:?}");
        }
        for body in ["{}", "{\"auth\":null}", "x"] {
            assert!(token_of(body).is_err(), "{body}");
        }
        let listed =
            |id: &str| issuers("pki/issuers", json!({"data": {"keys": [id]}}).to_string().as_bytes());
        assert_eq!(listed("afe4-0f").unwrap(), ["afe4-0f"]);
        for wrong in ["", "../../sys/seal", "a?b", "a/b", "a\nb"] {
            assert!(listed(wrong).is_err(), "{wrong:?}");
        }
    }

    fn token_of(body: &str) -> Result<String, VaultError> {
        token("auth/kubernetes/login", body.as_bytes())
    }

    #[test]
    fn an_issuer_has_one_certificate() {
        let one = Authority::generate("a", now()).unwrap().roots().pem().to_owned();
        let body = |pem: &str| json!({"data": {"certificate": pem}}).to_string();
        assert_eq!(issuer("pki/issuer/x/json", body(&one).as_bytes()).unwrap(), one);
        assert!(issuer("pki/issuer/x/json", body(&one.repeat(2)).as_bytes()).is_err());
    }

    #[test]
    fn words_are_one_short_line() {
        assert_eq!(words(b"{\"errors\":[\"permission denied\"]}"), "permission denied");
        assert_eq!(words(b"{\"errors\":[]}"), "without a reason");
        let long = words(format!("<html>\r\n{}", "x".repeat(5000)).as_bytes());
        assert!(long.len() <= WORDS && !long.contains('\n'), "{long}");
    }

    proptest! {
        /// An answer in which anything was changed is refused, or the certificate in
        /// it is the right one.
        #[test]
        fn damaged_answers_never_give_another_certificate(
            places in proptest::collection::vec((0.0..1.0_f64, any::<u8>()), 1..8),
        ) {
            let (authority, pem, answer) = good();
            let mut body = answer.to_string().into_bytes();
            for (at, byte) in places {
                #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a place in a short text")]
                let place = (body.len() as f64 * at) as usize;
                body[place] = byte;
            }
            if let Ok(taken) = taken(&authority, &pem.private_key, &body, now()) {
                prop_assert_eq!(&taken.chain("x").unwrap()[0], &pem.chain("x").unwrap()[0]);
            }
        }

        /// Whatever comes, something is said about it.
        #[test]
        fn any_bytes_at_all_are_read_without_a_panic(body in proptest::collection::vec(any::<u8>(), 0..512)) {
            prop_assert!(signed("a", &body).is_err());
            prop_assert!(token("a", &body).is_err());
            prop_assert!(issuers("a", &body).is_err());
            prop_assert!(issuer("a", &body).is_err());
            prop_assert!(words(&body).chars().count() <= WORDS);
        }
    }
}
