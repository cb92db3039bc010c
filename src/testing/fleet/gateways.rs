//! Gateways: `flotilla gateway` processes with one or many gateways each, and
//! what they say about themselves.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use flotilla_certs::{Authority, CertificatePem, Identity, LeafRequest};
use serde::Deserialize;
use serde_json::Value;

use super::events::Events;
use super::http;
use super::process::{Process, free_port};
use super::waiting::{SOON, within};

/// Namespace of all gateways of the scenarios.
pub const GATEWAYS: &str = "gateways";
/// The trust domain that replicas have unless told otherwise.
pub const TRUST_DOMAIN: &str = "cluster.local";

/// A process with gateways.
pub struct Gateways {
    /// The process's name, and the beginning of its gateways' names.
    pub name: String,
    /// How many gateways it runs.
    pub count: usize,
    /// The process.
    pub process: Process,
    /// `/config`, `/digest` …
    pub admin: SocketAddr,
    /// Serves the routes of the first gateway.
    pub http: SocketAddr,
    /// What its gateways applied since they were listened to, moments after their start.
    pub events: Events,
    /// Removals before that.
    unheard: u64,
}

/// One gateway as `/gateways` shows it.
#[derive(Debug, Clone, Deserialize)]
pub struct Shown {
    /// Its name.
    pub name: String,
    /// The version of the last update that it took.
    pub version: String,
    /// Its digest.
    pub digest: String,
    /// `streaming`, `reconnecting` …
    pub phase: String,
    /// How many resources it holds.
    pub held: usize,
    /// Its counters.
    pub stats: Stats,
}

/// The counters of one gateway.
#[derive(Debug, Clone, Copy, Deserialize)]
pub struct Stats {
    /// Updates received.
    pub updates: u64,
    /// Updates rejected.
    pub nacks: u64,
    /// Updates skipped because of their sequence.
    pub skipped: u64,
    /// Full synchronisations with a snapshot.
    pub full_syncs: u64,
    /// Full synchronisations that a guard ignored.
    pub guard_ignored: u64,
    /// Resources that went back to an older generation.
    pub regressions: u64,
    /// Resources that were removed and came back unchanged.
    pub reappeared: u64,
    /// Resources removed by DELETED.
    pub deletions: u64,
    /// Resources removed because a full synchronisation lacked them.
    pub removed_by_full_sync: u64,
    /// Streams lost and opened again.
    pub reconnects: u64,
    /// Bytes of all updates.
    pub bytes_received: u64,
}

/// Issues a gateway's certificate and writes it, its key and the CA to a folder.
pub fn issue(authority: &Authority, name: &str, folder: &Path) {
    let identity = Identity::gateway(TRUST_DOMAIN, GATEWAYS, name).unwrap();
    let leaf = authority.issue_leaf(&LeafRequest::gateway(identity), SystemTime::now()).unwrap();
    write_material(folder, authority, &leaf);
}

/// Writes `ca.crt`, `tls.crt` and `tls.key`.
pub fn write_material(folder: &Path, authority: &Authority, leaf: &CertificatePem) {
    std::fs::create_dir_all(folder).unwrap();
    std::fs::write(folder.join("ca.crt"), authority.roots().pem()).unwrap();
    std::fs::write(folder.join("tls.crt"), &leaf.certificate).unwrap();
    std::fs::write(folder.join("tls.key"), &leaf.private_key).unwrap();
}

impl Gateways {
    /// Starts a process with `count` gateways whose connections go to
    /// `operators` in turn, and listens to what they apply from the first
    /// moment on.
    pub async fn start(
        program: &Path,
        authority: &Authority,
        folder: &Path,
        name: &str,
        count: usize,
        operators: &[String],
    ) -> Gateways {
        let flags = [format!("--operator-address={}", operators.join(","))];
        Self::start_with(program, authority, folder, name, count, &flags, true).await
    }

    /// The same with one gateway that shows no certificate.
    pub async fn unconfirmed(
        program: &Path,
        authority: &Authority,
        folder: &Path,
        name: &str,
        operators: &[String],
    ) -> Gateways {
        let flags = [format!("--operator-address={}", operators.join(","))];
        Self::start_with(program, authority, folder, name, 1, &flags, false).await
    }

    /// The same with one gateway for each of these addresses, where it waits to be
    /// dialled. `batches`: whether they take many updates in one call.
    pub async fn listening(
        program: &Path,
        authority: &Authority,
        folder: &Path,
        name: &str,
        addresses: &[SocketAddr],
        batches: bool,
    ) -> Gateways {
        let list: Vec<_> = addresses.iter().map(SocketAddr::to_string).collect();
        let flags = [format!("--push-listen={}", list.join(",")), format!("--push-batches={batches}")];
        Self::start_with(program, authority, folder, name, addresses.len(), &flags, true).await
    }

    /// One gateway with these flags: it is told where to dial or to listen.
    pub async fn with_flags(
        program: &Path,
        authority: &Authority,
        folder: &Path,
        name: &str,
        flags: &[String],
    ) -> Gateways {
        Self::start_with(program, authority, folder, name, 1, flags, true).await
    }

