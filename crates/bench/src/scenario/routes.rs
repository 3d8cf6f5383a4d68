//! What it costs that one event goes to many, that a table publishes its changes, and that a request is answered.

use std::time::{Duration, Instant};

use doorbell::{
    Answer, ConsumerConfig, Message,
    operate::{Capture, Subscription},
};
use serde_json::{json, value::RawValue};
use tokio_postgres::Client;

use super::{
    publish::for_a_while,
    wake::{Listening, listen, ms, soon},
};
use crate::{
    Lab, Result, SOURCE, TARGET, TYPE,
    floor::{self, Claimer, Inserter},
    measure::{Case, Effort, Scenario, median, number, quantile, say},
    ours::NO_SWEEP,
    raw,
};

const BYTES: usize = 200;
const SUBSCRIBERS: [&str; 3] = ["doorbell_bench_1", "doorbell_bench_2", "doorbell_bench_3"];
const TOPIC: &str = "doorbell_bench_topic";

const ANSWER_WITHIN: Duration = Duration::from_secs(30);
const SAMPLES_MIN: usize = 10;
const WARM_UP: usize = 10;

/// One event to three subscribers, against three publishes.
pub async fn fanout(lab: &Lab, effort: &Effort) -> Result<Option<Scenario>> {
    lab.clear().await?;
    lab.settle_down().await?;
    let broker = lab.broker(2).await?;
    let operator = broker.operator();
    for target in SUBSCRIBERS {
        let to = Subscription { topic: TOPIC.into(), target: target.into(), ..Subscription::default() };
        operator.subscribe(&to).await?;
    }
    let producer = broker.producer(SOURCE);
    let to = |target: &str| -> Result<Message> {
        Ok(Message::from_raw(target, TYPE, RawValue::from_string(lab.payload(BYTES))?))
    };
    let event = to(TOPIC)?;
    let direct = SUBSCRIBERS.into_iter().map(to).collect::<Result<Vec<_>>>()?;
    let inserter = [Inserter::open(&lab.url, lab.payload(BYTES)).await?];
    let producers = [producer];
    let (mut ours, mut one_by_one, mut at_once, mut floors) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for round in 0..=effort.rounds {
        let window = if round == 0 { effort.window / 10 } else { effort.window };
        let raw = for_a_while(window, &inserter, async |inserter| {
            for target in SUBSCRIBERS {
                inserter.insert(target).await?;
            }
            Ok(())
        });
        let raw = raw.await?;
        let each = for_a_while(window, &producers, async |producer| {
            for message in &direct {
                producer.publish(message).await?;
            }
            Ok(())
        });
        let each = each.await?;
        let many =
            for_a_while(window, &producers, async |producer| Ok(producer.publish_many(&direct).await.map(drop)?));
        let many = many.await?;
        let figure = for_a_while(window, &producers, async |producer| Ok(producer.publish(&event).await.map(drop)?));
        let figure = figure.await?;
        if round > 0 {
            floors.push(raw);
            one_by_one.push(each);
            at_once.push(many);
            ours.push(figure);
        }
        lab.clear().await?;
    }
    for target in SUBSCRIBERS {
        operator.unsubscribe(TOPIC, target).await?;
    }
    operator.forget_target(TOPIC).await?;
    broker.close().await;
    say(format_args!(
        "fanout: to three subscribers {}/s; three publishes {}/s, in one call {}/s; three rows {}/s",
        number(median(&ours)),
        number(median(&one_by_one)),
        number(median(&at_once)),
        number(median(&floors))
    ));
    let cases = vec![
        Case::new("three subscribers, beside three publishes", "events/s", &ours, &one_by_one)
            .against("publish() of the same message to each of three targets, one after the other"),
        Case::new("three subscribers, beside one call", "events/s", &ours, &at_once)
            .against("publish_many() of the same message to three targets")
            .target(0.6),
        Case::new("three subscribers, beside rows", "events/s", &ours, &floors)
            .against("three prepared INSERTs of the same row without triggers, a commit each"),
    ];
    let settings = json!({
        "payload_bytes": BYTES, "window_s": effort.window.as_secs_f64(), "rounds": effort.rounds, "producers": 1,
        "consumers": "none", "subscriptions": "all record types",
    });
    Ok(Scenario::new("fanout", settings, cases))
}

const TABLES: &str = "drop table if exists public.doorbell_bench_plain, public.doorbell_bench_captured; \
    create table public.doorbell_bench_plain (id bigint primary key, n bigint not null, pad text); \
    insert into public.doorbell_bench_plain select i, 0, repeat('x', 100) from generate_series(1, 1000) i; \
    create table public.doorbell_bench_captured (like public.doorbell_bench_plain including all); \
    insert into public.doorbell_bench_captured table public.doorbell_bench_plain; \
    vacuum analyze public.doorbell_bench_plain, public.doorbell_bench_captured";

