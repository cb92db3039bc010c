//! What events name: dense numbers, so that a check is a look into a table, and
//! the words behind them, so that a violation can be read.

use std::collections::HashMap;
use std::fmt;

/// A moment of the run, in nanoseconds since its beginning. True time: whoever is
/// watched may have clocks that differ from it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct At(pub u64);

impl At {
    /// So many milliseconds after the beginning.
    pub const fn millis(millis: u64) -> Self {
        At(millis * 1_000_000)
    }

    /// So many seconds after the beginning.
    pub const fn seconds(seconds: u64) -> Self {
        At::millis(seconds * 1_000)
    }

    /// The moment this much later.
    #[must_use]
    pub const fn plus(self, nanoseconds: u64) -> Self {
        At(self.0.saturating_add(nanoseconds))
    }
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:03} s", self.0 / 1_000_000_000, self.0 / 1_000_000 % 1_000)
    }
}

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub u32);

        impl $name {
            /// Where it stands in a table.
            pub const fn index(self) -> usize {
                self.0 as usize
            }
        }
    )*};
}

ids! {
    /// A namespace.
    NamespaceId;
    /// A place for an object: kind, namespace and name. Objects that follow each
    /// other at the same place have the same id and different uids.
    ObjectId;
    /// One life of a replica: a process that starts again, or a replica that fenced
    /// itself and came back, is another instance.
    InstanceId;
    /// A gateway, over all its restarts and connections.
    GatewayId;
}

/// A kind of object: any number below 32.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KindId(pub u8);

impl KindId {
    /// Its bit in a set of kinds.
    pub const fn bit(self) -> u32 {
        1 << (self.0 & 31)
    }
}

/// What a tenant wrote into an object's spec, once: every write of a spec has a
/// number of its own in the run, counting up from 1. Whoever plays the tenant puts
/// it into the spec, whoever plays the gateway reads it there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Content(pub u32);

/// Words for one sort of id.
#[derive(Debug, Default)]
pub(crate) struct Words {
    list: Vec<String>,
    known: HashMap<String, u32>,
}

impl Words {
    fn id(&mut self, word: &str) -> u32 {
        if let Some(id) = self.known.get(word) {
            return *id;
        }
        let id = u32::try_from(self.list.len()).unwrap_or(u32::MAX);
        self.list.push(word.to_owned());
        self.known.insert(word.to_owned(), id);
        id
    }

    fn word(&self, id: u32) -> &str {
        self.list.get(id as usize).map_or("?", String::as_str)
    }

    fn len(&self) -> usize {
        self.list.len()
    }
}

/// The words behind ids. Asking for the id of a word that is not known gives it one:
/// ids count up from 0.
#[derive(Debug, Default)]
pub struct Names {
    namespaces: Words,
    objects: Words,
    instances: Words,
    gateways: Words,
    /// By object.
    places: Vec<(KindId, NamespaceId)>,
}

impl Names {
    /// The id of a namespace.
    pub fn namespace(&mut self, name: &str) -> NamespaceId {
        NamespaceId(self.namespaces.id(name))
    }

    /// The id of the place of an object; `kind_name` is for people.
    pub fn object(&mut self, kind: KindId, kind_name: &str, namespace: NamespaceId, name: &str) -> ObjectId {
        let word = format!("{kind_name} {}/{name}", self.namespaces.word(namespace.0));
        let id = self.objects.id(&word);
        if id as usize == self.places.len() {
            self.places.push((kind, namespace));
        }
        ObjectId(id)
    }

    /// The id of one life of a replica.
    pub fn instance(&mut self, name: &str) -> InstanceId {
        InstanceId(self.instances.id(name))
    }

    /// The id of a gateway.
    pub fn gateway(&mut self, name: &str) -> GatewayId {
        GatewayId(self.gateways.id(name))
    }

    /// How a namespace is called.
    pub fn of_namespace(&self, id: NamespaceId) -> &str {
        self.namespaces.word(id.0)
    }

    /// How an object is called: kind, namespace and name.
    pub fn of_object(&self, id: ObjectId) -> &str {
        self.objects.word(id.0)
    }

    /// How an instance is called.
    pub fn of_instance(&self, id: InstanceId) -> &str {
        self.instances.word(id.0)
    }

    /// How a gateway is called.
    pub fn of_gateway(&self, id: GatewayId) -> &str {
        self.gateways.word(id.0)
    }

    /// Kind and namespace of an object.
    pub fn place(&self, id: ObjectId) -> Option<(KindId, NamespaceId)> {
        self.places.get(id.index()).copied()
    }

    /// How many namespaces, objects, instances and gateways have an id.
    pub fn counts(&self) -> [usize; 4] {
        [self.namespaces.len(), self.objects.len(), self.instances.len(), self.gateways.len()]
    }
}
