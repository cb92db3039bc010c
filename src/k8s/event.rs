//! Events: words for people about an object. Nothing waits for them.
//!
//! An event's name is made of what it says about which object, so that the same is not
//! told twice by who cannot know whether it was told before: after a restart, or by the
//! next owner of a namespace. It holds for as long as the API server keeps events.

use flotilla_core::ids::ObjectKey;
use k8s_openapi::api::core::v1::{Event, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, Time};
use k8s_openapi::jiff::Timestamp;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use sha2::{Digest, Sha256};

use crate::Error;
use crate::objects::within;
use crate::status::FIELD_MANAGER;

/// Bytes of a message, of which an API server takes 1,024.
const MESSAGE: usize = 1_000;

/// Something to tell about an object.
#[derive(Debug, Clone)]
pub struct Telling {
    /// The object, with its namespace, in which the event is.
    pub about: ObjectReference,
    /// What was done or tried.
    pub action: &'static str,
    /// Why it is told, in one word for programs.
    pub reason: &'static str,
    /// What.
    pub message: String,
    /// Whether somebody has to do something.
    pub warning: bool,
    /// Whether it is told although the same was told before: it is known that it was
    /// otherwise in between.
    pub again: bool,
}

/// A namespaced object, for an event about it.
pub fn about(api_version: &str, kind: &str, key: &ObjectKey, uid: Option<&str>) -> ObjectReference {
    ObjectReference {
        api_version: Some(api_version.to_owned()),
        kind: Some(kind.to_owned()),
        name: Some(key.name.to_string()),
        namespace: Some(key.namespace.to_string()),
        uid: uid.map(str::to_owned),
        ..ObjectReference::default()
    }
}

/// Creates an event; whether it was not there before.
///
/// # Errors
/// Whatever the API server answers.
pub async fn post(client: &Client, telling: &Telling) -> Result<bool, Error> {
    let about = &telling.about;
    let [kind, name, namespace] =
        [&about.kind, &about.name, &about.namespace].map(|text| text.as_deref().unwrap_or_default());
    let what = format!("create an event about {kind} {namespace}/{name}");
    let api = Api::<Event>::namespaced(client.clone(), namespace);
    let event = event(telling, Timestamp::now());
    match within(&what, api.create(&PostParams::default(), &event)).await {
        Ok(_) => Ok(true),
        Err(Error::Conflict { .. }) if telling.again => {
            let mut event = event;
            event.metadata.generate_name = event.metadata.name.take().map(|name| format!("{name}."));
            within(&what, api.create(&PostParams::default(), &event)).await.map(|_| true)
        }
        Err(Error::Conflict { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

fn event(telling: &Telling, now: Timestamp) -> Event {
    let Telling { about, action, reason, message, warning, .. } = telling;
    let cut = message.char_indices().map(|(at, _)| at).find(|at| *at > MESSAGE).unwrap_or(message.len());
    let name = about.name.as_deref().unwrap_or_default();
    let start = name.get(..200).unwrap_or(name).trim_end_matches(['-', '.']);
    Event {
        metadata: ObjectMeta {
            name: Some(format!("{start}.{:016x}", mark(telling))),
            namespace: about.namespace.clone(),
            ..ObjectMeta::default()
        },
        involved_object: about.clone(),
        reason: Some((*reason).to_owned()),
        message: Some(message[..cut].to_owned()),
        type_: Some(if *warning { "Warning" } else { "Normal" }.to_owned()),
        first_timestamp: Some(Time(now)),
        last_timestamp: Some(Time(now)),
        event_time: Some(MicroTime(now)),
        action: Some((*action).to_owned()),
        reporting_component: Some(FIELD_MANAGER.to_owned()),
        reporting_instance: Some(FIELD_MANAGER.to_owned()),
        count: Some(1),
        ..Event::default()
    }
}

/// Stands for what is told about which object.
fn mark(telling: &Telling) -> u64 {
    let kind = telling.about.kind.as_deref().unwrap_or_default();
    let uid = telling.about.uid.as_deref().unwrap_or_default();
    let mut hash = Sha256::new();
    for text in [kind, uid, telling.reason, &telling.message] {
        hash.update((text.len() as u64).to_be_bytes());
        hash.update(text);
    }
    hash.finalize().iter().take(8).fold(0, |sum, byte| sum << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn telling(name: &str, message: &str) -> Telling {
        let about = about("avapigw.io/v1alpha1", "Backend", &ObjectKey::new("n", name), Some("u"));
        let message = message.to_owned();
        Telling { about, action: "Report", reason: "Reconciled", message, warning: false, again: false }
    }

    fn name(telling: &Telling) -> String {
        event(telling, Timestamp::UNIX_EPOCH).metadata.name.unwrap()
    }

    #[test]
    fn the_same_has_the_same_name_and_nothing_else_has_it() {
        let first = name(&telling("web", "it is"));
        assert_eq!(first, name(&telling("web", "it is")));
        assert_eq!(first, name(&Telling { again: true, ..telling("web", "it is") }));
        let mut replaced = telling("web", "it is");
        replaced.about.uid = Some("v".to_owned());
        for other in [
            telling("web", "it was"),
            replaced,
            Telling { reason: "Reconcile", message: "dit is".to_owned(), ..telling("web", "") },
        ] {
            assert_ne!(first, name(&other), "{other:?}");
        }
    }

    #[test]
    fn names_and_messages_fit_whatever_they_are_made_of() {
        let long = format!("{}-.{}", "a".repeat(198), "b".repeat(53));
        let made = event(&telling(&long, &"ä".repeat(900)), Timestamp::UNIX_EPOCH);
        let name = made.metadata.name.unwrap();
        assert!(name.len() < 230 && name.starts_with(&format!("{}.", "a".repeat(198))), "{name}");
        assert!((999..=1002).contains(&made.message.unwrap().len()));
    }
}
