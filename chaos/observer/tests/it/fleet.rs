//! A fleet that a test tells the observer about, line by line.

use flotilla_observer::{
    At, Bounds, Claim, Content, Event, GatewayId, InstanceId, Invariant, KindId, NamespaceId, ObjectId,
    Observer, Ready, Refused, Removal, Violation, Write,
};

pub const ROUTE: KindId = KindId(0);
pub const BACKEND: KindId = KindId(1);

/// Tells one event per method, each a millisecond after the last, and remembers the
/// first violation.
pub struct Fleet {
    pub observer: Observer,
    pub now: u64,
    revision: u64,
    contents: u32,
    pub seen: Result<(), Violation>,
}

/// What is special about a write; by default nothing.
#[derive(Clone, Copy)]
pub struct Spec<'a> {
    pub uid: u32,
    pub generation: u32,
    pub valid: bool,
    pub refused: Refused<'a>,
    pub references: &'a [ObjectId],
    pub claim: Option<u32>,
    pub created: u64,
}

pub const PLAIN: Spec<'static> = Spec {
    uid: 1,
    generation: 1,
    valid: true,
    refused: Refused::Nowhere,
    references: &[],
    claim: None,
    created: 0,
};

impl Fleet {
    pub fn new() -> Self {
        Fleet::within(Bounds::default())
    }

    pub fn within(bounds: Bounds) -> Self {
        Fleet { observer: Observer::new(bounds), now: 1_000, revision: 100, contents: 0, seen: Ok(()) }
    }

    pub fn namespace(&mut self, name: &str) -> NamespaceId {
        self.observer.names_mut().namespace(name)
    }

    pub fn route(&mut self, name: &str) -> ObjectId {
        let namespace = self.namespace("team-a");
        self.observer.names_mut().object(ROUTE, "APIRoute", namespace, name)
    }

    pub fn backend(&mut self, name: &str) -> ObjectId {
        let namespace = self.namespace("team-a");
        self.observer.names_mut().object(BACKEND, "Backend", namespace, name)
    }

    pub fn instance(&mut self, name: &str) -> InstanceId {
        self.observer.names_mut().instance(name)
    }

    /// A gateway that is connected to an instance and asks for everything.
    pub fn gateway(&mut self, name: &str) -> GatewayId {
        let gateway = self.observer.names_mut().gateway(name);
        self.connect(gateway, "r0");
        gateway
    }

    pub fn connect(&mut self, gateway: GatewayId, instance: &str) {
        let instance = self.instance(instance);
        self.see(&Event::Connected { gateway, instance, namespaces: &[], kinds: 0 });
    }

    pub fn see(&mut self, event: &Event<'_>) {
        self.now += 1;
        if self.seen.is_ok() {
            self.seen = self.observer.see(At::millis(self.now), event);
        }
    }

    pub fn sleep(&mut self, seconds: u64) {
        self.now += seconds * 1_000;
    }

    pub fn write(&mut self, object: ObjectId, spec: Spec<'_>) -> Content {
        self.revision += 1;
        self.contents += 1;
        let content = Content(self.contents);
        let Spec { uid, generation, valid, refused, references, claim, created } = spec;
        let revision = self.revision;
        let write =
            Write { object, uid, revision, generation, content, valid, refused, references, claim, created };
        self.see(&Event::Written(write));
        content
    }

    pub fn delete(&mut self, object: ObjectId) {
        self.revision += 1;
        self.see(&Event::Deleted { object, revision: self.revision });
    }

    pub fn holds(&mut self, gateway: GatewayId, object: ObjectId, content: Content) {
        self.see(&Event::Holds { gateway, object, content, resolved: 0 });
    }

    pub fn loses(&mut self, gateway: GatewayId, object: ObjectId) {
        self.see(&Event::Dropped { gateway, object, by: Removal::Deletion });
    }

    pub fn acts(&mut self, instance: &str, epoch: u64) {
        let (instance, namespace) = (self.instance(instance), self.namespace("team-a"));
        self.see(&Event::ActingStarted { instance, namespace, epoch });
    }

    pub fn stops(&mut self, instance: &str) {
        let (instance, namespace) = (self.instance(instance), self.namespace("team-a"));
        self.see(&Event::ActingStopped { instance, namespace });
    }

    /// So many seconds from now an instance's acting ends by itself.
    pub fn until(&mut self, instance: &str, seconds: u64) {
        let instance = self.instance(instance);
        let until = At::millis(self.now + seconds * 1_000);
        self.see(&Event::ActingUntil { instance, until });
    }

    pub fn says(&mut self, instance: &str, object: ObjectId, generation: u32, ready: Ready) {
        self.revision += 1;
        let (instance, revision) = (self.instance(instance), self.revision);
        let says = Claim { generation, ready };
        self.see(&Event::StatusWritten { instance, object, revision, says });
    }

    /// Everything that was told keeps the promises.
    #[track_caller]
    pub fn is_fine(&self) {
        assert_eq!(self.seen, Ok(()));
    }

    /// The last of it broke this one, and the words say who and what.
    #[track_caller]
    pub fn breaks(&self, invariant: Invariant, words: &[&str]) {
        let violation = self.seen.as_ref().expect_err("a violation");
        assert_eq!(violation.invariant, invariant, "{violation}");
        for word in words {
            assert!(violation.text.contains(word), "{word:?} is not in {violation}");
        }
    }
}
