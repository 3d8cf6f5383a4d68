use super::*;
use crate::{
    consumer::workers::tests::{claim, delivery},
    message::MessageId,
};

fn keyed(id: MessageId, key: &str) -> Delivery {
    Delivery { ordering_key: Some(key.to_owned()), ..delivery(id) }
}

fn pop(lanes: &mut Lanes) -> Option<MessageId> {
    match lanes.pop(Instant::now())? {
        Task::One(delivery) => Some(delivery.id),
        Task::Several(_) => None,
    }
}

/// Two of the key a, in another order than that of their ids, one of b, one without.
fn lanes() -> Lanes {
    let mut lanes = Lanes::default();
    lanes.push(vec![keyed(4, "a"), delivery(9), keyed(2, "a"), keyed(3, "b")]);
    lanes
}

#[test]
fn one_of_a_key_runs_at_a_time_in_the_order_of_the_ids_and_others_beside_it() {
    let mut lanes = lanes();
    assert_eq!([(); 4].map(|()| pop(&mut lanes)), [Some(2), Some(9), Some(3), None]);
    assert_eq!((lanes.has_next(Instant::now()), lanes.len()), (false, 1));
    lanes.push(vec![keyed(5, "a"), keyed(6, "b")]);
    assert_eq!(pop(&mut lanes), None);
    lanes.next_of_key(&claim(2));
    assert_eq!((pop(&mut lanes), pop(&mut lanes)), (Some(4), None));
    lanes.next_of_key(&claim(4));
    lanes.next_of_key(&claim(3));
    assert_eq!([(); 3].map(|()| pop(&mut lanes)), [Some(6), Some(5), None]);
    lanes.next_of_key(&claim(5));
    lanes.next_of_key(&claim(6));
    lanes.push(vec![keyed(7, "a")]);
    assert_eq!(pop(&mut lanes), Some(7), "the key is free again");
}

#[test]
fn what_comes_after_one_that_was_not_done_is_given_back() {
    let mut lanes = lanes();
    while lanes.pop(Instant::now()).is_some() {}
    assert_eq!(lanes.rest_of_key(&claim(2)), [claim(4)]);
    assert_eq!((lanes.len(), lanes.rest_of_key(&claim(9)), lanes.rest_of_key(&claim(3))), (0, vec![], vec![]));
    lanes.push(vec![keyed(4, "a")]);
    assert_eq!(pop(&mut lanes), Some(4));
}

#[test]
fn what_is_too_much_is_taken_from_the_end_and_leaves_nothing_behind_of_its_key() {
    let mut lanes = lanes();
    assert_eq!(lanes.keep(3), [claim(3)]);
    assert_eq!(pop(&mut lanes), Some(2));
    assert_eq!(lanes.keep(0), [claim(9), claim(4)]);
    assert_eq!(lanes.len(), 0);
    lanes.push(vec![keyed(3, "b"), keyed(4, "a")]);
    assert_eq!((pop(&mut lanes), pop(&mut lanes)), (Some(3), None), "2 runs still");
}

#[test]
fn what_is_nobodys_any_more_is_dropped_and_what_comes_after_it_is_given_back() {
    let mut lanes = lanes();
    lanes.push(vec![keyed(5, "b"), keyed(6, "b"), keyed(7, "b")]);
    let is_gone = |gone| [2, 9, 6].map(claim).contains(&gone);
    assert_eq!(lanes.drop_gone(is_gone), (3, vec![claim(4), claim(7)]));
    assert_eq!((pop(&mut lanes), pop(&mut lanes)), (Some(3), None));
    lanes.push(vec![keyed(2, "a")]);
    lanes.next_of_key(&claim(3));
    assert_eq!([(); 3].map(|()| pop(&mut lanes)), [Some(5), Some(2), None]);
}
