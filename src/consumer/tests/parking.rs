use super::*;

const LATCH: Parked = Parked { barrier: 100, session: 1 };
const NOTHING: Exhausted = Exhausted { nothing: true, why: Found::Drain, everywhere: false, oldest_xid: 100 };
const SETTLING: State = State::Settling { parked: LATCH, looks: 0, next: None };
const PARKED: State = State::Parked(LATCH);

fn parking(state: State) -> Parking {
    Parking { state, ..Parking::new() }
}

/// The drawing: every state and every event.
#[test]
fn the_states_are_those_of_the_drawing() {
    let now = Instant::now();
    let later = State::Lingering(now + LINGER);
    let waiting = State::Settling { parked: LATCH, looks: 1, next: Some(now + 2 * SETTLE_FIRST) };
    let something = Event::Exhausted(Exhausted { nothing: false, ..NOTHING });
    let nothing = Event::Exhausted(NOTHING);
    let everywhere = Event::Exhausted(Exhausted { everywhere: true, ..NOTHING });
    let older_running = Event::Exhausted(Exhausted { everywhere: true, oldest_xid: 99, ..NOTHING });
    let for_a_bell = Event::Exhausted(Exhausted { why: Found::Bell, ..NOTHING });
    let (latched, refused) = (Event::Latched(Some(LATCH)), Event::Latched(None));
    let (rung, rung_elsewhere) = (Event::Rung { session: 1 }, Event::Rung { session: 2 });
    let busy = Event::Busy;
    let table = [
        (State::Awake, something, later, Action::Nothing),
        (State::Awake, nothing, State::Taking, Action::Park),
        (State::Awake, rung, State::Awake, Action::Nothing),
        (State::Awake, busy, State::Awake, Action::Nothing),
        (later, something, later, Action::Nothing),
        (later, nothing, State::Taking, Action::Park),
        (later, rung, later, Action::Nothing),
        (later, busy, later, Action::Nothing),
        (State::Taking, something, State::Taking, Action::Nothing),
        (State::Taking, nothing, State::Taking, Action::Nothing),
        (State::Taking, latched, SETTLING, Action::Look),
        (State::Taking, refused, State::Deaf, Action::Nothing),
        (State::Taking, rung, State::Taking, Action::Nothing),
        (State::Taking, busy, State::Taking, Action::Nothing),
        (SETTLING, older_running, waiting, Action::Nothing),
        (SETTLING, nothing, SETTLING, Action::LookEverywhere),
        (SETTLING, everywhere, PARKED, Action::Nothing),
        (SETTLING, rung, SETTLING, Action::Nothing),
        (SETTLING, rung_elsewhere, State::Awake, Action::ForgetPlaces),
        (SETTLING, busy, State::Awake, Action::Unpark(LATCH)),
        (PARKED, something, PARKED, Action::Nothing),
        (PARKED, nothing, PARKED, Action::Nothing),
        (PARKED, everywhere, PARKED, Action::Nothing),
        (PARKED, for_a_bell, PARKED, Action::LookEverywhereSoon),
        (PARKED, rung, PARKED, Action::Nothing),
        (PARKED, rung_elsewhere, State::Awake, Action::ForgetPlaces),
        (PARKED, busy, State::Awake, Action::Unpark(LATCH)),
        (State::Deaf, something, State::Taking, Action::Park),
        (State::Deaf, nothing, State::Taking, Action::Park),
        (State::Deaf, rung, State::Awake, Action::ForgetPlaces),
        (State::Deaf, busy, State::Deaf, Action::Nothing),
    ];
    for (state, event, then, action) in table {
        let mut parking = parking(state);
        assert_eq!((parking.on(event, now), parking.state), (action, then), "{state:?}, {event:?}");
    }
}

#[test]
fn bells_close_together_end_parking_and_bells_further_apart_do_not() {
    for (apart, expected) in [
        (CLOSE_TOGETHER / 2, [Action::Nothing, Action::Nothing, Action::Nothing, Action::Unpark(LATCH)]),
        (CLOSE_TOGETHER, [Action::Nothing; 4]),
    ] {
        let mut parking = parking(PARKED);
        let began = Instant::now();
        let actions = [0, 1, 2, 3].map(|n| parking.on(Event::Rung { session: 1 }, began + apart * n));
        assert_eq!(actions, expected);
    }
}

#[test]
fn behind_an_old_transaction_looks_become_fewer_and_never_end() {
    let mut parking = parking(SETTLING);
    let now = Instant::now();
    let behind = Event::Exhausted(Exhausted { oldest_xid: 99, ..NOTHING });
    let mut wait = || {
        assert_eq!(parking.on(behind, now), Action::Nothing);
        parking.next_look().unwrap() - now
    };
    let waits: Vec<Duration> = (0..=SETTLE_LOOKS).map(|_| wait()).collect();
    assert_eq!(waits[..3], [4, 8, 16].map(Duration::from_millis));
    assert_eq!(waits[10..SETTLE_LOOKS as usize], [SETTLE_CAP; SETTLE_LOOKS as usize - 10]);
    assert_eq!(waits[SETTLE_LOOKS as usize], SETTLE_SLOW);
}
