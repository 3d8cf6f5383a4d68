//! Two sessions at the same time, in every order that matters.

use tokio_postgres::Client;

use crate::support::{Database, count, until};

const NOTHING: [i64; 0] = [];

/// Publishes messages of the key a, numbered from 1.
async fn publish(client: &Client, count: i32) {
    let publish = "select integration.publish('shop', 'billing', 'n', to_jsonb(n), p_ordering_key => 'a') from generate_series(1, $1) n";
    client.query(publish, &[&count]).await.unwrap();
}

/// Claims, as a consumer that knows of series does.
async fn claim(client: &Client, owner: &str, series: i32) -> Vec<i64> {
    let register = "insert into integration.processes (owner, host, pid, application, version, targets, lease_until) \
        values ($1, 'host', 1, 'app', '0', '{}', '2999-01-01') on conflict do nothing";
    client.execute(register, &[&owner]).await.unwrap();
    let claim =
        "select id from integration.claim('billing', $1, 10, p_series => $2) where attempt is not null order by id";
    client.query(claim, &[&owner, &series]).await.unwrap().iter().map(|row| row.get(0)).collect()
}

async fn complete(client: &Client, ids: &[i64]) {
    let complete =
        "select integration.complete(d.id, d.attempt, d.owner) from integration.data_staging d where d.id = any ($1)";
    client.query(complete, &[&ids]).await.unwrap();
}

/// Waits until a session waits for another one's row.
async fn until_locked(client: &Client) {
    let waits =
        "select exists (select from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock')";
    until(client, "somebody waits for a row", waits).await;
}

/// Messages that stand behind others.
async fn behind(client: &Client) -> i64 {
    count(client, "select count(*) from integration.data_staging where status = 'scheduled' and behind_at is not null")
        .await
}

