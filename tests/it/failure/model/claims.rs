//! What a claim may take: of each key one message at a time, in the order of their ids unless put back, and whatever nothing
//! goes before.

use std::collections::BTreeMap;

use super::rules::{Answer, IN_FLIGHT_MAX, LIMITED, Model, Row};

/// What a claim may take: the first of these, and nothing less than it has room for. Of those without a key the first;
/// between keys, and between those and others, the database has a choice.
pub(super) struct Takes {
    ids: Vec<i64>,
    limit: usize,
}

impl Takes {
    fn count(&self) -> usize {
        self.ids.len().min(self.limit)
    }

    /// What is wrong with it.
    fn fault(&self, rows: &BTreeMap<i64, Row>, taken: &[i64]) -> Option<String> {
        if taken.len() != self.count() {
            return Some(format!("of {:?}, up to {}, were taken {taken:?}", self.ids, self.limit));
        }
        let without = |ids: &[i64]| ids.iter().copied().filter(|id| rows[id].key.is_none()).collect::<Vec<_>>();
        let first: Vec<i64> = without(&self.ids).into_iter().take(without(taken).len()).collect();
        if without(taken) != first {
            return Some(format!("of {:?} were taken {taken:?}", self.ids));
        }
        let early = taken.iter().find(|id| !self.ids.contains(id))?;
        Some(format!("{early} was taken before others of its key, of {:?}: {:?}", self.ids, rows[early]))
    }
}

impl Model {
    /// What a claim may take.
    pub(super) fn claim(
        &self,
        target: &'static str,
        owner: &'static str,
        limit: usize,
        lease: Option<i64>,
        suspect: bool,
    ) -> Answer<Takes> {
        if lease.is_none() && !self.owners.contains_key(owner) {
            return Err("MQ001");
        }
        let mut limit = if suspect { 1 } else { limit };
        if self.paused.contains(&target) {
            limit = 0;
        }
        if target == LIMITED {
            let busy = self.rows.values().filter(|row| row.target == target && row.status == "processing").count();
            limit = limit.min(IN_FLIGHT_MAX.saturating_sub(busy));
        }
        let wanted = |id: i64, row: &Row| {
            row.target == target
                && row.status == "pending"
                && (row.crash_count > 0) == suspect
                && self.is_next_of_key(id, row)
        };
        let mut found: Vec<_> = self.rows.iter().filter(|(id, row)| wanted(**id, row)).collect();
        found.sort_by_key(|(id, row)| match suspect {
            true => (row.crash_count, row.created_at, **id),
            false => (-row.priority, row.created_at, **id),
        });
        let ids: Vec<i64> = found.into_iter().map(|(id, _)| *id).collect();
        Ok(Takes { ids, limit })
    }

    /// Takes what the database has taken; returns what is wrong with that.
    pub(super) fn take(&mut self, may: &Takes, owner: &'static str, lease: Option<i64>, ids: &[i64]) -> Option<String> {
        if let Some(fault) = may.fault(&self.rows, ids) {
            return Some(fault);
        }
        let now = self.now;
        for id in ids {
            self.series += 1;
            let series = self.series;
            let row = self.rows.get_mut(id).expect("found");
            if row.key.is_some() {
                *self.seen.entry("taken with a key".to_owned()).or_default() += 1;
            }
            row.become_(&mut self.seen, |row| {
                row.status = "processing".to_owned();
                row.attempt += 1;
                row.owner = Some(owner.to_owned());
                row.lease_until = lease.map(|lease| now + lease);
                row.series = row.key.map(|_| series);
            });
        }
        None
    }

    /// Whether nothing of its key goes before a message: none of those taken last that is not done, none that waits.
    fn is_next_of_key(&self, id: i64, row: &Row) -> bool {
        let Some(key) = row.key else { return true };
        let same = || self.rows.iter().filter(|(_, other)| other.target == row.target && other.key == Some(key));
        let last = same().filter_map(|(_, other)| other.series).max().filter(|&series| series > 0);
        let blocks = |other: &Row| matches!(other.status.as_str(), "processing" | "scheduled" | "failed");
        !same().any(|(_, other)| last.is_some() && other.series == last && blocks(other))
            && !same().any(|(&before, other)| before < id && other.status == "pending")
    }

    /// With a lease of its own nobody but the caller need be there.
    pub(super) fn claim_by_lease(
        &mut self,
        target: &'static str,
        owner: &'static str,
        limit: usize,
        lease: i64,
    ) -> Takes {
        self.promote(&[target]);
        loop {
            let suspects =
                |row: &Row, status: &str| row.target == target && row.status == status && row.crash_count > 0;
            let holds =
                self.rows.values().any(|row| suspects(row, "processing") && row.owner.as_deref() == Some(owner));
            if !holds && self.rows.values().any(|row| suspects(row, "pending")) {
                let takes = self.claim(target, owner, 1, Some(lease), true).expect("it has a lease");
                if takes.count() > 0 {
                    return takes;
                }
            }
            let takes = self.claim(target, owner, limit, Some(lease), false).expect("it has a lease");
            if takes.count() > 0 {
                self.return_expired_after(target, takes.count() < limit);
                return takes;
            }
            if self.return_expired(target) == 0 {
                return takes;
            }
        }
    }

    /// What a claim that is not full does when it has taken what there was.
    fn return_expired_after(&mut self, target: &str, is_short: bool) {
        if is_short {
            self.return_expired(target);
        }
    }

    fn return_expired(&mut self, target: &str) -> i64 {
        let now = self.now;
        let expired = |row: &&mut Row| {
            row.target == target && row.status == "processing" && row.lease_until.is_some_and(|until| until < now)
        };
        let mut count = 0;
        for row in self.rows.values_mut().filter(expired) {
            count += 1;
            row.lose(&mut self.seen);
        }
        count
    }
}
