//! The CA's Secret.

use std::sync::atomic::{AtomicUsize, Ordering};

use flotilla_k8s::Error;
use flotilla_k8s::ca::{CaPem, get, get_or_create, replace};
use futures::future::join_all;

use crate::server::{Server, on_every_server};

on_every_server!(many_replicas_that_start_together_get_one_ca);
async fn many_replicas_that_start_together_get_one_ca(server: Server) {
    let namespace = server.namespace().await;
    let made = AtomicUsize::new(0);
    let start = |number: usize| {
        let (client, namespace, made) = (server.client.clone(), &namespace, &made);
        async move {
            let make = || {
                made.fetch_add(1, Ordering::SeqCst);
                Ok(CaPem {
                    certificate: format!("certificate {number}"),
                    private_key: format!("key {number}"),
                    next: None,
                })
            };
            get_or_create(&client, namespace, "ca", make).await.unwrap()
        }
    };
    let all = join_all((0..12).map(start)).await;
    assert!(
        all.iter().all(|one| one.pem.certificate == all[0].pem.certificate
            && one.pem.private_key == all[0].pem.private_key)
    );
    assert!(made.load(Ordering::SeqCst) >= 1);
    let again =
        get_or_create(&server.client, &namespace, "ca", || unreachable!("it is there")).await.unwrap();
    assert_eq!(again.pem.certificate, all[0].pem.certificate);
}

on_every_server!(a_secret_without_its_key_is_named_with_a_remedy);
async fn a_secret_without_its_key_is_named_with_a_remedy(server: Server) {
    let namespace = server.namespace().await;
    let empty = || Ok(CaPem { certificate: String::new(), private_key: String::new(), next: None });
    get_or_create(&server.client, &namespace, "ca", empty).await.unwrap();
    let api = kube::Api::<k8s_openapi::api::core::v1::Secret>::namespaced(server.client.clone(), &namespace);
    let patch = serde_json::json!({"data": {"ca.key": null}});
    api.patch("ca", &kube::api::PatchParams::default(), &kube::api::Patch::Merge(&patch)).await.unwrap();
    let error =
        get_or_create(&server.client, &namespace, "ca", || unreachable!("it is there")).await.err().unwrap();
    let text = error.to_string();
    assert!(text.contains("ca.key") && text.contains(&namespace) && text.contains("restore it"), "{text}");
}

on_every_server!(of_many_who_replace_the_same_ca_one_succeeds);
async fn of_many_who_replace_the_same_ca_one_succeeds(server: Server) {
    let namespace = server.namespace().await;
    let pem = |number: usize, next: bool| CaPem {
        certificate: format!("certificate {number}"),
        private_key: format!("key {number}"),
        next: next.then(|| (format!("next certificate {number}"), format!("next key {number}"))),
    };
    let first = get_or_create(&server.client, &namespace, "ca", || Ok(pem(0, false))).await.unwrap();
    let tries = join_all((1..8).map(|number| replace(&server.client, &first, pem(number, true)))).await;
    let won: Vec<usize> =
        tries.iter().enumerate().filter_map(|(at, outcome)| outcome.is_ok().then_some(at + 1)).collect();
    assert_eq!(won.len(), 1, "{tries:?}");
    for lost in tries.into_iter().filter_map(Result::err) {
        assert!(matches!(lost, Error::Conflict { .. }), "{lost}");
    }
    let stored = get(&server.client, &namespace, "ca").await.unwrap();
    assert_eq!(stored.pem.certificate, format!("certificate {}", won[0]));
    assert_eq!(stored.pem.next.as_ref().unwrap().1, format!("next key {}", won[0]));
    replace(&server.client, &stored, pem(9, false)).await.unwrap();
    assert!(get(&server.client, &namespace, "ca").await.unwrap().pem.next.is_none());
}
