//! The rules of a message's life, a second time and without a database: what the SQL functions must do.

use std::collections::{BTreeMap, HashMap};

/// Of registered owners, in milliseconds.
pub(super) const LEASE: i64 = 6000;
pub(super) const MAX_RETRIES: i32 = 2;
pub(super) const MAX_CRASHES: i32 = 3;
pub(super) const DEDUP_WINDOW: i64 = 60_000;
pub(super) const IN_FLIGHT_MAX: usize = 4;
/// The target with a fleet-wide limit.
pub(super) const LIMITED: &str = "limited";

/// One message. Times are milliseconds of the test's clock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) target: &'static str,
    pub(super) status: String,
    pub(super) priority: i32,
    pub(super) attempt: i32,
    pub(super) owner: Option<String>,
    pub(super) retry_count: i32,
    pub(super) crash_count: i32,
    pub(super) redrive_count: i32,
    pub(super) max_retries: Option<i32>,
    pub(super) created_at: i64,
    pub(super) available_at: Option<i64>,
    pub(super) lease_until: Option<i64>,
    pub(super) is_processed: bool,
    pub(super) key: Option<&'static str>,
    /// Which claim of its key took it last; 0: put back since; -1: ended, and never taken; nothing: not taken yet.
    pub(super) series: Option<i64>,
    /// It stands behind others of its key, which the database does as it likes; seen there.
    pub(super) is_behind: bool,
    /// How many audit rows there must be, and what the last one says.
    pub(super) events: i64,
    pub(super) last_event: &'static str,
}

impl Row {
    pub(super) fn ended(&self) -> bool {
        matches!(self.status.as_str(), "completed" | "failed" | "cancelled")
    }

    fn waits(&self) -> bool {
        matches!(self.status.as_str(), "pending" | "scheduled")
    }

    /// Applies a transition and notes the audit row that it must leave.
    pub(super) fn become_(&mut self, seen: &mut BTreeMap<String, usize>, change: impl FnOnce(&mut Self)) {
        let old = self.clone();
        change(self);
        // What stands behind others is pending, and scheduled in the table.
        if self.status != old.status && !(old.is_behind && self.status == "scheduled") {
            self.events += 1;
            self.last_event = action(&old, self);
            let suspect = if old.crash_count > 0 { "suspect " } else { "" };
            *seen.entry(format!("{suspect}{}", self.last_event)).or_default() += 1;
        }
    }

    /// Whoever had it is dead.
    pub(super) fn lose(&mut self, seen: &mut BTreeMap<String, usize>) {
        self.become_(seen, |row| {
            row.crash_count += 1;
            row.let_go(if row.crash_count >= MAX_CRASHES { "failed" } else { "pending" });
            row.put_back();
        });
    }

    /// It is to be found by its key again, if it has one.
    fn put_back(&mut self) {
        if self.status == "pending" {
            self.series = self.key.map(|_| 0);
        }
    }

    fn let_go(&mut self, status: &str) {
        self.status = status.to_owned();
        self.owner = None;
        self.lease_until = None;
    }
}

fn action(old: &Row, new: &Row) -> &'static str {
    match (old.status.as_str(), new.status.as_str()) {
        (_, "processing") => "claimed",
        (_, "completed") => "completed",
        (_, "failed") => "failed",
        (_, "cancelled") => "cancelled",
        ("completed" | "failed" | "cancelled", _) => "redriven",
        ("scheduled", _) => "promoted",
        ("pending", _) => "scheduled",
        _ if new.crash_count > old.crash_count => "rescued",
        _ if new.retry_count > old.retry_count => "errored",
        (_, "scheduled") => "snoozed",
        _ => "released",
    }
}

/// What a process knows of a message that it has claimed. An id is not enough: after a failover it can be another's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Claim {
    pub(super) id: i64,
    pub(super) attempt: i32,
    pub(super) owner: &'static str,
    pub(super) created_at: i64,
}

/// What a statement answers, or its SQLSTATE.
pub(super) type Answer<T> = Result<T, &'static str>;

