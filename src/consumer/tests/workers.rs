use super::*;
use crate::message::Found;

pub(in crate::consumer) fn delivery(id: i64) -> Delivery {
    Delivery {
        id,
        attempt: 1,
        source: "shop".to_owned(),
        target: "billing".to_owned(),
        record_type: "order".to_owned(),
        priority: 0,
        retry_count: 0,
        redrive_count: 0,
        headers: Default::default(),
        ordering_key: None,
        created_at: std::time::SystemTime::UNIX_EPOCH,
        age: Duration::ZERO,
        found: Found::Bell,
        origin: None,
        requeued_at: None,
        canary: false,
        ahead: false,
        alone: false,
        received: Instant::now(),
        owner: "me".into(),
        payload: "{}".into(),
        unreadable: None,
    }
}

pub(in crate::consumer) fn claim(id: i64) -> Claim {
    Claim::of(&delivery(id))
}

fn workers(concurrency: usize) -> Workers {
    Workers::new(&ConsumerConfig { concurrency, ..ConsumerConfig::default() }, &Batches::default())
}

/// Starts tasks as long as there are free handlers.
fn start(workers: &mut Workers) -> Vec<tokio::task::JoinHandle<()>> {
    let mut tasks = Vec::new();
    while let Some(Task::One(delivery)) = workers.next_task() {
        let task = tokio::spawn(std::future::pending());
        let begun = Begun::default();
        begun.now();
        workers.started(Claim::of(&delivery), &begun, &task.abort_handle(), None);
        tasks.push(task);
    }
    tasks
}

fn end(workers: &mut Workers, id: i64, took: Duration) -> bool {
    workers.ended(&claim(id), took)
}

#[tokio::test]
async fn a_task_has_one_message_and_there_are_as_many_as_free_handlers() {
    let mut workers = workers(2);
    workers.queue((0..8).map(delivery).collect());
    assert_eq!(start(&mut workers).len(), 2);
    assert!(workers.next_task().is_none(), "no free handler");
    assert!(end(&mut workers, 0, Duration::ZERO) && !end(&mut workers, 0, Duration::ZERO));
    assert_eq!(start(&mut workers).len(), 1);
}

#[tokio::test]
async fn room_is_for_free_handlers_or_for_half_the_capacity() {
    let mut workers = workers(4);
    assert_eq!(workers.room(0), Some(4), "no claiming ahead before a handler was seen to be fast");
    assert_eq!(workers.room(3), Some(1));
    assert_eq!(workers.room(4), None);
    workers.queue((0..4).map(delivery).collect());
    start(&mut workers);
    assert_eq!(workers.room(0), None);
    for id in 0..4 {
        (0..30).for_each(|_| workers.average = (workers.average * 7) / 8);
        end(&mut workers, id, Duration::from_millis(1));
    }
    let capacity = workers.room(0).unwrap();
    assert!((4 + 4..=4 + PREFETCH_MAX).contains(&capacity), "{capacity}");
    workers.queue((0..capacity as i64 / 2 + 2).map(delivery).collect());
    start(&mut workers);
    assert_eq!(workers.room(0), None, "more than half of it is there, and every handler is busy");
}

#[tokio::test]
async fn what_was_claimed_ahead_of_handlers_that_became_slow_is_surplus() {
    let mut workers = workers(2);
    workers.queue((0..6).map(delivery).collect());
    start(&mut workers);
    workers.average = Duration::from_millis(1);
    assert_eq!(workers.surplus(), []);
    workers.notice_slow(Instant::now() + Duration::from_secs(1));
    assert_eq!(workers.surplus(), [5, 4, 3, 2].map(claim));
    assert_eq!(workers.surplus(), []);
}

#[tokio::test]
async fn the_overdue_are_given_up_and_free_their_places() {
    let mut workers = workers(2);
    workers.queue((0..4).map(delivery).collect());
    let tasks = start(&mut workers);
    let limit = Duration::from_secs(1);
    let now = Instant::now();
    assert!(workers.overdue(limit, now + limit).is_empty(), "they may stop late");
    let overdue = workers.overdue(limit, now + limit + GRACE + limit);
    let mut overdue: Vec<Claim> = overdue.into_iter().map(|(claim, _)| claim).collect();
    overdue.sort_by_key(|claim| claim.id());
    assert_eq!(overdue, [claim(0), claim(1)]);
    for task in tasks {
        assert!(task.await.unwrap_err().is_cancelled());
    }
    assert!(!end(&mut workers, 0, Duration::ZERO), "what it says in the end comes too late");
    assert_eq!(start(&mut workers).len(), 2);
}

