//! Requests to the API server, by its own metrics: by verb and resource, the
//! loadtest's own included.

use std::collections::BTreeMap;

use kube::Client;

/// The metric, of kube-apiserver and of the embedded server.
const NAME: &str = "apiserver_request_total{";

/// How many requests there were, by verb and resource: `PATCH apiroutes/status`.
pub type Requests = BTreeMap<String, u64>;

/// All so far; `None` where we may not know or nobody counts.
pub async fn so_far(client: &Client) -> Option<Requests> {
    let request = http::Request::get("/metrics").body(Vec::new()).ok()?;
    Some(parsed(&client.request_text(request).await.ok()?))
}

/// What came since.
pub fn since(now: &Requests, before: &Requests) -> Requests {
    let more = |(kind, count): (&String, &u64)| {
        let more = count - before.get(kind).copied().unwrap_or_default().min(*count);
        (more > 0).then(|| (kind.clone(), more))
    };
    now.iter().filter_map(more).collect()
}

fn parsed(metrics: &str) -> Requests {
    let mut requests = Requests::new();
    for line in metrics.lines().filter_map(|line| line.strip_prefix(NAME)) {
        let Some((labels, count)) = line.rsplit_once("} ") else { continue };
        // Values of these labels are names: nothing in them is escaped.
        let label = |name: &str| {
            let own = labels.split(',').find_map(|label| label.strip_prefix(name)?.strip_prefix("=\""));
            own.and_then(|value| value.strip_suffix('"')).unwrap_or_default()
        };
        let (resource, subresource) = (label("resource"), label("subresource"));
        let (true, Ok(count)) = (!resource.is_empty(), count.parse::<f64>()) else { continue };
        let subresource = if subresource.is_empty() { String::new() } else { format!("/{subresource}") };
        *requests.entry(format!("{} {resource}{subresource}", label("verb"))).or_default() += count as u64;
    }
    requests
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_of_a_verb_and_a_resource_are_added_up() {
        let metrics = "# TYPE apiserver_request_total counter\n\
            apiserver_request_total{code=\"200\",component=\"apiserver\",dry_run=\"\",group=\"avapigw.io\",\
            resource=\"apiroutes\",scope=\"resource\",subresource=\"status\",verb=\"APPLY\",version=\"v1alpha1\"} 40\n\
            apiserver_request_total{code=\"409\",group=\"avapigw.io\",resource=\"apiroutes\",subresource=\"status\",verb=\"APPLY\"} 2\n\
            apiserver_request_total{code=\"200\",group=\"\",resource=\"\",subresource=\"/readyz\",verb=\"GET\"} 9\n\
            apiserver_request_total{group=\"\",resource=\"namespaces\",subresource=\"\",verb=\"LIST\"} 1.2e+03\n\
            apiserver_request_duration_seconds_count{resource=\"apiroutes\",verb=\"GET\"} 7\n";
        let now = parsed(metrics);
        assert_eq!(now, [("APPLY apiroutes/status".into(), 42), ("LIST namespaces".into(), 1200)].into());
        let before = [("APPLY apiroutes/status".into(), 40), ("LIST namespaces".into(), 1200)].into();
        assert_eq!(since(&now, &before), [("APPLY apiroutes/status".into(), 2)].into());
    }
}
