//! Who consumes for one application is asked by each of the verbs.

use serde_json::json;

use super::verbs::{hello, take};
use crate::{
    doors::{answer, apps::app},
    support::{Database, plain_insert},
};

#[tokio::test(flavor = "multi_thread")]
async fn who_consumes_for_one_application_does_so_with_these_verbs_and_for_no_other() {
    let db = Database::new().await;
    let (admin, billing, mailer) = (
        db.client().await,
        app(&db, "billing", "p_consume => true").await,
        app(&db, "mailer", "p_consume => true").await,
    );
    plain_insert(&admin, "billing", "1").await;
    let owner = hello(&billing).await;
    let took = take(&billing, &owner, 1, None).await;
    assert_eq!(took.messages[0]["id"], 1);
    let verdicts = took.all(&json!({"outcome": "complete"}));
    let calls = [
        format!("select integration.hello('billing', '{owner}')"),
        format!("select integration.take('billing', '{owner}')"),
        format!("select integration.keep_alive('{owner}')"),
        format!("select integration.settle_many('billing', '{owner}', '{verdicts}')"),
    ];
    for call in &calls {
        assert_eq!(answer(&mailer, call).await, "42501", "{call}");
    }
    let theirs = hello_of(&mailer, "mailer").await;
    assert_eq!(answer(&mailer, &format!("select integration.take('mailer', '{owner}')")).await, "42501");
    assert_eq!(answer(&billing, &format!("select integration.take('mailer', '{theirs}')")).await, "42501");
    for call in &calls {
        assert_eq!(answer(&billing, call).await, "", "{call}");
    }
}

async fn hello_of(client: &tokio_postgres::Client, target: &str) -> String {
    client.query_one("select owner from integration.hello($1)", &[&target]).await.unwrap().get(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn publishing_from_one_jsonb_asks_who_publishes() {
    let db = Database::new().await;
    let shop = app(&db, "shop", "'{billing}'").await;
    let call = |source: &str, target: &str| {
        let message = json!({"source_app": source, "target_app": target, "record_type": "x", "data": 1});
        [
            format!("select integration.publish('{message}')"),
            format!("select integration.publish_many('[{message}]'::jsonb)"),
        ]
    };
    for (source, target, answered) in
        [("shop", "billing", ""), ("crm", "billing", "42501"), ("shop", "mailer", "42501")]
    {
        for call in call(source, target) {
            assert_eq!(answer(&shop, &call).await, answered, "{call}");
        }
    }
}
