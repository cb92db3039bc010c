//! Certificates in files that somebody else keeps up to date.
//!
//! A kubelet writes a Secret's keys into a folder of their own and then exchanges
//! the symlink `..data`, so all keys change at once. Whoever reads them one by one by
//! their visible names may find some before and some after; so they are read from
//! where `..data` leads. Elsewhere files change one after the other, and a pair that
//! does not match is an error that the next look mends.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::{CertError, CertificatePem, LeafRequest, TrustRoots, check_issued, peer_identity};

/// The link that a kubelet exchanges.
const DATA: &str = "..data";

/// How often the folder may be exchanged while it is read.
const ATTEMPTS: usize = 5;

/// Reads `ca.crt`, `tls.crt` and `tls.key` of a folder. This blocks, see
/// [`CertificatePem::read`].
///
/// # Errors
/// [`CertError::File`] or [`CertError::Unreadable`], by file.
pub fn read_folder(folder: &Path) -> Result<(CertificatePem, TrustRoots), CertError> {
    for _ in 1..ATTEMPTS {
        let place = resolve(folder);
        let found = read_place(folder, place.as_deref().unwrap_or(folder));
        // What was exchanged meanwhile is gone, or old.
        if resolve(folder) == place {
            return found;
        }
    }
    read_place(folder, folder)
}

/// Where the files are. The link may be in the folder, or the folder itself lead
/// through it, as in a volume that is put together of several Secrets.
fn resolve(folder: &Path) -> Option<PathBuf> {
    folder.join(DATA).canonicalize().or_else(|_| folder.canonicalize()).ok()
}

fn read_place(folder: &Path, place: &Path) -> Result<(CertificatePem, TrustRoots), CertError> {
    let roots = TrustRoots::read(&place.join("ca.crt")).map_err(|error| visible(error, folder))?;
    let pem = CertificatePem::read(&place.join("tls.crt"), &place.join("tls.key"));
    Ok((pem.map_err(|error| visible(error, folder))?, roots))
}

/// People know the file by its name in the folder, not by where that leads.
fn visible(error: CertError, folder: &Path) -> CertError {
    match error {
        CertError::File { path, source } => {
            let name = path.file_name().map_or_else(|| folder.to_owned(), |name| folder.join(name));
            CertError::File { path: name, source }
        }
        other => other,
    }
}