#[tokio::test]
async fn what_is_gone_is_dropped_and_others_go_on() {
    let mut workers = workers(4);
    workers.queue((0..6).map(delivery).collect());
    let mut tasks = start(&mut workers).into_iter();
    assert_eq!(workers.drop_gone(|claim| [0, 2, 4].contains(&claim.id())), (1, 2, vec![]));
    let (first, second) = (tasks.next().unwrap(), tasks.next().unwrap());
    assert!(first.await.unwrap_err().is_cancelled());
    assert!(!second.is_finished());
    assert!(!end(&mut workers, 0, Duration::ZERO) && end(&mut workers, 1, Duration::ZERO));
    assert_eq!((workers.running(), start(&mut workers).len()), (1, 1));
}

#[tokio::test]
async fn a_task_that_waits_for_its_turn_is_not_overdue() {
    let mut workers = workers(1);
    let task = tokio::spawn(std::future::pending::<()>());
    workers.started(claim(1), &Begun::default(), &task.abort_handle(), None);
    assert!(workers.overdue(Duration::ZERO, Instant::now() + Duration::from_secs(3600)).is_empty());
}

#[tokio::test]
async fn stopping_takes_what_runs_and_leaves_what_waits() {
    let mut workers = workers(1);
    workers.queue(vec![delivery(1), delivery(2)]);
    let tasks = start(&mut workers);
    assert_eq!((workers.stop(), workers.take_unstarted()), (vec![claim(1)], vec![claim(2)]));
    for task in tasks {
        assert!(task.await.unwrap_err().is_cancelled());
    }
    assert_eq!((workers.running(), end(&mut workers, 1, Duration::ZERO)), (0, false));
}

fn several(workers: &mut Workers, ids: std::ops::Range<i64>) -> tokio::task::JoinHandle<()> {
    let batch: Vec<Delivery> = ids.map(delivery).collect();
    let (task, begun) = (tokio::spawn(std::future::pending()), Begun::default());
    begun.now();
    workers.started_with(Claim::of(&batch[0]), batch, &begun, &task.abort_handle(), None);
    task
}

#[tokio::test]
async fn a_batch_goes_on_until_all_of_it_is_gone_and_counts_as_the_messages_it_has() {
    let mut workers = workers(2);
    let task = several(&mut workers, 0..3);
    assert_eq!((workers.running(), workers.room(0)), (3, None));
    assert_eq!(workers.drop_gone(|claim| claim.id() < 2), (0, 2, vec![]));
    assert_eq!(workers.drop_gone(|claim| claim.id() < 2), (0, 0, vec![]), "it was said already");
    let items = workers.ended_with(&claim(0), Duration::ZERO).unwrap();
    assert_eq!(items.iter().map(|item| item.gone).collect::<Vec<_>>(), [true, true, false]);
    assert_eq!((workers.running(), task.is_finished()), (0, false));
    let task = several(&mut workers, 0..3);
    assert_eq!(workers.drop_gone(|_| true), (0, 3, vec![]));
    assert!(task.await.unwrap_err().is_cancelled());
    assert_eq!(workers.running(), 0);
}

#[tokio::test]
async fn an_overdue_batch_is_given_up_and_its_messages_are_still_there() {
    let mut workers = workers(1);
    let task = several(&mut workers, 0..3);
    let overdue = workers.overdue(Duration::ZERO, Instant::now() + GRACE * 2);
    assert_eq!((overdue.len(), overdue[0].1.len(), workers.running()), (1, 3, 0));
    assert!(task.await.unwrap_err().is_cancelled());
    workers.again(overdue.into_iter().flat_map(|(_, batch)| batch).map(|item| item.delivery).collect());
    assert_eq!((start(&mut workers).len(), workers.take_unstarted().len()), (1, 2));
}
