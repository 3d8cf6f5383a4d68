//! How many more messages a consumer may take in its life.

use std::sync::atomic::{AtomicUsize, Ordering};

/// Asked before every claim, so that a message over the limit is never even claimed: nobody waits for it to be given
/// back.
pub(super) struct Allowance(Option<AtomicUsize>);

impl Allowance {
    /// `None`: no limit.
    pub(super) fn new(messages_max: Option<usize>) -> Self {
        Self(messages_max.map(AtomicUsize::new))
    }

    /// Takes up to `wanted`; returns how many were granted.
    pub(super) fn take(&self, wanted: usize) -> usize {
        let Some(left) = &self.0 else { return wanted };
        let before = left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| Some(left - left.min(wanted)));
        before.unwrap_or_default().min(wanted)
    }

    /// Puts back what was granted and not used.
    pub(super) fn put_back(&self, unused: usize) {
        if let Some(left) = &self.0 {
            left.fetch_add(unused, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_allowance_is_never_exceeded_and_takes_back_what_was_not_used() {
        let allowance = Allowance::new(Some(5));
        assert_eq!((allowance.take(3), allowance.take(3), allowance.take(1)), (3, 2, 0));
        allowance.put_back(1);
        assert_eq!(allowance.take(9), 1);
        assert_eq!(Allowance::new(None).take(9), 9);
    }
}
