//! Several hosts: one after the other, but nobody waits for one that is silent before asking the next.

use std::{future::Future, time::Duration};

use futures::{StreamExt, future::BoxFuture, stream::FuturesUnordered};
use tokio::time::sleep;

use super::{failure::Failure, host::Host};

/// How long a host may keep the next one waiting (RFC 8305 has the same for addresses).
const HEAD_START: Duration = Duration::from_millis(250);

/// The first host that lets us in, and its place in the list; else why each of those that count did not.
///
/// A host is asked when the one before it has failed or has been silent for a while. As in libpq a final failure ends the
/// search: the hosts behind it do not count, whatever they say; those before it do, and are waited for.
pub(super) async fn first<'a, T, F>(
    hosts: &[&'a Host],
    ask: impl Fn(&'a Host) -> F,
) -> Result<(usize, T), Vec<(&'a Host, Failure)>>
where
    F: Future<Output = Result<T, Failure>> + Send + 'a,
    T: Send + 'a,
{
    let mut failures: Vec<Option<Failure>> = hosts.iter().map(|_| None).collect();
    // Boxed: TLS and login make a future of many kilobytes.
    let mut asked: FuturesUnordered<BoxFuture<'a, (usize, Result<T, Failure>)>> = FuturesUnordered::new();
    let (mut next, mut end) = (0, hosts.len());
    while failures[..end].iter().any(Option::is_none) {
        if next < end {
            let (at, asking) = (next, ask(hosts[next]));
            asked.push(Box::pin(async move { (at, asking.await) }));
            next += 1;
        }
        tokio::select! {
            biased;
            Some((at, outcome)) = asked.next() => match outcome {
                Ok(connected) if at < end => return Ok((at, connected)),
                Ok(_) => continue,
                Err(failure) => {
                    tracing::debug!(host = %hosts[at], ?failure, "a host could not be used");
                    if failure.is_final() {
                        end = end.min(at + 1);
                    }
                    failures[at] = Some(failure);
                }
            },
            () = sleep(HEAD_START), if next < end => {}
        }
    }
    Err(hosts.iter().copied().zip(failures.into_iter().take(end).flatten()).collect())
}
