use super::*;
use crate::consumer::reached::Start;

const OLD: Duration = LEASES_FIRST;
const CAP: Duration = Duration::from_secs(1);

/// Whose handlers have taken so long.
fn holding(plain: bool, average: Duration) -> Holding {
    let mut holding = Holding::new(&ConsumerConfig { hold: Some(CAP), ..ConsumerConfig::default() }, plain);
    holding.average = average;
    holding
}

fn short() -> Holding {
    holding(true, Duration::ZERO)
}

fn look(next: NextLook) -> Look {
    Look::for_a_bell(next, Start::Places)
}

fn batch(limit: usize, took: usize, completed: usize) -> HeldBatch {
    let look = look(NextLook::Held);
    let duration = Duration::from_millis(1);
    HeldBatch { took, completed, refused: false, duration, ..HeldBatch::refused(look, limit) }
}

#[test]
fn where_messages_with_keys_were_met_a_number_of_looks_lease() {
    let mut holding = short();
    holding.leased(&look(NextLook::Leased), 1, true);
    for _ in 0..KEYED_LOOKS {
        assert_eq!(holding.next_look(OLD, None), NextLook::Leased);
        holding.leased(&look(NextLook::Leased), 1, false);
    }
    assert_eq!(holding.next_look(OLD, None), NextLook::Held);
}

#[test]
fn a_process_that_has_just_started_leases_and_so_does_one_that_never_holds() {
    assert_eq!(short().next_look(LEASES_FIRST / 2, None), NextLook::Leased);
    assert_eq!(short().next_look(LEASES_FIRST, None), NextLook::Held);
    let mut never = Holding::new(&ConsumerConfig { hold: None, ..ConsumerConfig::default() }, true);
    never.average = Duration::ZERO;
    assert_eq!((never.next_look(OLD, None), never.batch(0)), (NextLook::Leased, None));
}

#[test]
fn handlers_are_held_while_they_are_short_and_nothing_is_known_of_the_first() {
    for (plain, limit) in [(true, SHORT), (false, CAP / WORTH)] {
        assert_eq!(holding(plain, limit).next_look(OLD, None), NextLook::Held);
        assert_eq!(holding(plain, limit * 2).next_look(OLD, None), NextLook::Leased);
    }
    let mut fresh = Holding::new(&ConsumerConfig::default(), true);
    let mut leased = 0;
    while fresh.next_look(OLD, None) == NextLook::Leased {
        fresh.ran(1, Duration::from_micros(10));
        leased += 1;
    }
    assert!((8..64).contains(&leased), "{leased}");
    let slow = HeldBatch { in_order: (1, CAP), ..batch(16, 1, 1) };
    fresh.ended(&slow);
    assert_eq!(fresh.next_look(OLD, None), NextLook::Leased);
}

#[test]
fn a_batch_that_was_rolled_back_is_leased_until_so_many_were_taken() {
    let mut holding = short();
    let refused = HeldBatch { refused: true, ..batch(16, 5, 0) };
    assert_eq!(holding.ended(&refused), Then::LookAgain(Found::Bell));
    for (took, next) in [(2, NextLook::Refused(3)), (1, NextLook::Refused(2)), (2, NextLook::Held)] {
        holding.leased(&look(NextLook::Refused(5)), took, false);
        assert_eq!(holding.next_look(OLD, None), next);
    }
}

#[test]
fn a_target_that_does_not_allow_to_hold_is_leased_from_and_asked_again() {
    let mut holding = short();
    let refused = HeldBatch { refused: true, ..batch(16, 0, 0) };
    assert_eq!(holding.ended(&refused), Then::Look(Found::Bell));
    let everywhere = HeldBatch { look: Look::for_a_bell(NextLook::Held, Start::Beginning), ..refused };
    assert_eq!(holding.ended(&everywhere), Then::LookAgain(Found::Bell), "such a look is still to be made");
    holding.leased(&look(NextLook::Refused(1)), 0, false);
    assert_eq!(holding.next_look(OLD, None), NextLook::Held);
}

#[test]
fn a_rolled_back_batch_is_not_forgotten_for_a_look_that_was_under_way() {
    let mut holding = short();
    holding.ended(&HeldBatch { refused: true, ..batch(16, 5, 0) });
    holding.leased(&look(NextLook::Leased), 7, false);
    assert_eq!(holding.next_look(OLD, None), NextLook::Refused(5));
}

#[test]
fn batches_grow_while_they_fit_into_half_of_the_cap_and_shrink_when_they_are_rolled_back() {
    let mut holding = short();
    let limits: Vec<usize> = (0..7)
        .map(|_| {
            let (limit, _) = holding.batch(0).unwrap();
            holding.ended(&batch(limit, limit, limit));
            limit
        })
        .collect();
    assert_eq!(limits, [16, 64, 256, 1000, 1000, 1000, 1000]);
    holding.ended(&HeldBatch { duration: Duration::from_millis(500), ..batch(100, 10, 10) });
    assert_eq!(holding.batch(0), Some((10, CAP)));
    holding.ended(&HeldBatch { refused: true, ..batch(10, 10, 0) });
    assert_eq!(holding.batch(BATCHES_MAX - 1), Some((5, CAP)));
    assert_eq!(holding.batch(BATCHES_MAX), None);
}

#[test]
fn where_handlers_need_savepoints_a_batch_has_as_many_messages_as_there_may_be() {
    let mut holding = holding(false, Duration::ZERO);
    for (savepoints, limit) in [(1, 64), (1, 256), (60, SAVEPOINTS_MAX), (60, SAVEPOINTS_MAX), (1, 240)] {
        holding.ended(&HeldBatch { savepoints, ..batch(60, 60, 60) });
        assert_eq!(holding.batch(0), Some((limit, CAP)));
    }
}

#[test]
fn handlers_that_wait_for_the_server_do_so_in_more_batches() {
    let concurrency = ConsumerConfig::default().concurrency;
    assert!(holding(false, SHORT).batch(BATCHES_MAX).is_none());
    assert!(holding(false, SHORT * 2).batch(BATCHES_MAX).is_some());
    assert!(holding(false, SHORT * 2).batch(concurrency).is_none());
}

#[test]
fn nothing_is_held_beside_a_handler_that_blocks_its_thread() {
    let holding = short();
    assert_eq!(holding.next_look(OLD, Some(CAP)), NextLook::Held);
    assert_eq!(holding.next_look(OLD, Some(CAP + GRACE)), NextLook::Leased);
    assert!(!holding.is_blocked(None));
}

#[test]
fn what_the_cap_left_unbegun_is_looked_for_from_the_beginning() {
    assert_eq!(short().ended(&batch(16, 16, 16)), Then::Nothing);
    assert_eq!(short().ended(&batch(16, 3, 3)), Then::Nothing);
    assert_eq!(short().ended(&batch(16, 16, 9)), Then::LookAgain(Found::Drain));
}
