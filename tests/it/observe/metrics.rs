//! Metrics: what a real consumer exposes, read by somebody else's parser, and what is written about it.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use doorbell::{Answer, Batch, BatchOutcome, Broker, BrokerConfig, Delivery, Outcome, observe::Metrics};
use openmetrics_parser::{
    MetricsExposition, OpenMetricsType, OpenMetricsValue, Sample, openmetrics::parse_openmetrics,
};

use crate::{
    proxy::Proxy,
    support::{Database, bells_only, message, repository, seen, until, until_so},
};

type Exposition = MetricsExposition<OpenMetricsType, OpenMetricsValue>;

async fn watched(db: &Database) -> (Broker, Arc<Metrics>) {
    let metrics = Arc::new(Metrics::new());
    let config = BrokerConfig { observer: Some(metrics.clone()), ..BrokerConfig::default() };
    (db.broker_with(config).await, metrics)
}

fn parsed(text: &str) -> Exposition {
    parse_openmetrics(text).unwrap_or_else(|error| panic!("{error:?}\n{text}"))
}

/// The sample of a family with these labels.
#[track_caller]
fn sample<'a>(exposition: &'a Exposition, family: &str, labels: &[(&str, &str)]) -> &'a OpenMetricsValue {
    let family = &exposition.families.get(family).unwrap_or_else(|| panic!("{family} is exposed"));
    let has = |sample: &&Sample<OpenMetricsValue>| {
        let set = sample.get_labelset().unwrap();
        labels.iter().all(|(name, value)| set.iter().any(|(known, is)| known == name && is == value))
    };
    let found: Vec<_> = family.iter_samples().filter(has).collect();
    assert_eq!(found.len(), 1, "{labels:?} of {}", family.family_name);
    &found[0].value
}

/// What a counter counts, a gauge shows, a histogram counts.
#[track_caller]
fn value(exposition: &Exposition, family: &str, labels: &[(&str, &str)]) -> f64 {
    match sample(exposition, family, labels) {
        OpenMetricsValue::Counter(counter) => counter.value.as_f64(),
        OpenMetricsValue::Gauge(gauge) | OpenMetricsValue::Unknown(gauge) => gauge.as_f64(),
        OpenMetricsValue::Histogram(histogram) => histogram.count.expect("it counts") as f64,
        other => panic!("{family} is {other:?}"),
    }
}

