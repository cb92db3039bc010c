//! End-to-end tests over the built binary.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod admission;
mod agreement;
mod api_errors;
mod certificates;
mod chart;
mod cli;
mod cold_start;
mod conflict;
mod dashboards;
mod demo;
mod events;
mod examples;
mod fencing;
mod fleet;
mod half_known;
mod ingress;
mod kubectl;
mod lagging;
mod layout;
mod left_behind;
mod outage;
mod ownership;
mod policy;
mod program;
mod published;
mod push;
mod rejection;
mod restored;
mod resume;
mod schema_cases;
mod simultaneous;
mod standalone;
mod strangers;
mod told_to_end;
