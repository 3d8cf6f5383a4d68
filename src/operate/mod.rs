//! What operators do: look for messages, ask why they wait, put them back, stop and go on. The program's commands are these,
//! under the same names.

mod captures;
mod change;
mod contracts;
mod extracts;
mod follower;
mod keys;
mod overview;
mod requests;
mod schedules;
mod steps;
mod summed;
mod topics;

use std::{fmt, sync::Arc, time::Duration};

use tokio_postgres::Transaction;

use crate::{alike, core::Core, doctor, error::Result, maintenance, message::MessageId, process};

pub use self::{
    change::{Action, Change, Changed, Preview},
    follower::Follower,
    keys::Unblock,
    overview::{Overview, Trouble},
};
pub use crate::{
    filter::{AuditFilter, Filter, ListOrder, Moment, Status},
    maintenance::Maintenance,
    rows::{
        AppRights, AuditEvent, AuditPage, BacklogRow, Breach, BreakerRow, Capture, CaptureRow, Coalescing, Contract,
        ContractRow, ErrorGroup, ErrorRate, Explanation, Extract, ExtractFrom, ExtractRow, Extracted, KeyRow, KeyState,
        Maintained, MaintenanceDue, MessageRow, Missed, Page, ProcessRow, Replay, ReplayPart, RightsRow, SavedStep,
        Schedule, ScheduleRow, StoredMessage, Subscription, TargetState, TargetStats, TopicRow, Traffic, Verb,
        WaitingRequest, Watermark, When,
    },
    store::ForeignDatabase,
};

/// The operators' verbs over one database; from [`Broker::operator`](crate::Broker::operator). Cheap to clone.
///
/// ```no_run
/// # async fn example(broker: doorbell::Broker) -> Result<(), doorbell::Error> {
/// use doorbell::operate::{Filter, Status};
///
/// let operator = broker.operator();
/// let failed = Filter { status: Some(Status::Failed), target: Some("billing".into()), ..Filter::default() };
/// let ids = operator.find_ids(&failed, Some(1000)).await?;
/// operator.redrive(&ids).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Operator {
    core: Arc<Core>,
}

impl fmt::Debug for Operator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Operator({})", self.core.settings())
    }
}

impl Operator {
    pub(crate) fn new(core: Arc<Core>) -> Self {
        Self { core }
    }

    /// The counts of every target that has messages, by name.
    ///
    /// # Errors
    /// The database's.
    pub async fn stats(&self) -> Result<Vec<TargetStats>> {
        self.core.store().stats().await
    }

    /// Every target that has messages, settings or consumers, by name.
    ///
    /// # Errors
    /// The database's.
    pub async fn targets(&self) -> Result<Vec<TargetState>> {
        self.core.store().targets(None).await
    }

    /// How one target stands. `None`: no message, setting or process names it.
    ///
    /// # Errors
    /// The database's.
    pub async fn target_state(&self, target: &str) -> Result<Option<TargetState>> {
        Ok(self.core.store().targets(Some(target)).await?.pop())
    }

    /// How everything stands: what is wrong, folded by kind, and the `most` targets that are troubled most. One round trip.
    ///
    /// # Errors
    /// The database's.
    pub async fn overview(&self, most: usize) -> Result<Overview> {
        Ok(Overview::of(self.targets().await?, most))
    }

    /// The messages that a filter names, without their payloads, at most `limit` of them. `order` `None`: as they are claimed
    /// for pending ones, next due first for scheduled ones, else newest first. For the next page give `after` what
    /// [`Page::next`] was. What no index knows is looked for in 100,000 messages at a time: [`Page::looked_until`] says so.
    ///
    /// # Errors
    /// [`Invalid`](crate::ErrorKind::Invalid) for an order that the filter's status does not have, or a cursor of another
    /// order; else the database's.
    pub async fn list(
        &self,
        filter: &Filter,
        order: Option<ListOrder>,
        limit: u32,
        after: Option<&str>,
    ) -> Result<Page> {
        self.core.store().list(filter, order, limit, after).await
    }

    /// The ids of all messages that a filter names, or of the first `limit`: what to [`redrive`](Self::redrive),
    /// [`retry`](Self::retry) or [`cancel`](Self::cancel). By id; with a target or a limit, pending ones as they are claimed
    /// and scheduled ones as they are due; without either, what has not ended or has failed as [`ListOrder::Target`] says. Read in pages, so what changes meanwhile may be in it or not.
    ///
    /// # Errors
    /// The database's.
    pub async fn find_ids(&self, filter: &Filter, limit: Option<u32>) -> Result<Vec<MessageId>> {
        self.core.store().find_ids(filter, limit).await
    }

