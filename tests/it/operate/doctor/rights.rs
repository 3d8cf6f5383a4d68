//! Who may do what, and who holds locks that he need not.

use doorbell::{Broker, Settings, doctor::Level};

use super::{examined, finding, heal, ills, patient};
use crate::support::{Database, connect, count, echo, message, until_status};

#[tokio::test(flavor = "multi_thread")]
async fn the_rights_of_a_role_are_judged_by_what_it_is_for() {
    let db = Database::new().await;
    let client = db.client().await;
    let role = format!("patient_{}", db.name());
    let broker = |role: &str| Settings::parse(&db.url.replace("user=postgres", &format!("user={role}"))).unwrap();
    client.batch_execute(&format!("create role {role} login")).await.unwrap();
    let ask = async || {
        let broker = Broker::with_config(broker(&role), Default::default()).await.unwrap();
        broker.operator().doctor(&patient()).await.unwrap()
    };
    assert_eq!(finding(&ask().await, "schema", "permission denied").level, Level::Problem);
    client
        .batch_execute(&format!(
            "grant usage on schema integration to {role}; grant select on integration.migrations, integration.fingerprints to {role}"
        ))
        .await
        .unwrap();
    assert_eq!(finding(&ask().await, "privileges", "neither publish nor consume").level, Level::Problem);
    client.batch_execute(&format!("grant insert on integration.data_staging to {role}")).await.unwrap();
    let report = ask().await;
    let half = finding(&report, "privileges", "some of the rights to publish");
    assert_eq!(half.level, Level::Problem);
    heal(&client, half).await;
    let report = ask().await;
    assert_eq!(finding(&report, "privileges", "may publish").level, Level::Ok);
    assert_eq!(finding(&report, "bell", "was not tried").level, Level::Note, "{report:#?}");
    client.batch_execute(&format!("grant update on integration.data_staging to {role}")).await.unwrap();
    let report = ask().await;
    heal(&client, finding(&report, "privileges", "some of the rights to consume")).await;
    let report = ask().await;
    assert!(finding(&report, "privileges", "may publish, consume").what.contains(&role));
    // The list of rights is complete: nothing else is needed to do it.
    let worker = Broker::with_config(broker(&role), Default::default()).await.unwrap();
    let settings = "insert into integration.targets (target_app, on_complete) values ('elsewhere', 'archive')";
    client.batch_execute(settings).await.unwrap();
    let (consumer, mut told) = echo(&worker, "billing").await;
    let id = worker.producer("shop").publish(&message("billing", 1)).await.unwrap();
    assert_eq!(told.next().await.id, id);
    consumer.shutdown().await.unwrap();
    until_status(&client, id, "completed").await;
    worker.close().await;
    assert_eq!(count(&client, "select count(*) from integration.processes").await, 0);
    // Who may not take a probe back rings without it, and says so.
    assert_eq!(finding(&report, "bell", "integration.ring()").level, Level::Ok, "{report:#?}");
    assert_eq!(finding(&report, "bell", "was not tried").level, Level::Note);
}

#[tokio::test(flavor = "multi_thread")]
async fn rights_that_belong_to_no_verb_and_grants_that_are_not_so_are_named_and_the_fixes_heal() {
    let db = Database::new().await;
    let client = db.client().await;
    let role = format!("stray_{}", db.name());
    let made = format!(
        "create role {role} login; select integration.grant_app('shop', '{role}', '{{billing}}', p_consume => true); \
         grant trigger, delete on integration.data_staging to {role}; grant create on schema integration to {role}; \
         grant execute on function integration.pause(text, text, interval) to public; grant select on integration.grants to public; \
         insert into integration.grants (role_name, app, consume) values ('gone_{role}', 'crm', true)"
    );
    client.batch_execute(&made).await.unwrap();
    let report = examined(&db).await;
    let stray = finding(&report, "rights", &format!("{role} has rights that belong to no verb"));
    let everybody = finding(&report, "rights", "everybody has rights");
    let gone = finding(&report, "rights", "may do for crm is not so");
    assert_eq!([stray, everybody, gone].map(|finding| finding.level), [Level::Warning; 3]);
    assert!(gone.evidence.as_deref().unwrap().contains("no such role"), "{gone:?}");
    for ill in [stray, everybody] {
        heal(&client, ill).await;
    }
    client.batch_execute(&format!("select integration.revoke_app('crm', 'gone_{role}')")).await.unwrap();
    // Asked as the role itself.
    let settings = Settings::parse(&db.url.replace("user=postgres", &format!("user={role}"))).unwrap();
    let its = Broker::with_config(settings, Default::default()).await.unwrap();
    let its = its.operator().doctor(&patient()).await.unwrap();
    let may = finding(&its, "privileges", "may publish as shop to billing, consume for shop");
    assert_eq!(may.level, Level::Ok);
    let report = examined(&db).await;
    assert_eq!(ills(&report, "rights"), [finding(&report, "rights", "a superuser")]);
    assert_eq!(finding(&report, "rights", "1 roles are listed, for 1 applications").level, Level::Ok);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_holds_locks_of_ours_is_named_by_role() {
    let db = Database::new().await;
    let client = db.client().await;
    let role = format!("squatter_{}", db.name());
    client.batch_execute(&format!("create role {role} login")).await.unwrap();
    let squatter = connect(&db.url.replace("user=postgres", &format!("user={role}"))).await;
    let class = count(&client, "select integration.lock_class()::bigint").await;
    squatter.batch_execute(&format!("select pg_advisory_lock({}, 7)", class + 2)).await.unwrap();
    client.batch_execute("begin; lock table integration.data_staging in share mode").await.unwrap();
    let report = examined(&db).await;
    assert_eq!(finding(&report, "locks", &format!("role {role} holds advisory locks")).level, Level::Warning);
    assert_eq!(finding(&report, "locks", "keeps publishers or consumers out").level, Level::Problem);
    client.batch_execute("commit").await.unwrap();
    squatter.batch_execute("select pg_advisory_unlock_all()").await.unwrap();
    assert!(ills(&examined(&db).await, "locks").is_empty());
}
