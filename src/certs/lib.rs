//! Certificate authority, leaf certificates, and TLS configurations that change
//! without a restart.
//!
//! One self-signed [`Authority`] vouches for all replicas and all gateways of a
//! fleet. Who somebody is stands in the certificate as a SPIFFE URI
//! ([`Identity`]), never in what they say. TLS configurations live behind a
//! handle ([`ServerTls`], [`ClientTls`]) that every new connection asks, so a
//! renewed certificate takes effect without dropping a stream.
//!
//! Certificates come from an authority of our own that is rotated ([`Authorities`]),
//! from a Vault ([`vault::Vault`]), or from files ([`read_folder`]).
//!
//! Wall-clock time is an argument everywhere: certificates are the one place
//! where machines compare their clocks, so nothing here reads one by itself.

mod authority;
mod check;
mod error;
mod files;
mod identity;
mod material;
mod network;
mod rotation;
mod server_check;
mod tls;
pub mod vault;

pub use authority::{Authority, CLOCK_SKEW, LeafRequest, SigningRequest};
pub use check::{Usage, check_issued, check_leaf};
pub use error::CertError;
pub use files::{check_folder, read_folder};
pub use identity::{Identity, IdentityError, Role, peer_identity};
pub use material::{CertificatePem, TrustRoots, Validity};
pub use network::{Connection, Dial, Stream};
pub use rotation::{Authorities, Rotation, Step, Stored, same_time};
pub use server_check::ServerCheck;
pub use tls::{Alpn, ClientAuth, ClientTls, ServerTls};

use std::sync::{Arc, LazyLock};

use rustls::crypto::CryptoProvider;

/// The one source of cryptography: ring, handed over explicitly so that
/// nothing depends on a process-wide default being installed in time.
pub fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: LazyLock<Arc<CryptoProvider>> =
        LazyLock::new(|| Arc::new(rustls::crypto::ring::default_provider()));
    PROVIDER.clone()
}
