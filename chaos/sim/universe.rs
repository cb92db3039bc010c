//! The places that objects can have, by number, and the specs that tenants write.
//!
//! Names have a fixed width and the number of a content stands at a fixed place in
//! its spec, so that whoever plays a gateway reads both with a few comparisons.

use std::sync::Arc;

use bytes::Bytes;
use flotilla_core::ids::{Kind, ObjectKey};
use serde::{Deserialize, Serialize};

/// What is special about a spec.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Flavour {
    /// Nothing.
    Good,
    /// It cannot be compiled: gateways are not to get it.
    Invalid,
    /// Every gateway rejects it, and everything of its class with it (wire point 13).
    Poison,
    /// No gateway can decode it.
    Undecodable,
    /// Some gateways take it for poison.
    Disputed,
}

impl Flavour {
    const ALL: [Flavour; 5] =
        [Flavour::Good, Flavour::Invalid, Flavour::Poison, Flavour::Undecodable, Flavour::Disputed];

    const fn letter(self) -> u8 {
        match self {
            Flavour::Good => b'g',
            Flavour::Invalid => b'i',
            Flavour::Poison => b'p',
            Flavour::Undecodable => b'u',
            Flavour::Disputed => b'd',
        }
    }
}

/// What a tenant puts into a spec, besides the content's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spec {
    /// For routes: the number of the Backend of the own namespace that it leads to.
    pub leads_to: Option<u8>,
    /// What is special about it.
    pub flavour: Flavour,
    /// For routes: which of a few matches of the namespace it claims; of those that
    /// claim the same, the oldest is delivered. `None`: one of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claims: Option<u8>,
}

/// A resource as a gateway reads it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Read {
    /// The place of the object.
    pub object: u32,
    /// The content's number.
    pub content: u32,
    /// Whether the destination was found among the Backends.
    pub resolved: bool,
    /// What is special about it.
    pub flavour: Flavour,
}

/// Sizes, and the keys of all places.
#[derive(Debug, Clone)]
pub struct Universe {
    namespaces: Vec<Arc<str>>,
    names: u32,
    keys: Vec<ObjectKey>,
}

/// Matches that can be claimed, by namespace and kind.
const CLAIMS: u32 = 10;

/// How those begin. The others are all the same, and nobody is to compare them.
const CONTESTED: &str = "^/c";

/// Whether a spec claims one of them.
pub fn is_contested(spec: &[u8]) -> bool {
    spec.windows(CONTESTED.len()).any(|window| window == CONTESTED.as_bytes())
}

/// Kinds of one letter: `ObjectKey`s alone do not tell the kind.
const LETTERS: [u8; Kind::COUNT] = [b'a', b'g', b'b', b'q'];

impl Universe {
    /// So many namespaces with so many places per kind in each.
    pub fn new(namespaces: u16, names: u8) -> Self {
        let namespaces: Vec<Arc<str>> = (0..namespaces).map(|index| format!("t{index:04}").into()).collect();
        let names = u32::from(names.min(100));
        let mut keys = Vec::new();
        for namespace in &namespaces {
            for letter in LETTERS {
                let letter = char::from(letter);
                keys.extend(
                    (0..names).map(|name| ObjectKey::new(namespace.clone(), format!("{letter}{name:02}"))),
                );
            }
        }
        Universe { namespaces, names, keys }
    }

    /// The namespaces by number.
    pub fn namespaces(&self) -> &[Arc<str>] {
        &self.namespaces
    }

    /// How many places there are.
    pub fn places(&self) -> usize {
        self.keys.len()
    }

    /// The number of a place.
    pub fn place(&self, namespace: u16, kind: Kind, name: u8) -> u32 {
        (u32::from(namespace) * Kind::COUNT as u32 + kind.index() as u32) * self.names + u32::from(name)
    }

    /// The key of a place.
    pub fn key(&self, place: u32) -> &ObjectKey {
        &self.keys[place as usize]
    }

    /// The kind of a place.
    pub fn kind(&self, place: u32) -> Kind {
        Kind::ALL[(place / self.names) as usize % Kind::COUNT]
    }

    /// The number of a place's namespace.
    pub fn namespace(&self, place: u32) -> u32 {
        place / (self.names * Kind::COUNT as u32)
    }

    /// The places of a namespace.
    pub fn places_of(&self, namespace: u16) -> std::ops::Range<u32> {
        let size = self.names * Kind::COUNT as u32;
        u32::from(namespace) * size..(u32::from(namespace) + 1) * size
    }

    /// The place of a key; `None` for names that are no tenant's.
    pub fn find(&self, kind: Kind, key: &ObjectKey) -> Option<u32> {
        let namespace = digits(key.namespace.as_bytes().get(1..)?)?;
        let (letter, name) = key.name.as_bytes().split_first()?;
        let name = digits(name)?;
        let place = (namespace * Kind::COUNT as u32 + kind.index() as u32) * self.names + name;
        (*letter == LETTERS[kind.index()] && name < self.names && (place as usize) < self.keys.len())
            .then_some(place)
    }

