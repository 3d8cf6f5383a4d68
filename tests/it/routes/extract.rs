//! Tables without triggers as sources: what a look finds, none lost that is committed late, and none twice.

use std::collections::BTreeSet;

use doorbell::operate::{Extract, ExtractFrom, Operator, Watermark};
use tokio_postgres::Client;

use super::said;
use crate::{
    doors::{answer, role},
    support::{Database, connect, count, soon},
};

/// Versions of rows that were published, each as often as it was.
const PUBLISHED: &str = "select concat(data -> 'new' ->> 'id', '@', (data -> 'new' ->> 'at')::timestamptz at time zone 'UTC') \
    from integration.data_staging";

async fn orders(db: &Database) -> Client {
    let client = db.client().await;
    client
        .batch_execute(
            "create table orders (id bigint generated always as identity primary key, at timestamptz not null)",
        )
        .await
        .unwrap();
    client
}

fn of_orders() -> Extract {
    let every = Watermark { grace: std::time::Duration::ZERO, ..Watermark::new("at") };
    Extract { watermark: Some(every), ..Extract::new("o", "mirror", ExtractFrom::Table("orders".into())) }
}

async fn extracted(db: &Database) -> Operator {
    let operator = db.broker().await.operator();
    assert!(operator.extract(&of_orders()).await.unwrap());
    operator
}

async fn look(operator: &Operator) -> u64 {
    // One that was cut off may still be at it.
    let looked = async {
        loop {
            if let Some(done) = operator.extract_more("o", 20).await.unwrap() {
                return done.published;
            }
        }
    };
    soon("a look ends", looked).await
}

/// What everybody writes at first: the rows behind the greatest watermark there was.
#[derive(Default)]
struct Naive {
    greatest: Option<String>,
    found: BTreeSet<String>,
}

