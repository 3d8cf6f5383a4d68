//! One verb on all messages that a filter names: first how many they are, then batch by batch.

use std::{
    collections::{BTreeMap, VecDeque},
    time::{Duration, SystemTime},
};

use crate::{
    error::{Error, Result},
    filter::{Filter, Status},
    message::MessageId,
    rows::MessageRow,
    store::{Store, order_of},
};

/// Messages that are changed in one transaction, which holds their locks.
const BATCH: u32 = 1000;
/// How many messages a preview shows.
const SAMPLE: usize = 5;

/// What is done to each message.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Action {
    /// As [`Operator::redrive`](super::Operator::redrive), or within a time as
    /// [`redrive_over`](super::Operator::redrive_over).
    Redrive(Option<Duration>),
    /// As [`Operator::retry`](super::Operator::retry).
    Retry,
    /// As [`Operator::cancel`](super::Operator::cancel), with the reason that is kept with the messages.
    Cancel(Option<String>),
    /// As [`Operator::move_to`](super::Operator::move_to), to this target.
    MoveTo(String),
}

impl Action {
    /// The statuses it is possible from.
    pub fn possible_from(&self) -> &'static [Status] {
        match self {
            Self::Redrive(_) => &[Status::Failed, Status::Cancelled, Status::Completed],
            Self::Retry => &[Status::Scheduled, Status::Failed],
            Self::Cancel(_) => &[Status::Pending, Status::Scheduled, Status::Processing],
            Self::MoveTo(_) => &[Status::Pending, Status::Scheduled, Status::Failed, Status::Cancelled],
        }
    }

    /// Those of them that a filter without a status means: what was completed is not done again, and what has failed is not
    /// moved, unless the filter says so. One that names who completed the messages does.
    pub fn meant_by(&self, filter: &Filter) -> &'static [Status] {
        match self {
            Self::Redrive(_) if filter.completed_by.is_some() => &[Status::Completed],
            Self::Redrive(_) => &[Status::Failed],
            Self::MoveTo(_) => &[Status::Pending, Status::Scheduled],
            Self::Retry | Self::Cancel(_) => self.possible_from(),
        }
    }
}

/// A change of all messages that a filter names, of those that were there when it was begun; from [`Operator::change`](super::Operator::change). Nothing
/// happens before [`next`](Self::next) is called, and dropping it leaves what was done.
#[derive(Debug)]
pub struct Change {
    store: Store,
    action: Action,
    /// What is still to be looked through: a filter for each status, the first of which is under way.
    filters: VecDeque<Filter>,
    /// Where the list of the first goes on.
    after: Option<String>,
    limit: Option<u32>,
}

/// What a change would do.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Preview {
    /// How many messages there are, or as many as were counted.
    pub count: usize,
    /// Whether there are more than that, or may be.
    pub more: bool,
    /// How many of them are for each target.
    pub targets: BTreeMap<String, usize>,
    /// How many of them were put back before.
    pub redriven: usize,
    /// Some of them.
    pub sample: Vec<MessageRow>,
    /// Counting ended there, after 100,000 messages, because no index or counter knows which match: as
    /// [`Page::looked_until`](super::Page::looked_until). What lies behind is changed all the same.
    pub looked_until: Option<SystemTime>,
}

/// What one batch of a change did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Changed {
    /// The messages that were changed.
    pub changed: Vec<MessageId>,
    /// How many were not: they had changed meanwhile, or the database refused.
    pub unchanged: usize,
}

impl Change {
    pub(super) async fn begin(store: Store, filters: &[Filter], action: Action) -> Result<Self> {
        let last = store.last_id().await?;
        let mut each = VecDeque::new();
        for filter in filters {
            let last_id = Some(filter.last_id.map_or(last, |given| given.min(last)));
            let one = |status: &Status| Filter { status: Some(*status), last_id, ..filter.clone() };
            each.extend(statuses(filter, &action)?.iter().map(one));
        }
        Ok(Self { store, action, filters: each, after: None, limit: None })
    }

    /// The greatest id that it changes: the filter's, or the last that there was.
    pub fn last_id(&self) -> MessageId {
        self.filters.front().and_then(|filter| filter.last_id).unwrap_or_default()
    }

    /// At most so many messages: the first ones as they are claimed, or by id.
    #[must_use]
    pub fn limit(self, limit: Option<u32>) -> Self {
        Self { limit, ..self }
    }

