//! Core types ↔ peer protocol. What comes in is checked: a member of another
//! version of this program may say what we do not understand.

use std::collections::BTreeSet;
use std::time::Duration;

use flotilla_core::agreement::{Testimony, Witness};
use flotilla_core::delivery::{Ack, AppliedRow, AppliedTable, Rejection, Scope, Tombstone};
use flotilla_core::ids::{Epoch, Frontier, GatewayId, Kind, ObjectKey, Revision, SessionId};
use flotilla_core::placement::{LoadReport, MAX_ENTRIES, Weight};
use flotilla_core::ring::Position;
use flotilla_core::shardmap::Share;
use flotilla_proto::peer as wire;
use tonic::Status;

use super::History;

pub(super) fn kind_out(kind: Kind) -> wire::Kind {
    match kind {
        Kind::ApiRoute => wire::Kind::ApiRoute,
        Kind::GrpcRoute => wire::Kind::GrpcRoute,
        Kind::Backend => wire::Kind::Backend,
        Kind::GrpcBackend => wire::Kind::GrpcBackend,
    }
}

pub(super) fn kind_in(kind: i32) -> Result<Kind, Status> {
    match wire::Kind::try_from(kind) {
        Ok(wire::Kind::ApiRoute) => Ok(Kind::ApiRoute),
        Ok(wire::Kind::GrpcRoute) => Ok(Kind::GrpcRoute),
        Ok(wire::Kind::Backend) => Ok(Kind::Backend),
        Ok(wire::Kind::GrpcBackend) => Ok(Kind::GrpcBackend),
        Ok(wire::Kind::Unspecified) | Err(_) => {
            Err(Status::invalid_argument(format!("kind {kind} is unknown")))
        }
    }
}

pub(super) fn frontier_out(frontier: &Frontier) -> wire::Frontier {
    wire::Frontier { revisions: frontier.0.iter().map(|revision| revision.0).collect() }
}

pub(super) fn frontier_in(frontier: Option<wire::Frontier>) -> Result<Frontier, Status> {
    let revisions = frontier.unwrap_or_default().revisions;
    let count = revisions.len();
    let revisions: [u64; Kind::COUNT] = revisions.try_into().map_err(|_| {
        Status::invalid_argument(format!("a frontier has {} revisions, not {count}", Kind::COUNT))
    })?;
    Ok(Frontier(revisions.map(Revision)))
}

fn gateway_out(gateway: &GatewayId) -> wire::Gateway {
    wire::Gateway { namespace: gateway.namespace.to_string(), name: gateway.name.to_string() }
}

fn gateway_in(gateway: Option<wire::Gateway>) -> Result<GatewayId, Status> {
    let gateway = gateway.ok_or_else(|| Status::invalid_argument("a gateway is missing"))?;
    Ok(GatewayId { namespace: gateway.namespace.into(), name: gateway.name.into() })
}

fn scope_out(scope: &Scope) -> wire::Scope {
    wire::Scope {
        namespaces: scope.namespaces.iter().map(ToString::to_string).collect(),
        kinds: scope.kinds.iter().map(|kind| kind_out(*kind).into()).collect(),
    }
}

fn scope_in(scope: Option<wire::Scope>) -> Result<Scope, Status> {
    let scope = scope.unwrap_or_default();
    Ok(Scope {
        namespaces: scope.namespaces.into_iter().map(Into::into).collect(),
        kinds: scope.kinds.into_iter().map(kind_in).collect::<Result<BTreeSet<_>, _>>()?,
    })
}

pub(super) fn table_out(table: &AppliedTable) -> wire::Applied {
    wire::Applied {
        rows: table
            .rows
            .iter()
            .map(|row| wire::AppliedRow {
                scope: Some(scope_out(&row.scope)),
                low: Some(frontier_out(&row.low)),
                excluded: row
                    .excluded
                    .iter()
                    .map(|(kind, content)| wire::Exclusion {
                        kind: kind_out(*kind).into(),
                        content: *content,
                    })
                    .collect(),
                unknown: row.unknown,
                gateways: row.gateways,
                names: row.names.iter().map(gateway_out).collect(),
            })
            .collect(),
        rejections: table
            .rejections
            .iter()
            .map(|rejection| wire::Rejection {
                kind: kind_out(rejection.kind).into(),
                namespace: rejection.key.namespace.to_string(),
                name: rejection.key.name.to_string(),
                content: rejection.content,
                gateway: Some(gateway_out(&rejection.gateway)),
                message: rejection.message.clone(),
            })
            .collect(),
    }
}

