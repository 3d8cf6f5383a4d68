//! How the server is told to run our functions.

use crate::support::{Database, count};

#[tokio::test]
async fn no_function_that_forbids_scans_lets_the_server_compile() {
    let db = Database::new().await;
    let client = db.client().await;
    let forbidding = "select count(*) from pg_proc where pronamespace = 'integration'::regnamespace and 'enable_seqscan=off' = any (proconfig)";
    assert!(count(&client, forbidding).await > 5);
    assert_eq!(count(&client, &format!("{forbidding} and 'jit=off' <> all (proconfig)")).await, 0);
}
