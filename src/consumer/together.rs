//! Several messages handled together: by a plain handler, or by one whose effects and their completion commit together.
//!
//! What is wrong with a batch of several is nobody's fault yet: each of its messages is handled by itself then, and pays for
//! what becomes of it alone.

use std::{collections::HashSet, sync::Arc};

use tokio::sync::mpsc;
use tokio_postgres::Transaction;
use tracing::warn;

use super::{
    context::Context,
    effects::after_a_conflict,
    running::{Became, Begun, Handled, Ran},
    settle::were_settled,
};
use crate::{
    error::{Result, is_conflict},
    handler::{BatchHandler, BatchOutcome, BatchResult, BatchTxHandler, Several, chain, check_reply, reasoned},
    message::Delivery,
    outcome::Outcome,
    store::{Claim, Done},
};

/// Replies that travel in one statement.
const REPLIES_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Runs the handler of leased messages, as a task that tells of its end.
pub(super) async fn handle(
    context: Arc<Context>,
    deliveries: Vec<Delivery>,
    claim: Claim,
    begun: Begun,
    handled: mpsc::UnboundedSender<Box<Handled>>,
) {
    let started = begun.now();
    let became = run(&context, deliveries).await;
    // The loop is gone only when the process is being torn down.
    let _ = handled.send(Box::new(Handled::Several { claim, became, took: started.elapsed() }));
}

/// Runs it for one message.
pub(super) async fn run_one(context: &Context, delivery: Delivery) -> Ran {
    match run(context, vec![delivery]).await.pop() {
        Some(Became::Ran(ran)) => ran,
        _ => Ran::Outcome(Outcome::retry("it was not handled")),
    }
}

/// What becomes of each; of one alone, how its handler ran.
async fn run(context: &Context, deliveries: Vec<Delivery>) -> Vec<Became> {
    let count = deliveries.len();
    let handler = deliveries.first().and_then(|first| context.registry.several(&first.record_type));
    let became = match handler {
        Some(Several::Plain(handler)) => plain(context, &**handler, deliveries).await,
        Some(Several::Tx(handler)) => transactional(context, &**handler, deliveries).await,
        None => Err("its handler takes no batches".to_owned()),
    };
    became.unwrap_or_else(|reason| {
        if count == 1 {
            return vec![Became::Ran(Ran::Outcome(Outcome::retry(reason)))];
        }
        warn!(target_app = %context.target, messages = count, "a batch failed as a whole: its messages are handled one by one");
        vec![Became::Alone; count]
    })
}

/// # Errors
/// Why the batch has failed as a whole.
async fn plain(
    context: &Context,
    handler: &dyn BatchHandler,
    deliveries: Vec<Delivery>,
) -> std::result::Result<Vec<Became>, String> {
    let lot = Lot::of(&deliveries);
    let Said { outcomes, replies } = outcomes(context, deliveries, |readable| handler.handle(readable)).await?;
    let mut became: Vec<_> = outcomes.iter().map(|outcome| Became::Ran(Ran::Outcome(outcome.clone()))).collect();
    if !replies.is_empty() {
        reply(context, &lot, &Said { outcomes, replies }, &mut became).await;
    }
    Ok(became)
}

/// Completes requests with their replies. What is done of the ordering keys of these is completed with them, in its order; what
/// comes after one that is not done is handled again, and replies then.
async fn reply(context: &Context, lot: &Lot, said: &Said, became: &mut [Became]) {
    let Said { outcomes, replies } = said;
    let replied = |at: &usize| replies[*at].is_some();
    let keys: HashSet<&String> = (0..outcomes.len()).filter(replied).filter_map(|at| lot.keys[at].as_ref()).collect();
    let mut waits = HashSet::new();
    let mut ending = Vec::new();
    for (at, outcome) in outcomes.iter().enumerate() {
        let key = lot.keys[at].as_ref();
        match outcome {
            _ if key.is_some_and(|key| waits.contains(key)) => {}
            Outcome::Done if replied(&at) || key.is_some_and(|key| keys.contains(key)) => ending.push(at),
            Outcome::Done | Outcome::Settled => {}
            _ => waits.extend(key),
        }
    }
    // Together, and where one of them is refused, or is not this owner's any more, one by one.
    let mut together = true;
    while !ending.is_empty() {
        let count = if together { part_of(replies, &ending) } else { 1 };
        let part = &ending[..count];
        let done: Vec<Done<'_>> = part.iter().map(|at| (lot.claims[*at], replies[*at].as_deref())).collect();
        let ended = context.committing(count, context.store.end(&lot.owner, &done)).await;
        match &ended {
            Err(error) if count > 1 && (error.is_lease_lost() || error.is_refusal()) => {
                together = false;
                continue;
            }
            Err(_) => waits.extend(part.iter().filter_map(|at| lot.keys[*at].as_ref())),
            Ok(()) => {}
        }
        part.iter().for_each(|at| became[*at] = Became::Ran(ran(&ended)));
        ending.drain(..count);
        ending.retain(|at| lot.keys[*at].as_ref().is_none_or(|key| !waits.contains(key)));
    }
}

