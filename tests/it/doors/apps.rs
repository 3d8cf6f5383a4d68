//! Rights per application: who, what, and the answer.

use doorbell::{Broker, ErrorKind, Message};
use tokio_postgres::Client;

use super::answer;
use crate::support::{Database, connect, count, echo, message, until_status};

/// A role of one application, connected: what `grant_app` gave it, and nothing else.
pub(crate) async fn app(db: &Database, app: &str, granted: &str) -> Client {
    let role = format!("{app}_{}", db.name());
    let made = format!("create role {role} login; select integration.grant_app('{app}', '{role}', {granted})");
    db.client().await.batch_execute(&made).await.unwrap();
    connect(&url(db, app)).await
}

pub(super) fn url(db: &Database, app: &str) -> String {
    db.url.replace("user=postgres", &format!("user={app}_{}", db.name()))
}

pub(super) async fn broker(db: &Database, app: &str) -> Broker {
    Broker::connect(&url(db, app)).await.unwrap()
}

const INSERT: &str = "insert into integration.data_staging (source_app, target_app, record_type, data";

/// Speaks as shop to billing, with priorities up to 5.
const SHOP: &[(&str, &str)] = &[
    ("INSERT) values ('shop', 'billing', 'x', '1') returning id", ""),
    ("INSERT, priority) values ('shop', 'billing', 'x', '1', 5)", ""),
    ("INSERT, status, available_at) values ('shop', 'billing', 'x', '1', 'scheduled', now())", ""),
    (
        "INSERT, headers, ordering_key, dedup_key, max_retries) values ('shop', 'billing', 'x', '1', '{}', 'o', 'd', 1)",
        "",
    ),
    ("select integration.publish('shop', 'billing', 'x', '1', p_delay => '1 h', p_dedup_key => 'k')", ""),
    ("select integration.publish_many('shop', '{billing,billing}', '{x,x}', '{1,2}', p_dedup_keys => '{k,l}')", ""),
    ("select integration.publish('shop', 'billing', 'x', '1', p_coalesce_key => 'c', p_expires_after => '1 h')", ""),
    ("select integration.publish('shop', 'billing', 'x', '2', p_coalesce_key => 'c')", ""),
    ("select integration.publish_many('shop', '{billing,billing}', '{x,x}', '{1,2}', p_coalesce_keys => '{c,d}')", ""),
    // As somebody else, to somebody else, before everybody else.
    ("INSERT) values ('crm', 'billing', 'x', '1')", "42501"),
    ("INSERT) values ('shop', 'billing', 'x', '1'), ('crm', 'billing', 'x', '1')", "42501"),
    ("INSERT) values ('shop', 'ledger', 'x', '1')", "42501"),
    ("INSERT) select 'shop', 'name-' || n, 'x', '1' from generate_series(1, 1000) n", "42501"),
    ("INSERT, priority) values ('shop', 'billing', 'x', '1', 6)", "42501"),
    ("select integration.publish('crm', 'billing', 'x', '1')", "42501"),
    ("select integration.publish('crm', 'billing', 'x', '1', p_dedup_key => 'order-7')", "42501"),
    ("select integration.publish_many('shop', '{billing,ledger}', '{x,x}', '{1,2}')", "42501"),
    ("select integration.publish('crm', 'billing', 'x', '1', p_coalesce_key => 'c')", "42501"),
    ("select integration.publish_many('crm', '{billing}', '{x}', '{1}', p_coalesce_keys => '{c}')", "42501"),
    // Whoever is said to ask.
    (
        "select integration.replace_waiting('pg_database_owner', 'crm', 'billing', 'x', '1', null, null, null, null, null, 'c', null)",
        "42501",
    ),
    ("select integration.take_coalesce_keys('pg_database_owner', 'crm', '{billing}', '{x}', '{c}')", "42501"),
    ("select integration.coalesce_into(MAILER, 'c')", "MQ002"),
    // Columns that are ours, and ids that others have reserved.
    ("INSERT, id) values ('shop', 'billing', 'x', '1', 1)", "42501"),
    ("INSERT, attempt) values ('shop', 'billing', 'x', '1', 7)", "42501"),
    ("INSERT, created_at) values ('shop', 'billing', 'x', '1', '2000-01-01')", "42501"),
    ("INSERT, owner) values ('shop', 'billing', 'x', '1', 'me')", "42501"),
    ("INSERT, status) values ('shop', 'billing', 'x', '1', 'failed')", "23514"),
    // What is there.
    ("select data from integration.data_staging", "42501"),
    ("update integration.data_staging set status = 'completed'", "42501"),
    ("select integration.claim('billing', 'shop', p_lease => '1 s')", "42501"),
    ("select * from integration.grants", "42501"),
    ("select integration.grant_app('crm', current_user, '{*}')", "42501"),
    ("select integration.revoke_app('shop', current_user)", "42501"),
    ("select integration.set_row_security(true)", "42501"),
];

