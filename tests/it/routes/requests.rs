//! Requests: whoever asks is told what became of it, and replies are there once.

use std::time::Duration;

use doorbell::{Answer, BrokerConfig, Message, Outcome};

use super::said;
use crate::{
    doors::{answer, role},
    support::{Database, bells_only, count, message, soon, until, until_count},
};

const HOUR: Duration = Duration::from_secs(3600);
/// Beyond what a test waits for.
const LONG: Duration = HOUR;

fn only_bells() -> BrokerConfig {
    BrokerConfig { answers: HOUR, ..BrokerConfig::default() }
}

fn often() -> BrokerConfig {
    BrokerConfig { answers: Duration::from_millis(20), ..BrokerConfig::default() }
}

/// Replies with the double, rejects what is negative, and completes 0 without a reply.
async fn doubling(db: &Database) -> doorbell::Consumer {
    let consumer = db.broker().await.consumer("billing").config(bells_only());
    let consumer = consumer.on_request("n", |number: i64, delivery, replier| async move {
        assert!(delivery.wants_reply());
        Ok(match number {
            0 => Outcome::Done,
            1.. => replier.reply(&(number * 2)).await?,
            _ => Outcome::reject("negative"),
        })
    });
    consumer.start().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_gets_the_reply_by_a_bell_however_many_ask() {
    let db = Database::new().await;
    let consumer = doubling(&db).await;
    let producer = db.broker_with(only_bells()).await.producer("shop");
    let asked = (1..=1000).map(|number| {
        let producer = producer.clone();
        async move { producer.request::<i64>(&message("billing", number), LONG).await.unwrap() }
    });
    let answers = soon("all are answered", futures::future::join_all(asked)).await;
    let expected: Vec<_> = (1..=1000).map(|number| Answer::Reply(number * 2)).collect();
    assert_eq!(answers, expected);
    let client = db.client().await;
    assert_eq!(count(&client, "select count(*) from integration.replies").await, 1000);
    consumer.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn failing_and_being_cancelled_ring_as_well() {
    let db = Database::new().await;
    let consumer = doubling(&db).await;
    let broker = db.broker_with(only_bells()).await;
    let producer = broker.producer("shop");
    let answer = soon("it fails", producer.request::<i64>(&message("billing", -1), LONG)).await.unwrap();
    assert_eq!(answer, Answer::Failed { reason: "negative".into() });
    let error = answer.reply().unwrap_err();
    assert_eq!(error.kind(), doorbell::ErrorKind::Unanswered);

    let lonely = message("nobody", 1);
    let asking = producer.request::<i64>(&lonely, LONG);
    let client = db.client().await;
    let cancelling = async {
        until_count(&client, "pending", 1).await;
        client
            .batch_execute("select integration.cancel(array_agg(id), 'not today') from integration.data_staging where target_app = 'nobody'")
            .await
            .unwrap();
    };
    let (answer, ()) = soon("it is cancelled", async { tokio::join!(asking, cancelling) }).await;
    assert_eq!(answer.unwrap(), Answer::Cancelled { reason: "not today".into() });
    consumer.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn ends_that_do_not_ring_are_found_by_looking() {
    let db = Database::new().await;
    let consumer = doubling(&db).await;
    let producer = db.broker_with(often()).await.producer("shop");
    let answer = soon("it is completed", producer.request::<i64>(&message("billing", 0), LONG)).await.unwrap();
    assert_eq!(answer, Answer::Completed);
    let client = db.client().await;
    let lonely = message("nobody", 1);
    let deleting = async {
        until_count(&client, "pending", 1).await;
        client.batch_execute("delete from integration.data_staging where target_app = 'nobody'").await.unwrap();
    };
    let asking = producer.request::<i64>(&lonely, LONG);
    let (answer, ()) = soon("it is gone", async { tokio::join!(asking, deleting) }).await;
    assert_eq!(answer.unwrap(), Answer::Gone);
    consumer.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_nobody_takes_in_time_expires_and_one_that_is_kept_is_late() {
    let db = Database::new().await;
    let producer = db.broker_with(only_bells()).await.producer("shop");
    let moment = Duration::from_millis(1);
    let expired = soon("its time is over", producer.request::<i64>(&message("billing", 1), moment)).await.unwrap();
    assert_eq!(expired, Answer::Expired);
    let client = db.client().await;
    assert_eq!(
        said(&client, "select status || ' ' || error_message from integration.data_staging").await,
        "cancelled expired: nobody took it in time"
    );

    let kept = message("billing", 21).expires_after(HOUR);
    let late = soon("its time is over", producer.request::<i64>(&kept, moment)).await.unwrap();
    let Answer::Late(request) = late else { panic!("{late:?}") };
    assert_eq!(producer.answer::<i64>(&request).await.unwrap(), Answer::Late(request.clone()));
    let consumer = doubling(&db).await;
    until_count(&client, "completed", 1).await;
    assert_eq!(producer.answer::<i64>(&request).await.unwrap(), Answer::Reply(42));
    assert!(producer.answer::<String>(&request).await.unwrap_err().to_string().contains("String"));
    // Whoever does not know the secret is told nothing.
    let stranger = doorbell::Request { reply_to: "guessed".into(), ..request };
    assert!(matches!(producer.answer::<i64>(&stranger).await.unwrap(), Answer::Late(_)));
    consumer.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn somebody_who_is_at_it_is_left_to_it_and_what_is_kept_waits() {
    let db = Database::new().await;
    let client = db.client().await;
    let ask =
        "select id::text || ' ' || reply_to from integration.request('shop', 'billing', 'ask', '1', '1 h', p_keep => ";
    let mut told = Vec::new();
    for keep in ["true", "false"] {
        let asked = said(&client, &format!("{ask}{keep})")).await;
        let (id, reply_to) = asked.split_once(' ').unwrap();
        let give_up = format!("select coalesce(state, 'nothing') from integration.give_up({id}, '{reply_to}')");
        told.push(
            said(&client, &format!("select coalesce(state, 'nothing') from integration.give_up({id}, 'x')")).await,
        );
        if keep == "true" {
            told.push(said(&client, &give_up).await);
        }
        client.batch_execute("select integration.claim('billing', 'me', p_lease => '1 h')").await.unwrap();
        told.push(said(&client, &give_up).await);
        client.batch_execute(&format!("select integration.reply({id}, 1, 'me', '7')")).await.unwrap();
        told.push(said(&client, &give_up).await);
    }
    assert_eq!(told, ["nothing", "waiting", "handled", "replied", "nothing", "handled", "replied"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reply_counts_from_who_holds_the_lease_and_once_its_transaction_has_committed() {
    let db = Database::new().await;
    let mut client = db.client().await;
    let asked = client
        .query_one("select id, reply_to from integration.request('shop', 'billing', 'ask', '1')", &[])
        .await
        .unwrap();
    let (id, reply_to): (i64, String) = (asked.get(0), asked.get(1));
    let claim = "select id::text from integration.claim('billing', 'first', p_lease => '1 h')";
    assert_eq!(said(&client, claim).await, id.to_string());
    // Put back by an operator, and taken by another.
    client.execute("update integration.data_staging set status = 'pending' where id = $1", &[&id]).await.unwrap();
    assert_eq!(said(&client, &claim.replace("first", "second")).await, id.to_string());
    let lost = client.execute("select integration.reply($1, 1, 'first', '1')", &[&id]).await.unwrap_err();
    assert_eq!(lost.code().unwrap().code(), "MQ001");
    let attempt: i32 = client.query_one("select attempt from integration.data_staging", &[]).await.unwrap().get(0);
    let reply = "select integration.reply($1, $2, 'second', '{\"cents\": 2}')";
    let tx = client.transaction().await.unwrap();
    tx.execute(reply, &[&id, &attempt]).await.unwrap();
    tx.rollback().await.unwrap();
    let answers = format!("select state || ' ' || reply from integration.answers('{{{id}}}', '{{{reply_to}}}')");
    assert_eq!(said(&client, &answers).await, "");
    client.execute(reply, &[&id, &attempt]).await.unwrap();
    assert_eq!(said(&client, &answers).await, "replied {\"cents\": 2}");
    client.execute(reply, &[&id, &attempt]).await.unwrap_err();
    // It is told after the message has left the table, until the retention is over.
    client.batch_execute("delete from integration.data_staging").await.unwrap();
    assert_eq!(said(&client, &answers).await, "replied {\"cents\": 2}");
    client.batch_execute("update integration.settings set reply_retention = '0'").await.unwrap();
    client.batch_execute("select integration.purge_expired()").await.unwrap();
    assert_eq!(count(&client, "select count(*) from integration.replies").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_with_its_own_update_replies_without_an_owner() {
    let db = Database::new().await;
    let client = db.client().await;
    let asked =
        client.query_one("select id, reply_to from integration.request('a', 'b', 'c', '1')", &[]).await.unwrap();
    let (id, reply_to): (i64, String) = (asked.get(0), asked.get(1));
    client.batch_execute("update integration.data_staging set status = 'processing'").await.unwrap();
    let sql = "select integration.reply(id, attempt, null, null) from integration.data_staging where id = $1";
    client.execute(sql, &[&id]).await.unwrap();
    let row = client
        .query_one("select state, reply from integration.answers($1, $2)", &[&vec![id], &vec![reply_to]])
        .await
        .unwrap();
    assert_eq!((row.get::<_, &str>(0), row.get::<_, serde_json::Value>(1)), ("replied", serde_json::Value::Null));
}

#[tokio::test(flavor = "multi_thread")]
async fn effects_and_reply_commit_together_and_a_reply_that_is_too_large_rejects_the_request() {
    let db = Database::new().await;
    let client = db.client().await;
    client.batch_execute("create table effects (id bigint); create table asked (id bigint)").await.unwrap();
    let broker = db.broker_with(BrokerConfig { payload_bytes_max: 100, ..BrokerConfig::default() }).await;
    let ours = broker.clone();
    let consumer = broker.consumer("billing").config(bells_only());
    let consumer = consumer.on_request("n", move |number: i64, delivery, replier| {
        let broker = ours.clone();
        async move {
            if number == 2 {
                return Ok(replier.reply(&"x".repeat(200)).await?);
            }
            let mut client = broker.client().await?;
            let tx = client.transaction().await?;
            tx.execute("insert into effects values ($1)", &[&delivery.id]).await?;
            let completion = replier.statement(&"done")?;
            tx.execute(completion.sql(), &[&completion.value()]).await?;
            tx.commit().await?;
            Ok(Outcome::Settled)
        }
    });
    let consumer = consumer.start().await.unwrap();
    let producer = broker.producer("shop");
    let answer = soon("it replies", producer.request::<String>(&message("billing", 1), LONG)).await.unwrap();
    assert_eq!(answer, Answer::Reply("done".into()));
    assert_eq!(count(&client, "select count(*) from effects").await, 1);
    let answer = soon("it is rejected", producer.request::<String>(&message("billing", 2), LONG)).await.unwrap();
    assert!(matches!(&answer, Answer::Failed { reason } if reason.contains("the reply")), "{answer:?}");
    consumer.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn asking_again_under_a_dedup_key_gets_the_answer_of_the_first_also_in_another_process() {
    let db = Database::new().await;
    let question = message("billing", 3).dedup_key("once");
    let (here, there) =
        (db.broker_with(often()).await.producer("shop"), db.broker_with(often()).await.producer("shop"));
    let asking = async { tokio::join!(here.request::<i64>(&question, LONG), there.request::<i64>(&question, LONG)) };
    let starting = async {
        let client = db.client().await;
        until_count(&client, "pending", 1).await;
        doubling(&db).await
    };
    let ((one, other), consumer) = soon("both are answered", async { tokio::join!(asking, starting) }).await;
    assert_eq!((one.unwrap(), other.unwrap()), (Answer::Reply(6), Answer::Reply(6)));
    assert_eq!(soon("it has been", here.request::<i64>(&question, LONG)).await.unwrap(), Answer::Reply(6));
    assert_eq!(count(&db.client().await, "select count(*) from integration.data_staging").await, 1);
    consumer.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_the_same_with_less_patience_takes_the_answer_from_nobody() {
    let db = Database::new().await;
    let question = message("billing", 3).dedup_key("once");
    let (patient, hasty) =
        (db.broker_with(only_bells()).await.producer("shop"), db.broker_with(only_bells()).await.producer("shop"));
    let asking = patient.request::<i64>(&question, LONG);
    let meanwhile = async {
        until_count(&db.client().await, "pending", 1).await;
        let late = hasty.request::<i64>(&question, Duration::from_millis(1)).await.unwrap();
        assert!(matches!(late, Answer::Late(_)), "{late:?}");
        doubling(&db).await
    };
    let (answer, consumer) = soon("it is answered", async { tokio::join!(asking, meanwhile) }).await;
    assert_eq!(answer.unwrap(), Answer::Reply(6));
    consumer.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_came_while_the_listener_was_down_is_found_when_it_is_back() {
    let db = Database::new().await;
    let client = db.client().await;
    let producer = db.broker_with(only_bells()).await.producer("shop");
    let question = message("billing", 4);
    let asking = producer.request::<i64>(&question, LONG);
    let meanwhile = async {
        until_count(&client, "pending", 1).await;
        // With no bell at all.
        client
            .batch_execute("set integration.notify = off; \
                select integration.reply(c.id, c.attempt, 'me', '8') from integration.claim('billing', 'me', p_lease => '1 h') c")
            .await
            .unwrap();
        let ended = "select count(pg_terminate_backend(pid)) from pg_stat_activity \
            where datname = current_database() and query ~ '^(listen|notify) '";
        assert_eq!(count(&client, ended).await, 1);
    };
    let (answer, ()) = soon("it is found", async { tokio::join!(asking, meanwhile) }).await;
    assert_eq!(answer.unwrap(), Answer::Reply(8));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_whose_caller_has_gone_expires_and_its_retry_as_well() {
    let db = Database::new().await;
    let client = db.client().await;
    let producer = db.broker_with(only_bells()).await.producer("shop");
    {
        let question = message("billing", 5);
        let asking = std::pin::pin!(producer.request::<i64>(&question, LONG));
        let published = std::pin::pin!(until_count(&client, "pending", 1));
        soon("it is published", futures::future::select(asking, published)).await;
    }
    let claimed = "select attempt::text from integration.claim('billing', 'me', p_lease => '1 h')";
    assert_eq!(said(&client, claimed).await, "1");
    let over = "update integration.expiring set expires_at = '2000-01-01Z', look_at = '2000-01-01Z'";
    client.batch_execute(over).await.unwrap();
    let expire = "select integration.expire()::bigint";
    assert_eq!(count(&client, expire).await, 0, "somebody is at it");
    assert_eq!(count(&client, "select count(*) from integration.expiring").await, 1);
    client
        .batch_execute("select integration.fail(id, attempt, 'me', 'later') from integration.data_staging")
        .await
        .unwrap();
    client.batch_execute(over).await.unwrap();
    assert_eq!(count(&client, expire).await, 1);
    assert_eq!(said(&client, "select status from integration.data_staging").await, "cancelled");
    assert_eq!(count(&client, "select count(*) from integration.expiring").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn publishers_may_ask_and_consumers_may_reply_and_neither_may_do_the_other() {
    let db = Database::new().await;
    let owner = db.client().await;
    let (asker, replier) = (role(&db, "publisher").await, role(&db, "consumer").await);
    let ask =
        "select (integration.request('shop', 'billing', 'ask', '1', p_reply_to => 'me.1', p_dedup_key => 'k')).id";
    let id = count(&asker, ask).await;
    assert_eq!(count(&asker, ask).await, id);
    let reply = format!("select integration.reply({id}, 1, 'me', '1')");
    assert_eq!(answer(&asker, &reply).await, "42501");
    assert_eq!(answer(&replier, ask).await, "42501");
    replier.batch_execute("select integration.claim('billing', 'me', p_lease => '1 h')").await.unwrap();
    replier.batch_execute(&reply).await.unwrap();
    let answers = format!("select state from integration.answers('{{{id}}}', '{{me.1}}')");
    assert_eq!(said(&asker, &answers).await, "replied");
    assert_eq!(answer(&replier, &answers).await, "42501");
    assert_eq!(answer(&asker, "select * from integration.replies").await, "42501");
    until(&owner, "nothing waits", "select not exists (select from integration.data_staging where status = 'pending')")
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_may_not_be_published_is_refused_before_anybody_waits() {
    let db = Database::new().await;
    let producer = db.broker().await.producer("shop");
    let nameless = Message::new("", "ask", &1).unwrap();
    assert_eq!(producer.request::<i64>(&nameless, LONG).await.unwrap_err().kind(), doorbell::ErrorKind::Invalid);
}

/// Asks in plain SQL, as who is told under `me.` and the number; the id.
async fn ask(client: &tokio_postgres::Client, number: i32) -> String {
    let sql = format!(
        "select id::text from integration.request('shop', 'billing', 'n', '{number}', '1 h', p_reply_to => 'me.{number}')"
    );
    said(client, &sql).await
}

/// What a call of the procedure says in the end.
async fn awaited(client: &tokio_postgres::Client, id: &str, number: i32, within: &str) -> (String, String) {
    let call = format!("call integration.await_reply({id}, 'me.{number}', '{within}')");
    let said = soon("it has waited", client.simple_query(&call)).await.unwrap();
    let row = said.iter().find_map(|message| match message {
        tokio_postgres::SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    });
    let row = row.expect("a procedure with results has a row");
    let text = |column| row.get(column).unwrap_or_default().to_owned();
    (text(0), text(1))
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_in_plain_sql_begins_a_transaction_for_each_look_and_gives_up_in_the_end() {
    let db = Database::new().await;
    let (client, asking) = (db.client().await, db.client().await);
    let id = ask(&client, 1).await;
    let waiting = awaited(&asking, &id, 1, "1 h");
    let replying = async {
        let renewed = "select exists (select from pg_stat_activity where query like 'call integration.await_reply%' \
            and datname = current_database() and xact_start > query_start)";
        until(&client, "it looks again", renewed).await;
        client.batch_execute("select integration.claim('billing', 'anna', p_lease => '1 h')").await.unwrap();
        client.batch_execute(&format!("select integration.reply({id}, 1, 'anna', '2')")).await.unwrap();
    };
    let (answer, ()) = futures::join!(waiting, replying);
    assert_eq!(answer, ("replied".to_owned(), "2".to_owned()));
    assert_eq!(awaited(&asking, &id, 7, "0").await, (String::new(), String::new()), "it is somebody else's");
    // What somebody else decided with nearly the same words has not expired.
    let cancelled = ask(&client, 2).await;
    client.batch_execute(&format!("select integration.cancel(array[{cancelled}], 'expired card')")).await.unwrap();
    assert_eq!(awaited(&asking, &cancelled, 2, "0").await.0, "cancelled");

    let id = ask(&client, 3).await;
    let explained = format!("select code from integration.explain({id})");
    assert_eq!(said(&client, &explained).await, "no_consumer expires");
    assert_eq!(awaited(&asking, &id, 3, "0").await.0, "waiting", "others may wait for longer");
    client.batch_execute("update integration.expiring set expires_at = integration.clock()").await.unwrap();
    assert_eq!(awaited(&asking, &id, 3, "0").await.0, "expired", "nobody wants it any more");
    assert_eq!(said(&client, &explained).await, "expired");
    let id = ask(&client, 4).await;
    let open = client.batch_execute(&format!("begin; call integration.await_reply({id}, 'me.4', '1 h')")).await;
    assert_eq!(open.unwrap_err().code().unwrap().code(), "2D000", "it cannot wait there");
}
