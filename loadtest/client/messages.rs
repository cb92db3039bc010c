//! The protocol's messages, as far as a gateway reads and writes them. Field
//! numbers are those of `proto/avapigw`.

use super::protobuf::{Fields, Malformed, Message};

/// What an update does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UpdateKind {
    /// One resource is new or changed: ADDED, MODIFIED.
    Upsert,
    /// One resource goes: DELETED.
    Deleted,
    /// Everything: FULL_SYNC.
    FullSync,
    /// Nothing but a version: HEARTBEAT, and what is not known.
    Heartbeat,
}

/// One update.
#[derive(Debug, Clone, Copy)]
pub struct Update<'a> {
    /// What it does.
    pub kind: UpdateKind,
    /// The version to acknowledge.
    pub version: &'a str,
    /// Updates with a sequence that is not higher than the last are skipped.
    pub sequence: u64,
    /// The resource of an upsert or a deletion.
    pub resource: Option<Resource<'a>>,
    /// The snapshot of a full synchronisation.
    pub snapshot: Option<Snapshot<'a>>,
}

/// One resource.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Resource<'a> {
    /// ResourceType as a number: 1 API_ROUTE, 2 GRPC_ROUTE, 3 BACKEND, 4 GRPC_BACKEND.
    pub kind: u64,
    /// `metadata.name`
    pub name: &'a str,
    /// `metadata.namespace`
    pub namespace: &'a str,
    /// `metadata.generation`
    pub generation: u64,
    /// `metadata.uid`
    pub uid: &'a str,
    /// The spec, with its name.
    pub spec: &'a [u8],
}

/// Everything a gateway shall have.
#[derive(Debug, Clone, Copy)]
pub struct Snapshot<'a>(&'a [u8]);

impl<'a> Snapshot<'a> {
    /// Its resources.
    pub fn resources(self) -> impl Iterator<Item = Result<Resource<'a>, Malformed>> {
        Fields(self.0).filter_map(|field| match field {
            Ok((3..=6, value)) => Some(Resource::decode(value.bytes())),
            Ok(_) => None,
            Err(error) => Some(Err(error)),
        })
    }
}

impl<'a> Update<'a> {
    /// Reads a `ConfigurationUpdate`.
    pub fn decode(message: &'a [u8]) -> Result<Self, Malformed> {
        let mut update =
            Update { kind: UpdateKind::Heartbeat, version: "", sequence: 0, resource: None, snapshot: None };
        for field in Fields(message) {
            match field? {
                (1, value) => {
                    update.kind = match value.number() {
                        1 | 2 => UpdateKind::Upsert,
                        3 => UpdateKind::Deleted,
                        4 => UpdateKind::FullSync,
                        _ => UpdateKind::Heartbeat,
                    }
                }
                (2, value) => update.version = value.text()?,
                (4, value) => update.resource = Some(Resource::decode(value.bytes())?),
                (5, value) => update.snapshot = Some(Snapshot(value.bytes())),
                (6, value) => update.sequence = value.number(),
                _ => {}
            }
        }
        Ok(update)
    }
}

impl<'a> Resource<'a> {
    fn decode(message: &'a [u8]) -> Result<Self, Malformed> {
        let mut resource = Resource::default();
        for field in Fields(message) {
            match field? {
                (1, value) => resource.kind = value.number(),
                (2, value) => resource.name = value.text()?,
                (3, value) => resource.namespace = value.text()?,
                (5, value) => resource.generation = value.number(),
                (6, value) => resource.uid = value.text()?,
                (9, value) => resource.spec = value.bytes(),
                _ => {}
            }
        }
        Ok(resource)
    }

    fn encode(&self, resource_version: &str) -> Vec<u8> {
        Message::default()
            .number(1, self.kind)
            .bytes(2, self.name.as_bytes())
            .bytes(3, self.namespace.as_bytes())
            .bytes(4, resource_version.as_bytes())
            .number(5, self.generation)
            .bytes(6, self.uid.as_bytes())
            .bytes(9, self.spec)
            .done()
    }
}

/// Writes an update of one resource, for the yardstick's server.
pub fn encode_update(resource: &Resource<'_>, version: &str, sequence: u64) -> Vec<u8> {
    Message::default()
        .number(1, 2)
        .bytes(2, version.as_bytes())
        .message(4, &resource.encode(version))
        .number(6, sequence)
        .number(7, 1)
        .done()
}

