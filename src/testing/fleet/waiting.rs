//! Waiting for conditions, with deadlines and with words about what was seen
//! last.

use std::time::Duration;

use tokio::time::{Instant, sleep};

/// How often a condition is looked at.
const POLL: Duration = Duration::from_millis(50);

/// Time for what takes a moment on a quiet machine. Far above that: a deadline
/// is there to end a test that hangs, not to measure.
pub const SOON: Duration = Duration::from_secs(120);

/// Waits until `probe` gives a value; its errors say what is still lacking.
///
/// # Panics
/// When that does not happen within the time.
pub async fn within<T>(time: Duration, what: &str, probe: impl AsyncFnMut() -> Result<T, String>) -> T {
    attempt(time, what, probe).await.unwrap_or_else(|problem| panic!("{problem}"))
}

/// Waits until `probe` gives a value; its errors say what is still lacking.
///
/// # Errors
/// What was lacking at the end of the time.
pub async fn attempt<T>(
    time: Duration,
    what: &str,
    mut probe: impl AsyncFnMut() -> Result<T, String>,
) -> Result<T, String> {
    let until = Instant::now() + time;
    loop {
        match probe().await {
            Ok(value) => return Ok(value),
            Err(lacking) if Instant::now() >= until => {
                return Err(format!("not within {time:?}: {what}; {lacking}"));
            }
            Err(_) => sleep(POLL).await,
        }
    }
}

/// Looks at a condition again and again for the whole time: for what must not
/// happen.
///
/// # Panics
/// When it does not hold once.
pub async fn throughout(time: Duration, what: &str, mut probe: impl AsyncFnMut() -> Result<(), String>) {
    let until = Instant::now() + time;
    while Instant::now() < until {
        if let Err(broken) = probe().await {
            panic!("{what}: {broken}");
        }
        sleep(POLL).await;
    }
}

/// Says a measured figure where it is seen also when the test passes.
pub fn figure(text: &str) {
    use std::io::Write as _;
    // Not eprintln: the harness hides what that prints when the test passes.
    writeln!(std::io::stderr(), "FIGURE: {text}").expect("standard error takes a line");
}

/// How long something is away: the time given, which keeps the tests short, or
/// a whole minute with `FLOTILLA_FULL_LENGTH=1`.
pub fn full_length(short: Duration) -> Duration {
    let full = std::env::var_os("FLOTILLA_FULL_LENGTH").is_some_and(|value| value == "1");
    if full { Duration::from_secs(60) } else { short }
}
