//! What the catalogue says of every function, so that a new one cannot be forgotten.

use super::role;
use crate::support::Database;

/// Who may execute which function that runs as the owner; everything else may be called by the owner alone, or runs as
/// whoever calls it.
const DEFINERS: &str = include_str!("definers.txt");

/// To accept a change, run it with `DOORBELL_ACCEPT=1` and read the difference.
#[tokio::test(flavor = "multi_thread")]
async fn each_function_that_runs_as_the_owner_is_on_the_list_with_those_who_may_call_it() {
    let db = Database::new().await;
    for to in ["publisher", "consumer", "watcher", "operator"] {
        role(&db, to).await;
    }
    let sql = "select p.oid::regprocedure::text || ': ' || coalesce((select string_agg(distinct \
            split_part(g.rolname, '_', 1), ', ') from aclexplode(p.proacl) a join pg_roles g on g.oid = a.grantee \
            where g.oid <> p.proowner), 'nobody') \
        from pg_proc p where p.pronamespace = 'integration'::regnamespace and p.prosecdef order by 1";
    let found: String =
        db.client().await.query(sql, &[]).await.unwrap().iter().map(|row| row.get::<_, String>(0) + "\n").collect();
    if std::env::var_os("DOORBELL_ACCEPT").is_some() {
        std::fs::write(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/doors/definers.txt"), &found).unwrap();
    }
    assert!(found == DEFINERS, "accept with DOORBELL_ACCEPT=1:\n{found}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_ours_may_be_called_by_everybody_and_trigger_functions_by_nobody() {
    let db = Database::new().await;
    for to in ["publisher", "consumer", "operator"] {
        role(&db, to).await;
    }
    let sql = "select p.oid::regprocedure::text from pg_proc p, coalesce(p.proacl, acldefault('f', p.proowner)) r \
        cross join lateral aclexplode(r) a where p.pronamespace = 'integration'::regnamespace \
        and a.grantee <> p.proowner and (a.grantee = 0 or p.prorettype = 'trigger'::regtype)";
    let open: Vec<String> = db.client().await.query(sql, &[]).await.unwrap().iter().map(|row| row.get(0)).collect();
    assert!(open.is_empty(), "{open:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_migration_takes_from_everybody_what_was_new_and_gives_it_to_those_who_have_the_verb() {
    let db = Database::new().await;
    role(&db, "consumer").await;
    let name = format!("consumer_{}", db.name());
    let client = db.client().await;
    // As if both were new: PostgreSQL lets everybody execute a function that is.
    let sql = format!(
        "grant execute on function integration.complete_out(text, bigint[], integer[], timestamptz[], boolean, timestamptz) to public; \
         revoke execute on function integration.promote(text[], integer) from {name}; \
         update integration.migrations set checksum = 'another' where version = 0"
    );
    client.batch_execute(&sql).await.unwrap();
    db.broker().await.migrate().await.unwrap();
    let sql = format!(
        "select has_function_privilege('{name}', 'integration.promote(text[], integer)', 'execute'), \
            exists (select from pg_proc p, aclexplode(p.proacl) a where p.proname = 'complete_out' and a.grantee = 0)"
    );
    let row = client.query_one(&sql, &[]).await.unwrap();
    assert_eq!((row.get(0), row.get(1)), (true, false));
    client.batch_execute(&format!("select integration.revoke_from('{name}', 'consume')")).await.unwrap();
    let row = client.query_one(&sql, &[]).await.unwrap();
    assert_eq!((row.get(0), row.get(1)), (false, false));
}