/// Writes a full synchronisation with these routes, for the yardstick's server.
pub fn encode_snapshot(routes: &[Resource<'_>], version: &str, sequence: u64) -> Vec<u8> {
    let snapshot = Message::default().bytes(1, version.as_bytes());
    let snapshot =
        routes.iter().fold(snapshot, |snapshot, route| snapshot.message(3, &route.encode(version)));
    Message::default()
        .number(1, 4)
        .bytes(2, version.as_bytes())
        .message(5, &snapshot.number(7, routes.len() as u64).done())
        .number(6, sequence)
        .number(7, routes.len() as u64)
        .done()
}

/// Who a gateway is, as it tells in every message.
#[derive(Debug, Clone)]
pub struct Info(Vec<u8>);

impl Info {
    /// A `GatewayInfo`.
    pub fn new(namespace: &str, name: &str) -> Self {
        let info = Message::default().bytes(1, name.as_bytes()).bytes(2, namespace.as_bytes());
        Info(info.bytes(3, b"loadtest").done())
    }

    /// A `RegisterGatewayRequest`.
    pub fn register(&self) -> Vec<u8> {
        let capabilities = Message::default().number(1, 1).number(2, 1).done();
        Message::default().message(1, &self.0).message(2, &capabilities).done()
    }

    /// A `StreamConfigurationRequest`.
    pub fn stream(&self, session: &str, version: &str) -> Vec<u8> {
        let request = Message::default().bytes(1, session.as_bytes()).message(2, &self.0);
        request.bytes(3, version.as_bytes()).done()
    }

    /// An `AcknowledgeConfigurationRequest`: a success, or what is wrong.
    pub fn acknowledge(
        &self,
        session: &str,
        version: &str,
        wrong: Option<&str>,
        took: std::time::Duration,
    ) -> Vec<u8> {
        let took =
            Message::default().number(1, took.as_secs()).number(2, u64::from(took.subsec_nanos())).done();
        let request = Message::default().bytes(1, session.as_bytes()).message(2, &self.0);
        let request = request.bytes(3, version.as_bytes());
        let request = match wrong {
            None => request.number(4, 1),
            Some(words) => request.bytes(5, words.as_bytes()),
        };
        request.message(6, &took).done()
    }

    /// A `HeartbeatRequest`.
    pub fn heartbeat(&self, session: &str, version: &str) -> Vec<u8> {
        let healthy = Message::default().number(1, 1).done();
        let request = Message::default().bytes(1, session.as_bytes()).message(2, &self.0);
        request.message(3, &healthy).bytes(4, version.as_bytes()).done()
    }
}

/// The answer to a registration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registered {
    /// Names the session in later messages.
    pub session: String,
    /// Heartbeats come this often.
    pub heartbeat: std::time::Duration,
}

/// Reads a `RegisterGatewayResponse`: the session, or the server's reason.
pub fn registered(message: &[u8]) -> Result<Result<Registered, String>, Malformed> {
    let (mut success, mut reason, mut session, mut heartbeat) = (false, "", "", 30);
    for field in Fields(message) {
        match field? {
            (1, value) => success = value.number() != 0,
            (2, value) => reason = value.text()?,
            (3, value) => session = value.text()?,
            (5, value) => {
                for field in Fields(value.bytes()) {
                    if let (1, seconds) = field? {
                        heartbeat = seconds.number().max(1);
                    }
                }
            }
            _ => {}
        }
    }
    let heartbeat = std::time::Duration::from_secs(heartbeat);
    Ok(if success {
        Ok(Registered { session: session.to_owned(), heartbeat })
    } else {
        Err(reason.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_update_is_read_as_it_was_written() {
        let resource = Resource { kind: 1, name: "r", namespace: "n", generation: 7, uid: "u", spec: b"{}" };
        let message = encode_update(&resource, "v1", 9);
        let update = Update::decode(&message).unwrap();
        assert_eq!((update.kind, update.version, update.sequence), (UpdateKind::Upsert, "v1", 9));
        assert_eq!(update.resource, Some(resource));
        assert!(update.snapshot.is_none());
    }

    #[test]
    fn a_snapshot_is_read_as_it_was_written() {
        let resource =
            |name| Resource { kind: 1, name, namespace: "n", generation: 1, uid: "u", spec: b"{}" };
        let routes = [resource("a"), resource("b")];
        let message = encode_snapshot(&routes, "v1", 1);
        let update = Update::decode(&message).unwrap();
        assert_eq!((update.kind, update.version, update.sequence), (UpdateKind::FullSync, "v1", 1));
        let read: Vec<_> = update.snapshot.unwrap().resources().map(Result::unwrap).collect();
        assert_eq!(read, routes);
    }

    #[test]
    fn a_snapshot_lists_all_kinds() {
        let resource = |name| Resource { name, ..Resource::default() }.encode("1");
        let snapshot = Message::default()
            .bytes(1, b"version")
            .message(3, &resource("a"))
            .message(6, &resource("d"))
            .number(7, 2)
            .done();
        let message = Message::default().number(1, 4).message(5, &snapshot).done();
        let update = Update::decode(&message).unwrap();
        assert_eq!(update.kind, UpdateKind::FullSync);
        let names: Vec<_> =
            update.snapshot.unwrap().resources().map(|resource| resource.unwrap().name).collect();
        assert_eq!(names, ["a", "d"]);
    }

    #[test]
    fn a_refused_registration_says_why() {
        let refused = Message::default().bytes(2, b"unknown gateway").done();
        assert_eq!(registered(&refused), Ok(Err("unknown gateway".to_owned())));
    }
}
