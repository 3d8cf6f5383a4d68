use std::time::SystemTime;

use super::*;
use crate::{error::ErrorKind, message::MessageId};

fn kept(id: MessageId) -> Places {
    Places::load([KeptPlace { priority: 0, place: (SystemTime::UNIX_EPOCH, id), again: None }])
}

fn looking() -> Looking {
    Looking::new("billing", kept(7))
}

fn begin(looking: &mut Looking, next: NextLook) -> Look {
    looking.begin(next, false).unwrap().0
}

fn saw(looking: &mut Looking, look: &Look, full: bool) {
    looking.looked(look, &Observed::nothing(), full, Duration::ZERO);
}

#[test]
fn a_reason_is_used_once_and_the_first_look_needs_none() {
    let mut looking = looking();
    assert_eq!(begin(&mut looking, NextLook::Leased).why(), Found::Sweep);
    assert_eq!(looking.begin(NextLook::Leased, false), None);
    looking.look(Found::Bell);
    looking.also_look(Found::Drain);
    assert_eq!(begin(&mut looking, NextLook::Leased).why(), Found::Bell);
}

#[test]
fn looks_begin_at_the_kept_places_and_where_there_are_none_at_the_beginning() {
    let mut looking = looking();
    let (look, ranges) = looking.begin(NextLook::Leased, false).unwrap();
    assert!(!look.is_everywhere());
    assert_eq!(ranges.unwrap().after_ids, [0, 7, 0]);
    looking.forget_places();
    looking.look(Found::Bell);
    let (look, ranges) = looking.begin(NextLook::Held, false).unwrap();
    assert!(look.is_everywhere() && ranges.is_none());
}

#[test]
fn what_could_not_be_held_is_looked_for_from_the_beginning_once() {
    let mut looking = looking();
    let held = begin(&mut looking, NextLook::Held);
    assert!(!held.is_everywhere());
    looking.look_again(held.why());
    let leased = begin(&mut looking, NextLook::Refused(3));
    assert!(leased.is_everywhere());
    looking.look(Found::Drain);
    assert!(!begin(&mut looking, NextLook::Refused(3)).is_everywhere());
}

#[test]
fn after_many_full_batches_one_look_begins_with_the_lowest_priority() {
    let mut looking = looking();
    let mut lowest_first = Vec::new();
    for n in 0..2 * (LOWEST_FIRST_EVERY + 1) {
        let look = begin(&mut looking, NextLook::Leased);
        saw(&mut looking, &look, true);
        if look.lowest_first {
            lowest_first.push(n);
        }
    }
    assert_eq!(lowest_first, [LOWEST_FIRST_EVERY, 2 * LOWEST_FIRST_EVERY + 1]);
}

#[test]
fn a_full_batch_is_a_reason_to_look_and_an_exhausted_queue_is_none() {
    let mut looking = looking();
    let look = begin(&mut looking, NextLook::Leased);
    saw(&mut looking, &look, true);
    let look = begin(&mut looking, NextLook::Leased);
    assert_eq!(look.why(), Found::Drain);
    saw(&mut looking, &look, false);
    assert!(!looking.is_wanted());
}

#[test]
fn a_failed_look_is_made_again_after_a_pause_from_the_beginning_for_the_same_reason() {
    let mut looking = looking();
    let look = begin(&mut looking, NextLook::Leased);
    looking.failed(&look, &Error::new(ErrorKind::Connect, "no server"));
    let again = begin(&mut looking, NextLook::Leased);
    assert!(again.is_everywhere());
    assert_eq!(again.why(), look.why());
    assert!(looking.pause().is_some_and(|pause| pause <= RETRY_BASE));
    assert_eq!(looking.pause(), None);
}

#[test]
fn who_leaves_makes_room_only_where_the_target_has_a_limit() {
    let mut looking = looking();
    let look = begin(&mut looking, NextLook::Leased);
    looking.room_again();
    assert!(!looking.is_wanted());
    looking.looked(&look, &Observed::nothing().limited(), false, Duration::ZERO);
    looking.room_again();
    assert!(looking.is_wanted());
}

#[test]
fn who_leaves_may_make_way_for_the_next_of_its_key_where_the_target_has_keys() {
    let mut looking = looking();
    let look = begin(&mut looking, NextLook::Leased);
    looking.looked(&look, &Observed::nothing().keyed(), false, Duration::ZERO);
    let another = looking.begin(NextLook::Leased, false);
    assert_eq!(another, None);
    looking.room_again();
    assert!(looking.is_wanted());
}

