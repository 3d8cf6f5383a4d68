use std::time::Duration;

use super::*;
use crate::{consumer::workers::tests::delivery, handler::Batch};

const LINGER: Duration = Duration::from_secs(10);

fn gathering() -> Gathering {
    let batches = Batches { sizes: vec![Batch::of(3).linger(LINGER)], others: Some(0), ..Batches::default() };
    Gathering::new(batches)
}

fn at(id: MessageId, received: Instant) -> Delivery {
    Delivery { received, ..delivery(id) }
}

#[test]
fn a_batch_begins_when_it_is_full_or_its_first_message_has_waited_for_as_long_as_it_may() {
    let (mut gathering, start, nobody) = (gathering(), Instant::now(), After::new());
    assert_eq!((gathering.ready(start, &nobody), gathering.begins_at()), (None, None));
    assert!(gathering.push(at(1, start)).is_none());
    assert!(gathering.push(at(2, start + LINGER / 2)).is_none());
    assert_eq!(gathering.ready(start + LINGER / 2, &nobody), None);
    assert_eq!(gathering.begins_at(), Some(start + LINGER));
    assert_eq!(gathering.ready(start + LINGER, &nobody), Some((0, start)));
    assert!(gathering.push(at(3, start)).is_none());
    assert_eq!(gathering.ready(start, &nobody), Some((0, start)));
}

#[test]
fn what_comes_after_one_of_its_key_makes_a_batch_full_too() {
    let (mut gathering, start) = (gathering(), Instant::now());
    let keyed = |id| Delivery { ordering_key: Some("a".to_owned()), ..at(id, start) };
    assert!(gathering.push(keyed(1)).is_none());
    let after = After::from([("a".to_owned(), BTreeMap::from([(2, keyed(2)), (3, keyed(3))]))]);
    assert_eq!(gathering.ready(start, &After::new()), None);
    assert_eq!(gathering.ready(start, &after), Some((0, start)));
}

#[test]
fn what_was_in_a_batch_that_failed_is_handled_by_itself() {
    let mut gathering = gathering();
    let alone = Delivery { alone: true, ..delivery(1) };
    assert!(gathering.push(alone).is_some());
    assert_eq!(gathering.len(), 0);
}