/// Where it was completed after all the retry comes too late.
fn ran(ended: &Result<()>) -> Ran {
    match ended {
        Ok(()) => Ran::Completed,
        Err(error) if error.is_lease_lost() => Ran::LeaseLost,
        Err(error) => Ran::Outcome(Outcome::retry(chain(error))),
    }
}

/// How many of these one statement takes.
fn part_of(replies: &[Option<Box<str>>], ending: &[usize]) -> usize {
    let mut bytes = 0;
    let fits = ending.iter().take_while(|at| {
        bytes += replies[**at].as_ref().map_or(0, |reply| reply.len());
        bytes <= REPLIES_BYTES_MAX
    });
    fits.count().max(1)
}

/// # Errors
/// Why the batch has failed as a whole; nothing of it was done.
async fn transactional(
    context: &Context,
    handler: &dyn BatchTxHandler,
    deliveries: Vec<Delivery>,
) -> std::result::Result<Vec<Became>, String> {
    let count = deliveries.len();
    match run_and_commit(context, handler, deliveries).await {
        Ok(became) => became,
        Err(error) if is_conflict(&error) => {
            let snoozed = || Became::Ran(Ran::Outcome(after_a_conflict()));
            Ok(std::iter::repeat_with(snoozed).take(count).collect())
        }
        Err(error) => Err(format!("the transaction failed: {}", chain(&error))),
    }
}

/// # Errors
/// Nothing was done, as far as the database can say.
async fn run_and_commit(
    context: &Context,
    handler: &dyn BatchTxHandler,
    deliveries: Vec<Delivery>,
) -> Result<std::result::Result<Vec<Became>, String>> {
    let Lot { claims, keys, owner } = Lot::of(&deliveries);
    // Whatever ends this early closes the connection, and with it the transaction.
    let mut client = context.store.busy().await?;
    let tx = context.store.within_deadline("begin", client.build_handlers_transaction().start()).await?;
    let handle = |readable| async { without_conflict(handler.handle(readable, &tx).await) };
    let became = match outcomes(context, deliveries, handle).await {
        Ok(Said { outcomes, replies }) if outcomes.iter().all(|outcome| *outcome == Outcome::Done) => {
            let completed = complete(context, &tx, &owner, &claims, &replies).await?;
            match () {
                () if completed == claims.len() => None,
                () if claims.len() == 1 => Some(Ok(vec![Became::Ran(Ran::LeaseLost)])),
                // Not all of them are this owner's any more.
                () => Some(Ok(vec![Became::Alone; claims.len()])),
            }
        }
        Ok(said) => Some(Ok(undone(said.outcomes, &keys))),
        Err(reason) => Some(Err(reason)),
    };
    if let Some(became) = became {
        if context.store.within_deadline("roll back", tx.rollback()).await.is_ok() {
            client.answered();
        }
        return Ok(became);
    }
    match context.committing(claims.len(), context.store.within_deadline("commit", tx.commit())).await {
        Ok(()) => client.answered(),
        Err(error) => {
            // The commit may have happened. Nothing is cancelled and nothing is run again before the database has said.
            drop(client);
            if !were_settled(context, &claims).await? {
                return Err(error);
            }
        }
    }
    Ok(Ok(vec![Became::Ran(Ran::Completed); claims.len()]))
}

/// Completes all, requests with their replies; returns how many were this owner's still.
async fn complete(
    context: &Context,
    tx: &Transaction<'_>,
    owner: &str,
    claims: &[Claim],
    replies: &[Option<Box<str>>],
) -> Result<usize> {
    let replied: Vec<Done<'_>> =
        claims.iter().zip(replies).filter_map(|(claim, reply)| Some((*claim, Some(reply.as_deref()?)))).collect();
    for (at, done) in replied.iter().enumerate() {
        // One by one: their transaction is one, and their bytes together may be too many for a statement.
        let ending = context.store.end_in(tx, owner, std::slice::from_ref(done));
        match context.store.within_deadline("reply to requests", ending).await {
            Err(error) if error.is_lease_lost() => return Ok(at),
            ended => ended?,
        }
    }
    let without = |at: &usize| replies.get(*at).is_none_or(Option::is_none);
    let plain: Vec<Claim> = (0..claims.len()).filter(without).map(|at| claims[at]).collect();
    let completing = context.store.complete_in(tx, owner, &plain);
    Ok(replied.len() + context.store.within_deadline("complete messages", completing).await?)
}

