//! The hot paths: what is done for every change, gateway, acknowledgement or write.
//!
//! Each makes sure that it did what it says, or it would be fast for nothing. Nothing
//! in them is random.

mod admission;
mod delivery;
mod digest;
mod placement;
mod reading;
mod replica;
mod routes;
mod status;

use anyhow::Context as _;

use crate::meter::Meter;

/// One path.
pub struct Path {
    /// Its name in the baseline.
    pub name: &'static str,
    /// What counts.
    pub what: &'static str,
    run: fn(&mut Meter) -> anyhow::Result<()>,
}

/// All of them.
pub const PATHS: &[Path] = &[
    Path { name: "admission", what: "2,000 writes judged beside 10,000 routes", run: admission::conflicts },
    Path {
        name: "acknowledgements",
        what: "10 changes acknowledged by 1,000 gateways",
        run: delivery::acknowledged,
    },
    Path { name: "change", what: "10 changes made messages for 1,000 gateways", run: delivery::changes },
    Path { name: "digest", what: "digests of 20 namespaces with 100 routes each", run: digest::namespaces },
    Path { name: "list", what: "10,000 routes from pages of a list into the store", run: reading::list },
    Path { name: "owner", what: "owners of 10,000 namespaces among 5 members", run: placement::owners },
    Path {
        name: "rebalance",
        what: "10,000 namespaces placed anew when a sixth member joins",
        run: placement::rebalance,
    },
    Path {
        name: "snapshot",
        what: "the first 4 MiB of a snapshot of 10,000 routes put together and encoded",
        run: delivery::snapshot,
    },
    Path {
        name: "status",
        what: "10 statuses planned from what 1,000 gateways have applied",
        run: status::summaries,
    },
    Path {
        name: "watch",
        what: "1,000 changes from lines of a watch into a store of 10,000",
        run: reading::watch,
    },
];

impl Path {
    /// Goes it once.
    ///
    /// # Errors
    /// When it did not do what it is to do.
    pub fn go(&self, meter: &mut Meter) -> anyhow::Result<()> {
        (self.run)(meter).with_context(|| self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_path_does_what_it_is_to_do() {
        for path in PATHS {
            let mut meter = Meter::default();
            path.go(&mut meter).unwrap();
            assert!(!meter.spent.is_zero(), "{}: nothing counts", path.name);
        }
    }
}
