//! Reviews of Ingresses.

use super::*;

const PATH: &str = "/validate-networking-k8s-io-v1-ingress";

/// An Ingress of our class with one path.
pub(super) fn at(path: &str) -> Value {
    let backend = json!({"service": {"name": "web", "port": {"name": "http"}}});
    json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "Ingress",
        "metadata": {
            "name": "api", "namespace": "shop", "uid": "i", "generation": 1,
            "creationTimestamp": "2026-11-21T10:00:00Z", "annotations": {"avapigw.io/timeout": "30s"},
        },
        "spec": {
            "ingressClassName": "avapigw",
            "tls": [{"hosts": ["a.example"], "secretName": "s"}],
            "rules": [{"http": {"paths": [{"path": path, "pathType": "Prefix", "backend": backend}]}}],
        },
    })
}

pub(super) fn review(operation: &str, object: Value, before: Value) -> Value {
    let mut review = super::review(operation, Kind::ApiRoute, object, before);
    review["request"]["kind"] = json!({"group": "networking.k8s.io", "version": "v1", "kind": "Ingress"});
    review
}

async fn ask(server: &Server, review: &Value) -> Value {
    let (status, body) = server.post(PATH, "application/json", review.to_string().as_bytes()).await;
    assert_eq!(status, 200, "{body}");
    body["response"].clone()
}

async fn refused(server: &Server, object: &Value) -> Vec<(String, String)> {
    let said = ask(server, &review("CREATE", object.clone(), Value::Null)).await;
    let details = &said["status"]["details"];
    if said["allowed"] != true {
        assert_eq!((&details["group"], &details["kind"]), (&json!("networking.k8s.io"), &json!("Ingress")));
    }
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let causes = details["causes"].as_array().into_iter().flatten();
    causes.map(|cause| (text(&cause["field"]), text(&cause["message"]))).collect()
}

