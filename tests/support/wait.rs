//! Waits for something to become so, with a limit: never for a time alone.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

const POLL: Duration = Duration::from_millis(50);

/// Asks until the answer is `Ok(Some(_))`. What the last `Ok(None)` or error was about is in `what`.
pub async fn wait_for<T>(what: &str, limit: Duration, mut ask: impl AsyncFnMut() -> Result<Option<T>>) -> Result<T> {
    let deadline = Instant::now() + limit;
    loop {
        let answer = ask().await;
        if let Ok(Some(found)) = answer {
            return Ok(found);
        }
        if Instant::now() >= deadline {
            match answer {
                Err(error) => return Err(error.context(format!("{what}: not so after {limit:?}"))),
                Ok(_) => bail!("{what}: not so after {limit:?}"),
            }
        }
        tokio::time::sleep(POLL).await;
    }
}
