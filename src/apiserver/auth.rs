//! Who a client is, and what it may do.
//!
//! Users are known by a verified client certificate (common name is the user, organisations are groups) or by a
//! bearer token from a fixed table. `system:masters` may do everything; for others there is a table of permissions in
//! the shape of RBAC rules, which can be replaced while the server runs.

use std::collections::BTreeSet;
use std::sync::{Arc, PoisonError, RwLock};

use rustls_pki_types::CertificateDer;
use sha2::{Digest, Sha256};
use x509_parser::prelude::{FromDer, X509Certificate};

/// The group that may do everything.
pub const MASTERS: &str = "system:masters";
/// The group of all clients that are known.
const AUTHENTICATED: &str = "system:authenticated";

/// A client.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Identity {
    /// User name.
    pub user: String,
    /// Groups.
    pub groups: BTreeSet<String>,
}

impl Identity {
    /// A user in these groups, and in `system:authenticated`.
    pub fn new(user: impl Into<String>, groups: impl IntoIterator<Item = impl Into<String>>) -> Self {
        let mut groups: BTreeSet<String> = groups.into_iter().map(Into::into).collect();
        groups.insert(AUTHENTICATED.to_owned());
        Self { user: user.into(), groups }
    }

    /// A user that may do everything.
    pub fn admin(user: impl Into<String>) -> Self {
        Self::new(user, [MASTERS])
    }

    /// The identity in a client certificate that was verified before.
    pub(crate) fn from_certificate(certificate: &CertificateDer<'_>) -> Option<Self> {
        let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
        let subject = parsed.subject();
        let user = subject.iter_common_name().next()?.as_str().ok()?.to_owned();
        let groups = subject.iter_organization().filter_map(|name| name.as_str().ok());
        Some(Self::new(user, groups))
    }
}

/// Allows a user or a group something. `"*"` in a list means all; an empty list means none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Permission {
    /// The user or group it is for.
    pub subject: String,
    /// The only namespace it is for; `None` means all, and cluster-scoped resources, too.
    pub namespace: Option<String>,
    /// API groups; `""` is the core group.
    pub api_groups: Vec<String>,
    /// Plural names; a subresource is named like `apiroutes/status`.
    pub resources: Vec<String>,
    /// Verbs: get, list, watch, create, update, patch, delete, deletecollection.
    pub verbs: Vec<String>,
}

/// What is asked to be done, for authorisation.
#[derive(Clone, Debug)]
pub(crate) struct Attributes<'a> {
    pub verb: &'a str,
    pub group: &'a str,
    pub resource: &'a str,
    pub subresource: &'a str,
    pub namespace: &'a str,
}

/// The current table of permissions and the table of tokens.
#[derive(Debug)]
pub(crate) struct Access {
    permissions: RwLock<Arc<Vec<Permission>>>,
    /// Keyed by the token's hash, so that a comparison's duration tells nothing about the tokens.
    tokens: Vec<([u8; 32], Identity)>,
}

impl Access {
    pub fn new(tokens: &[(String, Identity)], permissions: Vec<Permission>) -> Self {
        let tokens = tokens.iter().map(|(token, identity)| (digest(token), identity.clone())).collect();
        Self { permissions: RwLock::new(Arc::new(permissions)), tokens }
    }

    pub fn set_permissions(&self, permissions: Vec<Permission>) {
        *self.permissions.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(permissions);
    }

    pub fn identity_of_token(&self, token: &str) -> Option<Identity> {
        let wanted = digest(token);
        self.tokens.iter().find(|(known, _)| *known == wanted).map(|(_, identity)| identity.clone())
    }

    pub fn allows(&self, who: &Identity, what: &Attributes<'_>) -> bool {
        // Everybody may ask what they may do.
        let about_self = matches!(what.group, "authorization.k8s.io" | "authentication.k8s.io")
            && what.resource.starts_with("selfsubject");
        if who.groups.contains(MASTERS) || about_self {
            return true;
        }
        let permissions = self.permissions.read().unwrap_or_else(PoisonError::into_inner).clone();
        permissions.iter().any(|permission| permission.allows(who, what))
    }
}

impl Permission {
    fn allows(&self, who: &Identity, what: &Attributes<'_>) -> bool {
        let full = if what.subresource.is_empty() {
            what.resource.to_owned()
        } else {
            format!("{}/{}", what.resource, what.subresource)
        };
        let lists = |list: &[String], wanted: &str| list.iter().any(|item| item == "*" || item == wanted);
        (self.subject == who.user || who.groups.contains(&self.subject))
            && self.namespace.as_ref().is_none_or(|namespace| namespace == what.namespace)
            && lists(&self.api_groups, what.group)
            && lists(&self.resources, &full)
            && lists(&self.verbs, what.verb)
    }
}

fn digest(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permissions_are_as_narrow_as_they_say() {
        let strings = |items: &[&str]| items.iter().map(|item| (*item).to_owned()).collect::<Vec<_>>();
        let access = Access::new(
            &[("secret".into(), Identity::new("bob", ["dev"]))],
            vec![Permission {
                subject: "dev".into(),
                namespace: Some("n".into()),
                api_groups: strings(&["avapigw.io"]),
                resources: strings(&["apiroutes", "apiroutes/status"]),
                verbs: strings(&["get", "patch"]),
            }],
        );
        let bob = access.identity_of_token("secret").unwrap();
        assert!(access.identity_of_token("Secret").is_none());
        let check = |verb, group, resource, subresource, namespace, expected| {
            let what = Attributes { verb, group, resource, subresource, namespace };
            assert_eq!(access.allows(&bob, &what), expected, "{what:?}");
            assert!(access.allows(&Identity::admin("root"), &what));
            assert!(!access.allows(&Identity::new("eve", ["other"]), &what));
        };
        check("get", "avapigw.io", "apiroutes", "", "n", true);
        check("patch", "avapigw.io", "apiroutes", "status", "n", true);
        check("get", "avapigw.io", "apiroutes", "", "other", false);
        check("get", "avapigw.io", "apiroutes", "", "", false);
        check("delete", "avapigw.io", "apiroutes", "", "n", false);
        check("get", "", "apiroutes", "", "n", false);
        check("get", "avapigw.io", "backends", "", "n", false);
        access.set_permissions(Vec::new());
        check("get", "avapigw.io", "apiroutes", "", "n", false);
    }
}
