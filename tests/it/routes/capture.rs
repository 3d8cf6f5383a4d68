//! Tables as sources: what is written there is published, in the same transaction.

use doorbell::operate::{Capture, Operator};
use tokio_postgres::Client;

use super::said;
use crate::{
    doors::{answer, role},
    support::{Database, connect, count},
};

const TYPES: &str = "select record_type from integration.data_staging order by id";

async fn captured(db: &Database, table: &str) -> Operator {
    let operator = db.broker().await.operator();
    assert!(operator.capture(&of(table)).await.unwrap());
    operator
}

fn of(table: &str) -> Capture {
    Capture { table: table.into(), target: "mirror".into(), record_type: Some("o".into()), ..Capture::default() }
}

async fn orders(db: &Database) -> Client {
    let client = db.client().await;
    client
        .batch_execute("create type mood as enum ('ok', 'bad'); create table orders \
            (id bigint primary key, mood mood, cents integer, note text, double integer generated always as (cents * 2) stored)")
        .await
        .unwrap();
    client
}

#[tokio::test(flavor = "multi_thread")]
async fn every_change_is_published_with_the_row_before_and_after_and_none_that_was_rolled_back() {
    let db = Database::new().await;
    let client = orders(&db).await;
    captured(&db, "orders").await;
    client
        .batch_execute(
            "insert into orders values (1, 'ok', 5), (2, null, 6);
             update orders set cents = 7 where id = 1;
             update orders set cents = cents;
             update orders set id = 9 where id = 2;
             delete from orders where id = 9",
        )
        .await
        .unwrap();
    assert_eq!(said(&client, TYPES).await, "o.insert o.insert o.update o.delete o.insert o.delete");
    let update = "select ordering_key || ' ' || data from integration.data_staging where record_type = 'o.update'";
    assert_eq!(
        said(&client, update).await,
        "public.orders:1 {\"op\": \"update\", \
            \"new\": {\"id\": 1, \"mood\": \"ok\", \"note\": null, \"cents\": 7, \"double\": 14}, \
            \"old\": {\"id\": 1, \"mood\": \"ok\", \"note\": null, \"cents\": 5, \"double\": 10}, \"table\": \"public.orders\"}"
    );
    client
        .batch_execute(
            "truncate integration.data_staging;
             begin; insert into orders values (3); savepoint a; insert into orders values (4); rollback to a; commit;
             begin; insert into orders values (5); rollback",
        )
        .await
        .unwrap();
    assert_eq!(said(&client, "select ordering_key from integration.data_staging").await, "public.orders:3");
    client.batch_execute("truncate integration.data_staging; truncate orders").await.unwrap();
    assert_eq!(
        said(&client, "select data::text from integration.data_staging").await,
        "{\"op\": \"truncate\", \"table\": \"public.orders\"}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_prepared_transaction_changes_is_published_when_it_commits_and_never_when_it_is_rolled_back() {
    let db = Database::new().await;
    let client = orders(&db).await;
    captured(&db, "orders").await.subscribe(&super::to("mirror", "tapped")).await.unwrap();
    // Somebody listens, and a notification cannot be prepared: what the page says to do about it.
    let listener = db.client().await;
    listener.batch_execute("select integration.park('mirror'), integration.park('tapped')").await.unwrap();
    let prepare = |id: u8, what: &str| {
        let gid = format!("{}-{id}", db.name());
        (format!("begin; {what}; insert into orders (id) values ({id}); prepare transaction '{gid}'"), gid)
    };
    assert_eq!(answer(&client, &prepare(1, "select").0).await, "0A000");
    client.batch_execute("rollback").await.unwrap();
    let shop = role(&db, "neighbour").await;
    let shops = format!(
        "grant insert on orders to neighbour_{0}; alter role neighbour_{0} set integration.notify = off",
        db.name()
    );
    client.batch_execute(&shops).await.unwrap();
    drop(shop);
    let shop = connect(&db.url.replace("user=postgres", &format!("user=neighbour_{}", db.name()))).await;
    let told = "select concat(target_app, ':', ordering_key) from integration.data_staging order by id";
    for (id, who, what) in [(2, &client, "set local integration.notify = off"), (3, &shop, "select")] {
        let (change, gid) = prepare(id, what);
        who.batch_execute(&change).await.unwrap();
        assert_eq!(said(&client, told).await, "");
        client.batch_execute(&format!("commit prepared '{gid}'")).await.unwrap();
        assert_eq!(said(&client, told).await, format!("mirror:public.orders:{id} tapped:public.orders:{id}"));
        client.batch_execute("truncate integration.data_staging").await.unwrap();
    }
    let off = "select integration.set_target(t, '{\"bell\": \"off\"}') from unnest('{mirror, tapped}'::text[]) t";
    client.batch_execute(off).await.unwrap();
    let (change, gid) = prepare(4, "select");
    client.batch_execute(&change).await.unwrap();
    client.batch_execute(&format!("rollback prepared '{gid}'")).await.unwrap();
    assert_eq!(said(&client, told).await, "");
    assert_eq!(count(&client, "select count(*) from integration.check_counters()").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_image_of_each_key_is_the_table() {
    let db = Database::new().await;
    let client = orders(&db).await;
    client.batch_execute("create table two (a integer, b text, v integer, primary key (b, a))").await.unwrap();
    let operator = captured(&db, "orders").await;
    operator.capture(&of("two")).await.unwrap();
    client
        .batch_execute(
            "insert into orders (id, cents) select n, n from generate_series(200, 5200) n;
             update orders set cents = cents + 1 where id % 3 = 0;
             update orders set id = id + 10000 where id % 5 = 0;
             delete from orders where id % 7 = 0;
             insert into orders (id, cents) select n, 0 from generate_series(190, 230) n
                on conflict (id) do update set cents = -orders.cents;
             insert into two select n, 'k' || n % 3, n from generate_series(1, 50) n;
             update two set b = 'moved' where a % 2 = 0;
             delete from two where a % 5 = 0",
        )
        .await
        .unwrap();
    for (table, columns) in [("orders", "id, cents"), ("two", "a, b, v")] {
        let mirror = format!(
            "select r.* from (select distinct on (ordering_key) data from integration.data_staging \
                where data ->> 'table' = 'public.{table}' order by ordering_key, id desc) m \
             cross join lateral (select {columns} from jsonb_populate_record(null::{table}, m.data -> 'new')) r \
             where m.data ->> 'op' <> 'delete'"
        );
        let differ = format!(
            "select count(*) from ((({mirror}) except select {columns} from {table}) \
                union all (select {columns} from {table} except ({mirror}))) d"
        );
        assert!(count(&client, &format!("select count(*) from {table}")).await > 20);
        assert_eq!(count(&client, &differ).await, 0, "{table}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_these_columns_and_changes_are_published_and_a_second_capture_changes_which() {
    let db = Database::new().await;
    let client = orders(&db).await;
    let operator = captured(&db, "orders").await;
    let some = Capture { columns: vec!["cents".into()], when: Some("$.new.cents > 10".into()), ..of("orders") };
    assert!(!operator.capture(&some).await.unwrap());
    client
        .batch_execute(
            "insert into orders values (1, 'ok', 5, 'n'), (2, 'ok', 11, 'n'); update orders set note = 'm'; \
             update orders set cents = 12 where id = 2; delete from orders",
        )
        .await
        .unwrap();
    assert_eq!(said(&client, TYPES).await, "o.insert o.update");
    let new = "select data ->> 'new' from integration.data_staging order by id limit 1";
    assert_eq!(said(&client, new).await, "{\"id\": 2, \"cents\": 11}");
    let row = operator.captures().await.unwrap().pop().unwrap();
    assert_eq!((row.target.as_str(), row.is_on, row.columns.len()), ("mirror", true, 1));
    assert!(operator.uncapture("orders").await.unwrap());
    assert!(!operator.uncapture("orders").await.unwrap());
    client.batch_execute("insert into orders values (3, 'ok', 99)").await.unwrap();
    assert_eq!(count(&client, "select count(*) from integration.data_staging").await, 2);
    assert_eq!(count(&client, "select count(*) from pg_trigger where tgname like 'doorbell%'").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_may_be_altered_renamed_or_partitioned_and_is_off_where_its_triggers_are() {
    let db = Database::new().await;
    let client = orders(&db).await;
    let operator = captured(&db, "orders").await;
    client
        .batch_execute(
            "alter table orders drop column note, add column \"it's %s\" integer default 3; \
             alter table orders rename to purchases; insert into purchases (id) values (1)",
        )
        .await
        .unwrap();
    assert_eq!(
        said(&client, "select data ->> 'new' from integration.data_staging").await,
        "{\"id\": 1, \"mood\": null, \"cents\": null, \"double\": null, \"it's %s\": 3}"
    );
    for (change, is_on) in [
        ("alter table purchases disable trigger doorbell_delete", false),
        ("alter table purchases enable trigger doorbell_delete", true),
        ("alter table purchases rename column id to number", false),
    ] {
        client.batch_execute(change).await.unwrap();
        assert_eq!(operator.captures().await.unwrap()[0].is_on, is_on, "{change}");
    }
    client
        .batch_execute(
            "truncate integration.data_staging; create table parts (id integer primary key) partition by range (id); \
             create table low partition of parts for values from (0) to (9); \
             create table high partition of parts for values from (9) to (99)",
        )
        .await
        .unwrap();
    operator.capture(&of("parts")).await.unwrap();
    client.batch_execute("insert into parts values (1), (10); update parts set id = 11 where id = 1").await.unwrap();
    assert_eq!(said(&client, TYPES).await, "o.insert o.insert o.delete o.insert");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_table_of_the_askers_or_has_no_key_is_refused() {
    let db = Database::new().await;
    let client = db.client().await;
    client
        .batch_execute(
            "create table keyless (a integer); create view seen as select 1 as a; create table keyed (a integer primary key); \
             create temporary table passing (a integer primary key)",
        )
        .await
        .unwrap();
    for (table, code) in [
        ("keyless", "MQ002"),
        ("seen", "MQ002"),
        ("passing", "MQ002"),
        ("pg_class", "MQ002"),
        ("integration.settings", "MQ002"),
        ("nowhere", "42P01"),
    ] {
        assert_eq!(answer(&client, &format!("select integration.capture('{table}', 'mirror')")).await, code, "{table}");
    }
    let strange = "select integration.capture('keyed', 'mirror', p_columns => '{b}')";
    assert_eq!(answer(&client, strange).await, "MQ002");
    let capture = "select integration.capture('keyed', 'mirror')";
    for to in ["publisher", "consumer"] {
        assert_eq!(answer(&role(&db, to).await, capture).await, "42501", "{to}");
    }
    let operator = role(&db, "operator").await;
    assert_eq!(answer(&operator, capture).await, "42501");
    client.batch_execute(&format!("alter table keyed owner to operator_{}", db.name())).await.unwrap();
    assert_eq!(answer(&operator, capture).await, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_writes_needs_no_right_here_and_no_code_of_the_tables_owner_runs_as_the_schemas() {
    let db = Database::new().await;
    let client = db.client().await;
    let operator = role(&db, "operator").await;
    let name = format!("operator_{}", db.name());
    client.batch_execute(&format!("create schema theirs authorization {name}")).await.unwrap();
    operator
        .batch_execute(
            "create type theirs.secret as (a integer);
             create table theirs.ran (as_whom text);
             create function theirs.to_json(p theirs.secret) returns json language plpgsql as $$ begin
                insert into theirs.ran values (current_user); return '1'; end $$;
             create cast (theirs.secret as json) with function theirs.to_json(theirs.secret);
             create table theirs.things (id integer primary key, s theirs.secret, ss theirs.secret[])",
        )
        .await
        .unwrap();
    client.batch_execute("grant usage on schema theirs to public").await.unwrap();
    operator.batch_execute("select integration.capture('theirs.things', 'mirror')").await.unwrap();
    let stranger = role(&db, "neighbour").await;
    operator.batch_execute("grant insert on theirs.things to public").await.unwrap();
    stranger.batch_execute("insert into theirs.things values (1, row(7), array[row(8)::theirs.secret])").await.unwrap();
    assert_eq!(
        said(&client, "select data ->> 'new' from integration.data_staging").await,
        "{\"s\": \"(7)\", \"id\": 1, \"ss\": \"{(8)}\"}"
    );
    assert_eq!(count(&client, "select count(*) from theirs.ran").await, 0);
    // The trigger's function serves nobody who is not registered.
    let forged = "create table theirs.forged (id integer primary key); create trigger t after insert on theirs.forged \
        referencing new table as after for each statement execute function integration.on_captured()";
    assert_eq!(answer(&operator, forged).await, "42501");
}
