//! Which Services there are, as far as a watch shows them, and which hosts are names of
//! Services. Pure. Kept are names only.
//!
//! What is not known is not held against anybody: before Services are listed, where they
//! may not be read, and while their watch is broken, any name may be one of them.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use flotilla_core::ids::ObjectKey;

use crate::conflicts::normal;

/// What names within a cluster end with, where its domain is the usual one.
const DOMAIN: &str = ".cluster.local";

/// The longest name of a Service.
const LONGEST: usize = 63;

/// The Services of all namespaces.
#[derive(Debug, Default)]
pub struct Services {
    /// Names by namespace, none of which is empty; `None` while nothing follows from what is
    /// not there.
    known: Option<HashMap<Arc<str>, HashSet<Arc<str>>>>,
}

impl Services {
    /// Everything there is, in place of what was known.
    pub fn listed(&mut self, all: impl IntoIterator<Item = ObjectKey>) {
        self.known = Some(HashMap::new());
        all.into_iter().for_each(|key| self.insert(key));
    }

    /// One that is there.
    pub fn insert(&mut self, key: ObjectKey) {
        if let Some(known) = &mut self.known {
            known.entry(key.namespace).or_default().insert(key.name);
        }
    }

    /// One that is gone.
    pub fn remove(&mut self, key: &ObjectKey) {
        let Some(known) = &mut self.known else { return };
        if let Some(names) = known.get_mut(&key.namespace) {
            names.remove(&key.name);
            if names.is_empty() {
                known.remove(&key.namespace);
            }
        }
    }

    /// The watch is broken: nothing is known until everything is listed again.
    pub fn lost(&mut self) {
        self.known = None;
    }

    /// Whether it is certain that there is no such Service.
    pub fn lack(&self, service: &ObjectKey) -> bool {
        let has = |names: &HashSet<Arc<str>>| names.contains(&service.name);
        self.known.as_ref().is_some_and(|known| !known.get(&service.namespace).is_some_and(has))
    }
}

/// The Service that a host names for those in `namespace`: `NAME`, `NAME.NAMESPACE.svc` and
/// `NAME.NAMESPACE.svc.cluster.local`, with the name of a pod in front or without.
/// `NAME.NAMESPACE` is not told from a host outside of the cluster.
pub(super) fn named(host: &str, namespace: &Arc<str>) -> Option<ObjectKey> {
    let host = normal(host);
    let key = match host.strip_suffix(DOMAIN).unwrap_or(&host).strip_suffix(".svc") {
        Some(name) => {
            let (before, namespace) = name.rsplit_once('.')?;
            let service = before.rsplit_once('.').map_or(before, |(_, service)| service);
            ObjectKey::new(namespace, service)
        }
        None => ObjectKey::new(namespace.clone(), host.as_str()),
    };
    (is_label(&key.name) && is_label(&key.namespace)).then_some(key)
}

fn is_label(text: &str) -> bool {
    let inside = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=LONGEST).contains(&text.len()) && text.bytes().all(inside)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_name_services_as_dns_has_it() {
        let check = |host: &str, expected: Option<&str>| {
            let found = named(host, &"shop".into()).map(|key| key.to_string());
            assert_eq!(found.as_deref(), expected, "{host}");
        };
        check("web", Some("shop/web"));
        check("Web.", Some("shop/web"));
        check("web.team.svc", Some("team/web"));
        check("web.team.svc.", Some("team/web"));
        check("web.team.svc.cluster.local", Some("team/web"));
        check("pod-0.web.team.svc.cluster.local", Some("team/web"));
        for other in [
            "",
            "web.team",
            "web.svc",
            ".svc",
            "..svc",
            "web.example.com",
            "web.team.svc.example.com",
            "10-0-0-1.team.pod.cluster.local",
            "cluster.local",
            "10.0.0.1",
            "::1",
            "team/web",
            "team/web.team.svc",
            "we_b",
            &"x".repeat(64),
        ] {
            check(other, None);
        }
    }

    #[test]
    fn only_what_is_known_to_be_away_is_lacking() {
        let key = |name: &str| ObjectKey::new("shop", name);
        let mut services = Services::default();
        services.insert(key("web"));
        assert!(!services.lack(&key("web")) && !services.lack(&key("db")), "nothing is listed");
        services.listed([key("web")]);
        assert!(!services.lack(&key("web")) && services.lack(&key("db")));
        services.insert(key("db"));
        services.remove(&key("web"));
        assert!(services.lack(&key("web")) && !services.lack(&key("db")));
        assert!(services.lack(&ObjectKey::new("team", "db")), "it is another namespace's");
        services.remove(&key("db"));
        assert!(services.known.as_ref().unwrap().is_empty());
        services.lost();
        assert!(!services.lack(&key("web")) && !services.lack(&key("db")));
        services.listed([]);
        assert!(services.lack(&key("db")));
    }
}
