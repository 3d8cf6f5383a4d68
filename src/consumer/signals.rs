//! What reaches a consumer from outside, and from the clock.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::watch,
    time::{Instant, Interval, MissedTickBehavior, interval, sleep_until},
};

use crate::process::Bell;

const WATCHDOG: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Signal {
    LeaseLost,
    /// The server does not know some messages any more.
    Gone,
    /// Somebody took messages away.
    Taken,
    Stop,
    Rung,
    LookAgain,
    /// The look that was turned away may be made.
    TurnAgain,
    LookEverywhere,
    /// Messages that wait for others to be handled with have waited long enough.
    Lingered,
    Sweep,
    Watchdog,
}

/// When the loop looks again, and begins a batch.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Times {
    pub(super) look_at: Option<Instant>,
    pub(super) back_at: Option<Instant>,
    pub(super) everywhere_at: Option<Instant>,
    pub(super) batch_at: Option<Instant>,
}

pub(super) struct Signals {
    bell: Arc<Bell>,
    stopping: watch::Receiver<Option<Duration>>,
    owners: watch::Receiver<Arc<str>>,
    gone: watch::Receiver<()>,
    taken: watch::Receiver<()>,
    next_sweep: Option<Instant>,
    watchdog: Interval,
}

impl Signals {
    pub(super) fn new(
        bell: Arc<Bell>,
        stopping: watch::Receiver<Option<Duration>>,
        owners: watch::Receiver<Arc<str>>,
        gone: watch::Receiver<()>,
        taken: watch::Receiver<()>,
    ) -> Self {
        let mut watchdog = interval(WATCHDOG);
        watchdog.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { bell, stopping, owners, gone, taken, next_sweep: None, watchdog }
    }

    /// The next one, the most urgent first, and of what the clock says the first. Cancelling it loses nothing.
    pub(super) async fn next(&mut self, times: Times) -> Signal {
        let clock = first([
            (times.look_at, Signal::LookAgain),
            (times.back_at, Signal::TurnAgain),
            (times.everywhere_at, Signal::LookEverywhere),
            (times.batch_at, Signal::Lingered),
            (self.next_sweep, Signal::Sweep),
        ]);
        tokio::select! {
            biased;
            _ = self.owners.changed() => Signal::LeaseLost,
            Ok(()) = self.gone.changed() => Signal::Gone,
            Ok(()) = self.taken.changed() => Signal::Taken,
            _ = self.stopping.wait_for(Option::is_some) => Signal::Stop,
            () = self.bell.rung() => Signal::Rung,
            signal = clock => signal,
            _ = self.watchdog.tick() => Signal::Watchdog,
        }
    }

    /// Waits for those alone after which handlers run for messages that are not ours any more.
    pub(super) async fn not_ours(&mut self) -> Signal {
        tokio::select! {
            biased;
            // The senders live as long as the process.
            _ = self.owners.changed() => Signal::LeaseLost,
            Ok(()) = self.gone.changed() => Signal::Gone,
            Ok(()) = self.taken.changed() => Signal::Taken,
        }
    }

    pub(super) fn sweep_at(&mut self, at: Option<Instant>) {
        self.next_sweep = at;
    }

    /// Who owns what it claims: the name of the process.
    pub(super) fn owner(&mut self) -> Arc<str> {
        self.owners.borrow_and_update().clone()
    }

    pub(super) fn bell(&self) -> &Arc<Bell> {
        &self.bell
    }

    pub(super) fn stopping(&self) -> &watch::Receiver<Option<Duration>> {
        &self.stopping
    }
}

/// The first of these, at its time. One timer for all: each is a hundred bytes of every consumer that waits.
async fn first<const N: usize>(signals: [(Option<Instant>, Signal); N]) -> Signal {
    match signals.into_iter().filter_map(|(at, signal)| Some((at?, signal))).min_by_key(|(at, _)| *at) {
        Some((at, signal)) => {
            sleep_until(at).await;
            signal
        }
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[tokio::test]
    async fn each_signal_comes_once_the_most_urgent_first() {
        let (stop, stopping) = watch::channel(None);
        let (owner, owners) = watch::channel(Arc::<str>::from("first"));
        let bell = Arc::new(Bell::default());
        let (lost, gone) = watch::channel(());
        let (take, taken) = watch::channel(());
        let mut signals = Signals::new(bell.clone(), stopping, owners, gone, taken);
        let past = Some(Instant::now());
        signals.sweep_at(past);
        bell.ring();
        bell.ring();
        owner.send_replace("second".into());
        lost.send_replace(());
        take.send_replace(());
        let (none, look_at, back_at) = (Times::default(), past, past);
        let all = Times { look_at, back_at, everywhere_at: past, batch_at: past };
        assert_eq!(signals.next(all).await, Signal::LeaseLost);
        assert_eq!(&*signals.owner(), "second");
        assert_eq!(signals.next(all).await, Signal::Gone);
        assert_eq!(signals.next(all).await, Signal::Taken);
        assert_eq!(signals.next(all).await, Signal::Rung);
        assert_eq!(signals.next(all).await, Signal::LookAgain);
        assert_eq!(signals.next(Times { look_at: None, ..all }).await, Signal::TurnAgain);
        assert_eq!(signals.next(Times { everywhere_at: past, batch_at: past, ..none }).await, Signal::LookEverywhere);
        assert_eq!(signals.next(Times { batch_at: past, ..none }).await, Signal::Lingered);
        assert_eq!(signals.next(none).await, Signal::Sweep);
        signals.sweep_at(past.map(|past| past + WATCHDOG * 1000));
        assert_eq!(signals.next(Times { batch_at: past, ..none }).await, Signal::Lingered);
        signals.sweep_at(None);
        assert_eq!(signals.next(none).await, Signal::Watchdog);
        assert!(signals.next(none).now_or_never().is_none());
        stop.send_replace(Some(Duration::ZERO));
        bell.ring();
        assert_eq!(signals.next(none).await, Signal::Stop);
    }
}
