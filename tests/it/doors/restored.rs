//! Rights after a dump and a restore, as PostgreSQL's own programs do it.

use std::process::Command;

use doorbell::doctor::Level;
use doorbell_server::{EphemeralOptions, Installation, Server};

use super::{answer, apps::app};
use crate::support::{Database, connect};

/// Who may what, one line each.
async fn rights(db: &Database) -> Vec<String> {
    let sql = "select (r.*)::text from integration.rights() r order by 1";
    db.client().await.query(sql, &[]).await.unwrap().iter().map(|row| row.get(0)).collect()
}

/// What of a doctor's report speaks of rights or of what is not as it was made, and is worse than well.
async fn ills(db: &Database) -> Vec<String> {
    let report = db.broker().await.operator().doctor(&Default::default()).await.unwrap();
    let ills = report.findings.into_iter().filter(|ill| ill.level > Level::Ok);
    ills.filter(|ill| ["rights", "privileges", "policies", "drift"].contains(&ill.check)).map(|ill| ill.what).collect()
}

/// A dump of all of it, played into another database; `None` where the server has come without these programs, which is
/// said. What did not go well is not a failure where `whatever_happens`.
pub(crate) fn copied(from: &Database, to: &Database, whatever_happens: bool) -> Option<()> {
    let programs = Installation::find(None).expect("the tests have a server").bin_directory().to_owned();
    let (dump, play) = (programs.join("pg_dump"), programs.join("psql"));
    if !dump.exists() || !play.exists() {
        println!("skipped: {} has no pg_dump and psql", programs.display());
        return None;
    }
    let dumped = Command::new(dump).arg("-d").arg(&from.url).output().unwrap();
    assert!(dumped.status.success(), "{}", String::from_utf8_lossy(&dumped.stderr));
    let file = std::env::temp_dir().join(format!("doorbell-restored-{}-{}.sql", std::process::id(), to.name()));
    std::fs::write(&file, &dumped.stdout).unwrap();
    let stop = if whatever_happens { "ON_ERROR_STOP=0" } else { "ON_ERROR_STOP=1" };
    let played = Command::new(play).args(["-X", "-q", "-v", stop, "-f"]).arg(&file).arg("-d").arg(&to.url).output();
    std::fs::remove_file(&file).unwrap();
    let played = played.unwrap();
    assert!(played.status.success(), "{}", String::from_utf8_lossy(&played.stderr));
    Some(())
}

const PUBLISH: &str = "select integration.publish('shop', 'billing', 'x', '1')";

#[tokio::test(flavor = "multi_thread")]
async fn rights_and_their_limits_are_in_a_dump_and_hold_in_the_copy() {
    let db = Database::new().await;
    let owner = db.client().await;
    app(&db, "shop", "'{billing}', p_max_priority => 5, p_max_pending => 2").await;
    app(&db, "billing", "p_consume => true").await;
    let name = db.name().to_owned();
    let more = format!(
        "create role watcher_{name} login; select integration.grant_to('watcher_{name}', 'look'); \
         select integration.set_row_security(true); {PUBLISH}"
    );
    owner.batch_execute(&more).await.unwrap();
    let (before, well) = (rights(&db).await, ills(&db).await);
    assert_eq!(before.len(), 3, "{before:?}");

    // In the same cluster: as it was.
    let copy = Database::empty().await;
    if copied(&db, &copy, false).is_none() {
        return;
    }
    assert_eq!(rights(&copy).await, before);
    assert_eq!(ills(&copy).await, well);
    holds(&copy, &name).await;

    // In another one, whose roles are made later.
    let server = Server::ephemeral(EphemeralOptions::default()).await.unwrap();
    let elsewhere = Database { url: server.connection_string("postgres") };
    copied(&db, &elsewhere, true);
    let client = elsewhere.client().await;
    let roles = ["shop", "billing", "watcher"].map(|of| format!("create role {of}_{name} login"));
    client.batch_execute(&roles.join("; ")).await.unwrap();
    client.batch_execute("select integration.renew_rights()").await.unwrap();
    // What is good for all applications is a right like any other, and PostgreSQL's to dump.
    let registered: Vec<String> = before.into_iter().filter(|line| !line.contains("watcher")).collect();
    assert_eq!(rights(&elsewhere).await, registered);
    holds(&elsewhere, &name).await;
    drop(client);
    server.stop().await.unwrap();
}

/// Limits and row security hold: shop publishes as itself, within its limits, and billing sees its own.
async fn holds(copy: &Database, name: &str) {
    let of = |app: &str| copy.url.replace("user=postgres", &format!("user={app}_{name}"));
    let (shop, billing) = (connect(&of("shop")).await, connect(&of("billing")).await);
    assert_eq!(answer(&shop, "select integration.publish('shop', 'ledger', 'x', '1')").await, "42501");
    assert_eq!(answer(&shop, &PUBLISH.replace("'1')", "'1', p_priority => 6)")).await, "42501");
    assert_eq!(answer(&shop, PUBLISH).await, "");
    assert_eq!(answer(&shop, PUBLISH).await, "53400");
    let seen = "select count(data) from integration.data_staging";
    assert_eq!(billing.query_one(seen, &[]).await.unwrap().get::<_, i64>(0), 2);
    assert_eq!(answer(&shop, seen).await, "42501");
    assert_eq!(answer(&billing, "select integration.claim('billing', 'me', p_lease => '1 s')").await, "");
    assert_eq!(answer(&billing, "select integration.claim('mailer', 'me', p_lease => '1 s')").await, "42501");
}