impl Naive {
    async fn look(&mut self, client: &Client) {
        let sql = "select concat(id, '@', at at time zone 'UTC'), at::text from orders \
            where at > coalesce($1::text::timestamptz, '-infinity') order by at";
        for row in client.query(sql, &[&self.greatest]).await.unwrap() {
            self.found.insert(row.get(0));
            self.greatest = Some(row.get(1));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_commits_late_is_found_which_a_plain_watermark_loses() {
    let db = Database::new().await;
    let client = orders(&db).await;
    let operator = extracted(&db).await;
    let mut naive = Naive::default();
    let [writes, waits, later] = [db.client().await, db.client().await, db.client().await];
    writes.batch_execute("begin; insert into orders (at) values (now())").await.unwrap();
    // It has its time, and no xid yet.
    waits.batch_execute("begin; select now()").await.unwrap();
    later.batch_execute("insert into orders (at) values (now())").await.unwrap();
    for _ in 0..3 {
        look(&operator).await;
        naive.look(&client).await;
    }
    writes.batch_execute("commit").await.unwrap();
    for _ in 0..3 {
        look(&operator).await;
        naive.look(&client).await;
    }
    waits.batch_execute("insert into orders (at) values (now()); commit").await.unwrap();
    for _ in 0..3 {
        look(&operator).await;
        naive.look(&client).await;
    }
    assert_eq!(naive.found.len(), 1, "a test that cannot fail");
    assert_eq!(count(&client, "select count(*) from integration.data_staging").await, 3);
    let moved = "select count(*) from integration.extracts e where e.place::timestamptz = (select max(at) from orders)";
    assert_eq!(count(&client, moved).await, 1);
    assert_eq!(count(&client, "select count(*) from integration.extract_seen").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_place_stays_before_a_row_that_is_prepared_until_it_is_committed_or_rolled_back() {
    let db = Database::new().await;
    let client = orders(&db).await;
    let operator = extracted(&db).await;
    let gid = |end| format!("{}-{end}", db.name());
    let places = "select coalesce(place, 'none') from integration.extracts";
    for (end, more) in [("commit", 1), ("rollback", 0)] {
        let before = said(&client, places).await;
        let prepare = format!("begin; insert into orders (at) values (now()); prepare transaction '{}'", gid(end));
        client.batch_execute(&prepare).await.unwrap();
        client.batch_execute("insert into orders (at) values (now())").await.unwrap();
        assert_eq!([look(&operator).await, look(&operator).await, look(&operator).await], [1, 0, 0]);
        assert_eq!(said(&client, places).await, before);
        client.batch_execute(&format!("{end} prepared '{}'", gid(end))).await.unwrap();
        assert_eq!(look(&operator).await, more);
        // Others of this server may have something open still.
        let moved = async {
            while said(&client, places).await == before {
                assert_eq!(look(&operator).await, 0);
            }
        };
        soon("the place moves", moved).await;
    }
    assert_eq!(count(&client, "select count(*) from orders").await, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_writers_every_version_that_stays_is_published_once() {
    let db = Database::read_committed().await;
    let client = orders(&db).await;
    let operator = extracted(&db).await;
    let writers: Vec<_> = (0..5)
        .map(|_| {
            let url = db.url.clone();
            tokio::spawn(async move {
                let client = connect(&url).await;
                for round in 0..25 {
                    let end = if round % 5 == 4 { "rollback" } else { "commit" };
                    let begin = "begin; insert into orders (at) values (now()), (clock_timestamp()); savepoint s; \
                        insert into orders (at) values (clock_timestamp()); rollback to s; \
                        insert into orders (at) values (now())";
                    client.batch_execute(begin).await.unwrap();
                    tokio::task::yield_now().await;
                    client.batch_execute(end).await.unwrap();
                }
            })
        })
        .collect();
    let ended = futures::future::join_all(writers);
    tokio::pin!(ended);
    soon("the writers end", async {
        loop {
            tokio::select! {
                biased;
                all = &mut ended => break all.into_iter().for_each(|one| one.unwrap()),
                _ = look(&operator) => {}
            }
        }
    })
    .await;
    while look(&operator).await > 0 {}
    assert_eq!(count(&client, "select count(*) from orders").await, 300);
    let there = "select concat(id, '@', at at time zone 'UTC') from orders";
    let lost = format!("select count(*) from ({there} except all ({PUBLISHED})) x");
    assert_eq!(count(&client, &lost).await, 0);
    let twice = format!("select count(*) from ({PUBLISHED} except all ({there})) x");
    assert_eq!(count(&client, &twice).await, 0);
    // A change of a row is a version of its own; the row as it was is not published again.
    client.batch_execute("update orders set at = clock_timestamp() where id = 1").await.unwrap();
    assert_eq!([look(&operator).await, look(&operator).await, look(&operator).await], [1, 0, 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_time_of_tomorrow_moves_no_place_and_a_row_that_is_refused_stops_no_other() {
    let db = Database::new().await;
    let client = orders(&db).await;
    let operator = extracted(&db).await;
    client
        .batch_execute("insert into orders (at) values ('infinity'), (now()), (now() + interval '1 h')")
        .await
        .unwrap();
    for _ in 0..3 {
        look(&operator).await;
    }
    client.batch_execute("insert into orders (at) values (now())").await.unwrap();
    assert_eq!(look(&operator).await, 1);
    assert_eq!(count(&client, "select count(*) from integration.extract_seen").await, 3);
    let refused = "alter table orders add n numeric; insert into orders (at, n) values (now(), 1e70000), (now(), 1)";
    client.batch_execute(refused).await.unwrap();
    let done = operator.extract_more("o", 20).await.unwrap().unwrap();
    assert_eq!((done.published, done.skipped, done.is_done), (1, 1, true));
    assert_eq!(look(&operator).await, 0);
    let told = "select details ->> 'key' from integration.audit_log where action = 'extract_skipped'";
    assert_eq!(said(&client, told).await, "5");
    // Where none can be published it is not the rows that are wrong, and none is given up.
    client.batch_execute("insert into orders (at, n) values (now(), 1e70000)").await.unwrap();
    client.batch_execute("update integration.extracts set next_at = now()").await.unwrap();
    client.batch_execute("select integration.extract_due()").await.unwrap();
    assert!(operator.extracts().await.unwrap()[0].last_error.as_ref().unwrap().contains("as text"));
    client.batch_execute("update orders set n = 2 where id = 7").await.unwrap();
    assert_eq!(look(&operator).await, 1);
    assert_eq!(operator.extracts().await.unwrap()[0].last_error, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn maintenance_looks_when_it_is_time_and_what_fails_waits_a_minute() {
    let db = Database::new().await;
    let client = orders(&db).await;
    let operator = extracted(&db).await;
    client.batch_execute("insert into orders (at) values (now())").await.unwrap();
    assert_eq!(soon("it is maintained", operator.maintain()).await.unwrap().extracted, 1);
    client.batch_execute("insert into orders (at) values (now()); select integration.maintain()").await.unwrap();
    assert_eq!(count(&client, "select count(*) from integration.data_staging").await, 1, "in five seconds");
    let due = "update integration.extracts set next_at = integration.clock()";
    client.batch_execute(&format!("{due}; select integration.maintain()")).await.unwrap();
    assert_eq!(count(&client, "select count(*) from integration.data_staging").await, 2);
    client.batch_execute(&format!("{due}; drop table orders")).await.unwrap();
    assert_eq!(soon("it is maintained", operator.maintain()).await.unwrap().extracted, 0);
    let waits = "select count(*) from integration.extracts where next_at > integration.clock() + interval '30 s'";
    assert_eq!(count(&client, waits).await, 1);
    assert!(operator.extracts().await.unwrap()[0].last_error.is_some());
    assert!(operator.pause_extract("o", true).await.unwrap());
    assert_eq!(operator.extract_more("o", 1).await.unwrap(), None);
    assert!(operator.forget_extract("o").await.unwrap());
    assert!(!operator.forget_extract("o").await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_is_read_once_page_by_page_and_goes_on_where_it_was_broken_off() {
    let db = Database::new().await;
    let client = orders(&db).await;
    client.batch_execute("insert into orders (at) select now() from generate_series(1, 25)").await.unwrap();
    let operator = db.broker().await.operator();
    let query = ExtractFrom::Query("select id, -id as turned, null as nothing from public.orders -- all".into());
    let once = Extract { key: vec!["turned".into()], ..Extract::new("q", "mirror", query) };
    assert!(operator.extract(&once).await.unwrap());
    let more = async || operator.extract_more("q", 10).await.unwrap().unwrap();
    assert_eq!(more().await.published, 10);
    client.batch_execute("begin; select integration.extract_more('q', 10); rollback").await.unwrap();
    assert!(!operator.extract(&once).await.unwrap(), "said again, it goes on");
    assert_eq!((more().await.published, more().await.is_done, more().await.published), (10, true, 0));
    let all = "select count(distinct data -> 'new' ->> 'id') * 100 + count(*) from integration.data_staging";
    assert_eq!(count(&client, all).await, 2525);
    let first =
        "select concat(record_type, ' ', ordering_key, ' ', data) from integration.data_staging order by id limit 1";
    assert_eq!(
        said(&client, first).await,
        "q.read q:-25 {\"op\": \"read\", \"new\": {\"id\": 25, \"turned\": -25, \"nothing\": null}, \"table\": \"q\"}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn who_reads_all_of_a_captured_table_meanwhile_ends_with_its_newest_rows() {
    let db = Database::read_committed().await;
    let client = db.client().await;
    client
        .batch_execute(
            "create table stock (id integer primary key, n integer); insert into stock select i, 0 from generate_series(1, 150) i; \
             select integration.capture('stock', 'mirror', p_type => 's')",
        )
        .await
        .unwrap();
    let operator = db.broker().await.operator();
    let all =
        Extract { record_type: Some("s".into()), ..Extract::new("b", "mirror", ExtractFrom::Table("stock".into())) };
    assert!(operator.extract(&all).await.unwrap());
    let writer = tokio::spawn({
        let client = db.client().await;
        async move {
            for n in 1..60 {
                let change = match n % 6 {
                    0 => format!("delete from stock where id = {n} * 2"),
                    1 => format!("insert into stock values ({n} + 150, {n})"),
                    2 => format!("update stock set id = -id where id = {n} * 2"),
                    _ => format!("update stock set n = {n} where id % 7 = {n} % 7"),
                };
                let end = if n % 10 == 9 { "rollback" } else { "commit" };
                client.batch_execute(&format!("begin; {change}; {end}")).await.unwrap();
            }
        }
    });
    soon("all is read", async {
        loop {
            match operator.extract_more("b", 10).await {
                Ok(Some(done)) if done.is_done => break,
                Ok(_) => {}
                Err(error) => assert!(error.is_transient(), "{error:?}"),
            }
        }
    })
    .await;
    soon("the writer ends", writer).await.unwrap();
    let mirror = "select r.* from (select distinct on (ordering_key) data from integration.data_staging \
            order by ordering_key, id desc) m \
        cross join lateral jsonb_populate_record(null::stock, m.data -> 'new') r where m.data ->> 'op' <> 'delete'";
    let differ =
        format!("select count(*) from (({mirror} except table stock) union all (table stock except ({mirror}))) d");
    assert!(count(&client, "select count(*) from integration.data_staging where record_type = 's.read'").await > 100);
    let whole =
        "select count(*) from integration.data_staging where record_type = 's.read' and not data -> 'new' ? 'n'";
    assert_eq!(count(&client, whole).await, 0);
    assert_eq!(count(&client, &differ).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_who_owns_the_schema_says_what_is_read_in_its_name() {
    let db = Database::new().await;
    let client = orders(&db).await;
    let make = "select integration.set_extract('o', 'mirror', 'orders', p_watermark => 'at')";
    for to in ["publisher", "consumer", "operator"] {
        assert_eq!(answer(&role(&db, to).await, make).await, "42501", "{to}");
    }
    assert_eq!(answer(&client, make).await, "");
    let operator = db.client().await;
    operator.batch_execute(&format!("set role operator_{}", db.name())).await.unwrap();
    for may in ["extract_more('o')", "pause_extract('o')", "forget_extract('o')"] {
        assert_eq!(answer(&operator, &format!("select integration.{may}")).await, "", "{may}");
    }
    client.batch_execute("alter table orders add b boolean; create table keyless (a integer)").await.unwrap();
    for wrong in [
        "p_table => 'orders', p_watermark => 'b'",
        "p_table => 'orders', p_watermark => 'c'",
        "p_table => 'keyless'",
        "p_query => 'select 1 as id'",
        "p_query => 'select 1 as id;', p_key => '{id}'",
        "p_query => 'table orders', p_key => '{id}'",
        "p_query => 'delete from public.orders', p_key => '{id}'",
        "p_query => 'table public.orders', p_table => 'orders'",
    ] {
        assert_eq!(
            answer(&client, &format!("select integration.set_extract('w', 'mirror', {wrong})")).await,
            "MQ002",
            "{wrong}"
        );
    }
    client.batch_execute(make).await.unwrap();
    let other = "select integration.set_extract('o', 'mirror', 'orders')";
    assert_eq!(answer(&client, other).await, "MQ003");
}
