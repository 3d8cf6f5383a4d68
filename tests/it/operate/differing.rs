//! Where others' databases differ: what is hidden, revoked, behind or upgraded is said, and never taken for "nothing there".

use doorbell::{
    Broker,
    doctor::{Finding, Level, Options, Report},
};

use crate::support::{Database, connect, count, message, plain_insert};

#[tokio::test(flavor = "multi_thread")]
async fn a_role_from_which_policies_hide_messages_is_told_so_and_not_that_there_are_none() {
    let db = Database::new().await;
    let client = db.client().await;
    plain_insert(&client, "billing", "1").await;
    plain_insert(&client, "shipping", "1").await;
    let role = format!("watcher_{}", db.name());
    let sql = format!(
        "create role {role} login; select integration.grant_to('{role}', 'look'); \
         alter table integration.data_staging enable row level security; \
         create policy own on integration.data_staging for select to {role} using (target_app = 'billing')"
    );
    client.batch_execute(&sql).await.unwrap();
    let watcher = connect(&db.url.replace("user=postgres", &format!("user={role}"))).await;
    let code = async |id: i64| -> String {
        watcher.query_one("select code from integration.explain($1) limit 1", &[&id]).await.unwrap().get(0)
    };
    assert_eq!((code(1).await, code(2).await), ("no_consumer".to_owned(), "not_visible".to_owned()));
    // Who sees everything knows.
    assert_eq!(count(&client, "select count(*) from integration.explain(99) where code = 'not_found'").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sequence_behind_the_table_is_named_by_the_error_and_by_the_doctor_and_its_fix_heals() {
    let db = Database::new().await;
    let (client, broker) = (db.client().await, db.broker().await);
    // Rows copied with their ids, by who may.
    let copied = "insert into integration.data_staging (id, source_app, target_app, record_type, data) overriding system value \
        select n, 'old', 'billing', 'n', '1' from generate_series(1, 7) n";
    client.batch_execute("select setval('integration.data_staging_id_seq', 7)").await.unwrap();
    client.batch_execute(copied).await.unwrap();
    client.batch_execute("select setval('integration.data_staging_id_seq', 1, false)").await.unwrap();
    let error = broker.producer("shop").publish(&message("billing", 1)).await.unwrap_err();
    assert!(error.to_string().contains("the sequence of ids is behind the table"), "{error}");
    let report = broker.operator().doctor(&Options::default()).await.unwrap();
    for (check, about) in [("sequence", "behind the table"), ("trial", "cannot publish")] {
        let found = found(&report, check);
        assert!(found.level == Level::Problem && found.what.contains(about), "{report:#?}");
        client.batch_execute(found.fix.as_deref().unwrap()).await.unwrap();
    }
    let report = broker.operator().doctor(&Options::default()).await.unwrap();
    assert_eq!((found(&report, "sequence").level, found(&report, "trial").level), (Level::Ok, Level::Ok));
    broker.producer("shop").publish(&message("billing", 1)).await.unwrap();
    broker.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn counters_that_were_left_behind_by_a_copy_are_named_by_the_doctor_and_its_fix_heals() {
    let db = Database::new().await;
    let (client, broker) = (db.client().await, db.broker().await);
    plain_insert(&client, "billing", "1").await;
    // What the other side of logical replication gets: rows, and no triggers.
    client
        .batch_execute(
            "set session_replication_role = replica; \
             insert into integration.data_staging (source_app, target_app, record_type, data) \
                 select 'old', 'mailer', 'n', '1' from generate_series(1, 7); \
             update integration.data_staging set status = 'completed', processed_at = now() where target_app = 'billing'; \
             reset session_replication_role",
        )
        .await
        .unwrap();
    let report = broker.operator().doctor(&Options::default()).await.unwrap();
    let wrong = found(&report, "counters");
    assert_eq!((wrong.level, &*wrong.what), (Level::Problem, "3 counters do not say what is in the table"));
    let evidence = wrong.evidence.as_deref().unwrap();
    assert!(evidence.contains("mailer pending: counted 0, there are 7"), "{evidence}");
    client.batch_execute(wrong.fix.as_deref().unwrap()).await.unwrap();
    let report = broker.operator().doctor(&Options::default()).await.unwrap();
    assert_eq!(found(&report, "counters").level, Level::Ok);
    broker.close().await;
}

/// The first finding of a check.
#[track_caller]
fn found<'a>(report: &'a Report, check: &str) -> &'a Finding {
    let found = report.findings.iter().find(|finding| finding.check == check);
    found.unwrap_or_else(|| panic!("{check} found nothing: {report:#?}"))
}

async fn as_role(db: &Database, role: &str) -> Report {
    let broker = Broker::connect(&db.url.replace("user=postgres", &format!("user={role}"))).await.unwrap();
    let report = broker.operator().doctor(&Options::default()).await.unwrap();
    broker.close().await;
    report
}

#[tokio::test(flavor = "multi_thread")]
async fn the_doctor_tries_what_the_asking_role_is_meant_to_do_and_leaves_nothing_behind() {
    let db = Database::new().await;
    let client = db.client().await;
    let name = db.name();
    let roles = format!(
        "create role p_{name} login; select integration.grant_to('p_{name}', 'publish'); \
         create role c_{name} login; select integration.grant_to('c_{name}', 'consume'); \
         create role h_{name} login; grant usage on schema integration to h_{name}; \
         grant insert on integration.data_staging to h_{name}; \
         grant select on integration.migrations, integration.fingerprints to h_{name}"
    );
    client.batch_execute(&roles).await.unwrap();
    assert_eq!(found(&as_role(&db, &format!("p_{name}")).await, "trial").what, "a publish was tried and taken back");
    assert_eq!(found(&as_role(&db, &format!("c_{name}")).await, "trial").what, "a claim was tried and taken back");
    // Half of the rights: README's publisher before functions were asked for.
    let report = as_role(&db, &format!("h_{name}")).await;
    let refused = found(&report, "trial");
    assert!(
        refused.level == Level::Problem && refused.what.contains("cannot publish: permission denied"),
        "{refused:?}"
    );
    assert!(found(&report, "privileges").level == Level::Problem, "{report:#?}");
    // A trigger of the user's that leaves rows out.
    let filter = "create function drop_all() returns trigger language plpgsql as 'begin return null; end'; \
        create trigger drop_all before insert on integration.data_staging for each row execute function drop_all()";
    client.batch_execute(filter).await.unwrap();
    let broker = db.broker().await;
    let report = broker.operator().doctor(&Options::default()).await.unwrap();
    assert_eq!(found(&report, "trial").what, "what this role published is not there to be claimed");
    broker.close().await;
    assert_eq!(count(&client, "select count(*) from integration.data_staging").await, 0);
    assert_eq!(count(&client, "select count(*) from integration.stats").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_doctor_says_from_whom_policies_hide_messages() {
    let db = Database::new().await;
    let client = db.client().await;
    let role = format!("watcher_{}", db.name());
    let sql = format!(
        "create role {role} login; select integration.grant_to('{role}', 'look'); \
         alter table integration.data_staging enable row level security"
    );
    client.batch_execute(&sql).await.unwrap();
    let policies = found(&as_role(&db, &role).await, "policies").clone();
    assert!(policies.level == Level::Warning && policies.what.contains(&role), "{policies:?}");
    assert_eq!(found(&as_role(&db, "postgres").await, "policies").level, Level::Note);
    client.batch_execute("alter table integration.data_staging force row level security").await.unwrap();
    let report = as_role(&db, "postgres").await;
    assert_eq!(found(&report, "policies").level, Level::Problem);
    client.batch_execute(found(&report, "policies").fix.as_deref().unwrap()).await.unwrap();
    assert_eq!(found(&as_role(&db, "postgres").await, "policies").level, Level::Note);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_encoding_is_refused_and_a_changed_order_of_text_is_said() {
    let db = Database::empty().await;
    let admin = db.client().await;
    let name = db.name();
    let latin =
        format!("create database {name}_latin encoding 'LATIN1' lc_collate 'C' lc_ctype 'C' template template0");
    admin.batch_execute(&latin).await.unwrap();
    let broker = Broker::connect(&db.url.replace(name, &format!("{name}_latin"))).await.unwrap();
    let refused = broker.migrate().await.unwrap_err();
    assert!(refused.to_string().contains("is encoded in LATIN1, and Doorbell needs UTF8"), "{refused}");
    let report = broker.operator().doctor(&Options::default()).await.unwrap();
    let said = |report: &Report, what: &str| report.findings.iter().any(|finding| finding.what.contains(what));
    assert!(said(&report, "encoded in LATIN1"), "{report:#?}");
    broker.close().await;
    let icu = format!(
        "create database {name}_icu locale_provider icu icu_locale 'en' locale 'C' encoding 'UTF8' template template0"
    );
    admin.batch_execute(&icu).await.unwrap();
    let other = db.url.replace(name, &format!("{name}_icu"));
    let broker = Broker::connect(&other).await.unwrap();
    broker.migrate().await.unwrap();
    let ordered = "the order of text has changed since the database was made";
    assert!(!said(&broker.operator().doctor(&Options::default()).await.unwrap(), ordered));
    let upgraded = format!("update pg_database set datcollversion = '1' where datname = '{name}_icu'");
    admin.batch_execute(&upgraded).await.unwrap();
    let report = broker.operator().doctor(&Options::default()).await.unwrap();
    assert!(said(&report, ordered), "{report:#?}");
    broker.close().await;
    // Nothing of ours that an index orders is in the order of a language.
    let languages = "select count(*) from pg_index i join pg_class c on c.oid = i.indrelid \
        cross join unnest(i.indcollation) o (oid) \
        where c.relnamespace = 'integration'::regnamespace and o.oid <> 0 and o.oid <> '\"C\"'::regcollation \
          and c.relname not in ('migrations', 'code', 'fingerprints')";
    assert_eq!(count(&connect(&other).await, languages).await, 0);
}

/// A package manager that upgraded the server under it: what is loaded goes on, and new sessions cannot load it.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_whose_files_were_replaced_while_it_runs_is_to_be_restarted() {
    let db = Database::new().await;
    let (client, broker) = (db.client().await, db.broker().await);
    let library = std::env::temp_dir().join(format!("doorbell-{}-{}.so", std::process::id(), db.name()));
    std::fs::write(&library, "no library at all").unwrap();
    {
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(&library, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    let replace = format!(
        "update pg_proc set probin = '{}' where proname in ('plpgsql_call_handler', 'plpgsql_inline_handler')",
        library.display()
    );
    client.batch_execute(&replace).await.unwrap();
    let report = broker.operator().doctor(&Options::default()).await.unwrap();
    std::fs::remove_file(&library).unwrap();
    let replaced = report.findings.iter().find(|finding| finding.what.contains("its files were replaced"));
    let replaced = replaced.unwrap_or_else(|| panic!("{report:#?}"));
    assert!(replaced.level == Level::Problem && replaced.fix.as_deref().unwrap().contains("restart"), "{replaced:?}");
    broker.close().await;
}
