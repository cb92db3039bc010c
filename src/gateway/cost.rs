//! What applying an update costs the published gateway (wire §2 point 12), as
//! measured: for runs that are to show how a fleet of real gateways behaves.

use std::time::Duration;

/// Routes present → milliseconds.
type Curve = [(f64, f64); 4];

const FULL_SYNC: Curve = [(0.0, 0.0), (1_000.0, 17.0), (5_000.0, 212.0), (10_000.0, 874.0)];
const ROUTE_INCREMENT: Curve = [(0.0, 0.0), (1_000.0, 7.0), (5_000.0, 119.0), (10_000.0, 650.0)];

/// What an update makes the gateway do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Work {
    /// Everything is loaded anew.
    FullSync,
    /// All routes are loaded anew.
    RouteIncrement,
    /// Nothing that takes time.
    Little,
}

/// The time that it takes with so many routes present.
pub(crate) fn duration(work: Work, routes: usize) -> Duration {
    let curve = match work {
        Work::FullSync => &FULL_SYNC,
        Work::RouteIncrement => &ROUTE_INCREMENT,
        Work::Little => return Duration::ZERO,
    };
    Duration::from_secs_f64(interpolate(curve, routes as f64) / 1000.0)
}

/// Straight lines between the measured points, and on beyond the last one.
fn interpolate(curve: &Curve, x: f64) -> f64 {
    let segment = curve.windows(2).find(|pair| x <= pair[1].0).unwrap_or(&curve[curve.len() - 2..]);
    let ((x0, y0), (x1, y1)) = (segment[0], segment[1]);
    y0 + (x - x0) * (y1 - y0) / (x1 - x0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn measured_points_are_met_and_others_lie_between() {
        let millis = |work, routes| duration(work, routes).as_millis();
        assert_eq!(millis(Work::FullSync, 1_000), 17);
        assert_eq!(millis(Work::FullSync, 5_000), 212);
        assert_eq!(millis(Work::FullSync, 10_000), 874);
        assert_eq!(millis(Work::RouteIncrement, 1_000), 7);
        assert_eq!(millis(Work::RouteIncrement, 10_000), 650);
        assert!((120..650).contains(&millis(Work::RouteIncrement, 7_000)));
        assert!(millis(Work::FullSync, 20_000) > 874);
        assert_eq!(millis(Work::FullSync, 0), 0);
        assert_eq!(millis(Work::Little, 10_000), 0);
    }
}
