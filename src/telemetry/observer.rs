//! The hook for metrics.

use std::{fmt, time::Duration};

use crate::{error::Error, message::Found, outcome::Outcome};

/// Is told what happens, for metrics of any kind; given to a broker by [`BrokerConfig::observer`](crate::BrokerConfig).
///
/// Called from the loops that move messages and from the thread that keeps the lease, so it must return at once: add to counters, take no lock that is held
/// across I/O. It is told of batches once per batch and of handlers once per message. Without one nothing is measured.
///
/// ```
/// use std::sync::atomic::{AtomicU64, Ordering};
/// use doorbell::observe::{Event, Observer};
///
/// #[derive(Debug, Default)]
/// struct Claims(AtomicU64);
///
/// impl Observer for Claims {
///     fn observe(&self, event: &Event<'_>) {
///         if let Event::Claimed { messages, .. } = event {
///             self.0.fetch_add(*messages as u64, Ordering::Relaxed);
///         }
///     }
/// }
/// ```
pub trait Observer: fmt::Debug + Send + Sync + 'static {
    /// Something happened.
    fn observe(&self, event: &Event<'_>);
}

/// What an [`Observer`] is told. Durations are measured in this process, on the monotonic clock.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// A publish ended: once for each target of the call. Inside a transaction of the caller's, when its statement ended.
    Published {
        /// For whom.
        target: &'a str,
        /// How many messages; 0 when it failed.
        messages: usize,
        /// The whole call, retries included.
        took: Duration,
        /// Why it failed.
        error: Option<&'a Error>,
    },
    /// A request of this process was answered, or has not been in its time.
    Answered {
        /// Who was asked.
        target: &'a str,
        /// `replied`, `completed` (without a reply), `failed`, `cancelled`, `expired`, `gone` or `late`.
        answer: &'static str,
        /// From the call on, the publish included.
        took: Duration,
    },
    /// A look into the table ended.
    Claimed {
        /// Whose messages.
        target: &'a str,
        /// Why it was made.
        found: Found,
        /// How many messages it took; 0 when there were none.
        messages: usize,
        /// The statement, and the wait for a connection.
        took: Duration,
        /// Why it failed. It is made again.
        error: Option<&'a Error>,
    },
    /// The handler of a message's first attempt starts.
    Started {
        /// Whose message.
        target: &'a str,
        /// Its record type, where that has a handler of its own, else `other`: bounded, whatever is published.
        record_type: &'a str,
        /// Since it was published: the server's reckoning when it was claimed, and the wait in this process. The delay of a
        /// delayed message is part of it.
        age: Duration,
    },
    /// A handler came to its end.
    Processed {
        /// Whose message.
        target: &'a str,
        /// As in [`Event::Started`].
        record_type: &'a str,
        /// What it said; an error, a panic and a timeout are [`Outcome::Retry`].
        outcome: &'a Outcome,
        /// How long it ran.
        took: Duration,
    },
    /// A handler of batches came to its end; what became of each message is told by [`Event::Processed`], where the batch did
    /// not fail as a whole.
    Batch {
        /// Whose messages.
        target: &'a str,
        /// How many were in it.
        messages: usize,
        /// It failed as a whole: an error, a panic, a timeout. Its messages are handled one by one.
        failed: bool,
        /// How long it ran.
        took: Duration,
    },
    /// The rate of a target cut a claim short, or kept it from taking anything.
    RateLimited {
        /// Whose messages.
        target: &'a str,
        /// After how long others may be claimed.
        opens_in: Duration,
    },
    /// A settle ended; of transactional handlers, the commit.
    Settled {
        /// Whose messages.
        target: &'a str,
        /// How many were settled; 0 when it failed.
        messages: usize,
        /// The statements, or the commit.
        took: Duration,
        /// Why it failed. It is tried again; of a commit the database is asked whether it happened.
        error: Option<&'a Error>,
    },
    /// Messages that this process held belong to somebody else now: it was taken for dead, or they were edited by hand.
    LeaseLost {
        /// Whose messages.
        target: &'a str,
        /// How many.
        messages: usize,
    },
    /// This process gave back messages of dead consumers, of any target.
    Rescued {
        /// How many.
        messages: usize,
    },
    /// The listener went up or down.
    Listening {
        /// Whether bells arrive from now on.
        up: bool,
        /// How many connections the listener had in its life, this one included.
        sessions: u64,
    },
    /// The program's runtime runs no tasks any more, because handlers block all of its threads, or runs them again. The
    /// lease is kept meanwhile, by a thread of its own, and nothing else happens.
    Runtime {
        /// Whether it is blocked.
        blocked: bool,
        /// For how long it has run none.
        silent: Duration,
    },
}
