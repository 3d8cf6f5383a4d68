//! Who may do what, and who holds locks that he need not.

use doorbell::{Broker, Settings, doctor::Level, operate::Verb};

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

/// On whatever is in the schema, and in whatever way.
#[tokio::test(flavor = "multi_thread")]
async fn every_right_that_no_verb_gives_is_named_and_the_fix_takes_it_back() {
    let db = Database::new().await;
    let client = db.client().await;
    let role = format!("stray_{}", db.name());
    let verbs = Verb::ALL.map(|verb| format!("select integration.grant_to('{role}', '{}')", verb.as_str()));
    client.batch_execute(&format!("create role {role} login; {}", verbs.join("; "))).await.unwrap();
    assert_eq!(ills(&examined(&db).await, "rights").len(), 1, "what verbs give is no stray");
    client
        .batch_execute(
            "create function integration.mine() returns integer language sql return 1; \
            create table integration.extra (n integer, \"N n\" integer); \
            revoke execute on function integration.mine() from public",
        )
        .await
        .unwrap();
    let strays = [
        "execute on function integration.mine()",
        "execute on function integration.complete_out(text,bigint[],integer[],timestamp with time zone[],boolean,timestamp with time zone)",
        "references on table integration.extra",
        "update (\"N n\") on table integration.extra",
        "insert (attempt) on table integration.data_staging",
        "update (reason) on table integration.set_aside",
        "insert on table integration.audit_log",
        "delete on table integration.data_staging",
        "update on table integration.gate_fold",
        "update on sequence integration.data_staging_id_seq",
        "create on schema integration",
    ];
    for stray in strays {
        client.batch_execute(&format!("grant {stray} to {role}")).await.unwrap();
    }
    client.batch_execute(&format!("grant select on integration.targets to {role} with grant option")).await.unwrap();
    let report = examined(&db).await;
    let found = finding(&report, "rights", &format!("{role} has rights that belong to no verb"));
    for stray in strays.into_iter().chain(["grant option for select on table integration.targets"]) {
        let revoke = format!("revoke {stray} from \"{role}\"");
        assert!(found.fix.as_deref().unwrap().split("; ").any(|fix| fix == revoke), "{stray}: {found:#?}");
    }
    assert_eq!(found.fix.as_deref().unwrap().split("; ").count(), strays.len() + 1, "{found:#?}");
    heal(&client, found).await;
    let report = examined(&db).await;
    let superuser = finding(&report, "rights", "a superuser");
    assert!(!ills(&report, "rights").iter().any(|ill| ill.what.contains("no verb")), "{report:#?}");
    // Who has a right on nothing but the schema is told that not everything was looked at.
    let blind = format!("blind_{}", db.name());
    client
        .batch_execute(&format!(
            "create role {blind} login; grant usage on schema integration to {blind}; \
            grant select on integration.migrations, integration.fingerprints to {blind}"
        ))
        .await
        .unwrap();
    let settings = Settings::parse(&db.url.replace("user=postgres", &format!("user={blind}"))).unwrap();
    let its = Broker::with_config(settings, Default::default()).await.unwrap();
    let its = its.operator().doctor(&patient()).await.unwrap();
    assert_eq!(finding(&its, "rights", "was not looked at").level, Level::Note);
    // And the superuser's schema is handed over as it says.
    let owner = format!("owner_{}", db.name());
    client.batch_execute(&format!("create role {owner}")).await.unwrap();
    assert!(superuser.fix.as_deref().unwrap().contains("integration.hand_over(role)"), "{superuser:?}");
    let fix = format!("grant {owner} to current_user; select integration.hand_over('{owner}')");
    client.batch_execute(&fix).await.unwrap();
    let report = examined(&db).await;
    assert!(ills(&report, "rights").iter().all(|ill| !ill.what.contains("a superuser")), "{report:#?}");
}

/// The program, the page about deploying, the doctor and the database speak of the same verbs.
#[tokio::test(flavor = "multi_thread")]
async fn whoever_has_part_of_a_verb_is_told_which_and_with_all_of_it_may_do_it() {
    let db = Database::new().await;
    let client = db.client().await;
    let page = crate::support::repository("docs/deploy.md");
    for verb in Verb::ALL {
        let name = verb.as_str();
        assert!(page.contains(&format!("', '{name}');")), "the page grants {name}");
        let role = format!("{name}_{}", db.name());
        client
            .batch_execute(&format!("create role {role} login; select integration.grant_to('{role}', '{name}')"))
            .await
            .unwrap();
        let listed =
            format!("select count(*) from integration.granted() where role_name = '{role}' and verb = '{name}'");
        assert_eq!(count(&client, &listed).await, 1);
        let its = db.url.replace("user=postgres", &format!("user={role}"));
        let its = Broker::connect(&its).await.unwrap();
        let report = its.operator().doctor(&patient()).await.unwrap();
        assert_eq!(finding(&report, "privileges", name).level, Level::Ok, "{report:#?}");
        let least = format!("revoke execute on function integration.oldest_xid() from {role}");
        client.batch_execute(&least).await.unwrap();
        let report = its.operator().doctor(&patient()).await.unwrap();
        heal(&client, finding(&report, "privileges", &format!("some of the rights to {name}"))).await;
    }
    let refused = client.batch_execute("select integration.grant_to('postgres', 'fly')").await.unwrap_err();
    let hint = refused.as_db_error().unwrap().hint().unwrap().to_owned();
    let unknown = "fly".parse::<Verb>().unwrap_err().to_string();
    for verb in Verb::ALL {
        assert!(hint.contains(verb.as_str()) && unknown.contains(verb.as_str()), "{hint}, {unknown}");
    }
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