    /// How many messages would be changed, counted up to `count_max`, and some of them.
    ///
    /// # Errors
    /// The database's.
    pub async fn preview(&self, count_max: u32) -> Result<Preview> {
        let most = self.limit.unwrap_or(u32::MAX).min(count_max.saturating_add(1));
        let mut preview = Preview {
            count: 0,
            more: false,
            targets: BTreeMap::new(),
            redriven: 0,
            sample: Vec::new(),
            looked_until: None,
        };
        for (at, filter) in self.filters.iter().enumerate() {
            let order = order_of(filter, self.limit);
            let mut after = if at == 0 { self.after.clone() } else { None };
            while preview.count < most as usize {
                let wanted = (most - preview.count as u32).min(BATCH * 10);
                let page = self.store.list(filter, order, wanted, after.as_deref()).await?;
                page.messages.into_iter().for_each(|message| preview.add(message, count_max as usize));
                after = page.next;
                // One look is enough to say how many there are about.
                preview.looked_until = preview.looked_until.or(page.looked_until);
                if after.is_none() || page.looked_until.is_some() {
                    break;
                }
            }
        }
        preview.more = preview.count > count_max as usize || preview.looked_until.is_some();
        preview.count = preview.count.min(count_max as usize);
        Ok(preview)
    }

    /// The next messages that would be changed, and are not; `None`: there are no more. What [`next`](Self::next) would have
    /// changed is passed over.
    ///
    /// # Errors
    /// The database's; it can be called again, and goes on where it was.
    pub async fn pass_over(&mut self) -> Result<Option<Vec<MessageId>>> {
        while let Some(filter) = self.filters.front() {
            let wanted = self.limit.map_or(BATCH, |limit| limit.min(BATCH));
            if wanted == 0 {
                return Ok(None);
            }
            let order = order_of(filter, self.limit);
            let (ids, next) = self.store.ids(filter, order, wanted, self.after.as_deref()).await?;
            if next.is_none() {
                self.filters.pop_front();
            }
            self.after = next;
            if !ids.is_empty() {
                self.limit = self.limit.map(|limit| limit - ids.len() as u32);
                return Ok(Some(ids));
            }
        }
        Ok(None)
    }

    /// Changes the next thousand, in one transaction. `None`: there are no more. Cancelled, it leaves open whether the batch
    /// was changed, and passes it over.
    ///
    /// # Errors
    /// The database's. What was found for this batch is passed over then: some of it may have been changed.
    pub async fn next(&mut self) -> Result<Option<Changed>> {
        let Some(ids) = self.pass_over().await? else { return Ok(None) };
        let changed = act(&self.store, &self.action, &ids).await?;
        Ok(Some(Changed { unchanged: ids.len() - changed.len(), changed }))
    }
}

impl Preview {
    fn add(&mut self, message: MessageRow, count_max: usize) {
        self.count += 1;
        if self.count > count_max {
            return;
        }
        self.redriven += usize::from(message.redrive_count > 0);
        match self.targets.get_mut(&message.target) {
            Some(count) => *count += 1,
            None => {
                self.targets.insert(message.target.clone(), 1);
            }
        }
        if self.sample.len() < SAMPLE {
            self.sample.push(message);
        }
    }
}

/// Those that a filter means for an action.
fn statuses<'a>(filter: &'a Filter, action: &Action) -> Result<&'a [Status]> {
    match &filter.status {
        Some(status) if action.possible_from().contains(status) => Ok(std::slice::from_ref(status)),
        Some(status) => {
            let possible = action.possible_from().iter().map(|status| status.as_str()).collect::<Vec<_>>();
            let what = format!("{status} messages cannot be changed so; these can: {}", possible.join(", "));
            Err(Error::invalid(what))
        }
        None => Ok(action.meant_by(filter)),
    }
}

/// Does this to messages, in one transaction that holds their locks; returns the ids that were changed.
pub(super) async fn act(store: &Store, action: &Action, ids: &[MessageId]) -> Result<Vec<MessageId>> {
    match action {
        Action::Redrive(spread) => store.redrive(ids, *spread).await,
        Action::Retry => store.retry(ids).await,
        Action::Cancel(reason) => store.cancel(ids, reason.as_deref()).await,
        Action::MoveTo(target) => store.move_to(ids, target).await,
    }
}