    /// Whether nothing of a target can be handled now and nothing is being handled: no pending, due or processing message,
    /// of these record types where some are given. Scheduled ones wait for later and do not count.
    ///
    /// # Errors
    /// The database's.
    pub async fn is_drained(&self, target: &str, record_types: Option<&[String]>) -> Result<bool> {
        self.core.store().is_drained(target, record_types).await
    }

    /// One message in full, also from the archive; its payload only where it is asked for. `None`: there is none.
    ///
    /// # Errors
    /// The database's.
    pub async fn show(&self, id: MessageId, with_payload: bool) -> Result<Option<StoredMessage>> {
        self.core.store().show(id, with_payload).await
    }

    /// The next pending messages of a target as they would be claimed, of these record types where some are given, with their
    /// payloads. They are neither claimed nor locked: this is how to look at a queue. Empty: nothing is pending.
    ///
    /// # Errors
    /// The database's.
    pub async fn peek(&self, target: &str, limit: u32, record_types: Option<&[String]>) -> Result<Vec<StoredMessage>> {
        self.core.store().peek(target, limit, record_types).await
    }

    /// Why a message is not running: the first is the cause, further ones would hold it when that is gone. Never empty: that
    /// there is no such message, or that nothing holds it, is an answer, too.
    ///
    /// # Errors
    /// The database's.
    pub async fn explain(&self, id: MessageId) -> Result<Vec<Explanation>> {
        self.core.store().explain(id).await
    }

    /// Follows new messages and changes of status of one target, or of all.
    pub fn follow(&self, target: Option<&str>) -> Follower {
        Follower::new(self.core.store().clone(), target.map(str::to_owned))
    }

    /// The life of one message as the audit log has it, oldest first; also after it was archived or deleted. Empty when
    /// nothing was written about it (the level is `outcomes` by default).
    ///
    /// # Errors
    /// The database's.
    pub async fn audit(&self, id: MessageId) -> Result<Vec<AuditEvent>> {
        self.core.store().audit(id).await
    }

    /// The entries of the audit log that a filter names, newest first, at most `limit` of them. For the next page give `after`
    /// what [`AuditPage::next`] was. 100,000 entries are looked at in one call: [`AuditPage::looked_until`] says so.
    ///
    /// # Errors
    /// [`Invalid`](crate::ErrorKind::Invalid) for what is no cursor; else the database's.
    pub async fn audit_list(&self, filter: &AuditFilter, limit: u32, after: Option<&str>) -> Result<AuditPage> {
        self.core.store().audit_list(filter, limit, after).await
    }

    /// Does something to all messages that a filter names, of those that are there now: see how many they are, then change them
    /// batch by batch. A filter without a status means those that [`Action::meant_by`] says.
    ///
    /// # Errors
    /// [`Invalid`](crate::ErrorKind::Invalid) for a status from which it is not possible; else the database's.
    pub async fn change(&self, filter: &Filter, action: Action) -> Result<Change> {
        self.change_each(std::slice::from_ref(filter), action).await
    }

    /// The same to all that one or another of several filters names.
    ///
    /// # Errors
    /// As [`change`](Self::change).
    pub async fn change_each(&self, filters: &[Filter], action: Action) -> Result<Change> {
        Change::begin(self.core.store().clone(), filters, action).await
    }

    /// Does something to these messages; returns the ids that were changed.
    ///
    /// # Errors
    /// The database's.
    pub async fn act(&self, action: &Action, ids: &[MessageId]) -> Result<Vec<MessageId>> {
        change::act(self.core.store(), action, ids).await
    }

    /// Tries messages again now: scheduled ones are pending at once and keep the retries they have used, failed ones are
    /// redriven. Returns the ids that were. Each call is one transaction that holds the messages' locks: a thousand or so at
    /// a time, as the next two.
    ///
    /// # Errors
    /// The database's.
    pub async fn retry(&self, ids: &[MessageId]) -> Result<Vec<MessageId>> {
        self.core.store().retry(ids).await
    }

