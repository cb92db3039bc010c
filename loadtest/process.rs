//! What processes have used, from `/proc` (see proc(5)).

use std::time::Duration;

use anyhow::Context as _;

/// The kernel tells user space times in this unit on every architecture.
const TICKS_PER_SECOND: f64 = 100.0;

/// What a process has used so far.
#[derive(Debug, Clone, Copy, Default, serde::Serialize)]
pub struct Usage {
    /// CPU time, user and system, in seconds.
    pub cpu_seconds: f64,
    /// The most memory it ever had, in bytes.
    pub peak_rss: u64,
    /// Memory now, in bytes.
    pub rss: u64,
    /// Open file descriptors.
    pub descriptors: u64,
}

impl Usage {
    /// Reads what is known of a process.
    ///
    /// # Errors
    /// When it is gone.
    pub fn of(id: u32) -> anyhow::Result<Usage> {
        let read = |file: &str| {
            let path = format!("/proc/{id}/{file}");
            std::fs::read_to_string(&path).with_context(|| path.clone())
        };
        // Behind the name, which may contain anything, in parentheses.
        let stat = read("stat")?;
        let fields: Vec<&str> =
            stat.rsplit_once(')').context("/proc/ID/stat has no name")?.1.split_whitespace().collect();
        let ticks = |place: usize| fields.get(place).and_then(|text| text.parse::<f64>().ok()).unwrap_or(0.0);
        let status = read("status")?;
        let kibibytes = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0) * 1024
        };
        Ok(Usage {
            cpu_seconds: (ticks(11) + ticks(12)) / TICKS_PER_SECOND,
            peak_rss: kibibytes("VmHWM:"),
            rss: kibibytes("VmRSS:"),
            descriptors: std::fs::read_dir(format!("/proc/{id}/fd"))?.count() as u64,
        })
    }

    /// Adds what another process has used.
    pub fn add(&mut self, other: &Usage) {
        self.cpu_seconds += other.cpu_seconds;
        self.peak_rss += other.peak_rss;
        self.rss += other.rss;
        self.descriptors += other.descriptors;
    }

    /// The same with the CPU time since an earlier look.
    pub fn since(self, before: &Usage) -> Usage {
        Usage { cpu_seconds: self.cpu_seconds - before.cpu_seconds, ..self }
    }
}

/// The machine's load average over the last minute.
pub fn load() -> f64 {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace().next().and_then(|word| word.parse().ok()).unwrap_or(0.0)
}

/// Waits for a condition, looking again every few milliseconds.
///
/// # Errors
/// When it does not hold in time; `what` says what was waited for.
pub async fn wait(what: &str, within: Duration, mut holds: impl FnMut() -> bool) -> anyhow::Result<()> {
    let until = tokio::time::Instant::now() + within;
    while !holds() {
        anyhow::ensure!(tokio::time::Instant::now() < until, "{what}: not within {within:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_uses_memory_and_descriptors() {
        let usage = Usage::of(std::process::id()).unwrap();
        assert!(usage.rss > 0 && usage.peak_rss >= usage.rss && usage.descriptors > 2, "{usage:?}");
    }

    #[test]
    fn a_process_that_is_gone_is_an_error() {
        assert!(Usage::of(u32::MAX).is_err());
    }
}
