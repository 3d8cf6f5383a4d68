//! Messages of which only the latest counts, for as long as they wait.

use std::time::Duration;

use doorbell::{ErrorKind, Message, Outcome};

use super::{said, subscribed};
use crate::support::{Database, Ear, bells_only, channel, count, message, seen, stop_the_clock, until, until_count};

const MINUTE: Duration = Duration::from_secs(60);
/// What is there, in its order: id, status, payload, and in how many seconds it is due.
const THERE: &str = "select concat_ws(',', id, status, data #>> '{}', \
    extract(epoch from available_at - integration.clock())::integer) from integration.data_staging order by id";

fn digest(n: i64) -> Message {
    message("mailer", n).coalesce("user-7")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_latest_replaces_what_waits_whoever_publishes_it_and_answers_with_the_first_id() {
    let db = Database::new().await;
    let client = db.client().await;
    client.batch_execute("select integration.set_audit_level('all')").await.unwrap();
    let producer = db.broker().await.producer("shop");
    let first = producer.publish(&digest(1).priority(3).header("trace", "a")).await.unwrap();
    assert_eq!(producer.publish(&digest(2).priority(9).header("trace", "b")).await.unwrap(), first);
    let statement = digest(3).header("trace", "c").statement("shop").unwrap();
    let sql = statement.sql().replace("$1", "$1::text");
    assert_eq!(client.query_one(&sql, &[&statement.value()]).await.unwrap().get::<_, i64>(0), first);
    let what = "select concat_ws(',', id, status, data, priority, headers ->> 'trace') from integration.data_staging";
    assert_eq!(said(&client, what).await, "1,pending,3,3,c");
    // Another source, target or type has keys of its own.
    let mut ids = vec![first];
    for sql in [
        "select integration.publish('desk', 'mailer', 'n', '4', p_coalesce_key => 'user-7')",
        "select integration.publish('shop', 'billing', 'n', '5', p_coalesce_key => 'user-7')",
        "select integration.publish('shop', 'mailer', 'm', '6', p_coalesce_key => 'user-7')",
        "select integration.publish('shop', 'mailer', 'n', '7', p_coalesce_key => 'user-8')",
        "select integration.publish('shop', 'mailer', 'n', '8', p_coalesce_key => 'user-7', p_ordering_key => 'k')",
        "select integration.publish('{\"source_app\": \"shop\", \"target_app\": \"mailer\", \"record_type\": \"n\", \
            \"data\": 9, \"coalesce_key\": \"user-9\", \"max_wait_ms\": 9, \"expires_ms\": 60000}')",
    ] {
        ids.push(count(&client, sql).await);
    }
    assert_eq!(ids, [1, 2, 3, 4, 5, 6, 7]);
    assert_eq!(
        said(&client, "select concat_ws(':', action, details ->> 'columns') from integration.audit_log where staging_id = 1 order by id").await,
        "published coalesced:[\"data\", \"headers\"] coalesced:[\"data\", \"headers\"]"
    );
    let totals = "select string_agg(action || ' ' || messages, ', ' order by action) from integration.current_totals where target_app = 'mailer'";
    assert_eq!(said(&client, totals).await, "coalesced 2, published 6");
    assert_eq!(count(&client, "select count(*) from integration.check_counters()").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn several_at_once_answer_with_one_id_for_each_key_and_the_last_of_each_counts() {
    let db = Database::new().await;
    let client = db.client().await;
    let producer = db.broker().await.producer("shop");
    let many: Vec<Message> =
        (0..100)
            .map(|n| {
                if n % 4 == 0 { message("mailer", n) } else { message("mailer", n).coalesce(format!("user-{}", n % 4)) }
            })
            .collect();
    for published in [28, 53] {
        let ids = producer.publish_many(&many).await.unwrap();
        assert!(ids[5..].iter().zip(&ids[1..]).enumerate().all(|(at, (id, before))| (at % 4 == 3) != (id == before)));
        assert_eq!(count(&client, "select count(*) from integration.data_staging").await, published);
    }
    let last = "select data::text from integration.data_staging d join integration.coalescing c on c.staging_id = d.id order by 1";
    assert_eq!(said(&client, last).await, "97 98 99");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_replacement_begins_the_delay_anew_until_max_wait_and_without_one_it_is_due_now() {
    let db = Database::new().await;
    let client = db.client().await;
    stop_the_clock(&client, 0).await;
    let producer = db.broker().await.producer("shop");
    let delayed = |n: i64| digest(n).delay(MINUTE).max_wait(MINUTE * 2);
    producer.publish(&delayed(1)).await.unwrap();
    let mut seen = Vec::new();
    for second in [0, 50, 100] {
        stop_the_clock(&client, second).await;
        producer.publish(&delayed(i64::from(second))).await.unwrap();
        seen.push(said(&client, THERE).await);
    }
    assert_eq!(seen, ["1,scheduled,0,60", "1,scheduled,50,60", "1,scheduled,100,20"]);
    // What is due stays due, and waits for somebody to promote it; without a delay it waits for nothing.
    stop_the_clock(&client, 121).await;
    producer.publish(&delayed(121)).await.unwrap();
    assert_eq!(said(&client, THERE).await, "1,scheduled,121,-1");
    producer.publish(&digest(122)).await.unwrap();
    producer.publish(&delayed(123)).await.unwrap();
    assert_eq!(said(&client, THERE).await, "1,pending,123");
    // Unless another is given it is ten times the delay; and for the first publish it is a bound, too.
    producer.publish(&message("mailer", 1).coalesce("a").delay(MINUTE)).await.unwrap();
    producer.publish(&message("mailer", 2).coalesce("b").delay(MINUTE).max_wait(Duration::from_secs(3))).await.unwrap();
    stop_the_clock(&client, 121 + 59).await;
    producer.publish(&message("mailer", 1).coalesce("a").delay(MINUTE)).await.unwrap();
    stop_the_clock(&client, 121 + 100).await;
    client
        .batch_execute("update integration.data_staging set available_at = '2026-03-01 12:12:00Z' where id = 2")
        .await
        .unwrap();
    producer.publish(&message("mailer", 1).coalesce("a").delay(MINUTE * 20).max_wait(MINUTE * 9)).await.unwrap();
    assert_eq!(said(&client, THERE).await, "1,pending,123 2,scheduled,1,440 3,scheduled,2,-97");
    assert_eq!(count(&client, "select count(*) from integration.check_counters()").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_somebody_has_taken_or_locked_or_tried_is_left_alone_and_a_new_one_is_published() {
    let db = Database::new().await;
    let (client, mut other) = (db.client().await, db.client().await);
    let producer = db.broker().await.producer("shop");
    let mut ids = Vec::new();
    let mut publish = async || {
        let n = ids.len() as i64;
        ids.push(producer.publish(&digest(n)).await.unwrap());
    };
    publish().await;
    // Held at this moment; it is given back unhandled.
    let hold = other.transaction().await.unwrap();
    assert_eq!(count_of(&hold, "select count(*) from integration.hold('mailer', 1)").await, 1);
    publish().await;
    hold.rollback().await.unwrap();
    publish().await;
    // Claimed, and failed for now: its effects may have been seen.
    client.batch_execute("select integration.claim('mailer', 'me', 9, p_lease => '1 h')").await.unwrap();
    publish().await;
    client.batch_execute("select integration.fail(2, 1, 'me', 'no')").await.unwrap();
    publish().await;
    // Cancelled, moved away, expired.
    client.batch_execute("select integration.cancel('{3}')").await.unwrap();
    publish().await;
    client.batch_execute("select integration.move('{4}', 'billing')").await.unwrap();
    publish().await;
    client.batch_execute("select integration.expire_after(array[5::bigint], array[interval '1 h'])").await.unwrap_err();
    client
        .batch_execute(
            "insert into integration.expiring select id, created_at, '-infinity', '-infinity' \
        from integration.data_staging where id = 5",
        )
        .await
        .unwrap();
    publish().await;
    assert_eq!(ids, [1, 2, 2, 3, 3, 4, 5, 6]);
    assert_eq!(
        said(&client, "select concat_ws(',', id, target_app, status, data) from integration.data_staging order by id")
            .await,
        "1,mailer,processing,0 2,mailer,scheduled,2 3,mailer,cancelled,4 4,billing,pending,5 5,mailer,pending,6 6,mailer,pending,7"
    );
}

async fn count_of(tx: &tokio_postgres::Transaction<'_>, sql: &str) -> i64 {
    tx.query_one(sql, &[]).await.unwrap().get(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn publishers_of_a_key_wait_for_each_other_and_see_what_became_of_the_others_publish() {
    let db = Database::new().await;
    let (client, mut first) = (db.client().await, db.client().await);
    for (commit, after) in [(false, "2,pending,1"), (true, "2,pending,1")] {
        let producer = db.broker().await.producer("shop");
        let tx = first.transaction().await.unwrap();
        producer.publish_in(&tx, &digest(0)).await.unwrap();
        let second = tokio::spawn(async move { producer.publish(&digest(1)).await.unwrap() });
        let waits = "select exists (select from pg_locks l join pg_stat_activity a using (pid) \
            where not l.granted and a.datname = current_database())";
        until(&client, "the second waits for the first", waits).await;
        if commit {
            tx.commit().await.unwrap();
        } else {
            tx.rollback().await.unwrap();
        }
        assert_eq!(second.await.unwrap(), 2);
        assert_eq!(said(&client, THERE).await, after);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_being_promoted_is_waited_for_and_replaced_so_that_nothing_overtakes_it() {
    let db = Database::new().await;
    let (client, mut other) = (db.client().await, db.client().await);
    stop_the_clock(&client, 0).await;
    let producer = db.broker().await.producer("shop");
    producer.publish(&digest(1).delay(MINUTE)).await.unwrap();
    stop_the_clock(&client, 61).await;
    let promoting = other.transaction().await.unwrap();
    assert_eq!(count_of(&promoting, "select integration.promote('{mailer}')::bigint").await, 1);
    let publishing = tokio::spawn(async move { producer.publish(&digest(2)).await.unwrap() });
    let waits =
        "select exists (select from pg_stat_activity where datname = current_database() and wait_event = 'PgSleep')";
    until(&client, "the publisher waits", waits).await;
    promoting.commit().await.unwrap();
    assert_eq!(publishing.await.unwrap(), 1);
    assert_eq!(said(&client, THERE).await, "1,pending,2");
    assert_eq!(count(&client, "select count(*) from integration.check_counters()").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_look_may_have_passed_over_is_rung_for_and_found_again() {
    let db = Database::new().await;
    let client = db.client().await;
    let producer = db.broker().await.producer("shop");
    producer.publish(&digest(1)).await.unwrap();
    let mut ear = Ear::on(&db, &["mailer"]).await;
    producer.publish(&digest(2)).await.unwrap();
    assert_eq!(ear.heard().await, [channel(&client, "mailer").await]);
    // Wherever looks begin by now.
    let behind = "select count(*) from integration.claim('mailer', 'me', p_lease => '1 h', p_lows => '{0}', p_highs => '{0}', \
        p_after_at => array[integration.clock()], p_after_ids => '{9}', p_again_at => '{null}', p_again_ids => '{null}')";
    assert_eq!(count(&client, behind).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payload_that_is_refused_replaces_nothing_and_taps_get_a_copy_of_each() {
    let db = Database::new().await;
    let client = db.client().await;
    let producer = db.broker().await.producer("shop");
    client.batch_execute("select integration.set_contract('mailer', 'n', '$ > 0')").await.unwrap();
    client.batch_execute("select integration.subscribe('mailer', 'audit', p_tap => true)").await.unwrap();
    for n in [1, 2] {
        producer.publish(&digest(n)).await.unwrap();
    }
    let refused = producer.publish(&digest(0)).await.unwrap_err();
    assert!(refused.to_string().contains("contract"), "{refused}");
    let there = "select string_agg(target_app || data, ' ' order by id) from integration.data_staging";
    assert_eq!(said(&client, there).await, "mailer2 audit1 audit2");
    assert_eq!(
        said(&client, "select action || messages from integration.current_totals where action = 'coalesced'").await,
        "coalesced1"
    );
    // What cannot be meant.
    subscribed(&db, &["billing"]).await;
    for wrong in [digest(1).dedup_key("k"), message("mailer", 1).max_wait(MINUTE), message("orders", 1).coalesce("k")] {
        assert_eq!(producer.publish(&wrong).await.unwrap_err().kind(), ErrorKind::Invalid);
        assert_eq!(producer.publish_many(&[message("mailer", 9), wrong]).await.unwrap_err().kind(), ErrorKind::Invalid);
    }
    let request = producer.request::<i64>(&digest(1), MINUTE).await.unwrap_err();
    assert_eq!(request.kind(), ErrorKind::Invalid);
    for wrong in ["p_coalesce_key => 'k', p_dedup_key => 'k'", "p_max_wait => '1 s'", "p_coalesce_key => ''"] {
        let wrong = format!("select integration.publish('shop', 'mailer', 'n', '1', {wrong})");
        client.batch_execute(&wrong).await.unwrap_err();
    }
    client.batch_execute("select integration.coalesce_into(1, 'k')").await.unwrap_err();
    assert_eq!(said(&client, there).await, "mailer2 audit1 audit2");
}

#[tokio::test(flavor = "multi_thread")]
async fn while_it_is_consumed_nothing_is_lost_and_the_last_is_handled_last() {
    let db = Database::new().await;
    let client = db.client().await;
    let (tell, mut told) = seen();
    let broker = db.broker().await;
    let consumer = broker.consumer("mailer").config(bells_only()).on("n", move |n: i64, _| {
        let _ = tell.send(n);
        async { Ok(Outcome::Done) }
    });
    let consumer = consumer.start().await.unwrap();
    let mut publishing = tokio::task::JoinSet::new();
    for p in 0..4 {
        let producer = db.broker().await.producer("shop");
        publishing.spawn(async move {
            let mut ids = Vec::new();
            for n in 0..25 {
                ids.push(
                    producer.publish(&message("mailer", p * 100 + n).coalesce(format!("k{}", n % 2))).await.unwrap(),
                );
            }
            ids
        });
    }
    let mut ids: Vec<i64> = publishing.join_all().await.concat();
    ids.sort_unstable();
    ids.dedup();
    // One after the other on each key now.
    let producer = broker.producer("shop");
    for key in ["k0", "k1"] {
        ids.push(producer.publish(&message("mailer", -1).coalesce(key)).await.unwrap());
    }
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(count(&client, "select count(*) from integration.data_staging").await, ids.len() as i64);
    until_count(&client, "completed", ids.len()).await;
    let handled = told.take(ids.len()).await;
    assert_eq!(handled.iter().filter(|n| **n == -1).count(), 2, "{handled:?}");
    let last = "select count(*) from integration.data_staging d join integration.coalescing c \
        on c.staging_id = d.id and c.created_at = d.created_at where d.data = '-1'";
    assert_eq!(count(&client, last).await, 2);
    consumer.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_looks_at_what_may_be_replaced_is_told_under_which_key_and_until_when_it_is_put_off() {
    let db = Database::new().await;
    let client = db.client().await;
    stop_the_clock(&client, 0).await;
    let broker = db.broker().await;
    let (producer, operator) = (broker.producer("shop"), broker.operator());
    let why = async |id: i64| {
        let why = format!("select sentence from integration.explain({id}) where code = 'coalesced'");
        said(&client, &why).await
    };
    let shown = async |id: i64| {
        let waits = operator.show(id, false).await.unwrap().unwrap().coalescing?;
        let published = operator.show(id, false).await.unwrap().unwrap().row.created_at;
        Some((waits.key, waits.replaced, waits.put_off_until.map(|at| at.duration_since(published).unwrap())))
    };
    producer.publish(&digest(1)).await.unwrap();
    producer.publish(&message("mailer", 1).coalesce("later").delay(MINUTE).max_wait(MINUTE * 2)).await.unwrap();
    producer.publish(&message("mailer", 1)).await.unwrap();
    assert_eq!(shown(1).await, Some(("user-7".into(), 0, None)));
    assert_eq!(shown(2).await, Some(("later".into(), 0, Some(MINUTE * 2))));
    assert_eq!((shown(3).await, why(3).await), (None, String::new()));
    assert_eq!(
        why(2).await,
        "whoever publishes under its coalesce key \"later\" replaces what it says, until somebody has taken it; so far it was \
         not replaced, and it is put off until 2026-03-01 12:02:00Z at most"
    );
    // The last one to publish says for how long.
    stop_the_clock(&client, 30).await;
    for _ in 0..2 {
        producer.publish(&digest(2)).await.unwrap();
        producer.publish(&message("mailer", 2).coalesce("later").delay(MINUTE)).await.unwrap();
    }
    assert_eq!(shown(1).await, Some(("user-7".into(), 2, None)));
    assert_eq!(shown(2).await, Some(("later".into(), 2, Some(MINUTE * 10))));
    assert!(why(2).await.ends_with("it was replaced 2 times, and it is put off until 2026-03-01 12:10:00Z at most"));
    assert!(why(1).await.ends_with("it was replaced 2 times"));
    assert_eq!(operator.peek("mailer", 9, None).await.unwrap()[0].coalescing.as_ref().map(|c| c.replaced), Some(2));
    // What it was may have been seen by whoever had it.
    for ends in ["", "select integration.fail(1, 1, 'me', 'no')"] {
        client.batch_execute("select integration.claim('mailer', 'me', p_lease => '9 h')").await.unwrap();
        client.batch_execute(ends).await.unwrap();
        assert_eq!((shown(1).await, why(1).await), (None, String::new()), "{ends}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_forgotten_when_its_message_does_not_wait_any_more_and_explained_while_it_does() {
    let db = Database::new().await;
    let client = db.client().await;
    stop_the_clock(&client, 0).await;
    let producer = db.broker().await.producer("shop");
    for n in 0..3 {
        producer.publish(&digest(n)).await.unwrap();
        producer.publish(&message("mailer", n).coalesce("user-8").delay(MINUTE * 90)).await.unwrap();
    }
    let why = "select sentence from integration.explain(1) where code = 'coalesced'";
    assert!(said(&client, why).await.contains("replaced 2 times"));
    client.batch_execute("select integration.claim('mailer', 'me', p_lease => '9 h')").await.unwrap();
    let keys = "select coalesce_key from integration.coalescing order by 1";
    for (second, left) in [(3599, "user-7 user-8"), (3600, "user-8"), (7200, "user-8")] {
        stop_the_clock(&client, second).await;
        client.batch_execute("select integration.purge_expired()").await.unwrap();
        assert_eq!(said(&client, keys).await, left);
    }
}