    /// Puts ended messages back (failed, cancelled, completed) with all their retries; returns the ids that were.
    ///
    /// # Errors
    /// The database's.
    pub async fn redrive(&self, ids: &[MessageId]) -> Result<Vec<MessageId>> {
        self.core.store().redrive(ids, None).await
    }

    /// The same, but due one after another within a time, of 30 days at most; those of one ordering key together, in order.
    ///
    /// # Errors
    /// The database's.
    pub async fn redrive_over(&self, ids: &[MessageId], spread: Duration) -> Result<Vec<MessageId>> {
        self.core.store().redrive(ids, Some(spread)).await
    }

    /// Puts one ended message back inside the caller's transaction, for audited recovery.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound) when there is no such message,
    /// [`IllegalTransition`](crate::ErrorKind::IllegalTransition) when it has not ended. The transaction can then only be
    /// rolled back.
    pub async fn redrive_in(&self, tx: &Transaction<'_>, id: MessageId) -> Result<()> {
        self.core.store().redrive_in(tx, id).await
    }

    /// Cancels messages that have not ended; one that is running finds its lease lost. Returns the ids that were.
    ///
    /// # Errors
    /// The database's.
    pub async fn cancel(&self, ids: &[MessageId], reason: Option<&str>) -> Result<Vec<MessageId>> {
        self.core.store().cancel(ids, reason).await
    }

    /// Sends messages to another target: pending and scheduled ones wait there as they did, failed and cancelled ones stay
    /// what they are. Returns the ids that were; what is being handled or is completed stays where it is.
    ///
    /// # Errors
    /// [`Invalid`](crate::ErrorKind::Invalid) for a target without a name; else the database's.
    pub async fn move_to(&self, ids: &[MessageId], target: &str) -> Result<Vec<MessageId>> {
        self.core.store().move_to(ids, target).await
    }

    /// Takes from an owner all that it has in hand, and its registration. A process that lives finds out at its next beat,
    /// stops those handlers and goes on under a new name. Returns how many messages were put back, which costs them neither a
    /// retry nor suspicion; `None`: nobody has that name.
    ///
    /// # Errors
    /// The database's.
    pub async fn evict(&self, owner: &str) -> Result<Option<usize>> {
        self.core.store().evict(owner).await
    }

    /// The settings of the installation, as a JSON object.
    ///
    /// # Errors
    /// The database's.
    pub async fn settings(&self) -> Result<String> {
        self.core.store().settings().await
    }

    /// The settings of a target as they hold, which of them are its own, and its pause, as a JSON object. `None`: no message,
    /// setting or process names it.
    ///
    /// # Errors
    /// The database's.
    pub async fn target(&self, target: &str) -> Result<Option<String>> {
        self.core.store().target(target).await
    }

    /// The known target that another name is most likely meant to be: one slip of the finger lies between them, in long names
    /// two. `None`: there is none.
    ///
    /// # Errors
    /// The database's.
    pub async fn nearest_target(&self, name: &str) -> Result<Option<String>> {
        let known = self.stats().await?;
        Ok(alike::nearest(name, known.iter().map(|stats| stats.target.as_str())).map(str::to_owned))
    }

    /// Changes settings of a target, a JSON object of names and values (`{"max_in_flight": 20}`); null gives one back to the
    /// installation's. They hold at once. Returns what [`target`](Self::target) says then.
    ///
    /// # Errors
    /// [`Invalid`](crate::ErrorKind::Invalid) for a setting there is not; else the database's, for values it cannot have, too.
    pub async fn set_target(&self, target: &str, settings: &str) -> Result<String> {
        self.core.store().set_target(target, settings).await
    }

    /// Forgets a target that nothing is left of: settings, policies, breaker, counts. False: nothing knew it.
    ///
    /// # Errors
    /// [`IllegalTransition`](crate::ErrorKind::IllegalTransition) while it has messages or a live consumer.
    pub async fn forget_target(&self, target: &str) -> Result<bool> {
        self.core.store().forget_target(target).await
    }

    /// Stops claiming for a target, fleet-wide and across restarts; with `for_` the pause ends by itself after so long, and
    /// consumers go on with their next sweep.
    ///
    /// # Errors
    /// The database's.
    pub async fn pause(&self, target: &str, reason: Option<&str>, for_: Option<Duration>) -> Result<()> {
        self.core.store().pause(target, reason, for_).await
    }

    /// Lets a paused target be claimed again; false when it was not paused.
    ///
    /// # Errors
    /// The database's.
    pub async fn resume(&self, target: &str) -> Result<bool> {
        self.core.store().resume(target).await
    }

