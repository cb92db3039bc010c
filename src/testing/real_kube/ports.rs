//! Free loopback ports for servers that cannot tell which port they got.
//!
//! The ports lie below the range from which the kernel takes the local ports of
//! outgoing connections. While the API server is stopped for an outage test, an
//! outgoing connection would otherwise sooner or later be given its port: a
//! reconnecting client can even connect to itself that way, and the server
//! could not come back to the address that every kubeconfig names.

use std::collections::BTreeSet;
use std::io;
use std::net::{Ipv4Addr, TcpListener};

use rand::Rng;

/// Below this live the ports of well-known services, and those that
/// [`crate::fleet::process::free_port`] gives away.
const LOWEST: u16 = 15_000;
/// From here on a demo takes its ports.
const END: u16 = 20_000;
/// Linux's default start of the outgoing range, for when it cannot be read.
const DEFAULT_OUTGOING_START: u16 = 32_768;
/// Among thousands of ports a free one is found at once; this only bounds the search.
const TRIES: usize = 200;

/// Distinct ports that were free a moment ago. Another process may still take
/// one before it is used, so whoever uses them retries with others.
pub(super) fn free<const N: usize>() -> io::Result<[u16; N]> {
    let range = candidates(outgoing_start());
    let mut found = BTreeSet::new();
    for _ in 0..TRIES {
        // Port 0 lets the kernel choose, for machines whose outgoing range
        // leaves nothing below it.
        let wanted = if range.is_empty() { 0 } else { rand::rng().random_range(range.clone()) };
        match TcpListener::bind((Ipv4Addr::LOCALHOST, wanted)) {
            Ok(listener) => found.insert(listener.local_addr()?.port()),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => continue,
            Err(error) => return Err(error),
        };
        if found.len() == N {
            let mut ports = [0; N];
            ports.iter_mut().zip(found).for_each(|(slot, port)| *slot = port);
            return Ok(ports);
        }
    }
    Err(io::Error::new(io::ErrorKind::AddrInUse, "no free loopback port found"))
}

fn candidates(outgoing_start: u16) -> std::ops::Range<u16> {
    LOWEST..outgoing_start.min(END)
}

fn outgoing_start() -> u16 {
    std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range")
        .ok()
        .and_then(|text| text.split_whitespace().next()?.parse().ok())
        .unwrap_or(DEFAULT_OUTGOING_START)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_distinct_and_below_the_outgoing_range() {
        let ports: [u16; 8] = free().unwrap();
        let distinct: BTreeSet<_> = ports.iter().collect();
        assert_eq!(distinct.len(), ports.len());
        let range = candidates(outgoing_start());
        assert!(range.is_empty() || ports.iter().all(|port| range.contains(port)), "{ports:?}");
    }
}