/// What becomes of messages whose effects were rolled back because some were not done: these are settled, the others run again
/// without them. Where one of a key is not done, those before it have to be first: one by one.
fn undone(outcomes: Vec<Outcome>, keys: &[Option<String>]) -> Vec<Became> {
    let alone = outcomes.len() > 1;
    let not_done = outcomes.iter().zip(keys).filter(|(outcome, _)| **outcome != Outcome::Done);
    let waiting: HashSet<&String> = not_done.filter_map(|(_, key)| key.as_ref()).collect();
    let became = outcomes.into_iter().zip(keys).map(|(outcome, key)| match (outcome, key) {
        (_, Some(key)) if alone && waiting.contains(key) => Became::Alone,
        (Outcome::Done, _) => Became::Again,
        (outcome, _) => Became::Ran(Ran::Outcome(outcome)),
    });
    became.collect()
}

/// A conflict of its transaction with others says nothing about the messages.
fn without_conflict(result: BatchResult) -> BatchResult {
    match result {
        Err(error) if is_conflict(&*error) => Ok(BatchOutcome::all(after_a_conflict())),
        result => result,
    }
}

/// Messages that are handled together, without what is in them.
struct Lot {
    claims: Vec<Claim>,
    keys: Vec<Option<String>>,
    owner: Arc<str>,
}

impl Lot {
    fn of(deliveries: &[Delivery]) -> Self {
        Self {
            claims: deliveries.iter().map(Claim::of).collect(),
            keys: deliveries.iter().map(|delivery| delivery.ordering_key.clone()).collect(),
            owner: deliveries.first().map(|first| first.owner.clone()).unwrap_or_default(),
        }
    }
}

/// What a handler says of each message.
struct Said {
    outcomes: Vec<Outcome>,
    /// As many, or none: nobody is replied to.
    replies: Vec<Option<Box<str>>>,
}

/// Runs the handler, for telemetry, too; of each message what it says. What cannot be read is refused without it, and what comes
/// after that of its key is left out.
///
/// # Errors
/// Why the batch has failed.
async fn outcomes<Handling: Future<Output = BatchResult>>(
    context: &Context,
    deliveries: Vec<Delivery>,
    handle: impl FnOnce(Vec<Delivery>) -> Handling,
) -> std::result::Result<Said, String> {
    let processing = context.processing_together(&deliveries);
    let ids: Vec<_> = deliveries.iter().map(|delivery| delivery.id).collect();
    let refusals: Vec<_> = deliveries.iter().map(Delivery::refusal).collect();
    let mut keys = HashSet::new();
    let mut readable = deliveries;
    let mut refused = refusals.iter();
    readable.retain(|delivery| {
        let is_readable = refused.next().is_none_or(Option::is_none);
        let key = delivery.ordering_key.clone();
        let is_after = key.as_ref().is_some_and(|key| keys.contains(key));
        if !is_readable {
            keys.extend(key);
        }
        is_readable && !is_after
    });
    let mut replies = Vec::new();
    let handling = async {
        let mut outcome = match readable.is_empty() {
            true => BatchOutcome::done(),
            false => reasoned(handle(readable), context.config.handler_timeout).await?,
        };
        if let Some(id) = outcome.stranger(&ids) {
            return Err(format!("its handler says what becomes of message {id}, which it was not given"));
        }
        let mut outcomes = Vec::with_capacity(ids.len());
        for (id, refusal) in ids.iter().zip(refusals) {
            let reply = outcome.take_reply(*id).filter(|_| refusal.is_none());
            let unfit = reply.as_ref().and_then(|reply| check_reply(reply, context.registry.reply_bytes_max).err());
            replies.push(if unfit.is_none() { reply } else { None });
            let unfit = unfit.map(|error| Outcome::reject(chain(&error)));
            outcomes.push(refusal.or(unfit).unwrap_or_else(|| outcome.of(*id).clone()));
        }
        Ok(outcomes)
    };
    let outcomes = processing.run(handling).await?;
    if replies.iter().all(Option::is_none) {
        replies.clear();
    }
    Ok(Said { outcomes, replies })
}
