use std::future::{pending, ready};

use super::*;
use crate::consumer::{running::Ran, workers::tests::claim};

fn handled() -> Box<Handled> {
    let (took, handler) = Default::default();
    Box::new(Handled::One { claim: claim(1), ran: Ran::Completed, canary: false, took, handler })
}

#[tokio::test]
async fn the_most_urgent_comes_first_and_each_once() {
    let mut under_way = UnderWay::new();
    under_way.begin(Kind::Sweep, ready(Ended::Swept(true)));
    under_way.begin(Kind::Park, ready(Ended::Latched(None)));
    under_way.begin(Kind::Settle, ready(Ended::Settled(Ok(()))));
    under_way.begin(Kind::Claim, pending());
    let _ = under_way.handled.send(handled());
    assert!(matches!(under_way.next().await, Ended::Handled(_)));
    assert!(matches!(under_way.next().await, Ended::Settled(Ok(()))));
    assert!(matches!(under_way.next().await, Ended::Latched(None)));
    assert!(matches!(under_way.next().await, Ended::Swept(true)));
    assert!(under_way.next().now_or_never().is_none());
    assert!(under_way.has(Kind::Claim) && !under_way.has(Kind::Settle));
}

#[tokio::test]
async fn one_of_a_kind_takes_the_place_of_another() {
    let mut under_way = UnderWay::new();
    under_way.begin(Kind::Sweep, ready(Ended::Swept(false)));
    under_way.begin(Kind::Sweep, ready(Ended::Swept(true)));
    assert!(matches!(under_way.next().await, Ended::Swept(true)));
    under_way.begin(Kind::Suspects, ready(Ended::Suspects));
    under_way.drop_one(Kind::Suspects);
    assert!(under_way.next().now_or_never().is_none());
}

#[tokio::test]
async fn ends_of_handlers_are_taken_together() {
    let mut under_way = UnderWay::new();
    for _ in 0..3 {
        let handle = |tell: mpsc::UnboundedSender<Box<Handled>>| async move {
            let _ = tell.send(handled());
        };
        under_way.begin_handler(handle);
    }
    while under_way.ended_handlers.len() < 3 {
        tokio::task::yield_now().await;
    }
    assert!(matches!(under_way.next().await, Ended::Handled(handled) if handled.len() == 3));
}

#[tokio::test]
async fn handlers_end_with_their_consumer() {
    let mut under_way = UnderWay::new();
    let handlers = under_way.begin_handler(|_| pending());
    drop(under_way);
    while !handlers.is_finished() {
        tokio::task::yield_now().await;
    }
}