/// Writes into a captured table, against the same in one that is not, and against who publishes the row by hand.
pub async fn capture(lab: &Lab, effort: &Effort) -> Result<Option<Scenario>> {
    lab.clear().await?;
    for statement in TABLES.split("; ") {
        lab.execute(statement).await?;
    }
    lab.settle_down().await?;
    let broker = lab.broker(2).await?;
    let captured =
        Capture { table: "public.doorbell_bench_captured".into(), target: TARGET.into(), ..Capture::default() };
    broker.operator().capture(&captured).await?;
    let client = [crate::connect(&lab.url).await?];
    let mut cases = Vec::new();
    for (name, rows) in [("UPDATE of a row", "= 7"), ("UPDATE of 1,000 rows", "> 0")] {
        let update =
            |table: &str| format!("update public.doorbell_bench_{table} set n = n + 1 where id {rows} returning *");
        let by_hand = floor::published_by_hand(&update("plain"));
        let counted = |sql: String| format!("with u as ({sql}) select count(*) from u");
        let [plain, hand, ours] = [counted(update("plain")), by_hand, counted(update("captured"))];
        let statements =
            [client[0].prepare(&plain).await?, client[0].prepare(&hand).await?, client[0].prepare(&ours).await?];
        let mut samples = [Vec::new(), Vec::new(), Vec::new()];
        for round in 0..=effort.rounds {
            let window = if round == 0 { effort.window / 10 } else { effort.window };
            for (statement, samples) in statements.iter().zip(&mut samples) {
                let once = async |client: &Client| Ok(client.execute(statement, &[]).await.map(drop)?);
                let rate = for_a_while(window, &client, once).await?;
                if round > 0 {
                    samples.push(rate);
                }
                lab.clear().await?;
            }
        }
        let [plain, hand, ours] = samples;
        say(format_args!(
            "capture, {name}: {}/s; not captured {}/s, published by hand {}/s",
            number(median(&ours)),
            number(median(&plain)),
            number(median(&hand))
        ));
        cases.push(
            Case::new(format!("{name}, beside no capture"), "statements/s", &ours, &plain)
                .against("the same UPDATE of a table that is not captured"),
        );
        cases.push(
            Case::new(format!("{name}, beside a publish"), "statements/s", &ours, &hand)
                .against("the same UPDATE whose new rows the statement inserts into data_staging itself"),
        );
    }
    broker.operator().uncapture(&captured.table).await?;
    broker.close().await;
    lab.execute("drop table public.doorbell_bench_plain, public.doorbell_bench_captured").await?;
    let settings = json!({
        "row_bytes": 100, "window_s": effort.window.as_secs_f64(), "rounds": effort.rounds, "writers": 1,
        "consumers": "none", "by_hand": "has the new row alone, a capture the old one, too",
    });
    Ok(Scenario::new("capture", settings, cases))
}

/// From a request to its reply, against two sessions that tell each other by hand.
pub async fn request(lab: &Lab, effort: &Effort) -> Result<Option<Scenario>> {
    lab.clear().await?;
    lab.settle_down().await?;
    let broker = lab.broker(10).await?;
    let config = ConsumerConfig { sweep: NO_SWEEP, ..ConsumerConfig::default() };
    let answering = broker
        .consumer(TARGET)
        .config(config)
        .on_request(TYPE, |_: serde::de::IgnoredAny, _, replier| async move { Ok(replier.reply(&1).await?) });
    let answering = answering.start().await?;
    let producer = broker.producer(SOURCE);
    let message = lab.message(BYTES)?;
    let mut floor = ByHand::new(lab).await?;
    let (mut ours, mut floors, began, mut turn) = (Vec::new(), Vec::new(), Instant::now(), 0);
    while turn < WARM_UP + SAMPLES_MIN || began.elapsed() < effort.latencies {
        turn += 1;
        let raw = floor.once().await?;
        let sent = Instant::now();
        let Answer::Reply(_) = producer.request::<i64>(&message, ANSWER_WITHIN).await? else {
            return Err("a request had no reply".into());
        };
        let took = ms(sent.elapsed());
        if turn > WARM_UP {
            floors.push(raw);
            ours.push(took);
        }
    }
    answering.shutdown().await?;
    broker.close().await;
    lab.clear().await?;
    say(format_args!(
        "request: {} ms, by hand {} ms; {} samples",
        number(median(&ours)),
        number(median(&floors)),
        ours.len()
    ));
    let case = Case::new("request to reply", "ms", &ours, &floors)
        .lower()
        .against("INSERT and NOTIFY, a raw claim by who hears it, completed with a NOTIFY back, all flushed")
        .also("p95_ms", quantile(&ours, 0.95))
        .also("p99_ms", quantile(&ours, 0.99))
        .series("request_ms", ours.clone());
    let settings = json!({ "payload_bytes": BYTES, "seconds": effort.latencies.as_secs_f64(), "sweep": "none" });
    Ok(Scenario::new("request", settings, vec![case]))
}

/// A question and its answer as two programs write them that know nothing but tables and notifications.
struct ByHand {
    asks: Client,
    question: String,
    answers: Listening,
}

impl ByHand {
    async fn new(lab: &Lab) -> Result<Self> {
        let claimer = Claimer::open(&lab.url).await?;
        let (ear, mut asked) = listen(lab, "raw_asked").await?;
        let answers = listen(lab, "raw_answered").await?;
        tokio::spawn(async move {
            let _ear = ear;
            while asked.recv().await.is_some() {
                let done = async {
                    let ids = claimer.claim("raw", 1).await?;
                    claimer.complete(&ids).await?;
                    claimer.execute("notify raw_answered").await
                };
                if done.await.is_err() {
                    return;
                }
            }
        });
        let question = floor::asked_by_hand("raw", &lab.payload(BYTES), "raw_asked");
        Ok(Self { asks: raw(&lab.url).await?, question, answers })
    }

    async fn once(&mut self) -> Result<f64> {
        let sent = Instant::now();
        self.asks.batch_execute(&self.question).await?;
        let at = soon("an answer by hand", self.answers.1.recv()).await?;
        Ok(ms(at - sent))
    }
}
