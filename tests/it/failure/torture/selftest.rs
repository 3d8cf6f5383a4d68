//! The checker is checked: it finds nothing in a lawful history, and what is wrong with each unlawful one.

use tokio_postgres::Client;

use super::{checker, routes};
use crate::support::Database;

/// One message of each fate, by the functions that consumers use. The owners are processes 11 and 22.
const LAWFUL: &str = r#"
    select integration.set_audit_level('all');
    create sequence pg_temp.at;
    create function pg_temp.publish(p_target text, p_op text, p_intent text, p_key text default null, p_place integer default null)
        returns void language sql as $$
        insert into chk.op select p_op, p_target, p_intent, md5('body'), 'ack', integration.publish('shop', p_target, 'op',
            jsonb_build_object('op', p_op, 'intent', p_intent, 'body', 'body'), p_max_retries => 2, p_ordering_key => p_key),
            false, p_key, p_place $$;
    -- Claims and runs one message; with an effect where that is completed in a transaction.
    create function pg_temp.run(p_target text, p_process text, p_outcome text) returns void language plpgsql as $$
    declare c record; v_owner text := 'host-' || p_process || '-f00';
    begin
        for c in select * from integration.claim(p_target, v_owner, 1, p_lease => '1 h') loop
            insert into chk.run values (c.id, c.attempt, c.data->>'op', 'Bell', p_process, nextval('pg_temp.at'), nextval('pg_temp.at'));
            if p_outcome = 'complete' then
                insert into chk.effect (op, staging_id, attempt, consumer)
                select c.data->>'op', c.id, c.attempt, p_process where p_target = 'tx';
                perform integration.complete(c.id, c.attempt, v_owner);
            elsif p_outcome = 'lose' then
                update integration.data_staging set lease_until = lease_until - interval '2 h' where id = c.id;
                perform integration.rescue();
                update integration.data_staging set crash_count = 0 where id = c.id;
            else
                perform integration.settle_one(c.id, c.attempt, v_owner, p_outcome, 'why', '0 s');
                perform integration.promote(array[p_target]);
            end if;
        end loop;
    end $$;
    do $$ begin
        perform pg_temp.publish('tx', 'done', 'done'), pg_temp.run('tx', '11', 'complete');
        perform pg_temp.publish('plain', 'plain', 'done'), pg_temp.run('plain', '22', 'complete');
        perform pg_temp.publish('tx', 'retried', 'retry'), pg_temp.run('tx', '11', 'retry'), pg_temp.run('tx', '22', 'complete');
        perform pg_temp.publish('tx', 'lost', 'done'), pg_temp.run('tx', '11', 'lose'), pg_temp.run('tx', '22', 'complete');
        perform pg_temp.publish('tx', 'rejected', 'reject'), pg_temp.run('tx', '11', 'reject');
        perform pg_temp.publish('tx', 'first', 'done', 'key', 1), pg_temp.publish('tx', 'second', 'done', 'key', 2);
        perform pg_temp.run('tx', '11', 'complete'), pg_temp.run('tx', '22', 'complete');
        perform pg_temp.publish('tx', 'again', 'done'), pg_temp.run('tx', '11', 'complete');
    end $$;
    select integration.redrive_many(array(select id from integration.data_staging where data->>'op' = 'again'));
    select pg_temp.run('tx', '22', 'complete');
    select pg_temp.publish('plain', 'cancelled', 'done');
    set application_name = 'operator';
    select integration.cancel(array(select id from integration.data_staging where data->>'op' = 'cancelled'));
    insert into chk.op values ('never', 'tx', 'done', md5('body'), 'unknown', null), ('refused', 'tx', 'done', md5('body'), 'refused', null);
    insert into chk.op values ('forgotten', 'tx', 'done', md5('body'), 'ack', 1, true);
    insert into chk.killed values ('11');
    select integration.fire_due();
    insert into chk.stock values (1, 1), (2, 2), (3, 3);
    update chk.stock set n = 4 where id = 1;
    update chk.stock set id = 5 where id = 2;
    delete from chk.stock where id = 3;
    insert into chk.answered values ('q', 'q');
"#;