    /// The circuit breakers that were ever tripped, by key.
    ///
    /// # Errors
    /// The database's.
    pub async fn breakers(&self) -> Result<Vec<BreakerRow>> {
        self.core.store().breakers().await
    }

    /// Opens a breaker by hand: nothing it guards is claimed, fleet-wide, until canaries come back well after `reopen`, or
    /// until it is closed by hand where that is `None`. The key is a target's name or the `breaker_key` of its settings.
    ///
    /// # Errors
    /// The database's.
    pub async fn open_breaker(&self, key: &str, reason: Option<&str>, reopen: Option<Duration>) -> Result<()> {
        self.core.store().open_breaker(key, reason, reopen).await
    }

    /// Closes a breaker by hand; false when it was closed.
    ///
    /// # Errors
    /// The database's.
    pub async fn close_breaker(&self, key: &str, reason: Option<&str>) -> Result<bool> {
        self.core.store().close_breaker(key, reason).await
    }

    /// The registered processes, oldest first.
    ///
    /// # Errors
    /// The database's.
    pub async fn processes(&self) -> Result<Vec<ProcessRow>> {
        self.core.store().processes().await
    }

    /// Allows a role a verb, for all applications. For the owner of the schema, as the next three; again at any time.
    ///
    /// # Errors
    /// [`Forbidden`](crate::ErrorKind::Forbidden) for anybody but the owner; else the database's, 42704 for a role that does
    /// not exist.
    pub async fn grant(&self, role: &str, verb: Verb) -> Result<()> {
        self.core.store().grant(role, verb).await
    }

    /// Takes a verb from a role; what other verbs and applications need stays.
    ///
    /// # Errors
    /// As [`grant`](Self::grant).
    pub async fn revoke(&self, role: &str, verb: Verb) -> Result<()> {
        self.core.store().revoke(role, verb).await
    }

    /// Says what a role may do for one application: as which it may publish and to which targets, and whether it consumes
    /// what is published for it. What it could do for that application before is replaced.
    ///
    /// # Errors
    /// [`Invalid`](crate::ErrorKind::Invalid) for rights that are none, limits without what they limit, and roles that have
    /// the verb for all applications; else as [`grant`](Self::grant).
    pub async fn grant_app(&self, app: &str, role: &str, rights: &AppRights) -> Result<()> {
        self.core.store().grant_app(app, role, rights).await
    }

    /// Takes from a role what it may do for an application; false when that was nothing.
    ///
    /// # Errors
    /// As [`grant`](Self::grant), but for roles that do not exist any more.
    pub async fn revoke_app(&self, app: &str, role: &str) -> Result<bool> {
        self.core.store().revoke_app(app, role).await
    }

    /// Who may what, by role and application. Superusers and the owner of the schema may everything and are not listed.
    ///
    /// # Errors
    /// The database's.
    pub async fn rights(&self) -> Result<Vec<RightsRow>> {
        self.core.store().rights().await
    }

    /// Examines the database, the way to it and the fleet; see [`doctor`]. Changes nothing, and takes a
    /// second or two.
    ///
    /// # Errors
    /// As [`Broker::connect`](crate::Broker::connect); what cannot be looked at is a finding and no error.
    pub async fn doctor(&self, options: &doctor::Options) -> Result<doctor::Report> {
        doctor::examine(self.core.settings(), options).await
    }

    /// All of the maintenance, once and now, whoever else does it: rescues the messages of dead consumers, makes due messages
    /// pending, lets canaries of open breakers through, folds counters, archives and purges what is past retention, creates
    /// and drops partitions. In small transactions with pauses; what somebody holds is left for the next time. Cancelling
    /// it leaves what was done.
    ///
    /// # Errors
    /// The database's.
    pub async fn maintain(&self) -> Result<Maintained> {
        maintenance::all(self.core.store()).await
    }

    /// What [`maintain`](Self::maintain) would do now; changes nothing. Empty: nothing.
    ///
    /// # Errors
    /// The database's.
    pub async fn maintenance_due(&self) -> Result<Vec<MaintenanceDue>> {
        self.core.store().maintenance_due().await
    }

    /// The maintenance in rounds, for processes without a consumer: consumers do it by themselves.
    pub fn maintenance(&self) -> Maintenance {
        Maintenance::new(self.core.store().clone(), process::fresh_name())
    }
}
