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
    LookEverywhere,
    /// Messages that wait for others to be handled with have waited long enough.
    Lingered,
    Sweep,
    Watchdog,
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

    /// The next one, the most urgent first; the loop looks again, and begins a batch, at the times given. Cancelling it loses
    /// nothing.
    pub(super) async fn next(
        &mut self,
        look_at: Option<Instant>,
        everywhere_at: Option<Instant>,
        batch_at: Option<Instant>,
    ) -> Signal {
        tokio::select! {
            biased;
            _ = self.owners.changed() => Signal::LeaseLost,
            Ok(()) = self.gone.changed() => Signal::Gone,
            Ok(()) = self.taken.changed() => Signal::Taken,
            _ = self.stopping.wait_for(Option::is_some) => Signal::Stop,
            () = self.bell.rung() => Signal::Rung,
            () = at(look_at) => Signal::LookAgain,
            () = at(everywhere_at) => Signal::LookEverywhere,
            () = at(batch_at) => Signal::Lingered,
            () = at(self.next_sweep) => Signal::Sweep,
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

async fn at(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
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
        assert_eq!(signals.next(past, past, None).await, Signal::LeaseLost);
        assert_eq!(&*signals.owner(), "second");
        assert_eq!(signals.next(past, past, None).await, Signal::Gone);
        assert_eq!(signals.next(past, past, None).await, Signal::Taken);
        assert_eq!(signals.next(past, past, None).await, Signal::Rung);
        assert_eq!(signals.next(past, past, None).await, Signal::LookAgain);
        assert_eq!(signals.next(None, past, past).await, Signal::LookEverywhere);
        assert_eq!(signals.next(None, None, past).await, Signal::Lingered);
        assert_eq!(signals.next(None, None, None).await, Signal::Sweep);
        signals.sweep_at(None);
        assert_eq!(signals.next(None, None, None).await, Signal::Watchdog);
        assert!(signals.next(None, None, None).now_or_never().is_none());
        stop.send_replace(Some(Duration::ZERO));
        bell.ring();
        assert_eq!(signals.next(None, None, None).await, Signal::Stop);
    }
}
