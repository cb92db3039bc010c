//! When a request is tried again.

use std::time::Duration;

use http::StatusCode;

use crate::spec::Retries;

/// What a route says about trying again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RetryPolicy {
    /// How many times it is tried again after the first time.
    pub(crate) attempts: u32,
    pub(crate) per_try_timeout: Option<Duration>,
    on: Vec<RetryOn>,
}

/// The conditions that this gateway knows. `retriable-status-codes` and
/// `retriable-headers` need lists that no field carries: they never hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RetryOn {
    ServerError,
    GatewayError,
    Reset,
    ConnectFailure,
    Retriable4xx,
    RefusedStream,
}

/// How one try ended when it ended without a usable answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failure {
    /// No connection came about: nothing was sent.
    Connect,
    /// The connection broke before the answer's head.
    Reset,
    /// The try took too long.
    PerTryTimeout,
    /// There was an answer with this status.
    Status(StatusCode),
}

impl RetryPolicy {
    pub(crate) fn compile(spec: &Retries) -> Self {
        let text = spec.retry_on.as_deref().unwrap_or_default();
        let mut on: Vec<RetryOn> = text.split(',').filter_map(|word| RetryOn::parse(word.trim())).collect();
        if text.trim().is_empty() {
            on = vec![RetryOn::GatewayError, RetryOn::Reset, RetryOn::ConnectFailure];
        }
        RetryPolicy {
            attempts: u32::try_from(spec.attempts.unwrap_or(3)).unwrap_or(0).min(10),
            per_try_timeout: spec.per_try_timeout.and_then(|timeout| timeout.limit()),
            on,
        }
    }

    /// Whether this failure is worth another try.
    pub(crate) fn covers(&self, failure: Failure) -> bool {
        self.on.iter().any(|on| match (on, failure) {
            (RetryOn::ServerError, Failure::Status(status)) => status.is_server_error(),
            (RetryOn::ServerError, _) => true,
            (RetryOn::GatewayError, Failure::Status(status)) => matches!(status.as_u16(), 502..=504),
            (RetryOn::GatewayError, Failure::PerTryTimeout) => true,
            (RetryOn::Reset | RetryOn::RefusedStream, Failure::Reset) => true,
            (RetryOn::Reset, Failure::PerTryTimeout) => true,
            (RetryOn::ConnectFailure, Failure::Connect) => true,
            (RetryOn::Retriable4xx, Failure::Status(status)) => status == StatusCode::CONFLICT,
            _ => false,
        })
    }

    /// The pause before the try with this number (1 is the first retry):
    /// doubling from 25 ms up to 250 ms, and jittered, so that many requests
    /// that failed together do not come back together.
    pub(crate) fn pause(retry: u32) -> Duration {
        let longest = Duration::from_millis(250).min(Duration::from_millis(25) * (1 << retry.min(5)));
        longest.mul_f64(rand::random_range(0.5..1.0))
    }
}

impl RetryOn {
    fn parse(word: &str) -> Option<Self> {
        Some(match word {
            "5xx" => RetryOn::ServerError,
            "gateway-error" => RetryOn::GatewayError,
            "reset" => RetryOn::Reset,
            "connect-failure" => RetryOn::ConnectFailure,
            "retriable-4xx" => RetryOn::Retriable4xx,
            "refused-stream" => RetryOn::RefusedStream,
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_condition_covers_its_failures() {
        let check = |on: &str, failure: Failure, expected: bool| {
            let policy =
                RetryPolicy::compile(&Retries { retry_on: Some(on.to_owned()), ..Retries::default() });
            assert_eq!(policy.covers(failure), expected, "{on} {failure:?}");
        };
        let status = |code: u16| Failure::Status(StatusCode::from_u16(code).unwrap());
        check("5xx", status(500), true);
        check("5xx", Failure::Connect, true);
        check("5xx", status(404), false);
        check("gateway-error", status(503), true);
        check("gateway-error", status(500), false);
        check("gateway-error", Failure::PerTryTimeout, true);
        check("reset", Failure::Reset, true);
        check("reset", Failure::Connect, false);
        check("connect-failure", Failure::Connect, true);
        check("connect-failure", status(503), false);
        check("retriable-4xx", status(409), true);
        check("retriable-4xx", status(400), false);
        check("refused-stream", Failure::Reset, true);
        check("retriable-status-codes", status(503), false);
        check("reset, retriable-4xx", status(409), true);
        check("", Failure::Connect, true);
        check("", status(500), false);
    }
}
