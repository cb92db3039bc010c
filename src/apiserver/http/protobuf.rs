//! Bodies in Kubernetes' protobuf envelope.
//!
//! kubectl sends built-in objects that it makes itself (`create namespace`, `create secret`, `auth can-i`) in this
//! form and no other. They are read into JSON by a table of field numbers for the kinds it makes; answers are always
//! JSON, which it accepts. Fields with the value zero or empty are left out: the encoder writes every field of a
//! message that is there, set or not.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

use crate::status::ApiError;

/// What a protobuf envelope begins with.
const MAGIC: &[u8] = b"k8s\0";

/// The form of a field.
enum Form {
    Text,
    Texts,
    Bool,
    Int,
    /// Seconds and nanoseconds, written to the second.
    Time,
    /// Seconds and nanoseconds, written to the microsecond.
    MicroTime,
    IntOrString,
    TextMap,
    /// Values are written in base64.
    BytesMap,
    Message(&'static [Field]),
    Messages(&'static [Field]),
    /// The fields of the message are fields of the one that it is in.
    Inline(&'static [Field]),
}

type Field = (u64, &'static str, Form);

const OWNER: &[Field] = &[
    (1, "kind", Form::Text),
    (3, "name", Form::Text),
    (4, "uid", Form::Text),
    (5, "apiVersion", Form::Text),
    (6, "controller", Form::Bool),
    (7, "blockOwnerDeletion", Form::Bool),
];
const METADATA: &[Field] = &[
    (1, "name", Form::Text),
    (2, "generateName", Form::Text),
    (3, "namespace", Form::Text),
    (5, "uid", Form::Text),
    (6, "resourceVersion", Form::Text),
    (7, "generation", Form::Int),
    (8, "creationTimestamp", Form::Time),
    (9, "deletionTimestamp", Form::Time),
    (10, "deletionGracePeriodSeconds", Form::Int),
    (11, "labels", Form::TextMap),
    (12, "annotations", Form::TextMap),
    (13, "ownerReferences", Form::Messages(OWNER)),
    (14, "finalizers", Form::Texts),
];
const NAMESPACE: &[Field] = &[
    (1, "metadata", Form::Message(METADATA)),
    (2, "spec", Form::Message(&[(1, "finalizers", Form::Texts)])),
];
const CONFIG_MAP: &[Field] = &[
    (1, "metadata", Form::Message(METADATA)),
    (2, "data", Form::TextMap),
    (3, "binaryData", Form::BytesMap),
    (4, "immutable", Form::Bool),
];
const SECRET: &[Field] = &[
    (1, "metadata", Form::Message(METADATA)),
    (2, "data", Form::BytesMap),
    (3, "type", Form::Text),
    (4, "stringData", Form::TextMap),
    (5, "immutable", Form::Bool),
];
const SERVICE_PORT: &[Field] = &[
    (1, "name", Form::Text),
    (2, "protocol", Form::Text),
    (3, "port", Form::Int),
    (4, "targetPort", Form::IntOrString),
    (5, "nodePort", Form::Int),
    (6, "appProtocol", Form::Text),
];
const SERVICE_SPEC: &[Field] = &[
    (1, "ports", Form::Messages(SERVICE_PORT)),
    (2, "selector", Form::TextMap),
    (3, "clusterIP", Form::Text),
    (4, "type", Form::Text),
    (5, "externalIPs", Form::Texts),
    (7, "sessionAffinity", Form::Text),
    (8, "loadBalancerIP", Form::Text),
    (9, "loadBalancerSourceRanges", Form::Texts),
    (10, "externalName", Form::Text),
    (11, "externalTrafficPolicy", Form::Text),
    (12, "healthCheckNodePort", Form::Int),
    (13, "publishNotReadyAddresses", Form::Bool),
    (17, "ipFamilyPolicy", Form::Text),
    (18, "clusterIPs", Form::Texts),
    (19, "ipFamilies", Form::Texts),
    (20, "allocateLoadBalancerNodePorts", Form::Bool),
    (21, "loadBalancerClass", Form::Text),
    (22, "internalTrafficPolicy", Form::Text),
    (23, "trafficDistribution", Form::Text),
];
const SERVICE: &[Field] =
    &[(1, "metadata", Form::Message(METADATA)), (2, "spec", Form::Message(SERVICE_SPEC))];
const INGRESS_SERVICE: &[Field] = &[
    (1, "name", Form::Text),
    (2, "port", Form::Message(&[(1, "name", Form::Text), (2, "number", Form::Int)])),
];
const REFERENCE: &[Field] = &[(1, "apiGroup", Form::Text), (2, "kind", Form::Text), (3, "name", Form::Text)];
const INGRESS_BACKEND: &[Field] =
    &[(3, "resource", Form::Message(REFERENCE)), (4, "service", Form::Message(INGRESS_SERVICE))];
const INGRESS_PATH: &[Field] =
    &[(1, "path", Form::Text), (2, "backend", Form::Message(INGRESS_BACKEND)), (3, "pathType", Form::Text)];
const INGRESS_HTTP: &[Field] = &[(1, "http", Form::Message(&[(1, "paths", Form::Messages(INGRESS_PATH))]))];
const INGRESS_SPEC: &[Field] = &[
    (1, "defaultBackend", Form::Message(INGRESS_BACKEND)),
    (2, "tls", Form::Messages(&[(1, "hosts", Form::Texts), (2, "secretName", Form::Text)])),
    (3, "rules", Form::Messages(&[(1, "host", Form::Text), (2, "", Form::Inline(INGRESS_HTTP))])),
    (4, "ingressClassName", Form::Text),
];
const INGRESS: &[Field] =
    &[(1, "metadata", Form::Message(METADATA)), (2, "spec", Form::Message(INGRESS_SPEC))];
const LEASE_SPEC: &[Field] = &[
    (1, "holderIdentity", Form::Text),
    (2, "leaseDurationSeconds", Form::Int),
    (3, "acquireTime", Form::MicroTime),
    (4, "renewTime", Form::MicroTime),
    (5, "leaseTransitions", Form::Int),
    (6, "strategy", Form::Text),
    (7, "preferredHolder", Form::Text),
];
const LEASE: &[Field] = &[(1, "metadata", Form::Message(METADATA)), (2, "spec", Form::Message(LEASE_SPEC))];
const RESOURCE_ATTRIBUTES: &[Field] = &[
    (1, "namespace", Form::Text),
    (2, "verb", Form::Text),
    (3, "group", Form::Text),
    (4, "version", Form::Text),
    (5, "resource", Form::Text),
    (6, "subresource", Form::Text),
    (7, "name", Form::Text),
];
const ACCESS_SPEC: &[Field] = &[
    (1, "resourceAttributes", Form::Message(RESOURCE_ATTRIBUTES)),
    (2, "nonResourceAttributes", Form::Message(&[(1, "path", Form::Text), (2, "verb", Form::Text)])),
];
const ACCESS: &[Field] = &[(1, "metadata", Form::Message(METADATA)), (2, "spec", Form::Message(ACCESS_SPEC))];
const SUBJECT: &[Field] = &[(1, "metadata", Form::Message(METADATA))];
const DELETE_OPTIONS: &[Field] = &[
    (1, "gracePeriodSeconds", Form::Int),
    (2, "preconditions", Form::Message(&[(1, "uid", Form::Text), (2, "resourceVersion", Form::Text)])),
    (3, "orphanDependents", Form::Bool),
    (4, "propagationPolicy", Form::Text),
    (5, "dryRun", Form::Texts),
];

fn fields_of(kind: &str) -> Option<&'static [Field]> {
    Some(match kind {
        "Namespace" => NAMESPACE,
        "ConfigMap" => CONFIG_MAP,
        "Secret" => SECRET,
        "Service" => SERVICE,
        "Ingress" => INGRESS,
        "Lease" => LEASE,
        "SelfSubjectAccessReview" => ACCESS,
        "SelfSubjectReview" => SUBJECT,
        "DeleteOptions" => DELETE_OPTIONS,
        _ => return None,
    })
}

/// Reads an object from a protobuf envelope.
pub(super) fn parse(body: &[u8]) -> Result<Value, ApiError> {
    let broken = || ApiError::bad_request("the protobuf body is malformed");
    let envelope = body.strip_prefix(MAGIC).ok_or_else(broken)?;
    let (mut api_version, mut kind, mut raw) = (String::new(), String::new(), &[][..]);
    for entry in Reader(envelope) {
        match entry.ok_or_else(broken)? {
            (1, Wire::Bytes(types)) => {
                for entry in Reader(types) {
                    match entry.ok_or_else(broken)? {
                        (1, Wire::Bytes(text)) => api_version = utf8(text).ok_or_else(broken)?,
                        (2, Wire::Bytes(text)) => kind = utf8(text).ok_or_else(broken)?,
                        _ => {}
                    }
                }
            }
            (2, Wire::Bytes(object)) => raw = object,
            _ => {}
        }
    }
    let fields = fields_of(&kind).ok_or_else(|| {
        ApiError::unsupported_media_type(format!(
            "the body of the request was in an unknown format (protobuf of {api_version} {kind}) - accepted media \
             types include: application/json, application/yaml"
        ))
    })?;
    let mut object = message(raw, fields).ok_or_else(broken)?;
    object.insert("apiVersion".into(), api_version.into());
    object.insert("kind".into(), kind.into());
    Ok(Value::Object(object))
}

fn message(bytes: &[u8], fields: &[Field]) -> Option<Map<String, Value>> {
    let mut object = Map::new();
    for entry in Reader(bytes) {
        let (number, wire) = entry?;
        let Some((_, name, form)) = fields.iter().find(|(known, _, _)| *known == number) else { continue };
        match (form, wire) {
            (Form::Text, Wire::Bytes(text)) => {
                put(&mut object, name, Value::String(utf8(text)?).into_non_empty());
            }
            (Form::Texts, Wire::Bytes(text)) => append(&mut object, name, utf8(text)?.into()),
            (Form::Bool, Wire::Number(number)) => {
                put(&mut object, name, (number != 0).then_some(Value::Bool(true)));
            }
            (Form::Int, Wire::Number(number)) => {
                put(&mut object, name, (number != 0).then(|| Value::from(number.cast_signed())));
            }
            (Form::Time, Wire::Bytes(time)) => put(&mut object, name, timestamp(time, "%Y-%m-%dT%H:%M:%SZ")?),
            (Form::MicroTime, Wire::Bytes(time)) => {
                put(&mut object, name, timestamp(time, "%Y-%m-%dT%H:%M:%S.%6fZ")?);
            }
            (Form::IntOrString, Wire::Bytes(either)) => put(&mut object, name, int_or_string(either)?),
            (Form::TextMap, Wire::Bytes(entry)) => {
                let (key, value) = map_entry(entry)?;
                insert(&mut object, name, key, utf8(value)?);
            }
            (Form::BytesMap, Wire::Bytes(entry)) => {
                let (key, value) = map_entry(entry)?;
                insert(&mut object, name, key, STANDARD.encode(value));
            }
            (Form::Message(fields), Wire::Bytes(inner)) => {
                let inner = message(inner, fields)?;
                put(&mut object, name, (!inner.is_empty()).then_some(Value::Object(inner)));
            }
            (Form::Messages(fields), Wire::Bytes(inner)) => {
                append(&mut object, name, Value::Object(message(inner, fields)?));
            }
            (Form::Inline(fields), Wire::Bytes(inner)) => object.extend(message(inner, fields)?),
            _ => return None,
        }
    }
    Some(object)
}

trait NonEmpty {
    fn into_non_empty(self) -> Option<Value>;
}

impl NonEmpty for Value {
    fn into_non_empty(self) -> Option<Value> {
        (self != "").then_some(self)
    }
}

fn put(object: &mut Map<String, Value>, name: &str, value: Option<Value>) {
    if let Some(value) = value {
        object.insert(name.to_owned(), value);
    }
}

fn append(object: &mut Map<String, Value>, name: &str, value: Value) {
    let list = object.entry(name).or_insert_with(|| Value::Array(Vec::new()));
    if let Some(list) = list.as_array_mut() {
        list.push(value);
    }
}

fn insert(object: &mut Map<String, Value>, name: &str, key: String, value: String) {
    let map = object.entry(name).or_insert_with(|| Value::Object(Map::new()));
    if let Some(map) = map.as_object_mut() {
        map.insert(key, value.into());
    }
}

fn utf8(bytes: &[u8]) -> Option<String> {
    String::from_utf8(bytes.to_vec()).ok()
}

fn map_entry(bytes: &[u8]) -> Option<(String, &[u8])> {
    let (mut key, mut value) = (String::new(), &[][..]);
    for entry in Reader(bytes) {
        match entry? {
            (1, Wire::Bytes(text)) => key = utf8(text)?,
            (2, Wire::Bytes(bytes)) => value = bytes,
            _ => {}
        }
    }
    Some((key, value))
}

/// The outer `None` is for bytes that make no sense, the inner for a time that is not set.
fn timestamp(bytes: &[u8], format: &str) -> Option<Option<Value>> {
    let (mut seconds, mut nanos) = (0_i64, 0_i32);
    for entry in Reader(bytes) {
        match entry? {
            (1, Wire::Number(number)) => seconds = number.cast_signed(),
            (2, Wire::Number(number)) => nanos = i32::try_from(number).ok()?,
            _ => {}
        }
    }
    if (seconds, nanos) == (0, 0) {
        return Some(None);
    }
    let time = jiff::Timestamp::new(seconds, nanos).ok()?;
    Some(Some(time.strftime(format).to_string().into()))
}

fn int_or_string(bytes: &[u8]) -> Option<Option<Value>> {
    let (mut is_text, mut number, mut text) = (false, 0_i64, String::new());
    for entry in Reader(bytes) {
        match entry? {
            (1, Wire::Number(kind)) => is_text = kind == 1,
            (2, Wire::Number(found)) => number = found.cast_signed(),
            (3, Wire::Bytes(found)) => text = utf8(found)?,
            _ => {}
        }
    }
    let value = if is_text { Value::from(text) } else { Value::from(number) };
    Some((value != 0 && value != "").then_some(value))
}

/// A value on the wire.
enum Wire<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

/// Reads field after field; yields `None` once where the bytes make no sense, then ends.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn varint(&mut self) -> Option<u64> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let (&byte, rest) = self.0.split_first()?;
            self.0 = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    fn bytes(&mut self, length: u64) -> Option<&'a [u8]> {
        let (found, rest) = self.0.split_at_checked(usize::try_from(length).ok()?)?;
        self.0 = rest;
        Some(found)
    }

    fn field(&mut self) -> Option<(u64, Wire<'a>)> {
        let tag = self.varint()?;
        let wire = match tag & 7 {
            0 => Wire::Number(self.varint()?),
            1 => Wire::Bytes(self.bytes(8)?),
            2 => {
                let length = self.varint()?;
                Wire::Bytes(self.bytes(length)?)
            }
            5 => Wire::Bytes(self.bytes(4)?),
            _ => return None,
        };
        Some((tag >> 3, wire))
    }
}

impl<'a> Iterator for Reader<'a> {
    type Item = Option<(u64, Wire<'a>)>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_none() {
            self.0 = &[];
        }
        Some(field)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    /// Writes a length-delimited field.
    fn field(number: u8, content: &[u8]) -> Vec<u8> {
        let mut out = vec![number << 3 | 2, u8::try_from(content.len()).unwrap()];
        out.extend(content);
        out
    }