async fn databases() -> (Database, Client, Client, Client) {
    let db = Database::new().await;
    let clients = (db.client().await, db.client().await, db.client().await);
    (db, clients.0, clients.1, clients.2)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_while_the_settle_of_what_goes_before_is_not_committed_takes_nothing_and_one_after_it_does() {
    let (_db, one, other, _) = databases().await;
    publish(&one, 2).await;
    assert_eq!(claim(&one, "one", 1).await, [1]);
    one.batch_execute("begin").await.unwrap();
    complete(&one, &[1]).await;
    assert_eq!(claim(&other, "other", 1).await, NOTHING);
    one.batch_execute("commit").await.unwrap();
    assert_eq!(claim(&other, "other", 1).await, [2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_commits_late_waits_for_what_was_taken_and_goes_before_what_was_not() {
    let (_db, one, other, late) = databases().await;
    late.batch_execute("begin").await.unwrap();
    publish(&late, 1).await;
    publish(&one, 2).await;
    assert_eq!(claim(&one, "one", 1).await, [2]);
    assert_eq!((claim(&other, "other", 9).await, behind(&other).await), (vec![], 1));
    late.batch_execute("commit").await.unwrap();
    assert_eq!(claim(&other, "other", 9).await, NOTHING);
    complete(&one, &[2]).await;
    assert_eq!(claim(&other, "other", 1).await, [1]);
    complete(&one, &[1]).await;
    assert_eq!(claim(&other, "other", 1).await, [3]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_in_the_midst_of_a_series_gives_the_rest_back_behind_it() {
    let (_db, one, other, _) = databases().await;
    publish(&one, 4).await;
    assert_eq!(claim(&one, "one", 3).await, [1, 2, 3]);
    complete(&one, &[1]).await;
    let give_back = "select integration.reject(2, 1, 'one', 'no'); select integration.release(3, 1, 'one')";
    one.batch_execute(give_back).await.unwrap();
    assert_eq!(claim(&other, "other", 9).await, NOTHING);
    assert_eq!(behind(&other).await, 2);
    one.batch_execute("select integration.redrive(2)").await.unwrap();
    assert_eq!(claim(&other, "other", 9).await, [2, 3, 4]);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_that_end_the_last_of_a_series_at_the_same_time_leave_nobody_behind() {
    let (_db, one, other, third) = databases().await;
    publish(&one, 3).await;
    assert_eq!(claim(&one, "one", 2).await, [1, 2]);
    assert_eq!((claim(&other, "other", 2).await, behind(&other).await), (vec![], 1));
    one.batch_execute("begin").await.unwrap();
    complete(&one, &[1]).await;
    // Neither sees what the other does; the second waits for the first.
    tokio::join!(complete(&other, &[2]), async {
        until_locked(&third).await;
        one.batch_execute("commit").await.unwrap();
    });
    assert_eq!((behind(&third).await, claim(&third, "third", 2).await), (0, vec![3]));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_of_a_series_that_is_cancelled_or_deleted_leaves_the_key_busy_with_the_first() {
    for end in ["select integration.cancel('{2}')", "delete from integration.data_staging where id = 2"] {
        let (_db, one, other, _) = databases().await;
        publish(&one, 3).await;
        assert_eq!(claim(&one, "one", 2).await, [1, 2]);
        assert_eq!(claim(&other, "other", 2).await, NOTHING);
        other.batch_execute(end).await.unwrap();
        assert_eq!(claim(&other, "other", 2).await, NOTHING, "{end}");
        complete(&one, &[1]).await;
        assert_eq!(claim(&other, "other", 2).await, [3], "{end}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_busy_key_is_not_taken_for_one_of_another_target_whose_name_ends_where_that_begins() {
    let (_db, one, other, _) = databases().await;
    assert_eq!(claim(&one, "one", 1).await, NOTHING);
    let publish = "select integration.publish('shop', t, 'n', 'null', p_ordering_key => k) \
        from (values ('a b', 'c'), ('a b', 'c'), ('a b', 'c'), ('a', 'b c'), ('a', 'b c')) v (t, k)";
    one.query(publish, &[]).await.unwrap();
    one.query("select integration.claim('a b', 'one', 9, p_series => 2)", &[]).await.unwrap();
    one.query("select integration.claim('a', 'one', 9, p_series => 1)", &[]).await.unwrap();
    assert_eq!(behind(&other).await, 2);
    // The second of the first key is in hand still.
    let end = "select integration.complete_many('one', array_agg(d.id), array_agg(d.attempt), array_agg(d.created_at)) \
        from integration.data_staging d where d.id in (1, 4)";
    one.query(end, &[]).await.unwrap();
    assert_eq!(behind(&other).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn claims_that_are_left_open_keep_no_other_key_than_those_of_their_turn() {
    let (_db, one, other, _) = databases().await;
    publish(&one, 1).await;
    one.batch_execute("begin").await.unwrap();
    assert_eq!(claim(&one, "one", 1).await, [1]);
    publish(&other, 1).await;
    // Sixteen turns, of which it has one.
    let publish = "select integration.publish('shop', 'billing', 'n', '1', p_ordering_key => 'k' || n) from generate_series(1, 100) n";
    other.batch_execute(publish).await.unwrap();
    let claim = "select count(*) from integration.claim('billing', 'other', 1000, p_lease => '1 min')";
    let taken = count(&other, claim).await;
    assert!((80..100).contains(&taken), "{taken}");
    let turn = "select exists (select from integration.explain(2) where code = 'key_turn')";
    until(&other, "it is named, once it has been open for a second", turn).await;
    one.batch_execute("commit").await.unwrap();
    assert_eq!(count(&other, claim).await, 100 - taken, "and the first of the key a still runs");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_taken_by_hand_keeps_its_key_busy() {
    let (_db, one, other, _) = databases().await;
    publish(&one, 2).await;
    one.batch_execute("update integration.data_staging set status = 'processing', updated_at = now() where id = 1")
        .await
        .unwrap();
    assert_eq!(claim(&other, "other", 9).await, NOTHING);
    let done = "update integration.data_staging set status = 'completed', processed_at = now(), updated_at = now() where id = 1";
    one.batch_execute(done).await.unwrap();
    assert_eq!(claim(&other, "other", 9).await, [2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_key_or_another_target_is_another_place() {
    let (_db, one, other, _) = databases().await;
    publish(&one, 4).await;
    assert_eq!(claim(&one, "one", 1).await, [1]);
    assert_eq!((claim(&other, "other", 9).await, behind(&other).await), (vec![], 3));
    let edit = "update integration.data_staging set ordering_key = 'b', updated_at = now() where id = 2; \
        update integration.data_staging set ordering_key = null, updated_at = now() where id = 3";
    other.batch_execute(edit).await.unwrap();
    assert_eq!(claim(&other, "other", 9).await, [2, 3]);
    other.batch_execute("select integration.move('{4}', 'ledger')").await.unwrap();
    let there = "select count(*) from integration.claim('ledger', 'x', 9, p_lease => '1 min')";
    assert_eq!(count(&other, there).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_stands_behind_others_and_is_put_back_all_the_same_stands_there_again_and_keeps_its_place() {
    for again in [
        "select integration.retry('{2, 3}')",
        "update integration.data_staging set status = 'pending' where id in (2, 3)",
        "update integration.data_staging set available_at = now() where id in (2, 3); select integration.promote('{billing}')",
    ] {
        let (_db, one, other, _) = databases().await;
        publish(&one, 3).await;
        assert_eq!(claim(&one, "one", 1).await, [1]);
        assert_eq!((claim(&other, "other", 1).await, behind(&other).await), (vec![], 2));
        other.batch_execute(again).await.unwrap();
        let odd = "select count(*) from integration.data_staging where (status = 'scheduled') <> (available_at is not null) \
            or behind_at is not null and status <> 'scheduled'";
        assert_eq!((behind(&other).await, count(&other, odd).await), (0, 0), "{again}");
        assert_eq!((claim(&other, "other", 1).await, behind(&other).await), (vec![], 2), "{again}");
        complete(&one, &[1]).await;
        assert_eq!(claim(&other, "other", 1).await, [2], "{again}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_with_a_lease_that_meets_nothing_but_messages_of_a_busy_key_goes_on_to_what_is_behind_them() {
    let (_db, one, other, _) = databases().await;
    publish(&one, 20).await;
    assert_eq!(claim(&one, "one", 1).await, [1]);
    other.batch_execute("select integration.publish('shop', 'billing', 'n', '0')").await.unwrap();
    let with_lease = "select id from integration.claim('billing', 'psql', 1, p_lease => '1 min')";
    assert_eq!((count(&other, with_lease).await, behind(&other).await), (21, 19));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_forgotten_steps_forward_with_the_maintenance() {
    let (_db, one, other, _) = databases().await;
    publish(&one, 2).await;
    assert_eq!(claim(&one, "one", 1).await, [1]);
    assert_eq!((claim(&other, "other", 9).await, behind(&other).await), (vec![], 1));
    one.batch_execute("set session_replication_role = replica").await.unwrap();
    one.batch_execute("update integration.data_staging set status = 'completed', owner = null where id = 1")
        .await
        .unwrap();
    assert_eq!((claim(&other, "other", 9).await, behind(&other).await), (vec![], 1));
    other.batch_execute("select integration.maintain()").await.unwrap();
    assert_eq!(claim(&other, "other", 9).await, [2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn in_another_isolation_level_nothing_with_a_key_is_claimed_and_the_error_says_why() {
    let (_db, one, _, _) = databases().await;
    publish(&one, 1).await;
    one.batch_execute("begin isolation level repeatable read").await.unwrap();
    let error = one.batch_execute("select integration.claim('billing', 'x', 1, p_lease => '1 min')").await.unwrap_err();
    assert!(error.as_db_error().unwrap().message().contains("READ COMMITTED"), "{error:?}");
}
