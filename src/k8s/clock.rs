//! What time it is for the API server, by the `Date` of its answers.
//!
//! Nothing that decides who acts compares clocks; this is for what is stored with a
//! date for all, such as the fleet's CA: one machine whose clock is wrong must not
//! replace it.

use std::time::SystemTime;

use http::Request;
use http::header::DATE;
use k8s_openapi::jiff::fmt::rfc2822::DateTimeParser;
use kube::Client;
use kube::client::Body;

use crate::Error;

/// Asks for nothing in particular; what the answer is does not matter, so no right is
/// needed. It is exact to a second, and as old as the answer took.
///
/// # Errors
/// `Transient` when the API server is away, `Permanent` when it tells no time.
pub async fn server_time(client: &Client) -> Result<SystemTime, Error> {
    let what = "ask the API server for the time";
    let permanent = |message: &str| Error::Permanent { what: what.to_owned(), message: message.to_owned() };
    let request = Request::get("/version").body(Body::empty()).map_err(|e| permanent(&e.to_string()))?;
    let answer = client.send(request).await.map_err(|error| Error::from_kube(what, error))?;
    let date = answer.headers().get(DATE).and_then(|date| date.to_str().ok());
    // HTTP's dates are those of mail with the zone GMT (RFC 9110, section 5.6.7).
    let date = date.and_then(|date| DateTimeParser::new().parse_timestamp(date).ok());
    date.map(SystemTime::from).ok_or_else(|| {
        permanent("its answer has no Date that can be read; let whoever stands between pass that header on")
    })
}