#[derive(Default)]
pub(super) struct Model {
    pub(super) now: i64,
    pub(super) rows: BTreeMap<i64, Row>,
    /// Registered owners, when they have beaten.
    pub(super) owners: HashMap<&'static str, i64>,
    /// When somebody last looked who is dead, and since when somebody does.
    seen_at: i64,
    resumed_at: i64,
    pub(super) paused: Vec<&'static str>,
    dedup: HashMap<String, (i64, i64)>,
    /// Claims of messages that the server has forgotten since; their handlers may still be running.
    pub(super) ghosts: Vec<Claim>,
    /// How often messages with keys were taken.
    pub(super) series: i64,
    /// What happened, how often.
    pub(super) seen: BTreeMap<String, usize>,
}

impl Model {
    /// The message that has the key.
    pub(super) fn taken(&self, key: Option<&str>) -> Option<i64> {
        self.dedup.get(key?).filter(|(_, until)| *until > self.now).map(|(id, _)| *id)
    }

    pub(super) fn published(
        &mut self,
        id: i64,
        target: &'static str,
        priority: i32,
        delay: Option<i64>,
        (dedup_key, key): (Option<&str>, Option<&'static str>),
        max_retries: Option<i32>,
    ) {
        if let Some(key) = dedup_key {
            self.dedup.insert(key.to_owned(), (id, self.now + DEDUP_WINDOW));
        }
        let available_at = delay.filter(|&delay| delay > 0).map(|delay| self.now + delay);
        let row = Row {
            target,
            status: if available_at.is_some() { "scheduled" } else { "pending" }.to_owned(),
            priority,
            attempt: 0,
            owner: None,
            retry_count: 0,
            crash_count: 0,
            redrive_count: 0,
            max_retries,
            created_at: self.now,
            available_at,
            lease_until: None,
            is_processed: false,
            key,
            series: None,
            is_behind: false,
            events: 1,
            last_event: "published",
        };
        assert!(self.rows.insert(id, row).is_none(), "id {id} was given twice");
    }

    pub(super) fn owns(&self, claim: Claim) -> bool {
        self.rows.get(&claim.id).is_some_and(|row| {
            row.status == "processing"
                && row.attempt == claim.attempt
                && row.owner.as_deref() == Some(claim.owner)
                && row.created_at == claim.created_at
        })
    }

    /// An asynchronous failover: nothing that was published after `last` was ever there, and its ids are given again.
    pub(super) fn forget_after(&mut self, last: i64, owners: &[&'static str]) {
        for (id, row) in self.rows.split_off(&(last + 1)) {
            if let Some(owner) = owners.iter().find(|&&owner| row.owner.as_deref() == Some(owner)) {
                self.ghosts.push(Claim { id, attempt: row.attempt, owner, created_at: row.created_at });
            }
        }
        self.dedup.retain(|_, (id, _)| *id <= last);
        *self.seen.entry("forgotten".to_owned()).or_default() += 1;
    }

    /// The status it got; nothing: the lease was lost.
    pub(super) fn settle(&mut self, claim: Claim, outcome: &str, delay: Option<i64>) -> Option<String> {
        if !self.owns(claim) {
            return None;
        }
        let now = self.now;
        let row = self.rows.get_mut(&claim.id).expect("owned");
        row.become_(&mut self.seen, |row| {
            let again = row.retry_count < row.max_retries.unwrap_or(MAX_RETRIES);
            row.let_go(match outcome {
                "complete" => "completed",
                "release" => "pending",
                "snooze" => "scheduled",
                "retry" if again => "scheduled",
                _ => "failed",
            });
            row.put_back();
            row.retry_count += i32::from(matches!(outcome, "retry" | "reject"));
            if outcome != "release" {
                row.crash_count = 0;
            }
            row.is_processed = outcome == "complete";
            row.available_at = (row.status == "scheduled").then(|| now + delay.unwrap_or(0));
        });
        Some(row.status.clone())
    }

    pub(super) fn extend(&mut self, claim: Claim, lease: i64) -> Answer<()> {
        if !self.owns(claim) {
            return Err("MQ001");
        }
        self.rows.get_mut(&claim.id).expect("owned").lease_until = Some(self.now + lease);
        Ok(())
    }

    pub(super) fn register(&mut self, owner: &'static str) {
        self.owners.insert(owner, self.now);
    }

    /// Silence while nobody looked is nobody's death, unless nobody was there to look.
    fn keep_contact(&mut self) {
        let (now, away, half) = (self.now, self.now - self.seen_at, LEASE / 2);
        let watched = |beat: &i64| *beat > self.resumed_at - half / 2 && *beat != self.resumed_at;
        if !self.owners.values().any(watched) {
            self.seen_at = now;
        } else if away > half {
            *self.seen.entry("outage".to_owned()).or_default() += 1;
            (self.seen_at, self.resumed_at) = (now, now);
            self.owners.values_mut().filter(|beat| **beat < now - half / 2).for_each(|beat| *beat = now);
            let leases = self.rows.values_mut().filter(|row| row.status == "processing");
            leases.filter_map(|row| row.lease_until.as_mut()).for_each(|until| *until += away);
        } else if away > half / 8 {
            self.seen_at = now;
        }
    }

    pub(super) fn rescue(&mut self, full: bool) -> i64 {
        self.keep_contact();
        let (now, before) = (self.now, self.owners.len());
        self.owners.retain(|_, beat| *beat + LEASE >= now);
        if self.owners.len() < before {
            *self.seen.entry("dead".to_owned()).or_default() += 1;
        }
        if !full && self.owners.len() == before {
            return 0;
        }
        let owners = &self.owners;
        let mut count = 0;
        for row in self.rows.values_mut().filter(|row| row.status == "processing") {
            let lost = match (row.lease_until, &row.owner) {
                (Some(until), _) => until < now,
                (None, Some(owner)) => !owners.contains_key(owner.as_str()),
                (None, None) => false,
            };
            if lost {
                count += 1;
                row.lose(&mut self.seen);
            }
        }
        count
    }

    /// What an owner holds goes back, except what it knows of.
    pub(super) fn give_back(&mut self, owner: &str, known: &[Claim]) -> i64 {
        let mut count = 0;
        for (id, row) in &mut self.rows {
            let held = row.status == "processing" && row.owner.as_deref() == Some(owner);
            let is_known =
                |claim: &Claim| (claim.id, claim.attempt, claim.created_at) == (*id, row.attempt, row.created_at);
            if held && !known.iter().any(is_known) {
                row.become_(&mut self.seen, |row| {
                    row.let_go("pending");
                    row.put_back();
                });
                count += 1;
            }
        }
        count
    }

    pub(super) fn promote(&mut self, targets: &[&str]) -> i64 {
        let now = self.now;
        let due = |row: &&mut Row| {
            row.status == "scheduled" && row.available_at.is_some_and(|at| at <= now) && targets.contains(&row.target)
        };
        let mut count = 0;
        for row in self.rows.values_mut().filter(due) {
            count += 1;
            row.become_(&mut self.seen, |row| {
                row.status = "pending".to_owned();
                row.available_at = None;
                row.put_back();
            });
        }
        count
    }

    /// `update … set status = …` by hand; `due` is what the same statement sets available_at to.
    /// With `disown`, it also says that nobody owns the message.
    pub(super) fn edit(&mut self, id: i64, status: &str, due: Option<i64>, disown: bool) -> Answer<()> {
        let Some(row) = self.rows.get_mut(&id) else { return Ok(()) };
        let mut new = row.clone();
        new.status = status.to_owned();
        new.available_at = due.or(new.available_at);
        if status == row.status && !(row.is_behind && status == "pending") {
            *row = new;
            return Ok(());
        }
        let legal = match row.status.as_str() {
            "pending" | "processing" => true,
            "scheduled" => status != "processing",
            "failed" => status != "processing",
            _ => new.waits(),
        };
        if !legal {
            return Err("MQ003");
        }
        let revived = row.ended() && new.waits();
        let series = self.series + 1;
        self.series = series;
        if row.is_behind && status == "pending" {
            // It is audited as what it is in the table.
            row.status = "scheduled".to_owned();
        }
        row.become_(&mut self.seen, |row| {
            let owned = row.owner.is_some() && !disown && status != "processing";
            *row = new;
            row.attempt += i32::from(owned || revived);
            if status != "processing" {
                row.let_go(status);
            }
            if revived {
                (row.redrive_count, row.retry_count, row.crash_count) = (row.redrive_count + 1, 0, 0);
            }
            row.is_processed = status == "completed" || (row.is_processed && !row.waits());
            if status != "scheduled" {
                row.available_at = None;
            }
            row.series = match status {
                _ if row.key.is_none() => None,
                "processing" => Some(series),
                "pending" => Some(0),
                "scheduled" => row.series,
                _ => Some(row.series.filter(|&series| series > 0).unwrap_or(-1)),
            };
        });
        Ok(())
    }
}