/// Checks that what was read from `folder` is what the replica would ask for: with its
/// identity, for others refuse one that says it is somebody else, and with every name by
/// which gateways and API servers may reach it.
///
/// # Errors
/// What [`check_issued`] finds.
pub fn check_folder(
    folder: &Path,
    pem: &CertificatePem,
    roots: &TrustRoots,
    wanted: &LeafRequest,
    now: SystemTime,
) -> Result<(), CertError> {
    let what = folder.join("tls.crt").display().to_string();
    check_issued(&what, pem, roots, wanted, now)?;
    // One identity and no second one beside it.
    match (&wanted.identity, peer_identity(&pem.chain(&what)?)) {
        (Some(identity), Err(_)) => Err(CertError::Names { what, missing: format!("{identity} alone") }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;
    use crate::{Authority, Identity};

    fn authority() -> Authority {
        Authority::generate("test", SystemTime::now()).unwrap()
    }

    fn controller(authority: &Authority) -> CertificatePem {
        authority.issue_leaf(&controller_request(), SystemTime::now()).unwrap()
    }

    fn write(folder: &Path, authority: &Authority, pem: &CertificatePem) {
        std::fs::create_dir_all(folder).unwrap();
        std::fs::write(folder.join("ca.crt"), authority.roots().pem()).unwrap();
        std::fs::write(folder.join("tls.crt"), &pem.certificate).unwrap();
        std::fs::write(folder.join("tls.key"), &pem.private_key).unwrap();
    }

    fn check(folder: &Path) -> Result<(), CertError> {
        let (pem, roots) = read_folder(folder)?;
        check_folder(folder, &pem, &roots, &controller_request(), SystemTime::now())
    }

    /// Writes a version as a kubelet does: a folder of its own, a new link beside the
    /// old one, renamed over it; then the old folder goes. `below`: in which folder of
    /// the volume the files are.
    fn publish(volume: &Path, below: Option<&str>, version: usize) {
        let authority = authority();
        let name = format!("..version_{version}");
        let place = below.map_or_else(|| volume.join(&name), |below| volume.join(&name).join(below));
        write(&place, &authority, &controller(&authority));
        let old = std::fs::read_link(volume.join(DATA)).ok();
        symlink(&name, volume.join("..data_tmp")).unwrap();
        std::fs::rename(volume.join("..data_tmp"), volume.join(DATA)).unwrap();
        match (old, below) {
            (Some(old), _) => std::fs::remove_dir_all(volume.join(old)).unwrap(),
            (None, Some(below)) => symlink(Path::new(DATA).join(below), volume.join(below)).unwrap(),
            (None, None) => {
                for file in ["ca.crt", "tls.crt", "tls.key"] {
                    symlink(Path::new(DATA).join(file), volume.join(file)).unwrap();
                }
            }
        }
    }

    #[test]
    fn a_kubelets_exchange_is_never_read_half() {
        for below in [None, Some("flotilla-0")] {
            let volume = tempfile::tempdir().unwrap();
            let folder = below.map_or_else(|| volume.path().to_owned(), |below| volume.path().join(below));
            publish(volume.path(), below, 0);
            let done = AtomicBool::new(false);
            let reads = std::thread::scope(|scope| {
                let reader = scope.spawn(|| {
                    let mut reads = 0_u32;
                    while !done.load(Ordering::Relaxed) {
                        check(&folder).unwrap();
                        reads += 1;
                    }
                    reads
                });
                for version in 1..60 {
                    publish(volume.path(), below, version);
                }
                done.store(true, Ordering::Relaxed);
                reader.join().unwrap()
            });
            assert!(reads > 0);
        }
    }

    #[test]
    fn what_is_wrong_with_a_file_is_said_by_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let ours = authority();
        let good = controller(&ours);
        let text = |authority: &Authority, pem: &CertificatePem| {
            write(folder.path(), authority, pem);
            check(folder.path()).err().map(|error| error.to_string()).unwrap_or_default()
        };
        assert_eq!(text(&ours, &good), "");
        let gateway = Identity::gateway("cluster.local", "edge", "gw").unwrap();
        let elsewhere = Identity::controller("other.local", "sys", "f-0").unwrap();
        let another = Identity::controller("cluster.local", "sys", "f-1").unwrap();
        let mixed = CertificatePem { private_key: controller(&ours).private_key, ..good.clone() };
        let old = LeafRequest { lifetime: std::time::Duration::from_secs(60), ..controller_request() };
        let then = SystemTime::now() - std::time::Duration::from_secs(120);
        let nameless = LeafRequest { dns_names: vec!["f".to_owned()], ..controller_request() };
        for (pem, words) in [
            (mixed, "does not belong"),
            (controller(&authority()), "not signed by the trusted authority"),
            (ours.issue_leaf(&old, then).unwrap(), "expired"),
            (ours.issue_leaf(&nameless, SystemTime::now()).unwrap(), "does not name f.sys.svc"),
            (
                ours.issue_leaf(&LeafRequest::gateway(gateway), SystemTime::now()).unwrap(),
                "spiffe://cluster.local/ns",
            ),
            (
                ours.issue_leaf(&LeafRequest::controller(elsewhere, vec![], vec![]), SystemTime::now())
                    .unwrap(),
                "spiffe://cluster.local/ns",
            ),
            (
                ours.issue_leaf(&LeafRequest::controller(another, vec![], vec![]), SystemTime::now())
                    .unwrap(),
                "spiffe://cluster.local/ns/sys/controller/f-0",
            ),
        ] {
            let text = text(&ours, &pem);
            assert!(text.contains("tls.crt") && text.contains(words), "{words}: {text}");
        }
        for file in ["ca.crt", "tls.crt", "tls.key"] {
            write(folder.path(), &ours, &good);
            std::fs::write(folder.path().join(file), [0xff, 0xfe, 0]).unwrap();
            let text = check(folder.path()).unwrap_err().to_string();
            assert!(text.contains(file), "{file}: {text}");
            std::fs::remove_file(folder.path().join(file)).unwrap();
            let text = check(folder.path()).unwrap_err().to_string();
            assert!(text.contains(file) && text.contains("check the path"), "{file}: {text}");
        }
    }

    fn controller_request() -> LeafRequest {
        let identity = Identity::controller("cluster.local", "sys", "f-0").unwrap();
        let names = ["f", "f.sys.svc"].map(str::to_owned);
        LeafRequest::controller(identity, names.to_vec(), vec![])
    }

    proptest::proptest! {
        /// Whatever bytes are where, reading ends with a word about it.
        #[test]
        fn damaged_files_are_refused_and_nothing_panics(
            which in 0..3_usize,
            at in 0.0..1.0_f64,
            damage in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..64),
            cut in proptest::prelude::any::<bool>(),
        ) {
            let folder = tempfile::tempdir().unwrap();
            let ours = authority();
            let good = controller(&ours);
            write(folder.path(), &ours, &good);
            let file = folder.path().join(["ca.crt", "tls.crt", "tls.key"][which]);
            let mut bytes = std::fs::read(&file).unwrap();
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a place in a short file")]
            let place = (bytes.len() as f64 * at) as usize;
            let end = if cut { bytes.len() } else { place + damage.len().min(bytes.len() - place) };
            bytes.splice(place..end, damage);
            std::fs::write(&file, bytes).unwrap();
            // What is taken all the same is the certificate that was there.
            if check(folder.path()).is_ok() {
                let (pem, _) = read_folder(folder.path()).unwrap();
                proptest::prop_assert_eq!(pem.chain("found").unwrap(), good.chain("good").unwrap());
            }
        }
    }
}