/// Consumes for billing, and is process b-1.
const BILLING: &[(&str, &str)] = &[
    ("select integration.register('b-1', 'h', 1, 'a', 'v', '{\"billing\": {}}', 60000)", ""),
    ("select integration.beat('b-1', 60000)", ""),
    ("select id from integration.claim('billing', 'b-1', 1)", ""),
    (
        "select integration.waiting('{billing}'), integration.has_suspects('billing'), integration.is_drained('billing')",
        "",
    ),
    ("select * from integration.hold('billing', 1); select * from integration.claim_suspect('billing', 'b-1')", ""),
    ("select integration.next_due('{billing}'); select integration.promote('{billing}')", ""),
    ("select integration.rescue(); select integration.maintain()", ""),
    (
        "select integration.report_runs('billing', 1, 0); select integration.note_found('{billing}', '{1}', '{0}', '{0}')",
        "",
    ),
    // Of others.
    ("select integration.register('b-2', 'h', 1, 'a', 'v', '{\"billing\": {}, \"mailer\": {}}', 60000)", "42501"),
    ("select integration.register('m-1', 'h', 1, 'a', 'v', '{\"billing\": {}}', 60000)", "42501"),
    ("select integration.claim('mailer', 'b-1')", "42501"),
    ("select integration.claim('mailer', 'me', p_lease => '1 s')", "42501"),
    ("select integration.claim('billing', 'm-1')", "42501"),
    ("select integration.claim_suspect('mailer', 'b-1')", "42501"),
    ("select integration.claim_in_parts('mailer', 'b-1')", "42501"),
    ("select integration.claim_in_parts('billing', 'm-1')", "42501"),
    ("select integration.settle_or_owe('m-1', '{MAILER}', '{1}', array[now()], '{complete}', '{x}', '{0}')", "42501"),
    ("select integration.hold('mailer', 1)", "42501"),
    ("select integration.waiting('{billing,mailer}')", "42501"),
    ("select integration.has_suspects('mailer')", "42501"),
    ("select integration.is_drained('mailer')", "42501"),
    ("select integration.next_due('{mailer}')", "42501"),
    ("select integration.opens_in('mailer')", "42501"),
    ("select integration.keep_places('mailer', '{0}', '{2100-01-01}', '{1}', '{null}', '{null}')", "42501"),
    ("select integration.report_runs('mailer', 0, 1000, true)", "42501"),
    ("select integration.note_found('{mailer}', '{2000000000}', '{0}', '{0}')", "42501"),
    ("select integration.beat('m-1', 0)", "42501"),
    ("select integration.hold_session_lock('m-1')", "42501"),
    ("select integration.give_back('m-1', '{}', '{}', '{}')", "42501"),
    ("select integration.deregister('m-1')", "42501"),
    ("select integration.complete_many('m-1', '{MAILER}', '{1}', array[now()])", "42501"),
    ("select integration.complete(MAILER, 1, 'm-1')", "42501"),
    ("select integration.settle('m-1', '{MAILER}', '{1}', array[now()], '{release}', '{x}', '{0}')", "42501"),
    ("select integration.fail(MAILER, 1, 'm-1', 'no')", "42501"),
    ("select integration.reject(MAILER, 1, 'm-1', 'no')", "42501"),
    ("select integration.snooze(MAILER, 1, 'm-1', '1 h')", "42501"),
    ("select integration.release(MAILER, 1, 'm-1')", "42501"),
    ("select integration.extend(MAILER, 1, 'm-1', '1 h')", "42501"),
    ("select integration.was_settled('{MAILER}', '{1}', array[now()])", "42501"),
    ("select * from integration.data_staging", "42501"),
    ("select * from integration.processes", "42501"),
    ("select * from integration.stats", "42501"),
    ("select integration.publish('billing', 'mailer', 'x', '1')", "42501"),
    ("select integration.pause('mailer')", "42501"),
    (
        "insert into integration.processes (owner, host, pid, version, lease_until) values ('x', 'h', 1, 'v', 'infinity')",
        "42501",
    ),
];