/// What is done to that history, and the rule that must say so.
const UNLAWFUL: [(&str, &str); 45] = [
    ("S1 lost", "delete from integration.data_staging where data->>'op' = 'done'"),
    ("S1 lost", "update chk.op set outcome = 'ack' where op = 'never'"),
    ("S1 lost", "update chk.op set forgettable = false where op = 'forgotten'"),
    (
        "S2 doubled",
        "insert into integration.data_staging (source_app, target_app, record_type, data) select 'shop', 'tx', 'op', data from integration.data_staging where data->>'op' = 'done'",
    ),
    (
        "S2 id reused",
        "insert into integration.data_staging_archive select * from integration.data_staging where data->>'op' = 'done'",
    ),
    ("S2 wrong id", "update chk.op set message_id = 0 where op = 'done'"),
    ("S3 phantom", "delete from chk.op where op = 'done'"),
    ("S3 phantom", "update chk.op set outcome = 'refused' where op = 'done'"),
    (
        "S4 altered",
        "update integration.data_staging set data = data || '{\"body\": \"other\"}' where data->>'op' = 'done'",
    ),
    (
        "S5 effects",
        "insert into chk.effect (op, staging_id, attempt, consumer) select op, staging_id, attempt, consumer from chk.effect where op = 'done'",
    ),
    ("S5 effects", "delete from chk.effect where op = 'lost'"),
    (
        "S5 effect without message",
        "insert into chk.effect (op, staging_id, attempt, consumer) values ('x', 0, 1, '11')",
    ),
    ("S5 completed unhandled", "delete from chk.run where op = 'plain'"),
    ("S5 completed unhandled", "update chk.run set op = 'of another message with that id' where op = 'plain'"),
    ("S6 foreign effect", "update chk.effect set consumer = '11' where op = 'lost'"),
    ("S6 foreign effect", "update chk.effect set attempt = attempt - 1 where op = 'lost'"),
    (
        "S7 attempt reused",
        "insert into integration.audit_log (staging_id, app_name, action, attempt) select staging_id, app_name, action, attempt from integration.audit_log where action = 'claimed'",
    ),
    (
        "S7 attempt reused",
        "insert into chk.run select staging_id, attempt, op, found, '33', 1000, 1001 from chk.run where op = 'plain'",
    ),
    ("S7 attempt went down", "update integration.audit_log set attempt = 9 where action = 'published'"),
    (
        "S8 undone",
        "insert into integration.audit_log (staging_id, app_name, action, attempt, old_status, new_status) select staging_id, app_name, 'errored', attempt, 'completed', 'scheduled' from integration.audit_log where action = 'completed'",
    ),
    ("S11 retries", "update integration.data_staging set retry_count = 4 where data->>'op' = 'rejected'"),
    (
        "S11 failed although it can succeed",
        "update integration.data_staging set status = 'failed' where data->>'op' = 'plain'",
    ),
    (
        "S11 completed although it cannot",
        "update integration.data_staging set status = 'completed' where data->>'op' = 'rejected'",
    ),
    ("S11 cancelled by nobody", "update integration.audit_log set app_name = 'somebody' where action = 'cancelled'"),
    ("S12 audit incomplete", "delete from integration.audit_log where action = 'published'"),
    ("S12 gap", "delete from integration.audit_log where action = 'claimed'"),
    (
        "S12 audit disagrees",
        "update integration.data_staging set status = 'pending', processed_at = null where data->>'op' = 'done'",
    ),
    ("S12 message vanished", "delete from integration.data_staging where data->>'op' = 'cancelled'"),
    ("S13 conservation", "insert into chk.op values ('more', 'tx', 'done', '', 'ack', null)"),
    ("S15 rescued from the living", "delete from chk.killed"),
    ("S14 state rule", "update integration.data_staging set processed_at = null where data->>'op' = 'done'"),
    ("K1 out of order", "update chk.run set at = at + 10, ended = ended + 10 where op = 'first'"),
    (
        "K2 side by side",
        "update chk.run set ended = 1 + (select at from chk.run where op = 'second') where op = 'first'",
    ),
    ("K3 effects out of order", "update chk.op set place = 3 where op = 'first'"),
    (
        "L1 stuck",
        "update integration.data_staging set status = 'processing', owner = 'dead' where data->>'op' = 'done'",
    ),
    ("R1 copies", "delete from integration.data_staging where target_app = 'tapped' and data->>'op' = 'plain'"),
    ("R1 copy of nothing", "update integration.data_staging set origin_id = 0 where target_app = 'tapped'"),
    (
        "R2 ticks",
        "insert into integration.data_staging (source_app, target_app, record_type, data, headers) select source_app, target_app, record_type, data, headers from integration.data_staging where target_app = 'ticks'",
    ),
    (
        "R2 ticks",
        "insert into integration.data_staging (source_app, target_app, record_type, data, headers) select source_app, target_app, record_type, data, jsonb_build_object('tick', (headers ->> 'tick')::timestamptz + interval '2 s') from integration.data_staging where target_app = 'ticks'",
    ),
    ("R3 images", "insert into chk.stock values (9, 9)"),
    (
        "R3 images",
        "delete from integration.data_staging where target_app = 'images' and ordering_key like '%:3' and data ->> 'op' = 'delete'",
    ),
    (
        "R4 reply",
        "insert into integration.data_staging (source_app, target_app, record_type, data, status, processed_at) values ('a', 'asked', 'ask', '{\"op\": \"q\"}', 'completed', now())",
    ),
    ("R4 told", "update chk.answered set reply = 'another'"),
    ("L2 dead consumer", "select integration.register('dead', 'host', 1, 'app', 'v', '{}', 0)"),
    ("L2 advisory lock", "select pg_advisory_lock(1)"),
];

async fn rules(client: &Client) -> Vec<String> {
    checker::violations(client).await.into_iter().map(|(rule, _, _)| rule).collect()
}

#[tokio::test]
async fn the_checker_finds_nothing_in_a_lawful_history_and_the_fault_in_every_other() {
    let db = Database::new().await;
    let client = db.client().await;
    client.batch_execute(checker::SCHEMA).await.unwrap();
    client.batch_execute(routes::SCHEMA).await.unwrap();
    client.batch_execute(LAWFUL).await.unwrap();
    assert_eq!(checker::violations(&client).await, []);
    for (rule, fault) in UNLAWFUL {
        // Without triggers, which would refuse or record it.
        client.batch_execute("begin; set local session_replication_role = replica").await.unwrap();
        client.batch_execute(fault).await.unwrap_or_else(|error| panic!("{fault}: {error:?}"));
        let found = rules(&client).await;
        assert!(found.iter().any(|found| found == rule), "{rule} was not found but {found:?} after: {fault}");
        client.batch_execute("rollback; select pg_advisory_unlock_all()").await.unwrap();
        assert_eq!(rules(&client).await, Vec::<String>::new(), "rolled back");
    }
    let forgotten = db.client().await;
    forgotten.batch_execute("begin; select 1").await.unwrap();
    assert_eq!(rules(&client).await, ["L2 session"]);
}
