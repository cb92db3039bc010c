//! Custom resources of the fleet itself (group `fleet.flotilla.dev`).

mod shard_map;

pub use shard_map::{
    AwayStatus, DEFAULT_VIRTUAL_NODES, MemberStatus, Ring, SHARD_MAP_NAME, ShardMap, ShardMapSpec,
    ShardMapStatus,
};

/// API group of the fleet's own resources.
pub const GROUP: &str = "fleet.flotilla.dev";
