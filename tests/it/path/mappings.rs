//! What the pages about CloudEvents and Debezium say becomes of a message.

use std::collections::BTreeMap;

use doorbell::{Broker, Message};
use doorbell_server::{EphemeralOptions, Server};
use serde_json::{Value, json};

use crate::support::{Database, connect, count, repository};

/// The only block of a kind on a page.
fn block(page: &str, kind: &str) -> String {
    let page = repository(page);
    let blocks: Vec<&str> = page.split(&format!("```{kind}\n")).skip(1).collect();
    assert_eq!(blocks.len(), 1, "{kind}");
    blocks[0].split("\n```").next().unwrap().to_owned()
}

async fn event(client: &tokio_postgres::Client, id: i64) -> Value {
    let sql = "select as_cloudevent(m) from integration.data_staging m where id = $1";
    client.query_one(sql, &[&id]).await.unwrap().get(0)
}

/// What the specification asks of every event in the JSON format.
fn is_an_event(event: &Value) {
    let event = event.as_object().unwrap();
    assert_eq!(event["specversion"], "1.0");
    for required in ["id", "source", "type"] {
        assert!(event[required].as_str().is_some_and(|value| !value.is_empty()), "{event:?}");
    }
    let uri = event["source"].as_str().unwrap();
    assert!(uri.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~/%".contains(&byte)), "{uri}");
    for name in event.keys() {
        assert!(name.len() <= 20 && name.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit()), "{name}");
    }
    let attributes = event.iter().filter(|(name, _)| *name != "data");
    assert!(attributes.into_iter().all(|(_, value)| value.is_string()), "{event:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_with_any_names_and_headers_are_cloudevents() {
    let db = Database::new().await;
    let client = db.client().await;
    client.batch_execute(&block("docs/cloudevents.md", "sql")).await.unwrap();
    let data = json!({"order": 7, "name": "grüße"});
    let message = Message::new("billing", "order.placed", &data).unwrap().ordering_key("customer 4711");
    let message = message.header("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
    let message = message.header("X-Tenant", "a").header("tenant", "b").header("id", "mine").header("data", "none");
    let id = db.broker().await.producer("shop: Köln/süd").publish(&message).await.unwrap();
    let mapped = event(&client, id).await;
    is_an_event(&mapped);
    assert_eq!(mapped["source"], "shop%3A%20K%C3%B6ln/s%C3%BCd");
    assert_eq!((&mapped["type"], &mapped["data"]), (&json!("order.placed"), &data));
    assert_eq!((&mapped["partitionkey"], &mapped["tenant"]), (&json!("customer 4711"), &json!("b")));
    assert!(mapped["traceparent"].as_str().unwrap().starts_with("00-4bf9") && mapped.get("X-Tenant").is_none());
    assert!(mapped["id"].as_str().unwrap().starts_with(&format!("{id}-")), "no header takes its place");
    let time = "select (as_cloudevent(m)->>'time')::timestamptz = created_at from integration.data_staging m";
    assert!(client.query_one(time, &[]).await.unwrap().get::<_, bool>(0));
    // The least that a message can be.
    let plain = "select integration.publish('s', 't', 'r', 'null')";
    let plain = event(&client, count(&client, plain).await).await;
    is_an_event(&plain);
    assert_eq!(plain.as_object().unwrap().len(), 7, "{plain}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_from_outside_is_one_message_and_reads_the_same_afterwards() {
    let client = Database::new().await.client().await;
    client.batch_execute(&block("docs/cloudevents.md", "sql")).await.unwrap();
    let publish = "select publish_cloudevent('billing', $1)";
    let published = async |event: &Value| client.query_one(publish, &[event]).await.map(|row| row.get::<_, i64>(0));
    let came = json!({
        "specversion": "1.0", "id": "A-17", "source": "/orders", "type": "com.example.placed", "subject": "7",
        "time": "2026-03-01T12:00:00Z", "partitionkey": "k", "datacontenttype": "application/json", "data": [1, null],
    });
    let id = published(&came).await.unwrap();
    assert_eq!(published(&came).await.unwrap(), id, "it came again");
    let mapped = event(&client, id).await;
    is_an_event(&mapped);
    for same in ["source", "type", "subject", "partitionkey", "datacontenttype", "data"] {
        assert_eq!(mapped[same], came[same], "{same}");
    }
    let headers = "select headers->>'time' = '2026-03-01T12:00:00Z' from integration.data_staging";
    assert!(client.query_one(headers, &[]).await.unwrap().get::<_, bool>(0));
    for (name, value) in
        [("specversion", json!("0.3")), ("data_base64", json!("AA==")), ("datacontenttype", json!("text/xml"))]
    {
        let mut refused = came.clone();
        refused[name] = value;
        assert!(published(&refused).await.is_err(), "{name}");
    }
    assert_eq!(count(&client, "select count(*) from integration.data_staging").await, 1);
}

/// What is left of a message of the replication protocol.
struct Rest<'a>(&'a [u8]);

impl Rest<'_> {
    fn bytes(&mut self, count: usize) -> Vec<u8> {
        let (taken, rest) = self.0.split_at(count);
        self.0 = rest;
        taken.to_vec()
    }

    fn number(&mut self, bytes: usize) -> usize {
        self.bytes(bytes).iter().fold(0, |number, byte| number << 8 | usize::from(*byte))
    }

    fn word(&mut self) -> String {
        let end = self.0.iter().position(|byte| *byte == 0).unwrap();
        let word = String::from_utf8(self.bytes(end)).unwrap();
        self.bytes(1);
        word
    }
}

/// The rows that were inserted, by column, as `pgoutput` has them; that nothing else is there.
fn inserted(changes: &[Vec<u8>]) -> Vec<BTreeMap<String, Option<String>>> {
    let (mut columns, mut rows) = (Vec::new(), Vec::new());
    for change in changes {
        let mut rest = Rest(&change[1..]);
        match change[0] {
            b'R' => {
                rest.number(4);
                assert_eq!((rest.word(), rest.word()), ("integration".to_owned(), "data_staging".to_owned()));
                rest.number(1);
                let count = rest.number(2);
                columns = (0..count).map(|_| (rest.number(1), rest.word(), rest.bytes(8)).1).collect();
            }
            b'I' => {
                rest.bytes(7);
                let values = columns.iter().map(|column: &String| {
                    let value = (rest.number(1) == usize::from(b't')).then(|| {
                        let length = rest.number(4);
                        String::from_utf8(rest.bytes(length)).unwrap()
                    });
                    (column.clone(), value)
                });
                rows.push(values.collect());
            }
            other => assert!(b"BCYOM".contains(&other), "neither an insert nor the frame of one: {}", other as char),
        }
    }
    rows
}

#[tokio::test(flavor = "multi_thread")]
async fn logical_decoding_hands_out_what_the_options_of_the_outbox_router_name_and_inserts_only() {
    let settings = vec![("wal_level".to_owned(), "logical".to_owned())];
    let server = Server::ephemeral(EphemeralOptions { settings, ..Default::default() }).await.unwrap();
    let url = server.connection_string("postgres");
    Broker::connect(&url).await.unwrap().migrate().await.unwrap();
    let client = connect(&url).await;
    client.batch_execute(&block("docs/debezium.md", "sql")).await.unwrap();
    client.batch_execute("select pg_create_logical_replication_slot('outbox', 'pgoutput')").await.unwrap();
    let message = Message::new("billing", "order.placed", &json!({"order": 7})).unwrap();
    let message = message.ordering_key("customer 4711").header("tenant", "b");
    let id = Broker::connect(&url).await.unwrap().producer("shop").publish(&message).await.unwrap();
    // Decoding stops where the log has been flushed, which nobody waits for on servers like this one.
    let handled = "set synchronous_commit = on; select * from integration.claim('billing', 'w', p_lease => '1 minute'); \
        select integration.complete(1, 1, 'w'); delete from integration.data_staging";
    client.batch_execute(handled).await.unwrap();

    let options: BTreeMap<String, String> = serde_json::from_str(&block("docs/debezium.md", "json")).unwrap();
    let changes = "select data from pg_logical_slot_get_binary_changes('outbox', null, null, \
        'proto_version', '1', 'publication_names', $1)";
    let changes = client.query(changes, &[&options["publication.name"]]).await.unwrap();
    let rows = inserted(&changes.iter().map(|row| row.get(0)).collect::<Vec<_>>());
    assert_eq!(rows.len(), 1);
    let column = |name: &str| rows[0].get(name).unwrap_or_else(|| panic!("{name} is no column")).as_deref().unwrap();
    let option = |name: &str| column(&options[&format!("transforms.outbox.{name}")]);
    assert_eq!(option("table.field.event.id"), id.to_string());
    assert_eq!(option("table.field.event.key"), "customer 4711");
    assert_eq!(option("table.field.event.payload"), r#"{"order": 7}"#);
    let topic = &options["transforms.outbox.route.topic.replacement"];
    assert_eq!(topic.replace("${routedByValue}", option("route.by.field")), "doorbell.billing");
    let headers = options["transforms.outbox.table.fields.additional.placement"].split(',').map(|field| {
        let parts: Vec<&str> = field.split(':').collect();
        assert_eq!(parts[1], "header");
        (*parts.get(2).unwrap_or(&parts[0]), column(parts[0]))
    });
    let headers: BTreeMap<&str, &str> = headers.collect();
    assert_eq!((headers["type"], headers["source"]), ("order.placed", "shop"));
    assert_eq!(headers["headers"], r#"{"tenant": "b"}"#);
    assert!(headers.contains_key("time"));
    server.stop().await.unwrap();
}
