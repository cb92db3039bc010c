//! What results must not exceed.

/// What a result must not exceed.
pub struct Target {
    pub what: &'static str,
    pub run: &'static str,
    /// JSON pointer into the run's result.
    pub at: &'static str,
    pub at_most: f64,
    /// If it is missed: why, as far as profiles told.
    pub why: &'static str,
}

const fn target(what: &'static str, run: &'static str, at: &'static str, at_most: f64) -> Target {
    Target { what, run, at, at_most, why: "" }
}

impl Target {
    const fn missed_because(self, why: &'static str) -> Target {
        Target { why, ..self }
    }
}

/// All of them.
pub const TARGETS: &[Target] = &[
    target("p50 to the last of 200 gateways, by the yardstick", "propagation", "/p50_ratio", 1.5),
    target("p99 of the same", "propagation", "/p99_ratio", 1.5)
        .missed_because("The slowest 3 of 300 changes: one run differs from the next by as much, and they have been below 1 with ten times the routes or five times the gateways."),
    target("p50 with 10,000 routes", "propagation-10000-routes", "/p50_ratio", 1.5),
    target("p99 with 10,000 routes", "propagation-10000-routes", "/p99_ratio", 1.5),
    target("p50 with 1,000 gateways", "propagation-1000-gateways", "/p50_ratio", 1.5),
    target("p99 with 1,000 gateways", "propagation-1000-gateways", "/p99_ratio", 1.5),
    target("CPU of a delivery, by the yardstick", "propagation", "/cpu_ratio", 1.3)
        .missed_because("Of 51 to 58 µs a delivery, 36 to 38 are what the yardstick needs as well: connections, HTTP/2, TLS. To decide, to keep each session's position and to take note of acknowledgements takes 4, to sleep and to be woken up in one task more 5, to write a status 2; the rest is reading the change, for delivery and for admission. To let acknowledgements gather for 1 ms, so that fewer of them wake anybody up, was tried and changed nothing."),
    target("bytes to a gateway, by the yardstick", "propagation", "/bytes_ratio", 1.1),
    target("burst of 1,000: everywhere after, in ms", "burst", "/everywhere_after_ms", 1000.0)
        .missed_because("Every gateway gets one or two snapshots of everything, 0.7 MB, through TLS, from two cores that gateways and the API server need as well."),
    target("cold start: all in sync, by the yardstick", "coldsync", "/time_ratio", 1.5),
    target("cold start: memory over what is allowed", "coldsync", "/peak_by_allowed", 1.0)
        .missed_because("A configuration above 4 MiB goes in many steps, and of each step that a gateway is at, what is lacking there is kept."),
    target("memory in peace over what is allowed", "coldsync", "/rss_by_allowed", 1.0)
        .missed_because("An object of 0.6 kB takes some 3 kB: its spec as written and as it is delivered, its status, its entry, and what it claims, once for delivery and once for admission. A gateway takes 80 to 100 KiB, where 24 are allowed: buffers of TLS and HTTP/2. The program's code takes 27 MiB of the 30 MiB that are allowed before the first object."),
    target("writes of statuses a change", "propagation", "/controller/status_patches_per_change", 1.05),
    target("writes of statuses a second under churn, besides one a change", "churn", "/status_patches_beside_per_second", 10.0),
    target("CPU of listing 100,000 routes, by kube's typed watcher", "reading", "/list_cpu_ratio", 0.333),
    target("CPU of watching their changes, by the same", "reading", "/watch_cpu_ratio", 0.333)
        .missed_because("Four fifths of what is left are the same for both: to sleep and to be woken for each change, the socket and TLS. To read the object is 15 %."),
    target("start with them, by the time of a bare list", "reading", "/start_ratio", 1.5)
        .missed_because("A bare list is bytes only. Of what comes on top, 45 % is delivery (each object compiled, its names, references and claims indexed), 26 % the index of admission, 12 % reading JSON; one comes after the other."),
    target("CPU of 5 replicas, by that of one", "scale", "/rows/3/cpu_ratio", 1.3)
        .missed_because("A delivery costs the more the fewer gateways a replica serves: with 20 gateways one that is alone uses 160 µs for each, with 200 some 52, as a change is read, its status is written and Leases are renewed however many gateways there are, and each time that it wakes up there are fewer answers. So does the yardstick (62 µs and 36). Besides, every replica reads every change, so that each can serve every gateway and nobody waits for a lease."),
    target("writes of the replica of 5 farthest from the mean", "scale", "/rows/3/writes_off_mean", 0.15)
        .missed_because("What is shared are namespaces, each as a whole; no replica has more than its bound, and one may have fewer."),
    target("gateways of the replica of 5 farthest from the mean", "scale", "/rows/3/gateways_off_mean", 0.1),
    target("quiet tenants' p99 beside a loud one, by alone", "noisy", "/p99_ratio", 1.5)
        .missed_because("A gateway takes what a batch brings one after the other and acknowledges each. A quiet tenant's change that comes while a loud one's batch is under way waits for its end, some 8 ms at 1,000 changes a second; otherwise it comes first in its own batch. With batches of six loud updates it was 10 times: so many batches meet the limit of 50 a second and gateway, and then everybody waits for that."),
    target("p99 beside gateways that never read, by alone", "slow", "/p99_ratio", 1.1),
    target("memory beside gateways that never read, by alone", "slow", "/rss_ratio", 1.1)
        .missed_because("It is one to two encoded configurations, which those that do not read are in the middle of and share: with 1,000, 5,000 and 10,000 routes of 0.6 kB it is 2.5, 8.1 and 9.5 MiB for 20 of them."),
    target("admission: p99 with 10,000 routes, by that with 100", "admission", "/p99_ratio", 1.2)
        .missed_because("The p50 is the same (0.4 ms). The slowest 1 % of 2,000 reviews differ by 1 to 2 ms, beside the replicas' other work for ten thousand objects that have just been created."),
    target("kills: to the last gateway that stayed, in ms", "failover", "/controller/stayed_ms/max", 1000.0),
];
