//! Whoever publishes and consumes with the document's statements goes on through the adoption, and loses nothing.

use std::{collections::BTreeSet, path::PathBuf, process::Stdio, sync::Arc};

use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{ChildStdout, Command},
    sync::Notify,
};
use tokio_postgres::{Client, SimpleQueryMessage};

use super::{adopt, populated};
use crate::{
    path::seed::{CONSUME, MARK_COMPLETED, MARK_FAILED, PUBLISH},
    support::{Database, connect, count, soon},
};

/// As psycopg2 sends them: in one message, with the values in the text.
fn filled(statement: &str, values: &[&str]) -> String {
    let mut sql = statement.to_owned();
    for (at, value) in values.iter().enumerate() {
        sql = sql.replace(&format!("${}", at + 1), value);
    }
    sql
}

async fn ids(client: &Client, sql: &str) -> Vec<i64> {
    let messages = client.simple_query(sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    let ids = messages.iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row.get(0).unwrap().parse().unwrap()),
        _ => None,
    });
    ids.collect()
}

/// A role of its own, with the rights that the document's applications need.
async fn application(db: &Database, admin: &Client) -> String {
    let role = format!("app_of_{}", db.name());
    let grants = format!(
        "create role {role} login; alter role {role} set default_transaction_isolation = 'read committed'; \
         grant usage on schema integration to {role}; \
         grant select, insert, update on integration.data_staging to {role}; \
         grant insert (staging_id, app_name, action), select on integration.audit_log to {role}; \
         grant usage on sequence integration.data_staging_id_seq, integration.audit_log_id_seq to {role}"
    );
    admin.batch_execute(&grants).await.unwrap();
    db.url.replace("user=postgres", &format!("user={role}"))
}

/// Counts what happened, and wakes who waits for it.
#[derive(Default)]
struct Progress(std::sync::atomic::AtomicUsize, Notify);

impl Progress {
    fn one_more(&self) {
        self.0.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        self.1.notify_one();
    }

