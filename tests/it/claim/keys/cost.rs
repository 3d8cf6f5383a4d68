//! What keys cost: the same behind a pinned horizon, whatever the number of keys.

use tokio_postgres::Client;

use crate::support::{Database, count};

const EACH: i64 = 100;

/// Blocks that a claim of 100 and its completion read.
async fn batch(client: &Client, place: &str) -> i64 {
    let claim = format!(
        "explain (analyze, buffers, format json) with c as materialized (select array_agg(id) filter (where attempt is not null) as ids, \
           array_agg(attempt) filter (where attempt is not null) as attempts, \
           array_agg(created_at) filter (where attempt is not null) as created \
           from integration.claim('billing', 'x', {EACH}, null, null, 16777216{place}, p_series => 1000)) \
         select count(*) from c, integration.complete_many('x', c.ids, c.attempts, c.created)"
    );
    let plan: serde_json::Value = client.query_one(&claim, &[]).await.unwrap().get(0);
    plan[0]["Plan"]["Shared Hit Blocks"].as_i64().unwrap() + plan[0]["Plan"]["Shared Read Blocks"].as_i64().unwrap()
}

/// As a consumer tells where its last look ended.
pub(super) async fn place(client: &Client) -> String {
    let place = "select format(', ''{1,0,-2147483648}'', ''{2147483647,0,-1}'', array[null,%L,null]::timestamptz[], array[0,%s,0], \
        array[null,%L,null]::timestamptz[], array[0,0,0]', \
        max(created_at), max(id), clock_timestamp()) from integration.data_staging where status = 'completed'";
    client.query_one(place, &[]).await.unwrap().get(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_of_keyed_messages_costs_the_same_when_the_horizon_is_pinned_with_one_key_and_with_many() {
    for keys in [1, 50, 20_000] {
        let db = Database::new().await;
        let client = db.client().await;
        let fill = format!(
            "insert into integration.data_staging (source_app, target_app, record_type, data, ordering_key) \
             select 'shop', 'billing', 'n', to_jsonb(n), 'k' || n % {keys} from generate_series(1, 20000) n; \
             insert into integration.processes (owner, host, pid, application, version, targets, lease_until) \
                 values ('x', 'host', 1, 'app', '0', '{{}}', '2999-01-01')"
        );
        client.batch_execute(&fill).await.unwrap();
        client.batch_execute("vacuum analyze integration.data_staging").await.unwrap();
        let pin = db.client().await;
        let snapshot = "begin isolation level repeatable read; select count(*) from integration.data_staging";
        pin.batch_execute(snapshot).await.unwrap();
        batch(&client, "").await;
        let mut costs = Vec::new();
        for _ in 0..100 {
            let place = place(&client).await;
            costs.push(batch(&client, &place).await);
        }
        let done = count(&client, "select count(*) from integration.data_staging where status = 'completed'").await;
        assert_eq!(done, 101 * EACH, "{keys} keys");
        let median = |costs: &[i64]| {
            let mut costs = costs.to_vec();
            costs.sort_unstable();
            costs[costs.len() / 2]
        };
        let (first, last) = (median(&costs[..10]), median(&costs[90..]));
        println!("{keys} keys: {first} blocks, at the end {last}");
        assert!(last <= first * 3 / 2, "{keys} keys: {first} blocks, at the end {last}");
    }
}
