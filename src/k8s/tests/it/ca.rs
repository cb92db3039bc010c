//! The CA's Secret.

use std::sync::atomic::{AtomicUsize, Ordering};

use flotilla_k8s::ca::{CaPem, get_or_create};
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
                })
            };
            get_or_create(&client, namespace, "ca", make).await.unwrap()
        }
    };
    let all = join_all((0..12).map(start)).await;
    assert!(
        all.iter().all(|one| one.certificate == all[0].certificate && one.private_key == all[0].private_key)
    );
    assert!(made.load(Ordering::SeqCst) >= 1);
    let again =
        get_or_create(&server.client, &namespace, "ca", || unreachable!("it is there")).await.unwrap();
    assert_eq!(again.certificate, all[0].certificate);
}

on_every_server!(a_secret_without_its_key_is_named_with_a_remedy);
async fn a_secret_without_its_key_is_named_with_a_remedy(server: Server) {
    let namespace = server.namespace().await;
    let empty = || Ok(CaPem { certificate: String::new(), private_key: String::new() });
    get_or_create(&server.client, &namespace, "ca", empty).await.unwrap();
    let api = kube::Api::<k8s_openapi::api::core::v1::Secret>::namespaced(server.client.clone(), &namespace);
    let patch = serde_json::json!({"data": {"ca.key": null}});
    api.patch("ca", &kube::api::PatchParams::default(), &kube::api::Patch::Merge(&patch)).await.unwrap();
    let error =
        get_or_create(&server.client, &namespace, "ca", || unreachable!("it is there")).await.err().unwrap();
    let text = error.to_string();
    assert!(text.contains("ca.key") && text.contains(&namespace) && text.contains("restore it"), "{text}");
}
