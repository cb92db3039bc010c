//! The fleet's own CA in its Secret, and what a replica issues from it for itself.

use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use flotilla_certs::{
    Authorities, Authority, CertError, CertificatePem, LeafRequest, Rotation, Step, Stored, same_time,
};
use flotilla_k8s::Error;
use flotilla_k8s::ca::{self, CaPem, StoredCa};
use flotilla_k8s::clock::server_time;
use kube::Client;

use super::{CaSecret, Looked, Material};

/// Common name of the fleet's CA.
pub(super) const AUTHORITY: &str = "flotilla";

/// Steps that may be due at once: a replacement, and what follows from it.
const STEPS: usize = 4;

/// Takes up the CA from its Secret, or makes and stores it. However many
/// replicas do this at once, all get the same.
///
/// # Errors
/// When the API server refuses, or what is stored cannot be used.
pub async fn authority(client: &Client, secret: &CaSecret) -> anyhow::Result<Authority> {
    let found = get(client, secret, None, Rotation::default()).await?;
    Ok(signer(secret, found.pem)?)
}

/// Who signs. Those who deal with its leaves trust all of the bundle.
pub(super) fn signer(secret: &CaSecret, stored: CaPem) -> Result<Authority, CertError> {
    let pem = CertificatePem { certificate: stored.certificate, private_key: stored.private_key };
    Authority::from_pem(&secret.to_string(), pem, SystemTime::now())
}

/// What is stored, as the rotation knows it.
pub(super) fn stored(pem: CaPem) -> Stored {
    Stored { bundle: pem.certificate, private_key: pem.private_key, next: pem.next }
}

/// What the rotation wants stored, as the Secret knows it.
pub(super) fn pem(stored: Stored) -> CaPem {
    CaPem { certificate: stored.bundle, private_key: stored.private_key, next: stored.next }
}

/// Reads the CA. Where there is none, it stores `held`, which this replica goes by, or
/// a new one.
async fn get(
    client: &Client,
    secret: &CaSecret,
    held: Option<&Stored>,
    rotation: Rotation,
) -> Result<StoredCa, Error> {
    let make = || match held {
        Some(held) => {
            tracing::warn!(secret = %secret, "the Secret with the CA is gone, it is stored again");
            Ok(pem(held.clone()))
        }
        None => {
            let made = Authorities::first(AUTHORITY, rotation, SystemTime::now());
            made.map(pem).map_err(|error| Error::Permanent {
                what: "make a certificate authority".to_owned(),
                message: error.to_string(),
            })
        }
    };
    ca::get_or_create(client, &secret.namespace, &secret.name, make).await
}

/// What a step is taken by must be the time for the API server, too: what is written is
/// for all replicas, and one whose clock is fast would end what the others go by.
pub(super) async fn shared_time(client: &Client, now: SystemTime) -> anyhow::Result<()> {
    let theirs = server_time(client).await?;
    same_time(now, "the API server", theirs).context("the CA is not rotated by a clock that may be wrong")
}

/// A replica's certificate from the fleet's CA.
pub(super) struct SelfSigned {
    pub client: Client,
    pub secret: CaSecret,
    pub rotation: Rotation,
    pub request: LeafRequest,
    /// What was read last and could be used. It is put back if somebody deletes the
    /// Secret under a running fleet: with another CA every gateway would be a stranger.
    pub held: Option<Stored>,
}

impl SelfSigned {
    /// How often the Secret is read: often enough to trust the next CA long before
    /// it signs, and to renew a short certificate in time.
    pub fn interval(&self) -> Duration {
        (self.rotation.overlap / 4)
            .min(self.request.lifetime / 12)
            .clamp(Duration::from_millis(500), Duration::from_secs(60))
    }

    /// Reads the Secret, takes the step that is due, and issues what is needed.
    pub async fn look(&mut self, held: Option<&Material>, now: SystemTime) -> anyhow::Result<Looked> {
        let what = self.secret.to_string();
        let mut trouble = None;
        let mut found = get(&self.client, &self.secret, self.held.as_ref(), self.rotation).await?;
        let mut authorities = Authorities::read(&what, stored(found.pem.clone()), now)?;
        let held_before = self.held.clone().map(|held| Authorities::read(&what, held, now)).transpose()?;
        if let Some(before) = held_before.filter(|before| authorities.usurp(before, now)) {
            tracing::error!(
                secret = what,
                "another CA stands where the fleet's was, the fleet's is put back: with the other one every \
                 gateway would be a stranger"
            );
            match ca::replace(&self.client, &found, pem(before.stored().clone())).await {
                // Another replica may have been first.
                Ok(()) | Err(Error::Conflict { .. }) => {}
                Err(error) => {
                    return Err(anyhow::Error::new(error).context("the fleet's CA cannot be put back"));
                }
            }
            found = get(&self.client, &self.secret, self.held.as_ref(), self.rotation).await?;
            authorities = Authorities::read(&what, stored(found.pem.clone()), now)?;
            anyhow::ensure!(!authorities.usurp(&before, now), "another CA stands in {what} again");
        }
        for _ in 0..STEPS {
            let Some(step) = authorities.due(self.rotation, now) else { break };
            if let Err(error) = shared_time(&self.client, now).await {
                trouble = Some(error);
                break;
            }
            let next = authorities.after(step, AUTHORITY, self.rotation, now)?;
            match ca::replace(&self.client, &found, pem(next)).await {
                Ok(()) => said(&what, step),
                // Another replica was first.
                Err(Error::Conflict { .. }) => {}
                // What is there serves on.
                Err(error) => {
                    trouble = Some(anyhow::Error::new(error).context("the CA cannot be rotated"));
                    break;
                }
            }
            found = get(&self.client, &self.secret, self.held.as_ref(), self.rotation).await?;
            authorities = Authorities::read(&what, stored(found.pem.clone()), now)?;
        }
        let roots = authorities.roots(now)?;
        let signer = authorities.signer();
        let fits = |held: &&Material| {
            held.issuer == signer.pem().certificate && held.roots.same(&roots) && !held.is_due(now)
        };
        let material = match held.filter(fits) {
            Some(_) => None,
            None => {
                let leaf = signer.issue_leaf(&self.request, now)?;
                Some(Material::new(leaf, roots, signer.pem().certificate.clone(), now)?)
            }
        };
        self.held = Some(authorities.stored().clone());
        Ok(Looked { material, trouble })
    }
}