    /// The Backend that a route of this place leads to.
    pub fn destination(&self, place: u32, spec: Spec) -> Option<u32> {
        let kind = match self.kind(place) {
            Kind::ApiRoute => Kind::Backend,
            Kind::GrpcRoute => Kind::GrpcBackend,
            Kind::Backend | Kind::GrpcBackend => return None,
        };
        let name = spec.leads_to.filter(|name| u32::from(*name) < self.names)?;
        Some(self.place(u16::try_from(self.namespace(place)).ok()?, kind, name))
    }

    /// What a spec claims at a place, as a number.
    pub fn claim(&self, place: u32, spec: Spec) -> Option<u32> {
        let claimed = spec.claims.filter(|_| self.kind(place).is_route())?;
        let kinds = Kind::COUNT as u32;
        Some(
            (self.namespace(place) * kinds + self.kind(place).index() as u32) * CLAIMS
                + u32::from(claimed % 10),
        )
    }

    /// A spec's bytes. What is read back stands at the beginning and at the end.
    pub fn spec(&self, place: u32, content: u32, spec: Spec) -> Bytes {
        let tail = format!("\"sim\":\"{content:08x}{}\"}}", char::from(spec.flavour.letter()));
        let broken = spec.flavour == Flavour::Invalid;
        let kind = self.kind(place);
        if !kind.is_route() {
            let hosts = if broken { "" } else { r#"{"address":"10.0.0.1","port":8080}"# };
            return format!("{{\"hosts\":[{hosts}],{tail}").into();
        }
        let host = self.destination(place, spec).map_or("10.0.0.1", |to| &self.key(to).name);
        let regex = match spec.claims {
            _ if broken => "(".to_owned(),
            Some(claimed) => format!("{CONTESTED}{}", claimed % 10),
            None => "^/v1".to_owned(),
        };
        let condition = match kind {
            Kind::GrpcRoute => format!("{{\"service\":{{\"regex\":\"{regex}\"}}}}"),
            _ => format!("{{\"uri\":{{\"regex\":\"{regex}\"}}}}"),
        };
        format!(
            "{{\"route\":[{{\"destination\":{{\"host\":\"{host}\",\"port\":80}}}}],\"match\":[{condition}],{tail}"
        )
        .into()
    }

    /// What a gateway reads of a resource.
    pub fn read(&self, kind: Kind, key: &ObjectKey, spec_json: &[u8]) -> Option<Read> {
        let object = self.find(kind, key)?;
        let tail = spec_json.get(spec_json.len().checked_sub(11)?..)?;
        let content = tail[..8].iter().try_fold(0u32, |number, byte| {
            let digit = char::from(*byte).to_digit(16)?;
            Some(number << 4 | digit)
        })?;
        let flavour = Flavour::ALL.into_iter().find(|flavour| flavour.letter() == tail[8])?;
        // {"name":"t0000/a00","route":[{"destination":{"host":"
        const HOST: usize = 9 + 9 + 2 + 9 + 16 + 8;
        let resolved = kind.is_route() && spec_json.get(HOST) == Some(&b't');
        Some(Read { object, content, resolved, flavour })
    }
}

fn digits(text: &[u8]) -> Option<u32> {
    text.iter().try_fold(0u32, |number, byte| {
        byte.is_ascii_digit().then(|| number.wrapping_mul(10).wrapping_add(u32::from(byte - b'0')))
    })
}

#[cfg(test)]
mod tests {
    use flotilla_avapigw::AvapigwCompiler;
    use flotilla_core::compile::Compiler as _;
    use flotilla_core::ids::Revision;
    use flotilla_core::object::RawObject;

    use super::*;

    /// What a gateway reads of what the product compiles.
    fn read_back(place: u32, content: u32, spec: Spec, exists: bool) -> Option<Read> {
        let universe = Universe::new(3, 4);
        let object = RawObject {
            kind: universe.kind(place),
            key: universe.key(place).clone(),
            uid: "u".into(),
            revision: Revision(1),
            generation: 1,
            created: "".into(),
            deleting: false,
            held: false,
            spec: universe.spec(place, content, spec),
            status: Bytes::new(),
        };
        let compiled = AvapigwCompiler::default().compile(&object, &|_, _| exists).outcome.ok()?;
        universe.read(object.kind, &object.key, &compiled.spec_json)
    }

    #[test]
    fn what_a_tenant_writes_is_what_a_gateway_reads() {
        let universe = Universe::new(3, 4);
        for kind in Kind::ALL {
            let place = universe.place(2, kind, 3);
            assert_eq!(universe.find(kind, universe.key(place)), Some(place));
            assert_eq!((universe.kind(place), universe.namespace(place)), (kind, 2));
            for flavour in Flavour::ALL {
                for (leads_to, exists) in [(None, false), (Some(1), false), (Some(1), true)] {
                    let spec = Spec { leads_to, flavour, claims: None };
                    let resolved = kind.is_route() && leads_to.is_some() && exists;
                    let expected = Read { object: place, content: 0xabcd, resolved, flavour };
                    let expected = (flavour != Flavour::Invalid).then_some(expected);
                    assert_eq!(read_back(place, 0xabcd, spec, exists), expected, "{kind} {spec:?}");
                }
            }
        }
    }
}
