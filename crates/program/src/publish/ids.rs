//! The ids of published messages, which come in long runs: a million of them take no room.

use std::ops::RangeInclusive;

use doorbell::MessageId;
use serde::{Serialize, Serializer};

/// Ids in the order of their messages.
#[derive(Debug, Default)]
pub(super) struct Ids(Vec<RangeInclusive<MessageId>>);

impl Ids {
    pub(super) fn push(&mut self, id: MessageId) {
        match self.0.last_mut() {
            Some(run) if run.end().checked_add(1) == Some(id) => *run = *run.start()..=id,
            _ => self.0.push(id..=id),
        }
    }

    pub(super) fn len(&self) -> u64 {
        self.0.iter().map(|run| run.start().abs_diff(*run.end()) + 1).sum()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = MessageId> {
        self.0.iter().cloned().flatten()
    }
}

impl From<MessageId> for Ids {
    fn from(id: MessageId) -> Self {
        Self(vec![id..=id])
    }
}

impl Serialize for Ids {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_come_back_in_the_order_given_whatever_their_gaps() {
        let given = [7, 8, 9, 3, 5, 6, 6];
        let mut ids = Ids::default();
        given.iter().for_each(|id| ids.push(*id));
        assert_eq!((ids.iter().collect::<Vec<_>>(), ids.len()), (given.to_vec(), 7));
    }
}
