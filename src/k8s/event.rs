//! Events: words for people about an object. Nothing waits for them.

use k8s_openapi::api::core::v1::{Event, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, Time};
use k8s_openapi::jiff::Timestamp;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};

use crate::Error;
use crate::objects::within;
use crate::status::FIELD_MANAGER;

/// Bytes of a message, of which an API server takes 1,024.
const MESSAGE: usize = 1_000;

/// Creates an event about an object, in its namespace.
///
/// # Errors
/// Whatever the API server answers.
pub async fn post(
    client: &Client,
    about: ObjectReference,
    action: &str,
    reason: &str,
    message: &str,
    warning: bool,
) -> Result<(), Error> {
    let kind = about.kind.as_deref().unwrap_or_default();
    let (name, namespace) =
        (about.name.clone().unwrap_or_default(), about.namespace.clone().unwrap_or_default());
    let what = format!("create an event about {kind} {namespace}/{name}");
    let now = Timestamp::now();
    let cut = message.char_indices().map(|(at, _)| at).find(|at| *at > MESSAGE).unwrap_or(message.len());
    let event = Event {
        metadata: ObjectMeta {
            generate_name: Some(format!("{name:.200}.")),
            namespace: Some(namespace.clone()),
            ..ObjectMeta::default()
        },
        involved_object: about,
        reason: Some(reason.to_owned()),
        message: Some(message[..cut].to_owned()),
        type_: Some(if warning { "Warning" } else { "Normal" }.to_owned()),
        first_timestamp: Some(Time(now)),
        last_timestamp: Some(Time(now)),
        event_time: Some(MicroTime(now)),
        action: Some(action.to_owned()),
        reporting_component: Some(FIELD_MANAGER.to_owned()),
        reporting_instance: Some(FIELD_MANAGER.to_owned()),
        count: Some(1),
        ..Event::default()
    };
    let api = Api::<Event>::namespaced(client.clone(), &namespace);
    within(&what, api.create(&PostParams::default(), &event)).await.map(|_| ())
}
