//! Runs compilers side by side, within what cargo's jobserver grants.

use std::env;
use std::panic::{self, AssertUnwindSafe};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use jobserver::{Acquired, Client};

/// How long to wait for a running job before asking the jobserver again.
const POLL: Duration = Duration::from_millis(50);

/// Runs every job and returns the results in the order of the jobs. One job may always run, on the
/// token this build script itself holds; each further one needs a token of the jobserver, so that
/// rustc and these compilers together stay within `cargo build -j`.
pub fn run<T: Send, J: FnOnce() -> T + Send>(jobs: Vec<J>) -> Vec<T> {
    let limit = env::var("NUM_JOBS")
        .ok()
        .and_then(|jobs| jobs.parse().ok())
        .unwrap_or(1_usize);
    // SAFETY: the descriptors named by CARGO_MAKEFLAGS are cargo's own and open for as long as this
    // program runs, and nothing in this program has closed or reused a descriptor it did not open.
    let jobserver = unsafe { Client::from_env() };
    let mut results: Vec<Option<T>> = jobs.iter().map(|_| None).collect();
    thread::scope(|scope| {
        let (sender, receiver) = mpsc::channel();
        let mut waiting = jobs.into_iter().enumerate().peekable();
        let mut running = 0;
        let mut own_token_free = true;
        while running > 0 || waiting.peek().is_some() {
            let token = if waiting.peek().is_none() || running >= limit.max(1) {
                None
            } else if own_token_free {
                own_token_free = false;
                Some(Token::Own)
            } else {
                acquire(jobserver.as_ref())
            };
            if let Some(token) = token
                && let Some((index, job)) = waiting.next()
            {
                running += 1;
                let sender = sender.clone();
                scope.spawn(move || {
                    // A panic is passed on below; without its message the loop would wait for ever.
                    let result = panic::catch_unwind(AssertUnwindSafe(job));
                    // The receiver outlives every job: it is dropped after the loop has counted
                    // them all.
                    let _ = sender.send((index, result, token));
                });
                continue;
            }
            if let Ok((index, result, token)) = receiver.recv_timeout(POLL) {
                running -= 1;
                own_token_free |= matches!(token, Token::Own);
                match result {
                    Ok(result) => results[index] = Some(result),
                    Err(panic) => panic::resume_unwind(panic),
                }
            }
        }
    });
    results.into_iter().flatten().collect()
}

/// What allows a job to run.
enum Token {
    /// The token cargo started this build script with.
    Own,
    /// One of the jobserver's, given back when dropped.
    Granted { _token: Acquired },
    /// There is no jobserver, or it cannot be asked without waiting: NUM_JOBS alone is the limit.
    Unlimited,
}

/// A token, or none for now.
fn acquire(jobserver: Option<&Client>) -> Option<Token> {
    match jobserver.map(Client::try_acquire) {
        Some(Ok(token)) => token.map(|token| Token::Granted { _token: token }),
        Some(Err(_)) | None => Some(Token::Unlimited),
    }
}
