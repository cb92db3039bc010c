//! One authority and the certificates of all hosts, which are known by name.

use std::time::SystemTime;

use flotilla_certs::{
    Alpn, Authority, CertificatePem, ClientAuth, ClientTls, Identity, LeafRequest, ServerCheck, ServerTls,
};

pub const TRUST_DOMAIN: &str = "fleet.local";
/// The namespace of the replicas and their Leases.
pub const NAMESPACE: &str = "flotilla";

pub struct Pki(Authority);

impl Pki {
    pub fn new() -> anyhow::Result<Self> {
        Ok(Pki(Authority::generate("fleet authority", SystemTime::now())?))
    }

    /// What a replica serves and dials with, and who it is.
    pub fn replica(&self, member: &str) -> anyhow::Result<(Identity, ServerTls, ClientTls)> {
        let identity = Identity::controller(TRUST_DOMAIN, NAMESPACE, member)?;
        let request = LeafRequest::controller(identity.clone(), vec![member.to_owned()], Vec::new());
        let leaf = self.0.issue_leaf(&request, SystemTime::now())?;
        let check = ServerCheck::Controller { trust_domain: TRUST_DOMAIN.into() };
        let server = ServerTls::new(&leaf, self.0.roots(), ClientAuth::Required, Alpn::H2)?;
        Ok((identity, server, self.client(&leaf, check)?))
    }

    /// What a gateway dials with.
    pub fn gateway(&self, namespace: &str, name: &str) -> anyhow::Result<ClientTls> {
        let identity = Identity::gateway(TRUST_DOMAIN, namespace, name)?;
        let leaf = self.0.issue_leaf(&LeafRequest::gateway(identity), SystemTime::now())?;
        self.client(&leaf, ServerCheck::Name)
    }

    fn client(&self, leaf: &CertificatePem, check: ServerCheck) -> anyhow::Result<ClientTls> {
        Ok(ClientTls::new(Some(leaf), self.0.roots(), check, Alpn::H2)?)
    }
}