#[tokio::test(flavor = "multi_thread")]
async fn an_application_does_what_was_granted_and_is_told_by_an_error_what_was_not() {
    let db = Database::new().await;
    let owner = db.client().await;
    let shop = app(&db, "shop", "'{billing}', p_max_priority => 5").await;
    let billing = app(&db, "billing", "p_consume => true").await;
    let mailer = app(&db, "mailer", "p_consume => true").await;
    mailer
        .batch_execute("select integration.register('m-1', 'h', 1, 'a', 'v', '{\"mailer\": {}}', 60000)")
        .await
        .unwrap();
    let id = count(&owner, "select integration.publish('owner', 'mailer', 'x', '\"secret\"')").await;
    mailer.batch_execute("select integration.claim('mailer', 'm-1')").await.unwrap();
    let mut wrong = Vec::new();
    for (client, lines) in [(&shop, SHOP), (&billing, BILLING)] {
        for (sql, expected) in lines {
            let sql = sql.replace("INSERT", INSERT).replace("MAILER", &id.to_string());
            let answer = answer(client, &sql).await;
            if answer != *expected {
                wrong.push(format!("{sql}: {answer:?}, not {expected:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    // Nobody's work was touched.
    let held =
        format!("select count(*) from integration.data_staging where id = {id} and owner = 'm-1' and attempt = 1");
    assert_eq!(count(&owner, &held).await, 1);
    assert_eq!(count(&owner, "select count(*) from integration.data_staging where source_app = 'crm'").await, 0);
    // An error says what to type.
    let error = shop.batch_execute("select integration.publish('shop', 'ledger', 'x', '1')").await.unwrap_err();
    let hint = error.as_db_error().unwrap().hint().unwrap().to_owned();
    owner.batch_execute(hint.strip_prefix("as the owner of the schema: ").unwrap()).await.unwrap();
    assert_eq!(answer(&shop, "select integration.publish('shop', 'ledger', 'x', '1', p_priority => 5)").await, "");
    assert_eq!(
        answer(&shop, "select integration.publish('shop', 'billing', 'x', '1', p_priority => 6)").await,
        "42501"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_copied_is_checked_like_what_is_inserted() {
    let db = Database::new().await;
    app(&db, "shop", "'{billing}'").await;
    let copy = async |columns: &str, line: &str| {
        let sql =
            format!("copy integration.data_staging (source_app, target_app, record_type, data{columns}) from stdin");
        let copied = async {
            // The driver leaves something unread where one failed.
            let shop = connect(&url(&db, "shop")).await;
            let sink = shop.copy_in(&sql).await?;
            let mut sink = std::pin::pin!(sink);
            futures::SinkExt::send(&mut sink, bytes::Bytes::from(format!("{line}\n"))).await?;
            sink.finish().await
        };
        let answer: Result<u64, tokio_postgres::Error> = copied.await;
        answer.err().map(|error| error.code().unwrap_or_else(|| panic!("{error:?}")).code().to_owned())
    };
    assert_eq!(copy("", "shop\tbilling\tx\t1").await, None);
    assert_eq!(copy("", "crm\tbilling\tx\t1").await.as_deref(), Some("42501"));
    assert_eq!(copy("", "shop\tbilling\tx\t1\nshop\tledger\tx\t1").await.as_deref(), Some("42501"));
    assert_eq!(copy(", id", "shop\tbilling\tx\t1\t1").await.as_deref(), Some("42501"));
    assert_eq!(copy(", attempt", "shop\tbilling\tx\t1\t7").await.as_deref(), Some("42501"));
    assert_eq!(copy(", priority", "shop\tbilling\tx\t1\t7").await, None);
    assert_eq!(count(&db.client().await, "select count(*) from integration.data_staging").await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_whole_library_works_with_roles_that_may_read_no_payload_of_the_table() {
    let db = Database::new().await;
    let owner = db.client().await;
    app(&db, "shop", "'{billing,mailer}'").await;
    app(&db, "billing", "p_consume => true").await;
    let mailer = app(&db, "mailer", "p_consume => true").await;
    let (shop, billing) = (broker(&db, "shop").await, broker(&db, "billing").await);
    let (consumer, mut told) = echo(&billing, "billing").await;
    let producer = shop.producer("shop");
    let messages: Vec<Message> = (0..200).map(|n| message("billing", n)).collect();
    let ids = producer.publish_many(&messages).await.unwrap();
    let delayed = producer.publish(&message("billing", 200).delay(std::time::Duration::from_millis(1))).await.unwrap();
    let first = producer.publish(&message("billing", 201).dedup_key("k")).await.unwrap();
    assert_eq!(producer.publish(&message("billing", 202).dedup_key("k")).await.unwrap(), first);
    for delivery in told.take(202).await {
        // The ids came in the order of the messages.
        let n: usize = delivery.payload().parse().unwrap();
        assert_eq!(delivery.id, ids.iter().copied().chain([delayed, first]).nth(n).unwrap());
    }
    until_status(&owner, first, "completed").await;
    // Rescue works across applications, for who could not read what it gives back.
    producer.publish(&message("mailer", 1)).await.unwrap();
    mailer
        .batch_execute(
            "select integration.register('m-1', 'h', 1, 'a', 'v', '{\"mailer\": {}}', 1); \
             select integration.claim('mailer', 'm-1')",
        )
        .await
        .unwrap();
    owner
        .batch_execute("update integration.processes set lease_until = '-infinity' where owner = 'm-1'")
        .await
        .unwrap();
    let rescued =
        "select count(*) = 1 from integration.data_staging where target_app = 'mailer' and status = 'pending'";
    crate::support::until(&owner, "somebody rescues", rescued).await;
    consumer.shutdown().await.unwrap();
    billing.close().await;
    let refused = broker(&db, "billing").await.producer("billing").publish(&message("mailer", 1)).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Forbidden, "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_messages_of_a_source_wait_for_a_target_than_its_limit_allows() {
    let db = Database::new().await;
    let owner = db.client().await;
    let shop = app(&db, "shop", "'{billing,mailer}', p_max_pending => 10").await;
    let fill = "select integration.publish_many('shop', array_fill('billing'::text, array[7]), \
        array_fill('x'::text, array[7]), array_fill('1'::text, array[7]))";
    assert_eq!(answer(&shop, fill).await, "");
    assert_eq!(answer(&shop, fill).await, "53400");
    for _ in 0..3 {
        assert_eq!(
            answer(&shop, "select integration.publish('shop', 'billing', 'x', '1', p_delay => '1 h')").await,
            ""
        );
    }
    for publish in ["select integration.publish('shop', 'billing', 'x', '1')", INSERTED] {
        assert_eq!(answer(&shop, publish).await, "53400");
    }
    // Of another target and of another source there are other numbers; and ids that others use cost nothing but a count.
    assert_eq!(answer(&shop, &fill.replace("billing", "mailer")).await, "");
    owner.batch_execute(&fill.replace("'shop'", "'owner'")).await.unwrap();
    owner.batch_execute("select integration.claim('billing', 'me', 3, p_lease => '1 h')").await.unwrap();
    assert_eq!(answer(&shop, "select integration.publish('shop', 'billing', 'x', '1')").await, "");
    let waiting = "select count(*) from integration.data_staging where source_app = 'shop' and target_app = 'billing' \
        and status in ('pending', 'scheduled')";
    assert_eq!(count(&owner, waiting).await, 8);
    let refused = broker(&db, "shop").await;
    for n in 0..2 {
        refused.producer("shop").publish(&message("billing", n)).await.unwrap();
    }
    let refused = refused.producer("shop").publish(&message("billing", 2)).await.unwrap_err();
    assert_eq!((refused.sqlstate(), refused.is_transient()), (Some("53400"), true), "{refused:?}");
}

const INSERTED: &str = "insert into integration.data_staging (source_app, target_app, record_type, data) values ('shop', 'billing', 'x', '1')";

#[tokio::test(flavor = "multi_thread")]
async fn the_role_that_inserts_counts_whatever_stands_between_and_so_does_a_role_it_is_in() {
    let db = Database::new().await;
    let owner = db.client().await;
    let shop = app(&db, "shop", "'{billing}'").await;
    let name = db.name();
    // A function of shop's own that anybody may call publishes as shop, and as nobody else.
    owner
        .batch_execute(&format!(
            "create schema shop authorization shop_{name}; grant usage on schema shop to public; set role shop_{name}; \
             create function shop.order(p_source text) returns bigint language sql security definer as \
                 $$ select integration.publish(p_source, 'billing', 'x', '1') $$; reset role; \
             create role web_{name} login; create role member_{name} login; grant shop_{name} to member_{name}"
        ))
        .await
        .unwrap();
    let web = connect(&url(&db, "web")).await;
    assert_eq!(answer(&web, "select shop.order('shop')").await, "");
    assert_eq!(answer(&web, INSERTED).await, "42501");
    assert_eq!(answer(&owner, "select shop.order('crm')").await, "42501");
    let member = connect(&url(&db, "member")).await;
    assert_eq!(answer(&member, INSERTED).await, "");
    assert_eq!(answer(&member, &INSERTED.replace("'shop'", "'crm'")).await, "42501");
    // What autovacuum would evaluate, as a superuser analyzes it: neither publishes nor claims for others.
    app(&db, "thief", "'{billing}', p_consume => true").await;
    for (attempt, expected) in [
        ("perform integration.publish('crm', 'billing', 'x', '1')", "42501"),
        ("perform integration.claim('billing', 'thief', p_lease => '1 h')", "42501"),
    ] {
        owner
            .batch_execute(&format!(
                "create schema if not exists thief authorization thief_{name}; set role thief_{name}; \
                 drop table if exists thief.t; create table thief.t (n integer); \
                 create or replace function thief.f(p integer) returns integer language plpgsql immutable as $$ begin return p; end $$; \
                 create index on thief.t (thief.f(n)); insert into thief.t values (1); \
                 create or replace function thief.f(p integer) returns integer language plpgsql immutable as \
                     $$ begin {attempt}; return p; end $$; reset role"
            ))
            .await
            .unwrap();
        assert_eq!(answer(&owner, "analyze thief.t").await, expected, "{attempt}");
    }
    assert_eq!(answer(&shop, INSERTED).await, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_granted_ends_when_it_is_revoked_and_comes_back_from_the_registry_after_a_restore() {
    let db = Database::new().await;
    let owner = db.client().await;
    let shop = app(&db, "shop", "'{billing}', p_consume => true").await;
    let role = format!("shop_{}", db.name());
    // As a restore without rights leaves it.
    owner
        .batch_execute(&format!(
            "select integration.revoke_from('{role}', 'publish_app'), integration.revoke_from('{role}', 'consume_app')"
        ))
        .await
        .unwrap();
    owner
        .batch_execute(&format!(
            "revoke all on all functions in schema integration from {role}; \
        revoke all on all tables in schema integration from {role}"
        ))
        .await
        .unwrap();
    assert_eq!(answer(&shop, INSERTED).await, "42501");
    let wrong = "select count(*) from integration.rights() where wrong is not null";
    assert_eq!(count(&owner, wrong).await, 1);
    owner.batch_execute("select integration.renew_rights()").await.unwrap();
    assert_eq!(count(&owner, wrong).await, 0);
    assert_eq!(answer(&shop, INSERTED).await, "");
    assert_eq!(answer(&shop, "select integration.claim('shop', 'me', p_lease => '1 s')").await, "");
    // Less than before, and then nothing.
    owner.batch_execute(&format!("select integration.grant_app('shop', '{role}', '{{billing}}')")).await.unwrap();
    assert_eq!(answer(&shop, "select integration.claim('shop', 'me', p_lease => '1 s')").await, "42501");
    assert_eq!(answer(&shop, INSERTED).await, "");
    owner.batch_execute(&format!("select integration.revoke_app('shop', '{role}')")).await.unwrap();
    assert_eq!(answer(&shop, INSERTED).await, "42501");
    assert_eq!(answer(&shop, "select integration.clock()").await, "42501");
    let rights = format!(
        "select count(*) from pg_proc p cross join lateral aclexplode(p.proacl) a where p.pronamespace = 'integration'::regnamespace \
         and a.grantee = '{role}'::regrole"
    );
    assert_eq!(count(&owner, &rights).await, 0);
    owner.batch_execute(&format!("drop role {role}")).await.unwrap();
    let history =
        "select count(*) from integration.audit_log where action in ('granted', 'revoked') and target_app = 'shop'";
    assert_eq!(count(&owner, history).await, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grant_that_means_nothing_is_refused() {
    let db = Database::new().await;
    let owner = db.client().await;
    let name = format!("any_{}", db.name());
    let made = format!("create role {name}; select integration.grant_to('{name}', 'publish')");
    owner.batch_execute(&made).await.unwrap();
    for (arguments, expected) in [
        (format!("'shop', '{name}', '{{billing}}'"), "MQ002"),
        ("'shop', 'postgres', '{billing}'".to_owned(), "MQ002"),
        (format!("'shop', '{name}'"), "MQ002"),
        (format!("'', '{name}', p_consume => true"), "MQ002"),
        (format!("'shop', '{name}', '{{\"\"}}'"), "MQ002"),
        (format!("'shop', '{name}', p_consume => true, p_max_pending => 3"), "MQ002"),
        (format!("'shop', '{name}', '{{*}}', p_max_pending => 3"), "MQ002"),
        ("'shop', 'nobody_at_all', '{billing}'".to_owned(), "42704"),
        (format!("'shop', '{name}', p_consume => true"), ""),
    ] {
        let answer = answer(&owner, &format!("select integration.grant_app({arguments})")).await;
        assert_eq!(answer, expected, "{arguments}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn with_row_security_an_application_consumes_in_sql_of_its_own_and_sees_nothing_else() {
    let db = Database::new().await;
    let owner = db.client().await;
    let shop = app(&db, "shop", "'{billing}'").await;
    let billing = app(&db, "billing", "p_consume => true").await;
    let all = format!("create role all_{0} login; select integration.grant_to('all_{0}', 'publish')", db.name());
    owner.batch_execute(&all).await.unwrap();
    owner
        .batch_execute("select integration.publish('owner', t, 'x', '1') from unnest('{billing,mailer}'::text[]) t")
        .await
        .unwrap();
    let see = "select target_app, data from integration.data_staging";
    assert_eq!(answer(&billing, see).await, "42501");
    owner.batch_execute("select integration.set_row_security(true)").await.unwrap();
    assert_eq!(count(&billing, "select count(data) from integration.data_staging").await, 1);
    // The seed's consumer.
    let take = "update integration.data_staging set status = 'processing', updated_at = now() where id in (\
            select id from integration.data_staging where status = 'pending' for update skip locked) returning id";
    assert_eq!(billing.query(take, &[]).await.unwrap().len(), 1);
    let settle =
        "update integration.data_staging set status = 'completed', processed_at = now() where status = 'processing'";
    assert_eq!(billing.execute(settle, &[]).await.unwrap(), 1);
    assert_eq!(answer(&billing, "update integration.data_staging set target_app = 'billing'").await, "42501");
    assert_eq!(answer(&billing, "update integration.data_staging set data = '2'").await, "42501");
    assert_eq!(answer(&billing, "delete from integration.data_staging").await, "42501");
    // Publishers go on, in bulk as well; COPY is the price.
    assert_eq!(answer(&shop, &format!("{INSERTED} returning id")).await, "");
    assert_eq!(answer(&shop, &INSERTED.replace("'shop'", "'crm'")).await, "42501");
    assert_eq!(answer(&shop, "select data from integration.data_staging").await, "42501");
    let broker = broker(&db, "all").await;
    let messages: Vec<Message> = (0..100).map(|n| message("billing", n)).collect();
    assert_eq!(broker.producer("all").publish_many(&messages).await.unwrap().len(), 100);
    // Who comes later gets the same; and when it is off nothing is left of it.
    let mailer = app(&db, "mailer", "p_consume => true").await;
    assert_eq!(count(&mailer, "select count(data) from integration.data_staging").await, 1);
    owner.batch_execute("select integration.set_row_security(false)").await.unwrap();
    for client in [&mailer, &billing, &shop] {
        assert_eq!(answer(client, see).await, "42501");
    }
    assert_eq!(
        count(&owner, "select count(*) from pg_policy where polrelid = 'integration.data_staging'::regclass").await,
        0
    );
}
