use std::time::UNIX_EPOCH;

use super::*;

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds)
}

fn message(priority: i32, seconds: u64, id: MessageId) -> Taken {
    Taken { priority, place: (at(seconds), id), again: None }
}

fn again(priority: i32, seconds: u64, requeued: u64, id: MessageId) -> Taken {
    Taken { again: Some((at(requeued), id)), ..message(priority, seconds, id) }
}

fn look(oldest_xid: i64, next_xid: i64, taken: Vec<Taken>) -> Observed {
    Observed::saw(oldest_xid, next_xid, at(10_000), taken)
}

fn place(seconds: u64, id: MessageId) -> Option<Place> {
    Some((at(seconds), id))
}

/// A look in the usual order, from the places.
fn looked(places: &mut Places, exhausted: bool, observed: Observed) {
    places.looked(Start::Places, false, false, exhausted, &observed);
}

fn of(places: &Places, priority: i32) -> Pair<Option<Place>> {
    places.reached[&priority].places
}

#[test]
fn a_place_moves_when_no_transaction_of_its_time_is_left() {
    let mut places = Places::default();
    assert_eq!(places.ranges(Start::Places, false), None);
    looked(&mut places, false, look(10, 10, vec![message(0, 1, 1), message(0, 2, 2)]));
    // Transaction 11 has been running since before this look: it may still commit something older than message 2.
    looked(&mut places, false, look(11, 12, vec![message(0, 3, 3)]));
    assert_eq!(of(&places, 0).published, None);
    looked(&mut places, false, look(12, 14, vec![message(0, 4, 4)]));
    assert_eq!(of(&places, 0).published, place(2, 2));
    let ranges = places.ranges(Start::Places, false).unwrap();
    assert_eq!(ranges.lows, [1, 0, i32::MIN]);
    assert_eq!(ranges.highs, [i32::MAX, 0, -1]);
    assert_eq!(ranges.after_ids, [0, 2, 0]);
}

#[test]
fn a_look_that_ended_before_a_priority_says_nothing_about_it() {
    let mut places = Places::default();
    looked(&mut places, false, look(10, 10, vec![message(5, 1, 1), message(0, 2, 2)]));
    // Full, and all of it of the higher priority.
    looked(&mut places, false, look(11, 11, vec![message(5, 3, 3)]));
    assert_eq!((of(&places, 5).published, of(&places, 0).published), (place(1, 1), None));
    looked(&mut places, false, look(12, 12, vec![message(5, 4, 4), message(0, 5, 5)]));
    looked(&mut places, false, look(13, 13, vec![message(0, 6, 6)]));
    assert_eq!((of(&places, 5).published, of(&places, 0).published), (place(4, 4), place(5, 5)));
}

#[test]
fn a_look_that_took_all_there_was_moves_the_places_to_shortly_before_its_time_also_where_it_found_nothing() {
    let mut places = Places::default();
    looked(&mut places, true, look(10, 10, vec![]));
    assert_eq!(places.ranges(Start::Places, false).unwrap().after_at, [None, None, None]);
    looked(&mut places, true, look(11, 11, vec![]));
    let now = Some((at(10_000) - DATED_BACK, 0));
    assert_eq!(of(&places, 0), Pair { published: now, again: now });
    assert_eq!(places.keep(), [], "nothing is gained by keeping them");
}

#[test]
fn a_look_that_a_gate_kept_from_looking_moves_nothing() {
    let mut places = Places::default();
    for xid in 10..15 {
        looked(&mut places, true, look(xid, xid, vec![]).gated());
    }
    assert_eq!(places.ranges(Start::Places, false), None);
}

#[test]
fn what_became_pending_again_has_a_place_of_its_own() {
    let mut places = Places::default();
    // In the order of publishing, because there is no place yet.
    looked(&mut places, false, look(10, 10, vec![again(0, 5, 500, 5), message(0, 6, 6)]));
    looked(&mut places, false, look(11, 11, vec![message(0, 7, 7)]));
    assert_eq!(of(&places, 0), Pair { published: place(6, 6), again: None });
    // Full of what became pending again: says nothing of what was published.
    looked(&mut places, false, look(12, 12, vec![again(0, 3, 501, 3), again(0, 1, 502, 1)]));
    looked(&mut places, false, look(13, 13, vec![again(0, 2, 503, 2)]));
    assert_eq!(of(&places, 0), Pair { published: place(6, 6), again: place(502, 1) });
    let ranges = places.ranges(Start::Places, false).unwrap();
    assert_eq!((ranges.after_ids, ranges.again_ids), (vec![0, 6, 0], vec![0, 1, 0]));
    looked(&mut places, false, look(14, 14, vec![message(0, 8, 8)]));
    looked(&mut places, false, look(15, 15, vec![message(0, 9, 9)]));
    assert_eq!(of(&places, 0), Pair { published: place(8, 8), again: place(503, 2) });
}