pub(super) fn table_in(table: wire::Applied) -> Result<AppliedTable, Status> {
    let row = |row: wire::AppliedRow| {
        Ok::<_, Status>(AppliedRow {
            scope: scope_in(row.scope)?,
            low: frontier_in(row.low)?,
            excluded: row
                .excluded
                .into_iter()
                .map(|exclusion| Ok((kind_in(exclusion.kind)?, exclusion.content)))
                .collect::<Result<_, Status>>()?,
            unknown: row.unknown,
            gateways: row.gateways,
            names: row.names.into_iter().map(|name| gateway_in(Some(name))).collect::<Result<_, _>>()?,
        })
    };
    let rejection = |rejection: wire::Rejection| {
        Ok::<_, Status>(Rejection {
            kind: kind_in(rejection.kind)?,
            key: ObjectKey::new(rejection.namespace, rejection.name),
            content: rejection.content,
            gateway: gateway_in(rejection.gateway)?,
            message: rejection.message,
        })
    };
    Ok(AppliedTable {
        rows: table.rows.into_iter().map(row).collect::<Result<_, _>>()?,
        rejections: table.rejections.into_iter().map(rejection).collect::<Result<_, _>>()?,
    })
}

pub(super) fn testimony_out(testimony: &Testimony) -> wire::Testimony {
    let witnesses = testimony.namespaces.values();
    wire::Testimony {
        epoch: testimony.epoch.0,
        events: Some(frontier_out(&testimony.events)),
        namespaces: testimony.namespaces.keys().copied().collect(),
        digests: witnesses.clone().map(|witness| witness.digest).collect(),
        acting: witnesses.map(|witness| witness.acting).collect(),
    }
}

pub(super) fn testimony_in(testimony: wire::Testimony) -> Result<Testimony, Status> {
    let wire::Testimony { epoch, events, namespaces, digests, acting } = testimony;
    if namespaces.len() != digests.len() || namespaces.len() != acting.len() {
        return Err(Status::invalid_argument(format!(
            "a testimony needs one digest and one mark for each namespace, not {} and {} for {}",
            digests.len(),
            acting.len(),
            namespaces.len()
        )));
    }
    let witnesses = digests.into_iter().zip(acting).map(|(digest, acting)| Witness { digest, acting });
    Ok(Testimony {
        epoch: Epoch(epoch),
        events: frontier_in(events)?,
        namespaces: namespaces.into_iter().zip(witnesses).collect(),
    })
}

pub(super) fn loads_out(report: &LoadReport) -> wire::Loads {
    wire::Loads {
        positions: report.entries.iter().map(|(position, _)| position.0).collect(),
        weights: report.entries.iter().map(|(_, weight)| weight.0).collect(),
        rest_namespaces: report.rest.namespaces,
        rest_load: report.rest.load,
        epoch: report.epoch.0,
    }
}

pub(super) fn loads_in(loads: wire::Loads) -> Result<LoadReport, Status> {
    let (positions, weights) = (loads.positions, loads.weights);
    if positions.len() != weights.len() || positions.len() > MAX_ENTRIES || !positions.is_sorted() {
        return Err(Status::invalid_argument(format!(
            "loads need one weight for each position, ascending, at most {MAX_ENTRIES}, not {} for {}",
            weights.len(),
            positions.len()
        )));
    }
    let entries = positions.into_iter().map(Position).zip(weights.into_iter().map(Weight)).collect();
    let rest = Share { namespaces: loads.rest_namespaces, load: loads.rest_load };
    Ok(LoadReport { epoch: Epoch(loads.epoch), entries, rest })
}

pub(super) fn ack_out(ack: &Ack) -> wire::ForwardedAck {
    wire::ForwardedAck {
        session_id: ack.session.to_string(),
        gateway: Some(gateway_out(&ack.gateway)),
        config_version: ack.version.clone(),
        success: ack.result.is_ok(),
        error_message: ack.result.as_ref().err().cloned().unwrap_or_default(),
        apply_duration: ack.apply_duration.try_into().ok(),
    }
}

pub(super) fn ack_in(ack: wire::ForwardedAck) -> Result<Ack, Status> {
    Ok(Ack {
        session: SessionId::from(ack.session_id),
        gateway: gateway_in(ack.gateway)?,
        version: ack.config_version,
        result: if ack.success { Ok(()) } else { Err(ack.error_message) },
        apply_duration: duration_in(ack.apply_duration),
    })
}

/// A duration from the wire; a missing or negative one is none.
pub(crate) fn duration_in(duration: Option<prost_types::Duration>) -> Duration {
    duration.and_then(|duration| Duration::try_from(duration).ok()).unwrap_or_default()
}

pub(super) fn heartbeat_out(
    session: &SessionId,
    gateway: &GatewayId,
    version: &str,
) -> wire::ForwardedHeartbeat {
    wire::ForwardedHeartbeat {
        session_id: session.to_string(),
        gateway: Some(gateway_out(gateway)),
        last_applied_version: version.to_owned(),
    }
}

pub(super) fn heartbeat_in(
    heartbeat: wire::ForwardedHeartbeat,
) -> Result<(SessionId, GatewayId, String), Status> {
    let gateway = gateway_in(heartbeat.gateway)?;
    Ok((SessionId::from(heartbeat.session_id), gateway, heartbeat.last_applied_version))
}

