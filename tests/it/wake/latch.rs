//! The on-demand bell: every schedule of two publishers and a parking consumer, step by step on a real server.
//!
//! A schedule loses a wake-up when a committed message is pending, the consumer waits, and no notification came. The
//! barrier is what prevents it; without it the same schedules must lose some, or this test proves nothing.

use std::pin::pin;

use futures::StreamExt;
use tokio::sync::mpsc;
use tokio_postgres::{AsyncMessage, Client, NoTls};

use crate::support::{Database, count};

#[derive(Clone, Copy, Debug, PartialEq)]
enum Step {
    /// A publisher's transaction begins and takes its snapshot (REPEATABLE READ and up; else it begins at Insert).
    Begin,
    Insert,
    /// Commits or rolls back.
    End,
    /// The consumer takes the latch and learns the barrier.
    Park,
    /// It looks.
    Look,
}

/// All ways to interleave sequences, each keeping its own order.
fn interleave(sequences: &[&[Step]]) -> Vec<Vec<(usize, Step)>> {
    if sequences.iter().all(|sequence| sequence.is_empty()) {
        return vec![Vec::new()];
    }
    let mut all = Vec::new();
    for (who, sequence) in sequences.iter().enumerate() {
        let Some((&first, rest)) = sequence.split_first() else { continue };
        let mut left = sequences.to_vec();
        left[who] = rest;
        for mut tail in interleave(&left) {
            tail.insert(0, (who, first));
            all.push(tail);
        }
    }
    all
}

struct Lab {
    publishers: [Client; 2],
    consumer: Client,
    notifications: mpsc::UnboundedReceiver<()>,
    admin: Client,
}

