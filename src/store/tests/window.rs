use super::*;

fn gaps(window: &Window) -> Vec<(i64, i64)> {
    window.gaps.iter().map(|gap| (gap.first, gap.last)).collect()
}

#[test]
fn ids_that_come_late_fill_the_gaps_they_left() {
    let (mut window, now) = (Window::default(), Instant::now());
    window.saw([1, 2, 5, 9].into_iter(), true, 0.0, now);
    assert_eq!((window.end, gaps(&window)), (9, vec![(3, 4), (6, 8)]));
    window.saw([7, 10, 3].into_iter(), true, 0.0, now);
    assert_eq!((window.end, gaps(&window)), (10, vec![(4, 4), (6, 6), (8, 8)]));
}

#[test]
fn gaps_do_not_pile_up_without_end() {
    let (mut window, now) = (Window::default(), Instant::now());
    let every_other = (1..=GAPS_MAX as i64 + 10).map(|n| 2 * n);
    window.saw(every_other, true, 0.0, now);
    assert_eq!((window.gaps.len(), gaps(&window)[0]), (GAPS_MAX, (21, 21)));
}

#[test]
fn a_gap_is_looked_into_until_everybody_who_ran_when_it_was_noticed_is_gone() {
    let (mut window, start) = (Window::default(), Instant::now());
    window.saw([1, 3].into_iter(), true, 0.0, start);
    let later = start + GAP_MIN;
    // Who runs now may fill it: the barrier is set by the look after it was noticed.
    window.look(100, 105, start);
    window.saw([].into_iter(), true, 0.0, start);
    window.look(104, 200, later);
    window.saw([].into_iter(), true, 0.0, later);
    assert_eq!(gaps(&window), [(2, 2)], "transaction 104 still runs");
    window.look(105, 201, start + GAP_MIN / 2);
    window.saw([].into_iter(), true, 0.0, start);
    assert_eq!(gaps(&window), [(2, 2)], "whoever drew the id may not have had a number yet");
    window.look(105, 202, later);
    window.saw([].into_iter(), false, 0.0, later);
    assert_eq!(gaps(&window), [(2, 2)], "the look was cut short");
    window.look(105, 202, later);
    window.saw([].into_iter(), true, 0.0, later);
    assert_eq!(gaps(&window), []);
}