    fn envelope(kind: &str, object: &[u8]) -> Vec<u8> {
        let types = [field(1, b"v1"), field(2, kind.as_bytes())].concat();
        [MAGIC.to_vec(), field(1, &types), field(2, object)].concat()
    }

    #[test]
    fn a_secret_is_read() {
        let entry = [field(1, b"k"), field(2, b"v")].concat();
        // The creation timestamp is a message without content, the generated name an empty text.
        let metadata = [field(1, b"a"), field(2, b""), field(8, b"")].concat();
        let object = [field(1, &metadata), field(2, &entry), field(3, b"Opaque"), vec![5 << 3, 1]].concat();
        assert_eq!(
            parse(&envelope("Secret", &object)).unwrap(),
            json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "a"}, "data": {"k": "dg=="},
                "type": "Opaque", "immutable": true})
        );
    }

    #[test]
    fn an_ingress_rule_carries_its_paths() {
        let port = field(2, &[2 << 3, 80]);
        let backend = field(4, &[field(1, b"s"), port].concat());
        let path = [field(1, b"/"), field(2, &backend), field(3, b"Exact")].concat();
        let rule = [field(1, b"h"), field(2, &field(1, &field(1, &path)))].concat();
        let object = field(2, &field(3, &rule));
        assert_eq!(
            parse(&envelope("Ingress", &object)).unwrap()["spec"],
            json!({"rules": [{"host": "h", "http": {"paths": [{"path": "/", "pathType": "Exact",
                "backend": {"service": {"name": "s", "port": {"number": 80}}}}]}}]})
        );
    }

    #[test]
    fn other_kinds_are_refused() {
        assert_eq!(parse(&envelope("Pod", b"")).map_err(|error| error.code), Err(415));
    }

    proptest! {
        #[test]
        fn no_bytes_break_the_reader(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&envelope("Service", &bytes));
            let _ = parse(&bytes);
        }
    }
}