    async fn more(&self, count: usize) {
        let wanted = self.0.load(std::sync::atomic::Ordering::SeqCst) + count;
        soon("it goes on", async {
            while self.0.load(std::sync::atomic::Ordering::SeqCst) < wanted {
                self.1.notified().await;
            }
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_producer_and_a_consumer_of_the_document_go_on_and_lose_nothing() {
    let (db, admin) = populated().await;
    let url = application(&db, &admin).await;
    let (over, is_over) = tokio::sync::watch::channel(false);
    let (published, consumed) = (Arc::new(Progress::default()), Arc::new(Progress::default()));
    let producing = {
        let (client, over, progress) = (connect(&url).await, is_over.clone(), published.clone());
        tokio::spawn(async move {
            let mut acknowledged = Vec::new();
            while !*over.borrow() {
                let publish = filled(PUBLISH, &["'erp'", "'old-billing'", "'n'", "'{\"a\": 1}'", "5"]);
                let id = ids(&client, &publish).await[0];
                let audit = "insert into integration.audit_log (staging_id, app_name, action) values";
                client.simple_query(&format!("{audit} ({id}, 'erp', 'published')")).await.unwrap();
                acknowledged.push(id);
                progress.one_more();
            }
            acknowledged
        })
    };
    let consuming = {
        let (client, progress) = (connect(&url).await, consumed.clone());
        tokio::spawn(async move {
            let (mut completed, mut failed) = (Vec::new(), Vec::new());
            loop {
                let was_over = *is_over.borrow();
                let taken = ids(&client, &filled(CONSUME, &["'old-billing'", "3"])).await;
                if taken.is_empty() && was_over {
                    break (completed, failed);
                }
                for id in taken {
                    if id % 10 == 0 {
                        ids(&client, &filled(MARK_FAILED, &["'no luck'", &id.to_string()])).await;
                        failed.push(id);
                    } else {
                        ids(&client, &filled(MARK_COMPLETED, &[&id.to_string()])).await;
                        completed.push(id);
                    }
                    progress.one_more();
                }
            }
        })
    };
    tokio::join!(published.more(30), consumed.more(30));
    let report = adopt(&db.broker().await).await;
    assert!(report.adopted.is_some());
    assert_eq!(count(&admin, "select count(*) from integration.check_counters()").await, 0);
    tokio::join!(published.more(30), consumed.more(30));
    over.send_replace(true);
    let acknowledged = soon("the producer ends", producing).await.unwrap();
    let (completed, failed) = soon("the consumer ends", consuming).await.unwrap();

    assert_eq!(acknowledged.iter().collect::<BTreeSet<_>>().len(), acknowledged.len(), "no id twice");
    let of = |status: &str| {
        format!("select id from integration.data_staging where target_app = 'old-billing' and status = '{status}'")
    };
    let stored: BTreeSet<i64> = ids(&admin, &of("completed")).await.into_iter().collect();
    assert_eq!(stored, completed.iter().copied().collect(), "each that was completed is");
    assert_eq!(completed.len(), stored.len(), "and was taken once");
    let stored: BTreeSet<i64> = ids(&admin, &of("failed")).await.into_iter().collect();
    assert_eq!(stored, failed.iter().copied().collect());
    assert_eq!(failed.len(), stored.len() * 4, "after four runs each");
    let all: BTreeSet<i64> = completed.into_iter().chain(failed).collect();
    assert_eq!(all, acknowledged.iter().copied().collect(), "each that was acknowledged was handled");
    let logged = "select count(*) from integration.audit_log where action = 'published' and app_name = 'erp' and staging_id > 401";
    assert_eq!(count(&admin, logged).await, acknowledged.len() as i64);
    assert_eq!(count(&admin, "select count(*) from integration.check_counters()").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_documents_python_goes_on_unchanged() {
    let Some(python) = crate::rules::examples::python_with_psycopg2().await else {
        println!("skipped: no python3 with psycopg2 (name one in DOORBELL_TEST_PYTHON; .ci/run makes one)");
        return;
    };
    goes_on(python, "psycopg2").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_goes_on_with_psycopg_3_which_prepares_what_it_has_run_five_times() {
    let Some(python) = crate::clients::languages::python_and("psycopg2").await else { return };
    goes_on(python, "psycopg").await;
}

async fn goes_on(python: PathBuf, driver: &str) {
    let (db, admin) = populated().await;
    let url = application(&db, &admin).await;
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/schema/adopt/going_on.py");
    let start = |verb| {
        let mut command = Command::new(&python);
        command.args([script, verb, driver]).env("DATABASE_URL", &url);
        command
            .env("PYTHONPATH", concat!(env!("CARGO_MANIFEST_DIR"), "/examples/python"))
            .env("PYTHONDONTWRITEBYTECODE", "1");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        command.spawn().unwrap()
    };
    let (mut producer, mut consumer) = (start("produce"), start("consume"));
    let said = |stdout: &mut Option<ChildStdout>| BufReader::new(stdout.take().unwrap()).lines();
    let (mut published, mut completed) = (said(&mut producer.stdout), said(&mut consumer.stdout));
    let (mut all_published, mut all_completed) = (Vec::new(), Vec::new());
    for is_adopted in [false, true] {
        for _ in 0..20 {
            let both = async { tokio::join!(published.next_line(), completed.next_line()) };
            let (one, other) = soon("both go on", both).await;
            all_published.push(one.unwrap().expect("it goes on publishing"));
            all_completed.push(other.unwrap().expect("it goes on consuming"));
        }
        if !is_adopted {
            assert!(adopt(&db.broker().await).await.adopted.is_some());
        }
    }
    drop(producer.stdin.take());
    while let Some(line) = soon("the producer ends", published.next_line()).await.unwrap() {
        all_published.push(line);
    }
    assert!(soon("the producer ends", producer.wait()).await.unwrap().success());
    drop(consumer.stdin.take());
    while let Some(line) = soon("the consumer ends", completed.next_line()).await.unwrap() {
        all_completed.push(line);
    }
    assert!(soon("the consumer ends", consumer.wait()).await.unwrap().success());
    all_published.sort();
    all_completed.sort();
    assert_eq!(all_published, all_completed);
    assert_eq!(count(&admin, "select count(*) from integration.check_counters()").await, 0);
}

/// Not the document's, which prepares nothing: the page says so.
#[tokio::test(flavor = "multi_thread")]
async fn a_statement_that_was_prepared_before_fails_once_and_works_when_prepared_anew() {
    let (db, admin) = populated().await;
    let client = db.client().await;
    let sql = "select source_app from integration.data_staging where id = 1";
    let prepared = client.prepare(sql).await.unwrap();
    client.query_one(&prepared, &[]).await.unwrap();
    adopt(&db.broker().await).await;
    let error = client.query_one(&prepared, &[]).await.unwrap_err();
    assert_eq!(error.code().unwrap().code(), "0A000", "{error:?}");
    let prepared = client.prepare(sql).await.unwrap();
    assert_eq!(client.query_one(&prepared, &[]).await.unwrap().get::<_, &str>(0), "erp");
    drop(admin);
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_works_with_the_old_table_is_waited_for() {
    let (db, admin) = populated().await;
    let mut client = db.client().await;
    let tx = client.transaction().await.unwrap();
    let publish = filled(PUBLISH, &["'erp'", "'billing'", "'n'", "'1'", "0"]);
    tx.simple_query(&publish).await.unwrap();
    let broker = db.broker().await;
    let adopting = tokio::spawn(async move { adopt(&broker).await });
    let waits = "select exists (select from pg_locks where not granted and mode = 'AccessExclusiveLock')";
    crate::support::until(&admin, "it waits", waits).await;
    tx.commit().await.unwrap();
    assert!(soon("it adopts", adopting).await.unwrap().adopted.is_some());
    assert_eq!(count(&admin, "select count(*) from integration.data_staging").await, 398);
}