fn annotated(name: &str, value: &str) -> Value {
    let mut object = at("/b");
    object["metadata"]["annotations"][name] = json!(value);
    object
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_ingress_is_judged_by_what_it_becomes() {
    let server = Server::start(known(), Limits::default()).await;
    assert!(refused(&server, &at("/b")).await.is_empty());

    let timeout = "metadata.annotations[avapigw.io/timeout]";
    for (value, problem) in [("soon", "is \"soon\": "), ("48h", "is too long"), ("0.1s", "is too short")] {
        let told = refused(&server, &annotated("avapigw.io/timeout", value)).await;
        assert!(told.len() == 1 && told[0].0 == timeout && told[0].1.contains(problem), "{value}: {told:?}");
    }
    let mut wrong = annotated("avapigw.io/retries", "many");
    wrong["spec"]["tls"][0]["secretName"] = json!("");
    wrong["spec"]["rules"][0]["host"] = json!("a..b");
    let fields: Vec<String> = refused(&server, &wrong).await.into_iter().map(|(field, _)| field).collect();
    assert_eq!(
        fields,
        ["spec.tls[0].secretName", "metadata.annotations[avapigw.io/retries]", "spec.rules[0].host"]
    );

    let unknown = ask(&server, &review("CREATE", annotated("avapigw.io/timeot", "30s"), Value::Null)).await;
    let warning = unknown["warnings"][0].as_str().unwrap();
    assert!(unknown["allowed"] == true && warning.contains("the nearest is avapigw.io/timeout"), "{warning}");

    let secrets = unknown["warnings"][1].as_str().unwrap();
    assert!(secrets.contains("spec.tls") && secrets.contains("not read"), "{secrets}");

    // There is a route `shop/first` at `/a`.
    let told = refused(&server, &at("/a")).await;
    assert_eq!(told[0].0, "spec.rules[0].http.paths[0]");
    assert!(
        told[0].1.contains("duplicate route match found") && told[0].1.contains("shop/first"),
        "{told:?}"
    );
    server.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn services_that_an_ingress_names_are_looked_up_once_they_are_listed() {
    let known = known();
    let server = Server::start(known.clone(), Limits::default()).await;
    let of_services = async |object: Value| -> Vec<String> {
        let said = ask(&server, &review("CREATE", object, Value::Null)).await;
        assert_eq!(said["allowed"], true, "{said}");
        let told =
            said["warnings"].as_array().into_iter().flatten().map(|one| one.as_str().unwrap().to_owned());
        told.filter(|told| told.contains("Service")).collect()
    };
    let mut two = at("/b");
    two["spec"]["defaultBackend"] = json!({"service": {"name": "rest", "port": {"number": 80}}});
    let mut again = two["spec"]["rules"][0]["http"]["paths"][0].clone();
    again["path"] = json!("/c");
    two["spec"]["rules"][0]["http"]["paths"].as_array_mut().unwrap().push(again);
    assert!(of_services(two.clone()).await.is_empty(), "nothing is listed");

    known.tell_services(&Seen::All(vec![service("rest")]));
    let lacks = "spec.rules[0].http.paths[0].backend: there is no Service web in shop; create it";
    assert_eq!(of_services(two.clone()).await, [lacks], "each is told once");
    let redirect = annotated("avapigw.io/redirect-uri", "/new");
    assert!(of_services(redirect).await.is_empty(), "a redirect leads to no Service");
    known.tell_services(&Seen::Is(Box::new(service("web"))));
    assert!(of_services(two.clone()).await.is_empty());
    known.tell_services(&Seen::Gone(Box::new(service("rest"))));
    let lacks = "spec.defaultBackend: there is no Service rest in shop; create it";
    assert_eq!(of_services(two.clone()).await, [lacks]);
    known.tell_services(&Seen::Lost);
    assert!(of_services(two).await.is_empty(), "what was seen may be old");
    server.end().await;
}

#[test]
fn where_references_must_be_there_an_ingress_that_names_no_service_is_refused() {
    let known = known();
    let judged = || {
        let review = review("CREATE", at("/b"), Value::Null).to_string();
        answered_by(&known, About::Ingress, review.as_bytes())
    };
    assert_eq!(judged().body["response"]["allowed"], true);
    known.tell_services(&Seen::All(Vec::new()));
    let refused = judged();
    let cause = &refused.body["response"]["status"]["details"]["causes"][0];
    assert_eq!(cause["field"], "spec.rules[0].http.paths[0].backend", "{:?}", refused.body);
    assert_eq!(cause["message"], "there is no Service web in shop; create it");
    known.tell_services(&Seen::All(vec![service("web")]));
    assert_eq!(judged().body["response"]["allowed"], true);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_ingress_that_is_not_ours_or_says_the_same_as_before_is_admitted_at_once() {
    let known = known();
    let server = Server::start(known.clone(), Limits::default()).await;
    let bad = annotated("avapigw.io/timeout", "soon");
    let mut other = bad.clone();
    other["spec"]["ingressClassName"] = json!("nginx");
    let mut nobodys = bad.clone();
    nobodys["spec"]["ingressClassName"] = Value::Null;
    let mut going = bad.clone();
    going["metadata"]["deletionTimestamp"] = json!("2026-11-21T11:00:00Z");
    let mut books = bad.clone();
    books["metadata"]["annotations"]["avapigw.io/observed-generation"] = json!("2");
    books["metadata"]["finalizers"] = json!(["ingress.avapigw.io/finalizer"]);
    for review in [
        review("CREATE", other.clone(), Value::Null),
        review("CREATE", nobodys, Value::Null),
        review("UPDATE", going, bad.clone()),
        review("UPDATE", books, bad.clone()),
        review("DELETE", Value::Null, bad.clone()),
    ] {
        assert_eq!(ask(&server, &review).await["allowed"], true, "{review}");
    }
    // What becomes ours is looked at.
    assert_eq!(ask(&server, &review("UPDATE", bad, other.clone())).await["allowed"], false);
    server.end().await;

    // Also before this replica knows anything.
    let server = Server::start(Known::new(Scope::Namespace), Limits::default()).await;
    assert_eq!(ask(&server, &review("CREATE", other, Value::Null)).await["allowed"], true);
    let ours = review("CREATE", at("/b"), Value::Null).to_string();
    assert_eq!(server.post(PATH, "application/json", ours.as_bytes()).await.0, 503);
    server.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_an_ingress_and_a_route_with_the_same_match_the_first_is_admitted() {
    let server = Server::start(known(), Limits::default()).await;
    assert!(refused(&server, &at("/same")).await.is_empty());
    let (_, body) = server.ask(Kind::ApiRoute, &created(Kind::ApiRoute, route("other", "/same"))).await;
    let message = body["response"]["status"]["message"].as_str().unwrap();
    assert!(
        message.contains("shop/ingress-shop-api-") && message.contains("admitted a moment ago"),
        "{message}"
    );
    assert!(refused(&server, &at("/same")).await.is_empty(), "it may be tried again");

    let (_, body) = server.ask(Kind::ApiRoute, &created(Kind::ApiRoute, route("other", "/mine"))).await;
    assert_eq!(body["response"]["allowed"], true);
    let told = refused(&server, &at("/mine")).await;
    assert_eq!(told[0].0, "spec.rules[0].http.paths[0]");
    assert!(told[0].1.contains("shop/other, which was admitted a moment ago"), "{told:?}");
    server.end().await;
}
