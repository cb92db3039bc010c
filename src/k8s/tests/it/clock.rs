//! The API server's time.

use std::time::{Duration, SystemTime};

use flotilla_k8s::clock::server_time;

use crate::server::{Server, on_every_server};

on_every_server!(the_time_is_told_to_everybody_exact_to_a_second);
async fn the_time_is_told_to_everybody_exact_to_a_second(server: Server) {
    for client in [&server.client, &server.limited] {
        let before = SystemTime::now();
        let told = server_time(client).await.unwrap();
        // A server may keep the text of its date for a second, and tells no fractions.
        let second = Duration::from_secs(1);
        assert!(before - 2 * second <= told && told <= SystemTime::now() + second, "{before:?}: {told:?}");
    }
}
