//! Certificates in files that somebody else writes.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use flotilla_certs::{Authority, CertificatePem, Identity, LeafRequest, TrustRoots};
use flotilla_testing::fleet::gateways::TRUST_DOMAIN;

use super::watched::{Changes, all_say, all_serve, gateway_tls, nobody_noticed, settle};
use crate::fleet::waiting::{SOON, within};
use crate::fleet::{Against, Fleet};

/// A folder as a kubelet keeps it.
struct Mounted {
    folder: PathBuf,
    version: u32,
}

impl Mounted {
    fn new(folder: PathBuf) -> Mounted {
        std::fs::create_dir_all(&folder).unwrap();
        for file in ["ca.crt", "tls.crt", "tls.key"] {
            symlink(Path::new("..data").join(file), folder.join(file)).unwrap();
        }
        Mounted { folder, version: 0 }
    }

    /// Exchanges all files at once, as a kubelet does.
    fn publish(&mut self, roots: &str, leaf: &CertificatePem) {
        self.version += 1;
        let name = format!("..version_{}", self.version);
        let place = self.folder.join(&name);
        std::fs::create_dir(&place).unwrap();
        std::fs::write(place.join("ca.crt"), roots).unwrap();
        std::fs::write(place.join("tls.crt"), &leaf.certificate).unwrap();
        std::fs::write(place.join("tls.key"), &leaf.private_key).unwrap();
        symlink(&name, self.folder.join("..data_tmp")).unwrap();
        std::fs::rename(self.folder.join("..data_tmp"), self.folder.join("..data")).unwrap();
    }
}

/// By which names gateways and API servers may reach a replica.
const NAMES: [&str; 5] = [
    "localhost",
    "flotilla",
    "flotilla.avapigw-system",
    "flotilla.avapigw-system.svc",
    "flotilla.avapigw-system.svc.cluster.local",
];

fn request(number: usize) -> LeafRequest {
    let identity =
        Identity::controller(TRUST_DOMAIN, "avapigw-system", &format!("flotilla-{number}")).unwrap();
    let names = NAMES.map(str::to_owned).to_vec();
    LeafRequest::controller(identity, names, vec!["127.0.0.1".parse().unwrap()])
}

fn leaf(authority: &Authority, number: usize) -> CertificatePem {
    authority.issue_leaf(&request(number), SystemTime::now()).unwrap()
}

/// Made an hour ago, so that what it signed then is there, too.
fn authority(name: &str) -> Authority {
    Authority::generate(name, SystemTime::now() - Duration::from_secs(3600)).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_are_followed_and_bad_ones_are_not_taken() {
    let Some(mut fleet) = Fleet::start(Against::Embedded).await else { return };
    let (old, new) = (authority("old"), authority("new"));
    let both = format!("{}{}", old.roots().pem(), new.roots().pem());
    let mut mounted: Vec<Mounted> =
        (0..3).map(|number| Mounted::new(fleet.path().join(format!("tls-{number}")))).collect();
    for (number, folder) in mounted.iter_mut().enumerate() {
        folder.publish(old.roots().pem(), &leaf(&old, number));
        let flag = format!("--cert-dir={}", folder.folder.display());
        fleet.add_replica(&["--cert-provider=files", &flag]).start();
    }
    for replica in &mut fleet.replicas {
        replica.ready().await;
    }
    fleet.map_of_running().await;
    settle(&mut fleet, &old, 3).await;
    let changes = Changes::start(&fleet);
    let publish = |mounted: &mut Vec<Mounted>, roots: &str, signer: &Authority| {
        for (number, folder) in mounted.iter_mut().enumerate() {
            folder.publish(roots, &leaf(signer, number));
        }
    };

    // Another leaf; then both are trusted; then the new one signs.
    publish(&mut mounted, old.roots().pem(), &old);
    all_say(&fleet, "flotilla_certificate_updates_total", "result=\"used\"", 1.0).await;
    publish(&mut mounted, &both, &old);
    all_say(&fleet, "flotilla_trusted_authorities", "", 2.0).await;
    all_serve(&fleet, "who has a certificate of the new CA", &gateway_tls(&new, old.roots())).await;
    publish(&mut mounted, &both, &new);
    all_serve(&fleet, "who believes only the new CA", &gateway_tls(&old, new.roots())).await;

    // What cannot be used is not, and is told.
    let believes = TrustRoots::from_pem("new", new.roots().pem()).unwrap();
    let old_leaf = LeafRequest { lifetime: Duration::from_secs(1), ..LeafRequest::new("x") };
    let ended = new.issue_leaf(&old_leaf, SystemTime::now() - Duration::from_secs(60)).unwrap();
    let gateway = Identity::gateway(TRUST_DOMAIN, "edge", "gw").unwrap();
    let gateway = new.issue_leaf(&LeafRequest::gateway(gateway), SystemTime::now()).unwrap();
    let good = leaf(&new, 0);
    let nameless = LeafRequest { dns_names: vec!["localhost".to_owned()], ..request(0) };
    let nameless = new.issue_leaf(&nameless, SystemTime::now()).unwrap();
    let mixed = CertificatePem { private_key: leaf(&new, 0).private_key, ..good.clone() };
    for (roots, bad) in [
        (both.as_str(), &mixed),
        (old.roots().pem(), &good),
        (&both, &ended),
        (&both, &gateway),
        (&both, &nameless),
        ("", &good),
        ("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", &good),
    ] {
        for folder in &mut mounted {
            folder.publish(roots, bad);
        }
        all_say(&fleet, "flotilla_certificate_source_failing", "", 1.0).await;
        all_serve(&fleet, "gateways as before", &gateway_tls(&old, &believes)).await;
        publish(&mut mounted, &both, &new);
        all_say(&fleet, "flotilla_certificate_source_failing", "", 0.0).await;
    }

    // What nobody renews is used to its end, and told long before: five minutes of an hour.
    let minute = Duration::from_secs(60);
    for (number, folder) in mounted.iter_mut().enumerate() {
        let old = LeafRequest { lifetime: 55 * minute, ..request(number) };
        folder.publish(&both, &new.issue_leaf(&old, SystemTime::now() - 50 * minute).unwrap());
    }
    all_say(&fleet, "flotilla_certificate_source_failing", "", 1.0).await;
    within(SOON, "it is said", async || {
        let mut logs = fleet.replicas.iter().map(|replica| replica.log_lines(&["nobody has renewed"]));
        let all = logs.all(|lines| !lines.is_empty());
        all.then_some(()).ok_or_else(|| "not by all".to_owned())
    })
    .await;
    all_serve(&fleet, "gateways as before", &gateway_tls(&old, &believes)).await;
    publish(&mut mounted, &both, &new);
    all_say(&fleet, "flotilla_certificate_source_failing", "", 0.0).await;
    nobody_noticed(&mut fleet, changes, "rotation by files").await;
}