/// Has everything happen that a metric tells of, and scrapes.
async fn eventful(db: &Database) -> String {
    let client = db.client().await;
    let (broker, metrics) = watched(db).await;
    client
        .batch_execute(
            "select integration.schedule('poll', 'reports', 'n', p_every => '1 h', p_starts_at => now() + '1 h')",
        )
        .await
        .unwrap();
    // Sources: a table that publishes nothing any more, an extract that fails, a contract that was broken.
    client
        .batch_execute(
            "create table items (id integer primary key, at timestamptz); \
             select integration.capture('items', 'mirror'); alter table items disable trigger all; \
             select integration.set_extract('items', 'mirror', 'items', p_watermark => 'at'); insert into items values (1, now()); \
             select integration.extract_more('items'); alter table items drop column at; select integration.extract_look('items'); \
             select integration.set_contract('ledger', 'n', '$ > 0', 'warn'); \
             select integration.publish('shop', 'ledger', 'n', '0'); \
             select integration.set_contract('vault', 'n', '$ > 0')",
        )
        .await
        .unwrap();
    // A consumer died holding a message, which somebody rescues.
    client
        .batch_execute(
            "insert into integration.data_staging (source_app, target_app, record_type, data, status, owner, attempt) \
             values ('shop', 'reports', 'n', '1', 'processing', 'dead-1', 1)",
        )
        .await
        .unwrap();
    let (tell, mut told) = seen();
    let billing = broker.consumer("billing").config(bells_only()).on("n", move |n: i64, delivery| {
        let _ = tell.send(delivery.attempt);
        async move {
            match n {
                1 => Ok(Outcome::Done),
                2 => Ok(Outcome::reject("no")),
                _ if delivery.attempt == 1 => Ok(Outcome::retry_after(Duration::ZERO, "not yet")),
                _ => Ok(Outcome::Done),
            }
        }
    });
    let consumer = billing.start().await.unwrap();
    // From here on publishers ring, and the look that every consumer begins with is over.
    until(&client, "it is parked", "select integration.somebody_is_parked('billing')").await;
    let producer = broker.producer("shop");
    for n in 1..=3 {
        producer.publish(&message("billing", n)).await.unwrap();
    }
    told.take(4).await;
    // One is good, and nothing of it is stored, either.
    producer.publish_many(&[message("nobody", 1), message("vault", 0)]).await.unwrap_err();
    let asked = producer.request::<i64>(&message("nobody", 1), Duration::from_millis(1)).await.unwrap();
    assert_eq!(asked, Answer::Expired);
    client.batch_execute("select integration.request('shop', 'pricing', 'n', '1', '1 h')").await.unwrap();
    let settled = "select count(*) filter (where status = 'completed') = 2 and count(*) filter (where status = 'failed') = 1 \
        from integration.data_staging where target_app = 'billing'";
    until(&client, "all is settled", settled).await;
    until(
        &client,
        "the message of the dead is rescued",
        "select status = 'pending' from integration.data_staging where target_app = 'reports'",
    )
    .await;
    until_so("it was told", || metrics.encode().contains("doorbell_rescued_messages_total 1")).await;
    // Batches, a rate that lets one through, and what is replaced while it waits.
    client
        .batch_execute("select integration.set_target('mailer', '{\"rate_max\": 1, \"rate_per\": \"1 day\"}')")
        .await
        .unwrap();
    let batches = broker.consumer("mailer").config(bells_only());
    let batches = batches.on_batch("n", Batch::of(9), |_: Vec<(i64, Delivery)>| async { Ok(BatchOutcome::done()) });
    let mailer = batches.start().await.unwrap();
    producer.publish_many(&[message("mailer", 1), message("mailer", 2).coalesce("k")]).await.unwrap();
    until_so("the rate was met", || metrics.encode().contains("doorbell_rate_cuts_total")).await;
    until(
        &client,
        "one was handled",
        "select status = 'completed' from integration.data_staging where target_app = 'mailer' order by id limit 1",
    )
    .await;
    producer.publish(&message("mailer", 3).coalesce("k")).await.unwrap();
    broker.operator().open_breaker("ledger", None, None).await.unwrap();
    let text = metrics.scrape(&broker).await;
    consumer.shutdown().await.unwrap();
    mailer.shutdown().await.unwrap();
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scrape_says_what_a_consumer_did_and_what_the_database_holds() {
    let text = eventful(&Database::new().await).await;
    let scrape = parsed(&text);
    let billing = ("target", "billing");
    assert_eq!(value(&scrape, "messaging_client_sent_messages", &[billing]), 3.0);
    let rejected = |target| value(&scrape, "doorbell_rejected_publishes", &[("target", target)]);
    assert_eq!((rejected("billing"), rejected("nobody"), rejected("vault")), (0.0, 0.0, 1.0));
    assert_eq!(value(&scrape, "messaging_client_consumed_messages", &[billing]), 4.0);
    assert_eq!(value(&scrape, "messaging_client_operation_duration_seconds", &[billing, ("operation", "send")]), 3.0);
    let runs = |outcome| {
        value(&scrape, "messaging_process_duration_seconds", &[billing, ("outcome", outcome), ("record_type", "n")])
    };
    assert_eq!((runs("done"), runs("retry"), runs("reject")), (2.0, 1.0, 1.0));
    assert_eq!(value(&scrape, "doorbell_end_to_end_seconds", &[billing]), 3.0);
    assert_eq!(value(&scrape, "doorbell_settled_messages", &[billing]), 4.0);
    assert_eq!(value(&scrape, "doorbell_errored_runs", &[billing]), 1.0);
    assert_eq!(value(&scrape, "doorbell_lease_losses", &[billing]), 0.0);
    let mailer = ("target", "mailer");
    assert_eq!(value(&scrape, "doorbell_batch_messages", &[mailer]), 1.0);
    assert_eq!(value(&scrape, "doorbell_failed_batches", &[mailer]), 0.0);
    assert!(value(&scrape, "doorbell_rate_cuts", &[mailer]) >= 1.0);
    assert_eq!(value(&scrape, "doorbell_actions", &[mailer, ("action", "coalesced")]), 1.0);
    // Nothing else than bells and being awake already explains that they were found.
    let found = |found| value(&scrape, "doorbell_found_messages", &[billing, ("found", found)]);
    assert_eq!((found("bell") + found("drain"), found("sweep")), (4.0, 0.0));
    assert_eq!(
        value(&scrape, "doorbell_request_duration_seconds", &[("target", "nobody"), ("answer", "expired")]),
        1.0
    );
    assert_eq!(value(&scrape, "doorbell_waiting_requests", &[("target", "pricing")]), 1.0);
    assert_eq!(value(&scrape, "doorbell_waiting_requests", &[("target", "nobody")]), 0.0);
    assert_eq!(value(&scrape, "doorbell_rescued_messages", &[]), 1.0);
    assert_eq!(value(&scrape, "doorbell_listener_up", &[]), 1.0);
    assert_eq!(value(&scrape, "doorbell_messages", &[billing, ("status", "completed")]), 2.0);
    assert_eq!(value(&scrape, "doorbell_messages", &[billing, ("status", "failed")]), 1.0);
    assert_eq!(value(&scrape, "doorbell_messages", &[("target", "reports"), ("status", "pending")]), 1.0);
    assert!(value(&scrape, "doorbell_oldest_age_seconds", &[("target", "reports")]) > 0.0);
    assert_eq!(value(&scrape, "doorbell_processes", &[billing]), 1.0);
    assert_eq!(value(&scrape, "doorbell_processes", &[("target", "reports")]), 0.0);
    assert_eq!(value(&scrape, "doorbell_breaker_state", &[("breaker", "ledger"), ("state", "open")]), 1.0);
    assert_eq!(value(&scrape, "doorbell_breaker_state", &[("breaker", "ledger"), ("state", "closed")]), 0.0);
    let of_items = |family: &str| value(&scrape, family, &[("extract", "items"), ("target", "mirror")]);
    assert_eq!(of_items("doorbell_extracted_messages"), 1.0);
    assert_eq!((of_items("doorbell_extract_skipped_rows"), of_items("doorbell_extract_failing")), (0.0, 1.0));
    // The place is not there yet: what may still be written before it is not known since the extract was made.
    assert!(of_items("doorbell_extract_lag_seconds") >= of_items("doorbell_extract_looked_seconds"));
    assert_eq!(value(&scrape, "doorbell_actions", &[("target", "ledger"), ("action", "breaches")]), 1.0);
    assert_eq!(value(&scrape, "doorbell_captures_off", &[("target", "mirror")]), 1.0);
    assert_eq!(value(&scrape, "doorbell_database_up", &[]), 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_written_about_metrics_and_what_is_exposed_are_the_same() {
    let scrape = parsed(&eventful(&Database::new().await).await);
    let exposed: BTreeSet<(String, String)> = scrape
        .families
        .values()
        .map(|family| (family.family_name.clone(), format!("{:?}", family.family_type).to_lowercase()))
        .collect();
    let text = repository("docs/metrics.md");
    let rows = text.lines().filter_map(|line| {
        let mut cells = line.strip_prefix("| `")?.split('|').map(str::trim);
        let (name, kind) = (cells.next()?.trim_end_matches('`'), cells.next()?);
        (name.starts_with("doorbell_") || name.starts_with("messaging_")).then(|| (name.to_owned(), kind.to_owned()))
    });
    assert_eq!(rows.collect::<BTreeSet<_>>(), exposed);
}

/// The names of samples in an expression or a text.
fn names(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
        .filter(|word| word.starts_with("doorbell_") || word.starts_with("messaging_"))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_dashboard_and_the_alerts_ask_for_samples_and_labels_that_exist() {
    let text = eventful(&Database::new().await).await;
    let samples: BTreeSet<&str> =
        text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split([' ', '{']).next()).collect();
    let labels: BTreeSet<&str> = parsed(&text)
        .families
        .values()
        .flat_map(|family| family.get_label_names().to_vec())
        .map(|name| &*name.leak())
        .collect();

    let dashboard: serde_json::Value = serde_json::from_str(&repository("docs/grafana-dashboard.json")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let ids: BTreeSet<i64> = panels.iter().map(|panel| panel["id"].as_i64().unwrap()).collect();
    assert_eq!(ids.len(), panels.len(), "ids are unique");
    assert!(dashboard["templating"]["list"][0]["type"] == "datasource");
    let mut expressions = vec![dashboard["templating"]["list"][1]["definition"].as_str().unwrap()];
    for panel in panels {
        assert_eq!(panel["datasource"]["uid"], "${datasource}");
        for target in panel["targets"].as_array().unwrap() {
            expressions.push(target["expr"].as_str().unwrap());
            let legend = target["legendFormat"].as_str().unwrap();
            for label in legend.split("{{").skip(1).filter_map(|rest| rest.split("}}").next()) {
                assert!(labels.contains(label), "{legend} of {}", panel["title"]);
            }
        }
    }
    let alerts = repository("packaging/alerts.yml");
    expressions.extend(alerts.lines().filter(|line| !line.contains("alert:")));
    let asked: BTreeSet<&str> = expressions.iter().flat_map(|expression| names(expression)).collect();
    let unknown: Vec<_> =
        asked.iter().filter(|name| !samples.contains(**name) && **name != "doorbell_messages").collect();
    assert!(unknown.is_empty(), "{unknown:?} are not exposed");
    assert!(asked.len() > 15, "the expressions were read: {asked:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_does_not_answer_is_said_and_leaves_no_old_numbers() {
    let db = Database::new().await;
    let proxy = Proxy::to(&db.url).await;
    let metrics = Metrics::new();
    let broker = Broker::connect(&proxy.url).await.unwrap();
    broker.producer("shop").publish(&message("billing", 1)).await.unwrap();
    let before = parsed(&metrics.scrape(&broker).await);
    assert_eq!(value(&before, "doorbell_messages", &[("target", "billing"), ("status", "pending")]), 1.0);
    proxy.refuse(usize::MAX);
    proxy.reset();
    // What was read just now is kept for a moment.
    crate::support::soon("it is noticed", async {
        while metrics.scrape(&broker).await.contains("doorbell_database_up 1") {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let without = parsed(&metrics.encode());
    assert!(!without.families.contains_key("doorbell_messages"), "{}", metrics.encode());
    assert_eq!(value(&without, "doorbell_database_up", &[]), 0.0);
}