pub(super) fn history_out(history: Option<History>) -> wire::HistoryResponse {
    let Some(history) = history else { return wire::HistoryResponse::default() };
    wire::HistoryResponse {
        available: true,
        tombstones: history
            .tombstones
            .iter()
            .map(|tombstone| wire::Tombstone {
                kind: kind_out(tombstone.kind).into(),
                namespace: tombstone.key.namespace.to_string(),
                name: tombstone.key.name.to_string(),
                revision: tombstone.revision.0,
            })
            .collect(),
        until: history.until.0,
    }
}

pub(super) fn history_in(response: wire::HistoryResponse) -> Result<Option<History>, Status> {
    if !response.available {
        return Ok(None);
    }
    let tombstone = |tombstone: wire::Tombstone| {
        Ok::<_, Status>(Tombstone {
            kind: kind_in(tombstone.kind)?,
            key: ObjectKey::new(tombstone.namespace, tombstone.name),
            revision: Revision(tombstone.revision),
        })
    };
    Ok(Some(History {
        tombstones: response.tombstones.into_iter().map(tombstone).collect::<Result<_, _>>()?,
        until: Revision(response.until),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_survive_the_wire() {
        let gateway = GatewayId { namespace: "edge".into(), name: "gw".into() };
        let table = AppliedTable {
            rows: vec![AppliedRow {
                scope: Scope {
                    namespaces: ["a".into(), "b".into()].into(),
                    kinds: [Kind::ApiRoute, Kind::GrpcBackend].into(),
                },
                low: Frontier([Revision(1), Revision(u64::MAX), Revision(0), Revision(9)]),
                excluded: vec![(Kind::Backend, 0xdead_beef)],
                unknown: true,
                gateways: 7,
                names: vec![gateway.clone()],
            }],
            rejections: vec![Rejection {
                kind: Kind::GrpcRoute,
                key: ObjectKey::new("a", "r"),
                content: 3,
                gateway,
                message: "no such thing".to_owned(),
            }],
        };
        assert_eq!(table_in(table_out(&table)).unwrap(), table);
    }

    #[test]
    fn testimonies_survive_the_wire_and_only_whole() {
        let witness = |digest, acting| Witness { digest, acting };
        let testimony = Testimony {
            epoch: Epoch(7),
            events: Frontier([Revision(1), Revision(2), Revision(3), Revision(u64::MAX)]),
            namespaces: [(1, witness(u64::MAX, true)), (u64::MAX, witness(0, false))].into(),
        };
        assert_eq!(testimony_in(testimony_out(&testimony)).unwrap(), testimony);
        let mut cut = testimony_out(&testimony);
        cut.acting.pop();
        assert!(testimony_in(cut).is_err());
    }

    #[test]
    fn acks_survive_the_wire() {
        for result in [Ok(()), Err("bad regex".to_owned())] {
            let ack = Ack {
                session: "f-0/1".into(),
                gateway: GatewayId { namespace: "edge".into(), name: "gw".into() },
                version: "v".to_owned(),
                result,
                apply_duration: Duration::from_millis(1500),
            };
            let back = ack_in(ack_out(&ack)).unwrap();
            assert_eq!((back.session, back.gateway, back.version), (ack.session, ack.gateway, ack.version));
            assert_eq!((back.result, back.apply_duration), (ack.result, ack.apply_duration));
        }
    }

    #[test]
    fn loads_survive_the_wire_and_only_whole() {
        let entries =
            [("a", 7), ("b", 0), ("c", 255)].map(|(name, weight)| (Position::of(name), Weight(weight)));
        let mut report = LoadReport::new(Epoch(4), entries.into());
        report.rest = Share { namespaces: 3, load: 1 << 40 };
        assert_eq!(loads_in(loads_out(&report)).unwrap(), report);
        for spoil in [
            (|loads| loads.weights.truncate(2)) as fn(&mut wire::Loads),
            |loads| loads.positions.reverse(),
            |loads| {
                loads.positions = vec![0; MAX_ENTRIES + 1];
                loads.weights = vec![0; MAX_ENTRIES + 1].into();
            },
        ] {
            let mut loads = loads_out(&report);
            spoil(&mut loads);
            assert!(loads_in(loads).is_err());
        }
    }

    #[test]
    fn unavailable_history_is_not_empty_history() {
        let empty = History { tombstones: Vec::new(), until: Revision(5) };
        assert_eq!(history_in(history_out(Some(empty.clone()))).unwrap(), Some(empty));
        assert_eq!(history_in(history_out(None)).unwrap(), None);
    }

    #[test]
    fn what_cannot_be_understood_is_refused() {
        assert!(frontier_in(Some(wire::Frontier { revisions: vec![1, 2, 3] })).is_err());
        assert!(kind_in(0).is_err());
        assert!(kind_in(99).is_err());
        assert!(ack_in(wire::ForwardedAck::default()).is_err());
    }
}
