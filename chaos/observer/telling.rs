//! Events in words, and whom they are about: for traces that people read.

use std::fmt;

use crate::event::{Event, Removal, Subject};
use crate::ids::{GatewayId, InstanceId, Names, ObjectId};
use crate::violation::About;

/// An event with the words for its ids.
struct Told<'a> {
    names: &'a Names,
    event: &'a Event<'a>,
}

impl Names {
    /// An event in words.
    pub fn tell<'a>(&'a self, event: &'a Event<'a>) -> impl fmt::Display + 'a {
        Told { names: self, event }
    }

    /// Whom an event is about.
    pub fn about(&self, event: &Event<'_>) -> About {
        let of_object = |object: ObjectId| {
            let namespace = self.place(object).map(|(_, namespace)| namespace);
            About { namespace, object: Some(object), ..About::default() }
        };
        let of_instance = |instance| About { instance: Some(instance), ..About::default() };
        let of_gateway = |gateway| About { gateway: Some(gateway), ..About::default() };
        match *event {
            Event::Written(write) => of_object(write.object),
            Event::Deleted { object, .. }
            | Event::Restored { object, .. }
            | Event::Admission { object, .. } => of_object(object),
            Event::ActingStarted { instance, namespace, .. }
            | Event::ActingStopped { instance, namespace } => {
                About { namespace: Some(namespace), ..of_instance(instance) }
            }
            Event::ActingUntil { instance, .. }
            | Event::ClockUntrusted { instance }
            | Event::InstanceEnded { instance }
            | Event::Impaired(Subject::Instance(instance))
            | Event::Recovered(Subject::Instance(instance)) => of_instance(instance),
            Event::StatusWritten { instance, object, .. } | Event::StatusRefused { instance, object } => {
                About { instance: Some(instance), ..of_object(object) }
            }
            Event::Connected { gateway, instance, .. } => {
                About { instance: Some(instance), ..of_gateway(gateway) }
            }
            Event::Disconnected { gateway }
            | Event::GatewayRestarted { gateway }
            | Event::Impaired(Subject::Gateway(gateway))
            | Event::Recovered(Subject::Gateway(gateway)) => of_gateway(gateway),
            Event::Holds { gateway, object, .. } | Event::Dropped { gateway, object, .. } => {
                About { gateway: Some(gateway), ..of_object(object) }
            }
            Event::Memory(memory) => of_instance(memory.instance),
            Event::MapPublished(_)
            | Event::MapDeleted
            | Event::Quiet
            | Event::HistoryReplaced
            | Event::Impaired(Subject::ApiServer | Subject::Network)
            | Event::Recovered(Subject::ApiServer | Subject::Network) => About::default(),
        }
    }

    fn subject(&self, subject: Subject) -> &str {
        match subject {
            Subject::ApiServer => "the API server",
            Subject::Network => "the network",
            Subject::Instance(instance) => self.of_instance(instance),
            Subject::Gateway(gateway) => self.of_gateway(gateway),
        }
    }
}

impl fmt::Display for Told<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let object = |object: ObjectId| self.names.of_object(object);
        let instance = |instance: InstanceId| self.names.of_instance(instance);
        let gateway = |gateway: GatewayId| self.names.of_gateway(gateway);
        match *self.event {
            Event::Written(write) => {
                write!(
                    f,
                    "tenant wrote {}: content {}, generation {}, revision {}, uid {}",
                    object(write.object),
                    write.content.0,
                    write.generation,
                    write.revision,
                    write.uid
                )?;
                if !write.valid {
                    f.write_str(", invalid")?;
                }
                match write.refused {
                    crate::event::Refused::Nowhere => Ok(()),
                    refused => write!(f, ", refused {refused:?}"),
                }
            }
            Event::Deleted { object: id, revision } => {
                write!(f, "tenant deleted {}: revision {revision}", object(id))
            }
            Event::HistoryReplaced => f.write_str("the log is replaced by a backup"),
            Event::Restored { object: id, revision, past } => match past {
                Some(past) => {
                    let (content, same) = (past.content.0, if past.same { ", as it was" } else { "" });
                    write!(f, "{} is content {content} again: revision {revision}{same}", object(id))
                }
                None => write!(f, "{} is not there any more: revision {revision}", object(id)),
            },
            Event::ActingStarted { instance: id, namespace, epoch } => {
                write!(f, "{} acts on {} by epoch {epoch}", instance(id), self.names.of_namespace(namespace))
            }
            Event::ActingStopped { instance: id, namespace } => {
                write!(f, "{} stops acting on {}", instance(id), self.names.of_namespace(namespace))
            }
            Event::ActingUntil { instance: id, until } => {
                write!(f, "{} may act until {until}", instance(id))
            }
            Event::ClockUntrusted { instance: id } => write!(f, "the clock of {} is wrong", instance(id)),
            Event::InstanceEnded { instance: id } => write!(f, "{} is gone", instance(id)),
            Event::StatusWritten { instance: id, object: on, revision, says } => {
                write!(
                    f,
                    "{} wrote the status of {}: generation {}, {:?}, revision {revision}",
                    instance(id),
                    object(on),
                    says.generation,
                    says.ready
                )
            }
            Event::StatusRefused { instance: id, object: on } => {
                write!(f, "{} wrote the status of {}: refused or unchanged", instance(id), object(on))
            }
            Event::MapDeleted => write!(f, "the map is deleted"),
            Event::MapPublished(map) => {
                write!(f, "map {} with members {:?}", map.epoch, map.members)
            }
            Event::Connected { gateway: id, instance: to, .. } => {
                write!(f, "{} is connected to {}", gateway(id), instance(to))
            }
            Event::Disconnected { gateway: id } => write!(f, "{} is disconnected", gateway(id)),
            Event::GatewayRestarted { gateway: id } => write!(f, "{} starts again", gateway(id)),
            Event::Holds { gateway: id, object: on, content, resolved } => {
                write!(
                    f,
                    "{} holds content {} of {}, references {resolved:b}",
                    gateway(id),
                    content.0,
                    object(on)
                )
            }
            Event::Dropped { gateway: id, object: on, by } => {
                let by = match by {
                    Removal::Deletion => "a deletion",
                    Removal::Snapshot => "a snapshot",
                };
                write!(f, "{} holds nothing of {} any more, by {by}", gateway(id), object(on))
            }
            Event::Admission { object: id, claim, allowed } => {
                let verdict = if allowed { "admitted" } else { "denied" };
                write!(f, "{} claiming {claim} was {verdict}", object(id))
            }
            Event::Impaired(subject) => write!(f, "{} is impaired", self.names.subject(subject)),
            Event::Recovered(subject) => write!(f, "{} has recovered", self.names.subject(subject)),
            Event::Memory(memory) => write!(f, "{} keeps {memory:?}", instance(memory.instance)),
            Event::Quiet => f.write_str("all is to be settled"),
        }
    }
}