fn said(what: &str, step: Step) {
    match step {
        Step::Announce => tracing::info!(secret = what, "the next CA is announced and trusted"),
        Step::Promote => tracing::info!(secret = what, "the next CA signs from now on"),
        Step::Retire => tracing::info!(secret = what, "a CA whose time is over is trusted no more"),
        Step::Replace => {
            tracing::error!(
                secret = what,
                "the CA had ended, a new one is made: all gateways need its ca.crt"
            );
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use flotilla_certs::Identity;
    use kube::config::{KubeConfigOptions, Kubeconfig};

    use super::*;
    use crate::apiserver::{Embedded, start};

    const DAY: Duration = Duration::from_secs(24 * 3600);

    /// An API server with a CA that was made some days ago.
    pub(in crate::certs) async fn server(days: u32) -> (Embedded, Client, CaSecret, StoredCa) {
        let server = start(([127, 0, 0, 1], 0).into()).await.unwrap();
        let config = Kubeconfig::from_yaml(&server.kubeconfig).unwrap();
        let config = kube::Config::from_custom_kubeconfig(config, &KubeConfigOptions::default()).await;
        let client = Client::try_from(config.unwrap()).unwrap();
        let secret = CaSecret { namespace: "default".to_owned(), name: "ca".to_owned() };
        let made =
            Authorities::first(AUTHORITY, Rotation::default(), SystemTime::now() - days * DAY).unwrap();
        let found = ca::get_or_create(&client, "default", "ca", || Ok(pem(made))).await.unwrap();
        (server, client, secret, found)
    }

    fn own(client: &Client, secret: &CaSecret) -> SelfSigned {
        let identity = Identity::controller("cluster.local", "default", "f-0").unwrap();
        SelfSigned {
            client: client.clone(),
            secret: secret.clone(),
            rotation: Rotation::default(),
            request: LeafRequest::controller(identity, vec![], vec![]),
            held: None,
        }
    }

    #[tokio::test]
    async fn a_step_is_taken_at_the_api_servers_time_only() {
        let (server, client, secret, first) = server(0).await;
        let (mut own, now) = (own(&client, &secret), SystemTime::now());
        let held = own.look(None, now).await.unwrap().material.unwrap();
        // The next CA would be announced by then.
        for ahead in [250, 363] {
            let looked = own.look(Some(&held), now + ahead * DAY).await.unwrap();
            let trouble = format!("{:#}", looked.trouble.unwrap());
            for word in ["the CA is not rotated", "the API server", "set the clock"] {
                assert!(trouble.contains(word), "{word}: {trouble}");
            }
        }
        assert!(own.look(Some(&held), now + 400 * DAY).await.is_err());
        let found = ca::get(&client, &secret.namespace, &secret.name).await.unwrap();
        assert!(stored(found.pem) == stored(first.pem), "what is stored is untouched");
        server.server.shutdown().await;
    }

    #[tokio::test]
    async fn what_is_due_at_the_api_servers_time_is_done() {
        let (server, client, secret, first) = server(250).await;
        let looked = own(&client, &secret).look(None, SystemTime::now()).await.unwrap();
        assert!(looked.trouble.is_none());
        let found = ca::get(&client, &secret.namespace, &secret.name).await.unwrap();
        assert!(found.pem.next.is_some() && found.pem.private_key == first.pem.private_key);
        server.server.shutdown().await;
    }

    #[test]
    fn a_short_certificate_is_looked_after_often_enough() {
        let config = kube::Config::new("http://127.0.0.1:1".parse().unwrap());
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let _within = runtime.enter();
        let client = Client::try_from(config).unwrap();
        let secret = CaSecret { namespace: "default".to_owned(), name: "ca".to_owned() };
        let mut own = own(&client, &secret);
        assert_eq!(own.interval(), Duration::from_secs(60));
        own.request.lifetime = Duration::from_secs(60);
        assert_eq!(own.interval(), Duration::from_secs(5));
    }
}
