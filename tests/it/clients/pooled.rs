//! Clients behind a pooler in transaction mode: no bell reaches them, so they sweep, and leave nothing in others' sessions.

use serde_json::json;

use super::{
    conformance::configuration,
    driver::{Driver, Program},
    languages,
};
use crate::support::{
    Database,
    pooler::{Pooler, programs},
    until,
};

#[tokio::test(flavor = "multi_thread")]
async fn the_python_client_sweeps_behind_a_transaction_pooler_and_leaves_nothing_behind() {
    let Some(python) = languages::python().await else { return };
    sweeps_and_leaves_nothing(&Program::new(python, "clients/conformance/driver.py")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_typescript_client_sweeps_behind_a_transaction_pooler_and_leaves_nothing_behind() {
    let Some(node) = languages::node().await else { return };
    sweeps_and_leaves_nothing(&Program::new(node, "clients/conformance/driver.mjs")).await;
}

async fn sweeps_and_leaves_nothing(client: &Program) {
    for program in programs() {
        let db = Database::new().await;
        let direct = db.client().await;
        let pooler = Pooler::start(&program, "transaction", &db).await;
        let mut config = configuration();
        config["sweep_ms"] = json!(100);
        let mut driver = Driver::start(client, &pooler.url, &config);
        until(&direct, "it consumes", "select exists (select from integration.processes)").await;
        for n in 1..=3 {
            let publish = format!("select integration.publish('shop', 'billing', 'n', '\"{n}\"')");
            direct.batch_execute(&publish).await.unwrap();
            driver.hear(&json!({"began": n.to_string(), "attempt": 1})).await;
            driver.say(
                &json!({"end": n.to_string(), "outcome": if n == 2 { "snooze" } else { "complete" }, "after_ms": 1}),
            );
        }
        driver.hear(&json!({"began": "2", "attempt": 2})).await;
        driver.say(&json!({"publish": {"data": "4"}}));
        driver.hear(&json!({"began": "4", "attempt": 1})).await;
        driver.say(&json!({"end": "4", "outcome": "complete"}));
        // What runs is settled, too, when it is told to stop.
        driver.say(&json!({"stop": true}));
        driver.say(&json!({"end": "2", "outcome": "complete"}));
        driver.hear(&json!({"stopped": true})).await;
        driver.exits().await;
        let done = "select count(*) = 4 and not exists (select from integration.processes) \
            from integration.data_staging where status = 'completed'";
        until(&direct, "all is completed, and the process gone", done).await;
        assert_eq!(pooler.left_behind().await, Vec::<String>::new(), "{}: {}", pooler.version, pooler.log());
    }
}
