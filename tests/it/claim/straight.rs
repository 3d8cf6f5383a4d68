//! Looks that read one range as they lock it, and messages that are published or end alone, which take a way of their own:
//! they leave what the way for many leaves.

use tokio_postgres::Client;

use crate::support::{Database, count};

/// A consumer that knows one priority, and has taken what was published before 2020 and became pending again before 2021.
const BEHIND_A_PLACE: &str = ", '{1,0,-2147483648}', '{2147483647,0,-1}', '{null,2020-01-01,null}', '{0,0,0}', \
    '{null,2021-01-01,null}', '{0,0,0}'";

/// The ids that a look holds, in its order; `ahead` stands for a row that names no message.
async fn held(client: &Client, limit: i32, bytes: i64, ranges: &str) -> String {
    client.batch_execute("begin").await.unwrap();
    let sql = format!(
        "select coalesce(string_agg(coalesce(h.id::text, case when h.ahead then 'ahead' end), ' '), '') \
            from integration.hold('billing', {limit}, '{{n}}', {bytes}{ranges}) h"
    );
    let ids = client.query_one(&sql, &[]).await.unwrap_or_else(|error| panic!("{sql}: {error:?}")).get(0);
    client.batch_execute("rollback").await.unwrap();
    ids
}

#[tokio::test(flavor = "multi_thread")]
async fn a_look_behind_the_only_place_holds_what_one_from_the_beginning_does() {
    let db = Database::new().await;
    let client = db.client().await;
    let insert = "truncate integration.data_staging restart identity; insert into integration.data_staging \
        (source_app, target_app, record_type, data, priority, created_at, requeued_at, crash_count, ordering_key) select \
        'shop', 'billing', coalesce(m.type, 'n'), to_jsonb(repeat('x', 1000)), coalesce(m.priority, 0), \
        coalesce(m.created, '2022-01-01'), m.again, coalesce(m.crashes, 0), m.key from jsonb_to_recordset($m$";
    let columns =
        "$m$) m (type text, priority integer, created timestamptz, again timestamptz, crashes integer, key text)";
    let (few, much) = (10, 1 << 20);
    for (messages, limit, bytes, expected) in [
        ("[]", few, much, ""),
        ("[{}]", few, much, "1"),
        ("[{\"created\": \"2023-01-01\"}, {}, {}]", few, much, "2 3 1"),
        ("[{}, {}, {}]", 2, much, "1 2"),
        ("[{}, {}, {}]", 0, much, ""),
        ("[{}, {}, {}]", few, 1500, "1 2"),
        ("[{}, {\"priority\": 1}, {}]", few, much, "2 1 3"),
        ("[{}, {\"priority\": -1}, {}]", few, much, "1 3 2"),
        ("[{\"priority\": 2147483647}, {\"priority\": -2147483648}]", few, much, "1 2"),
        ("[{}, {\"type\": \"other\"}, {\"type\": \"other\", \"priority\": 5}]", few, much, "1"),
        ("[{}, {\"crashes\": 1}, {\"crashes\": 1, \"priority\": 5}]", few, much, "1"),
        // What became pending again, ahead of where looks of it begin.
        ("[{}, {\"created\": \"2019-01-01\", \"again\": \"2022-06-01\"}]", few, much, "2 1"),
        ("[{\"again\": \"2022-06-01\"}]", few, much, "1"),
        ("[{\"key\": \"k\"}]", few, much, "ahead"),
        ("[{\"key\": \"k\", \"priority\": 1}, {}]", few, much, "ahead"),
        ("[{\"key\": \"k\", \"type\": \"other\"}, {}]", few, much, "2"),
    ] {
        client.batch_execute(&format!("{insert}{messages}{columns}")).await.unwrap();
        assert_eq!(held(&client, limit, bytes, BEHIND_A_PLACE).await, expected, "behind a place: {messages}");
        assert_eq!(held(&client, limit, bytes, "").await, expected, "from the beginning: {messages}");
    }
    // Where some of them have keys nothing is held, whatever was met before.
    client.batch_execute(&format!("{insert}[{{}}, {{\"key\": \"k\"}}, {{}}]{columns}")).await.unwrap();
    assert!(held(&client, few, much, BEHIND_A_PLACE).await.ends_with("ahead"));
    // What lies behind both places was taken, or is found from the beginning.
    let taken = "[{\"created\": \"2019-01-01\"}, {\"created\": \"2019-01-01\", \"again\": \"2020-06-01\"}, {}]";
    client.batch_execute(&format!("{insert}{taken}{columns}")).await.unwrap();
    assert_eq!(held(&client, few, much, BEHIND_A_PLACE).await, "3");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_look_behind_the_only_place_leaves_what_another_transaction_holds_or_was_set_aside() {
    let db = Database::new().await;
    let (client, other) = (db.client().await, db.client().await);
    let insert = "insert into integration.data_staging (source_app, target_app, record_type, data) \
        select 'shop', 'billing', 'n', '1' from generate_series(1, 4)";
    client.batch_execute(insert).await.unwrap();
    other.batch_execute("begin; select from integration.data_staging where id = 2 for update").await.unwrap();
    assert_eq!(held(&client, 10, 1 << 20, BEHIND_A_PLACE).await, "1 3 4");
    other.batch_execute("rollback").await.unwrap();
    for (left_out, ids) in [
        ("select integration.set_aside(3, 'claim', 'XX000', 'refused')", "1 2 4"),
        ("select integration.publish('shop', 'billing', 'n', '5', p_expires_after => '0')", "1 2 4"),
    ] {
        client.batch_execute(left_out).await.unwrap();
        assert_eq!(held(&client, 10, 1 << 20, BEHIND_A_PLACE).await, ids, "{left_out}");
        assert_eq!(held(&client, 10, 1 << 20, "").await, ids, "{left_out}");
    }
    // A gate keeps everything from being held.
    client.batch_execute("select integration.pause('billing')").await.unwrap();
    assert_eq!(held(&client, 10, 1 << 20, BEHIND_A_PLACE).await, "ahead");
}

/// What is written of messages: the history, and the counts.
async fn left_by(client: &Client, statements: &[&str]) -> Vec<String> {
    for statement in statements {
        client.batch_execute(statement).await.unwrap_or_else(|error| panic!("{statement}: {error:?}"));
    }
    let history = "select concat_ws(' ', staging_id, app_name, action, details, role_name, owner, source_app, target_app, \
        record_type, attempt, old_status, new_status) from integration.audit_log order by staging_id, id";
    let counts = "select to_jsonb(x) - 'at' - 'created_at' from (select target_app, source_app, action, sum(pending) as pending, \
        sum(scheduled) as scheduled, sum(processing) as processing, sum(completed) as completed, sum(messages) as messages \
        from integration.deltas group by 1, 2, 3 order by 1, 2, 3) x";
    let mut left = Vec::new();
    for row in client.query(history, &[]).await.unwrap() {
        left.push(row.get::<_, String>(0));
    }
    for row in client.query(&format!("select c.j::text from ({counts}) c (j)"), &[]).await.unwrap() {
        left.push(row.get(0));
    }
    assert_eq!(count(client, "select count(*) from integration.check_counters()").await, 0);
    left
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_published_and_ends_alone_leaves_the_history_and_counts_of_what_does_so_together() {
    let values =
        "insert into integration.data_staging (source_app, target_app, record_type, data, available_at, status) values";
    let (one, two) =
        ("('shop', 'billing', 'n', '1', null, 'pending')", "('shop', 'billing', 'n', '2', null, 'pending')");
    let (late, later) = (
        one.replace("null, 'pending'", "'2100-01-01', 'scheduled'"),
        two.replace("null, 'pending'", "'2100-01-01', 'scheduled'"),
    );
    let created = "array(select created_at from integration.data_staging where id = any";
    let (alone_published, together_published) = (
        format!("{values} {one}; {values} {two}; {values} {late}; {values} {later}"),
        format!("{values} {one}, {two}; {values} {late}, {later}"),
    );
    let end = |ids: &str, attempts: &str, held: bool| {
        format!(
            "select integration.complete_many('me', '{ids}', '{attempts}', {created} ('{ids}') order by id), {held})"
        )
    };
    let claim = |limit: i32| format!("select integration.claim('billing', 'me', {limit}, p_lease => '1 h')");
    for level in ["all", "outcomes", "off"] {
        for held in [false, true] {
            let level = format!("select integration.set_audit_level('{level}')");
            let clean = "delete from integration.audit_log";
            let claims = |limits: &[i32]| {
                limits
                    .iter()
                    .map(|limit| if held { String::new() } else { claim(*limit) })
                    .collect::<Vec<_>>()
                    .join(";")
            };
            let alone = [
                level.as_str(),
                clean,
                &alone_published,
                &claims(&[1, 1]),
                &end("{1}", "{1}", held),
                &end("{2}", "{1}", held),
            ];
            let together = [level.as_str(), clean, &together_published, &claims(&[2]), &end("{1,2}", "{1,1}", held)];
            let client = Database::new().await.client().await;
            let left = left_by(&client, &alone).await;
            let client = Database::new().await.client().await;
            assert_eq!(left, left_by(&client, &together).await, "{level}, held: {held}");
            assert!(left.iter().any(|line| line.contains("\"completed\": 2")), "{left:?}");
        }
    }
}
