//! Patience of commands on many records: what may succeed later is tried again, with pauses.
//!
//! The client retries within one call; a restarting node or a full one takes longer than a call.
//! Only errors that say so are tried again, and only for a bounded time. What is tried again must
//! bear it: a write reads first.

use galvani_client::{Error, ErrorKind, List, Page};
use std::future::Future;
use std::time::{Duration, Instant};

/// Does `attempt` until it succeeds, fails for good, or `PATIENCE` is over. It is told how often it
/// was tried before.
pub(crate) async fn patient<T, F, Attempt>(mut attempt: F) -> Result<T, Error>
where
    F: FnMut(u32) -> Attempt,
    Attempt: Future<Output = Result<T, Error>>,
{
    let began = Instant::now();
    let mut tries = 0;
    loop {
        let error = match attempt(tries).await {
            Ok(done) => return Ok(done),
            Err(error) => error,
        };
        let pause = pause(&error, tries);
        if !error.is_retryable() || began.elapsed() + pause > PATIENCE {
            return Err(error);
        }
        tokio::time::sleep(pause).await;
        tries += 1;
    }
}

/// The next page of a listing; what failed is asked anew and nothing is left out.
pub(crate) async fn next_page(list: &mut List) -> Result<Option<Page>, Error> {
    let began = Instant::now();
    let mut tries = 0;
    loop {
        let error = match list.next_page().await {
            Ok(page) => return Ok(page),
            Err(error) => error,
        };
        let pause = pause(&error, tries);
        if !error.is_retryable() || began.elapsed() + pause > PATIENCE {
            return Err(error);
        }
        tokio::time::sleep(pause).await;
        tries += 1;
    }
}

/// Doubles with each try, and is at least what a full node asks for.
fn pause(error: &Error, tries: u32) -> Duration {
    let pause = PAUSE_FIRST.saturating_mul(1 << tries.min(8)).min(PAUSE_MAX);
    match error.kind() {
        ErrorKind::Overloaded { retry_after } => pause.max(*retry_after),
        _ => pause,
    }
}

/// Long enough for a node to be restarted.
const PATIENCE: Duration = Duration::from_secs(60);
const PAUSE_FIRST: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(2);