#[test]
fn parking_that_waits_for_a_transaction_asks_whether_it_writes() {
    let mut looking = Looking::new("billing", Places::default());
    let asks: Vec<u32> = (1..20)
        .filter(|_| {
            looking.look(Found::Drain);
            let (look, ranges) = looking.begin(NextLook::Leased, true).unwrap();
            assert_eq!(ranges.is_some_and(|ranges| ranges.writers), look.asks);
            look.asks
        })
        .collect();
    assert_eq!(asks, [4, 8, 16]);
    looking.look(Found::Bell);
    looking.begin(NextLook::Leased, false);
    assert_eq!(looking.unsettled, 0);
}

#[test]
fn a_look_from_the_beginning_that_took_long_is_not_repeated_soon() {
    let mut looking = looking();
    let now = Instant::now();
    looking.look_everywhere_soon(now);
    assert_eq!(looking.everywhere_at(), Some(now));
    looking.look_everywhere(Found::Bell);
    assert_eq!(looking.everywhere_at(), None);
    let look = begin(&mut looking, NextLook::Leased);
    looking.looked(&look, &Observed::nothing(), false, Duration::from_secs(60));
    looking.look_everywhere_soon(now);
    assert!(looking.everywhere_at() > Some(now + Duration::from_secs(60)));
}

#[test]
fn suspects_are_worth_a_look_where_nothing_was_found_and_it_was_looked_for() {
    let bell = Exhausted { nothing: true, why: Found::Bell, everywhere: false, oldest_xid: 5 };
    let drain = Exhausted { why: Found::Drain, ..bell };
    assert!(bell.suspects_may_wait() && Exhausted { everywhere: true, ..drain }.suspects_may_wait());
    assert!(!drain.suspects_may_wait() && !Exhausted { nothing: false, ..bell }.suspects_may_wait());
}

#[test]
fn a_look_that_was_turned_away_is_made_again_as_it_was_after_a_pause() {
    let (mut looking, now) = (looking(), Instant::now());
    looking.look_everywhere(Found::Sweep);
    let look = begin(&mut looking, NextLook::Leased);
    looking.turned_away(&look, String::new(), now, 0.5);
    assert!(looking.is_wanted() && looking.back_at() > Some(now));
    // Nothing failed.
    assert_eq!(looking.pause(), None);
    looking.come_back();
    assert_eq!(looking.back_at(), None);
    let again = begin(&mut looking, NextLook::Leased);
    assert_eq!((again.why(), again.is_everywhere()), (look.why(), true));
    saw(&mut looking, &again, false);
    assert!(!looking.is_wanted());
    assert_eq!(looking.asks_for_turn(now + Duration::from_secs(60)), None);
}

#[test]
fn a_bell_is_answered_at_once_even_by_whom_was_turned_away() {
    let (mut looking, now) = (looking(), Instant::now());
    let look = begin(&mut looking, NextLook::Leased);
    looking.turned_away(&look, String::new(), now, 0.5);
    looking.look(Found::Drain);
    assert!(looking.back_at().is_some());
    looking.look(Found::Bell);
    assert_eq!(looking.back_at(), None);
    let look = begin(&mut looking, NextLook::Leased);
    // While it was under way: whoever had the turn may have looked before.
    looking.look(Found::Bell);
    looking.turned_away(&look, String::new(), now, 0.5);
    assert!(looking.is_wanted());
    assert_eq!(looking.back_at(), None);
}

#[test]
fn while_the_turn_stays_where_it_is_looks_say_whom_they_saw() {
    let (mut looking, now) = (looking(), Instant::now());
    let later = now + Duration::from_secs(5);
    let look = begin(&mut looking, NextLook::Leased);
    assert_eq!(looking.asks_for_turn(later), None);
    looking.turned_away(&look, String::new(), now, 0.5);
    assert_eq!((looking.asks_for_turn(now), looking.asks_for_turn(later).as_deref()), (None, Some("")));
    looking.turned_away(&look, "3/14".into(), now, 0.5);
    assert_eq!(looking.asks_for_turn(later).as_deref(), Some("3/14"));
    looking.start_over();
    assert_eq!(looking.asks_for_turn(later), None);
}
