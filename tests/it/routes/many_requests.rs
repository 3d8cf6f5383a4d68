//! Requests in quantities: thousands that wait in one process, and a server that is killed under them.

use std::time::Duration;

use doorbell::{Answer, Broker, BrokerConfig};
use doorbell_server::{EphemeralOptions, Server};
use futures::future::join_all;
use tokio::sync::watch;

use crate::support::{Database, bells_only, connect, count, message, soon, until};

/// Beyond what a test waits for.
const LONG: Duration = Duration::from_secs(3600);

/// In one process, of whose connections there are sixteen.
const OUTSTANDING: i64 = 10_000;

fn only_bells() -> BrokerConfig {
    BrokerConfig { answers: LONG, publish_within: LONG, ..BrokerConfig::default() }
}

/// Counts how often it is asked for answers, for however many requests.
const COUNTED: &str = "create sequence looks; grant usage on sequence looks to public; \
    alter function integration.answers(bigint[], text[]) rename to answers_uncounted; \
    create function integration.answers(p_ids bigint[], p_reply_tos text[]) \
        returns table (id bigint, state text, reply jsonb, reason text) language sql security definer as \
        $$ select nextval('public.looks'); select * from integration.answers_uncounted(p_ids, p_reply_tos) $$";

const LOOKS: &str = "select case when is_called then last_value else 0 end from looks";

#[tokio::test(flavor = "multi_thread")]
async fn thousands_wait_over_one_connection_and_are_all_answered_by_one_look() {
    let db = Database::new().await;
    let client = db.client().await;
    client.batch_execute(COUNTED).await.unwrap();
    let producer = db.broker_with(only_bells()).await.producer("shop");
    let asked = join_all((1..=OUTSTANDING).map(|number| {
        let producer = producer.clone();
        async move { producer.request::<i64>(&message("billing", number), LONG).await.unwrap() }
    }));
    let answering = async {
        let all_wait = format!("select count(*) = {OUTSTANDING} from integration.waiting_requests");
        until(&client, "all wait", &all_wait).await;
        let sessions =
            "select count(*) from pg_stat_activity where datname = current_database() and query ~ '^(listen|notify) '";
        assert_eq!(count(&client, sessions).await, 1);
        let while_publishing = count(&client, LOOKS).await;
        let reply = format!(
            "select integration.reply(c.id, c.attempt, 'me', to_jsonb(c.data::bigint * 2)) \
               from integration.claim('billing', 'me', {OUTSTANDING}, p_lease => '1 h') c"
        );
        client.batch_execute(&reply).await.unwrap();
        while_publishing
    };
    let (answers, while_publishing) = soon("all are answered", async { tokio::join!(asked, answering) }).await;
    let expected: Vec<_> = (1..=OUTSTANDING).map(|number| Answer::Reply(number * 2)).collect();
    assert!(answers == expected, "{answers:?}");
    // One for the bell of that transaction; and one for each that was being published while the listener began to listen, of
    // which there are no more than connections.
    let looks = count(&client, LOOKS).await - while_publishing;
    assert!((1..=16).contains(&looks), "{looks} looks");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_killed_and_comes_back_loses_and_doubles_no_reply() {
    const ASKED: i64 = 300;
    let options = EphemeralOptions { durable: true, ..Default::default() };
    let mut server = Server::ephemeral(options).await.unwrap();
    let url = server.connection_string("postgres");
    let broker = async || Broker::with_config(url.parse().unwrap(), only_bells()).await.unwrap();
    let asking = broker().await;
    asking.migrate().await.unwrap();
    let (handled, mut progress) = watch::channel(0);
    let mut consumers = Vec::new();
    for _ in 0..2 {
        let handled = handled.clone();
        let consumer = broker().await.consumer("billing").config(bells_only());
        let consumer = consumer.on_request("n", move |number: i64, _, replier| {
            handled.send_modify(|count| *count += 1);
            async move { Ok(replier.reply(&(number * 2)).await?) }
        });
        consumers.push(consumer.start().await.unwrap());
    }
    let producer = asking.producer("shop");
    let asked = join_all((1..=ASKED).map(|number| {
        // So that a publish whose commit was not answered is repeated.
        let question = message("billing", number).dedup_key(number.to_string());
        let producer = producer.clone();
        async move { producer.request::<i64>(&question, LONG).await }
    }));
    let killing = async {
        soon("some are handled", progress.wait_for(|&count| count > 50)).await.unwrap();
        server.kill().await.unwrap();
        server.start_again().await.unwrap();
    };
    let (answers, ()) = soon("all are answered", async { tokio::join!(asked, killing) }).await;
    for (number, answer) in (1..).zip(answers) {
        assert_eq!(answer.unwrap(), Answer::Reply(number * 2));
    }
    let client = connect(&url).await;
    for of in ["integration.data_staging where status = 'completed'", "integration.data_staging", "integration.replies"]
    {
        assert_eq!(count(&client, &format!("select count(*) from {of}")).await, ASKED, "{of}");
    }
    for consumer in consumers {
        soon("the consumer stops", consumer.shutdown()).await.unwrap();
    }
}
