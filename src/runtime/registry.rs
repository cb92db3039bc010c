//! What `/metrics` says of every replica besides what its parts count: which build it is,
//! what the process takes, and values that are looked at only when somebody asks.

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{Gauge, IntGaugeVec, Opts, Registry};

/// A registry with the build and the process in it.
///
/// # Errors
/// When a name is registered already, which none is.
pub fn registry() -> Result<Registry, prometheus::Error> {
    let registry = Registry::new();
    // Under the published operator's name, too, by which dashboards find a release.
    for name in ["flotilla_build_info", "avapigw_operator_build_info"] {
        let build = IntGaugeVec::new(Opts::new(name, "1, with the release as label."), &["version"])?;
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        registry.register(Box::new(build))?;
    }
    #[cfg(target_os = "linux")]
    registry.register(Box::new(prometheus::process_collector::ProcessCollector::for_self()))?;
    Ok(registry)
}

/// Registers a gauge that has the value of the moment at which it is asked for.
///
/// # Errors
/// When the name is registered already.
pub fn looked_at(
    registry: &Registry,
    opts: Opts,
    value: impl Fn() -> f64 + Send + Sync + 'static,
) -> Result<(), prometheus::Error> {
    registry.register(Box::new(LookedAt { gauge: Gauge::with_opts(opts)?, value }))
}

struct LookedAt<F> {
    gauge: Gauge,
    value: F,
}

impl<F: Fn() -> f64 + Send + Sync> Collector for LookedAt<F> {
    fn desc(&self) -> Vec<&Desc> {
        self.gauge.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        self.gauge.set((self.value)());
        self.gauge.collect()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    fn value(registry: &Registry, name: &str) -> f64 {
        let families = registry.gather();
        let family = families.iter().find(|family| family.name() == name);
        let family = family.unwrap_or_else(|| panic!("{name} is not there"));
        let metric = &family.get_metric()[0];
        metric.get_gauge().get_value() + metric.get_counter().get_value()
    }

    #[test]
    fn a_registry_tells_the_build_and_what_the_process_takes() {
        let registry = registry().unwrap();
        assert_eq!(
            (value(&registry, "flotilla_build_info"), value(&registry, "avapigw_operator_build_info")),
            (1.0, 1.0)
        );
        let families = registry.gather();
        let build = families.iter().find(|family| family.name() == "flotilla_build_info").unwrap();
        let label = &build.get_metric()[0].get_label()[0];
        assert_eq!((label.name(), label.value()), ("version", env!("CARGO_PKG_VERSION")));
        if cfg!(target_os = "linux") {
            for name in ["process_resident_memory_bytes", "process_open_fds", "process_max_fds"] {
                assert!(value(&registry, name) > 0.0, "{name}");
            }
            // No clock is set to before 2020.
            assert!(value(&registry, "process_start_time_seconds") > 1.577e9);
            assert!(value(&registry, "process_cpu_seconds_total") >= 0.0);
        }
    }

    #[test]
    fn a_value_is_that_of_the_moment_at_which_it_is_asked_for() {
        let registry = Registry::new();
        let number = Arc::new(AtomicU32::new(1));
        let shown = number.clone();
        looked_at(&registry, Opts::new("number", "A number."), move || shown.load(Ordering::Relaxed).into())
            .unwrap();
        assert_eq!(value(&registry, "number"), 1.0);
        number.store(7, Ordering::Relaxed);
        assert_eq!(value(&registry, "number"), 7.0);
    }
}