#[test]
fn behind_a_long_transaction_it_is_asked_who_writes_the_more_rarely_the_longer() {
    let mut places = Places::default();
    looked(&mut places, false, look(10, 20, vec![message(0, 1, 1)]));
    let mut asked = Vec::new();
    for n in 1..40 {
        let asks = places.asks_for_writers();
        if asks {
            asked.push(n);
        }
        places.looked(Start::Places, false, asks, false, &look(10, 20 + n, vec![]));
    }
    assert_eq!(asked, [5, 9, 17, 33]);
    assert!(places.checkpoint.as_ref().unwrap().behind_writer);
    places.looked(Start::Places, false, true, true, &look(60, 60, vec![]));
    assert_eq!(of(&places, 0).published, place(1, 1));
}

#[test]
fn behind_a_long_transaction_looks_begin_where_the_last_one_ended() {
    let mut places = Places::default();
    for n in 0..=LAG_MAX as i64 {
        looked(&mut places, false, look(10, 20 + n, vec![message(0, n as u64, n)]));
    }
    assert_eq!(places.start(), Start::Last);
    let ranges = places.ranges(Start::Last, false).unwrap();
    assert_eq!(ranges.after_ids[1], LAG_MAX as MessageId);
    places.looked(Start::Last, false, false, true, &look(90_000, 90_000, vec![]));
    assert_eq!(places.start(), Start::Places);
}

#[test]
fn ranges_cover_every_priority_once_also_at_the_ends() {
    let mut places = Places::default();
    let seen = [i32::MAX, 7, 6, 0, i32::MIN].map(|priority| message(priority, 1, 1));
    looked(&mut places, true, look(1, 1, seen.to_vec()));
    let ranges = places.ranges(Start::Places, false).unwrap();
    assert_eq!(ranges.highs[0], i32::MAX);
    assert_eq!(*ranges.lows.last().unwrap(), i32::MIN);
    for (low, above) in ranges.lows.iter().zip(&ranges.highs[1..]) {
        assert_eq!(low - 1, *above);
    }
    let mut backwards = places.ranges(Start::Places, true).unwrap();
    backwards.reverse();
    assert_eq!(backwards, ranges);
}

#[test]
fn times_of_the_future_move_nothing_and_a_clock_put_back_forgets_all() {
    let mut places = Places::default();
    looked(&mut places, false, look(1, 1, vec![message(0, 1, 1), message(0, 20_000, 2)]));
    looked(&mut places, false, look(2, 2, vec![message(0, 3, 3)]));
    assert_eq!(of(&places, 0).published, place(1, 1));
    let put_back = Observed::saw(3, 3, UNIX_EPOCH, vec![]);
    looked(&mut places, false, put_back);
    assert!(places.reached.is_empty());
}

#[test]
fn places_are_worth_keeping_once_they_have_moved_over_messages() {
    let mut places = Places::default();
    looked(&mut places, false, look(1, 1, vec![message(0, 1, 1)]));
    assert_eq!(places.keep(), []);
    looked(&mut places, true, look(2, 2, vec![]));
    assert_eq!(places.keep(), [KeptPlace { priority: 0, place: (at(1), 1), again: None }]);
    looked(&mut places, true, look(3, 3, vec![]));
    assert_eq!(places.keep(), []);
}

#[test]
fn only_so_many_priorities_are_remembered_those_used_last() {
    let mut places = Places::default();
    for priority in 0..20 {
        looked(&mut places, false, look(1, 1, vec![message(priority, 1, 1)]));
    }
    assert_eq!(places.reached.keys().copied().collect::<Vec<_>>(), (12..20).collect::<Vec<_>>());
}