    async fn start_with(
        program: &Path,
        authority: &Authority,
        folder: &Path,
        name: &str,
        count: usize,
        flags: &[String],
        confirmed: bool,
    ) -> Gateways {
        let own = folder.join(name);
        std::fs::create_dir_all(&own).unwrap();
        for gateway in names(name, count).into_iter().filter(|_| confirmed) {
            let place = if count == 1 { own.clone() } else { own.join(&gateway) };
            issue(authority, &gateway, &place);
        }
        std::fs::write(own.join("ca.crt"), authority.roots().pem()).unwrap();
        let file = |file: &str| own.join(file).display().to_string();
        let (certificate, key) = match count {
            1 => (file("tls.crt"), file("tls.key")),
            _ => (own.display().to_string(), own.display().to_string()),
        };
        let mut arguments = vec![
            "gateway".to_owned(),
            format!("--gateway-name={name}"),
            format!("--gateway-namespace={GATEWAYS}"),
            format!("--operator-ca-file={}", file("ca.crt")),
            format!("--address-file={}", file("addresses.json")),
            format!("--count={count}"),
        ];
        if confirmed {
            arguments.push(format!("--operator-cert-file={certificate}"));
            arguments.push(format!("--operator-key-file={key}"));
        }
        arguments.extend_from_slice(flags);
        let mut process = Process::start(program, folder, name, &arguments);
        let (admin, http) = addresses(&own.join("addresses.json"), &mut process).await;
        let (events, unheard) = listen(admin).await;
        Gateways { name: name.to_owned(), count, process, admin, http, events, unheard }
    }

    /// What its gateways say about themselves.
    ///
    /// # Errors
    /// Why they do not answer.
    pub async fn show(&self) -> Result<Vec<Shown>, String> {
        shown(self.admin).await.map_err(|error| format!("{}: {error}", self.name))
    }

    /// An error when an event of a removal is still on its way: events come on a
    /// connection of their own, and may be later than what a gateway shows.
    pub(super) async fn removals_heard(&self) -> Result<(), String> {
        let shown = removals(self.admin).await?.saturating_sub(self.unheard);
        let heard = self.events.removed().len() as u64;
        let words = || format!("{}: {heard} of {shown} removals are heard of", self.name);
        (heard >= shown).then_some(()).ok_or_else(words)
    }

    /// What the first gateway says about itself.
    pub async fn first(&self) -> Shown {
        self.show().await.unwrap().remove(0)
    }

    /// Everything that the first gateway holds.
    pub async fn config(&self) -> Value {
        serde_json::from_str(&http::text(self.admin, "/config").await.unwrap()).unwrap()
    }
}

/// Addresses at which nobody listens, for gateways that are to.
pub fn free_addresses(count: usize) -> Vec<SocketAddr> {
    (0..count).map(|_| SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()))).collect()
}

/// The flag of replicas that names a process's gateways, which listen there.
pub fn push_flag(name: &str, addresses: &[SocketAddr]) -> String {
    let named = names(name, addresses.len()).into_iter().zip(addresses);
    let list: Vec<_> = named.map(|(name, address)| format!("{GATEWAYS}/{name}={address}")).collect();
    format!("--push-gateways={}", list.join(","))
}

/// The names of a process's gateways.
fn names(name: &str, count: usize) -> Vec<String> {
    match count {
        1 => vec![name.to_owned()],
        _ => (0..count).map(|number| format!("{name}-{number}")).collect(),
    }
}

/// Listens to what a process's gateways apply; and how many removals there were before.
async fn listen(admin: SocketAddr) -> (Events, u64) {
    within(SOON, "removals before events are listened to are counted", async || {
        let before = removals(admin).await?;
        let events = Events::listen(admin).await;
        // Those that came while the subscription did may be among its events, or not.
        match removals(admin).await? {
            after if after == before => Ok((events, before)),
            after => Err(format!("{before} before, {after} after")),
        }
    })
    .await
}

/// How many resources a process's gateways have removed.
async fn removals(admin: SocketAddr) -> Result<u64, String> {
    let removed = |gateway: Shown| gateway.stats.deletions + gateway.stats.removed_by_full_sync;
    Ok(shown(admin).await?.into_iter().map(removed).sum())
}

async fn shown(admin: SocketAddr) -> Result<Vec<Shown>, String> {
    let text = http::text(admin, "/gateways").await?;
    serde_json::from_str(&text).map_err(|error| format!("/gateways: {error}"))
}

/// Reads where a process of gateways listens, once it says so.
pub async fn addresses(file: &PathBuf, process: &mut Process) -> (SocketAddr, SocketAddr) {
    within(SOON, &format!("{} listens", process.name), async || {
        process.check()?;
        let text = std::fs::read_to_string(file).map_err(|error| error.to_string())?;
        let value: Value = serde_json::from_str(&text).map_err(|error| error.to_string())?;
        let address = |key: &str| value[key].as_str().and_then(|text| text.parse().ok());
        address("admin").zip(address("http")).ok_or_else(|| format!("no addresses in {text}"))
    })
    .await
}