impl Lab {
    async fn new(db: &Database) -> Self {
        let admin = db.client().await;
        admin.batch_execute("select integration.set_audit_level('off')").await.unwrap();
        let (consumer, mut connection) = tokio_postgres::connect(&db.url, NoTls).await.unwrap();
        let (tell, notifications) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            let mut messages = pin!(futures::stream::poll_fn(move |cx| connection.poll_message(cx)));
            while let Some(Ok(message)) = messages.next().await {
                if matches!(message, AsyncMessage::Notification(_)) {
                    let _ = tell.send(());
                }
            }
        });
        Self { publishers: [db.client().await, db.client().await], consumer, notifications, admin }
    }

    async fn look(&self) -> i64 {
        let oldest = self.consumer.query_one("select integration.oldest_xid()", &[]).await.unwrap().get(0);
        self.consumer.query("select * from integration.claim('a', 'probe', 100, p_lease => '1 h')", &[]).await.unwrap();
        oldest
    }

    /// Whether the schedule lost a wake-up.
    async fn loses(
        &mut self,
        schedule: &[(usize, Step)],
        isolation: &str,
        ends: [&str; 2],
        with_barrier: bool,
    ) -> bool {
        let begin = format!("begin isolation level {isolation}");
        let (mut barrier, mut passed) = (0, false);
        for &(who, step) in schedule {
            match step {
                Step::Begin => {
                    let sql = format!("{begin}; select count(*) from integration.targets");
                    self.publishers[who].batch_execute(&sql).await.unwrap();
                }
                Step::Insert => {
                    let insert = "insert into integration.data_staging (source_app, target_app, record_type, data) values ('p', 'a', 't', '1')";
                    let sql =
                        if isolation == "read committed" { format!("{begin}; {insert}") } else { insert.to_owned() };
                    self.publishers[who].batch_execute(&sql).await.unwrap();
                }
                Step::End => self.publishers[who].batch_execute(ends[who]).await.unwrap(),
                Step::Park => {
                    barrier = self.consumer.query_one("select integration.park('a')", &[]).await.unwrap().get(0);
                }
                Step::Look => passed = self.look().await >= barrier || !with_barrier,
            }
        }
        while !passed {
            passed = self.look().await >= barrier;
        }
        // A round trip on the listening session: what was signalled before it has arrived after it.
        self.consumer.batch_execute("select 1").await.unwrap();
        let announced = self.notifications.try_recv().is_ok();
        let pending =
            count(&self.admin, "select count(*) from integration.data_staging where status = 'pending'").await;
        self.consumer
            .batch_execute("select integration.unpark('a'); delete from integration.data_staging")
            .await
            .unwrap();
        self.consumer.batch_execute("select 1").await.unwrap();
        while self.notifications.try_recv().is_ok() {}
        pending > 0 && !announced
    }

    async fn count_lost(&mut self, isolation: &str, with_barrier: bool) -> (usize, usize) {
        let read_committed = isolation == "read committed";
        let publisher: &[Step] =
            if read_committed { &[Step::Insert, Step::End] } else { &[Step::Begin, Step::Insert, Step::End] };
        let ends: &[[&str; 2]] = match read_committed {
            true => &[["commit", "commit"], ["commit", "rollback"], ["rollback", "commit"]],
            false => &[["commit", "commit"]],
        };
        let (mut schedules, mut lost) = (0, 0);
        for schedule in interleave(&[publisher, publisher, &[Step::Park, Step::Look]]) {
            for &ends in ends {
                schedules += 1;
                lost += usize::from(self.loses(&schedule, isolation, ends, with_barrier).await);
            }
        }
        (schedules, lost)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_schedule_of_two_publishers_and_a_parking_consumer_loses_a_wake_up() {
    let db = Database::new().await;
    let mut lab = Lab::new(&db).await;
    for isolation in ["read committed", "repeatable read", "serializable"] {
        let (schedules, lost) = lab.count_lost(isolation, true).await;
        assert!(schedules >= 270, "{schedules} schedules");
        assert_eq!(lost, 0, "{isolation}: {lost} of {schedules} schedules lost a wake-up");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_barrier_the_same_schedules_lose_wake_ups() {
    let db = Database::new().await;
    let (schedules, lost) = Lab::new(&db).await.count_lost("read committed", false).await;
    assert!(lost > 0, "none of {schedules} schedules lost a wake-up: this test cannot fail");
}

#[tokio::test(flavor = "multi_thread")]
async fn cancelled_publishes_leak_no_latch() {
    let db = Database::new().await;
    let (client, admin) = (db.client().await, db.client().await);
    let pid: i32 = client.query_one("select pg_backend_pid()", &[]).await.unwrap().get(0);
    let canceller = tokio::spawn(async move {
        for _ in 0..300 {
            admin.execute("select pg_cancel_backend($1)", &[&pid]).await.unwrap();
        }
    });
    let publish = "select integration.publish('p', 'a', 't', '1') from generate_series(1, 20)";
    let mut cancelled = 0;
    while !canceller.is_finished() {
        cancelled += usize::from(client.batch_execute(publish).await.is_err());
    }
    assert!(cancelled > 0);
    let leaked = "select count(*) from pg_locks where locktype = 'advisory' and database = (select oid from pg_database where datname = current_database())";
    assert_eq!(count(&db.client().await, leaked).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_parked_means_no_notification_and_always_means_always() {
    let db = Database::new().await;
    let mut lab = Lab::new(&db).await;
    let channel: String = lab.admin.query_one("select integration.channel('a')", &[]).await.unwrap().get(0);
    lab.consumer.batch_execute(&format!("listen \"{channel}\"")).await.unwrap();
    lab.admin.batch_execute("select integration.publish('p', 'a', 't', '1')").await.unwrap();
    lab.consumer.batch_execute("select 1").await.unwrap();
    assert!(lab.notifications.try_recv().is_err(), "nobody is parked");
    lab.admin.batch_execute("insert into integration.targets (target_app, bell) values ('a', 'always')").await.unwrap();
    lab.admin.batch_execute("select integration.publish('p', 'a', 't', '1')").await.unwrap();
    crate::support::soon("the bell rings", lab.notifications.recv()).await;
}
