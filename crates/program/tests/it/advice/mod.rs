//! What we tell people to type does what it says, and nothing else: every fix of `explain` and the doctor on a database
//! with living consumers, every command in an error or a hint, every example of `--help` and of the guide.

mod doctor;
mod explain;
mod texts;

use std::collections::{BTreeMap, BTreeSet};

use doorbell::{Broker, Consumer, ConsumerConfig, Outcome};
use doorbell_testing::{bells_only, plain_insert, seen};
use tokio_postgres::Client;

use crate::program::*;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Changes {
    Nothing,
    Message,
    Orphans,
    Gates,
}

/// What advice must not touch: every message, by target and id; what is said of targets and breakers; who is registered.
#[derive(Debug, PartialEq)]
struct State {
    messages: BTreeMap<(String, i64), String>,
    gates: BTreeMap<String, String>,
    owners: BTreeSet<String>,
    audited: BTreeSet<String>,
}

impl State {
    async fn of(client: &Client) -> Self {
        let text = async |sql: &str| client.query(sql, &[]).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
        let messages = "select target_app, id, concat_ws(' ', status, attempt, owner, priority, md5(data::text), \
                        retry_count, redrive_count, error_message) from integration.data_staging";
        let gates = "select 'target ' || target_app, to_jsonb(t)::text from integration.targets t \
            union all select 'breaker ' || breaker_key, to_jsonb(b)::text from integration.breakers b";
        let owners = "select owner from integration.processes where lease_until > now()";
        let audited = "select concat_ws(' ', staging_id, action, target_app) from integration.audit_log";
        Self {
            messages: text(messages).await.iter().map(|row| ((row.get(0), row.get(1)), row.get(2))).collect(),
            gates: text(gates).await.iter().map(|row| (row.get(0), row.get(1))).collect(),
            owners: text(owners).await.iter().map(|row| row.get(0)).collect(),
            audited: text(audited).await.iter().map(|row| row.get(0)).collect(),
        }
    }

    /// The ids of messages that are otherwise than they were, and the gates.
    fn changed_since(&self, before: &Self) -> (BTreeSet<i64>, BTreeSet<String>) {
        let all = |state: &Self| state.messages.keys().cloned().collect::<BTreeSet<_>>();
        let ids = all(self).union(&all(before)).cloned().collect::<Vec<_>>();
        let ids = ids.into_iter().filter(|key| self.messages.get(key) != before.messages.get(key));
        let gates: BTreeSet<&String> = self.gates.keys().chain(before.gates.keys()).collect();
        let gates = gates.into_iter().filter(|key| self.gates.get(*key) != before.gates.get(*key));
        (ids.map(|(_, id)| id).collect(), gates.cloned().collect())
    }
}

/// Two consumers that live and have messages in hand, each with a backlog of messages that nobody else may take.
struct Living {
    consumers: Vec<Consumer>,
    in_hand: BTreeSet<i64>,
}

impl Living {
    async fn on(broker: &Broker, client: &Client) -> Self {
        let mut consumers = Vec::new();
        let (tell, mut told) = seen();
        for target in ["living", "busy"] {
            for _ in 0..5 {
                plain_insert(client, target, "1").await;
            }
            let config = ConsumerConfig { concurrency: 2, prefetch: Some(0), handler_timeout: None, ..bells_only() };
            let tell = tell.clone();
            let consumer = broker.consumer(target).config(config).fallback(move |delivery| {
                let _ = tell.send(delivery.id);
                std::future::pending::<Result<Outcome, doorbell::HandlerError>>()
            });
            consumers.push(consumer.start().await.unwrap());
        }
        let config = ConsumerConfig { record_types: Some(vec!["other".to_owned()]), ..bells_only() };
        let picky = broker.consumer("picky").config(config).fallback(|_| async { Ok(Outcome::Done) });
        consumers.push(picky.start().await.unwrap());
        Self { consumers, in_hand: told.take(4).await.into_iter().collect() }
    }

    async fn end(self) {
        for consumer in self.consumers {
            consumer.shutdown_within(Duration::ZERO).await.unwrap();
        }
    }
}

/// What a fix has to type: all of it, or what comes after its conditions. `None`: it is words.
fn command_of(fix: &str) -> Option<&str> {
    let types = |text: &str| {
        let verbs = [
            "doorbell ",
            "select ",
            "update ",
            "insert ",
            "delete ",
            "alter ",
            "create ",
            "drop ",
            "grant ",
            "begin",
            "reindex ",
            "vacuum ",
            "truncate ",
            "revoke ",
            "set ",
        ];
        verbs.iter().any(|verb| text.starts_with(verb))
    };
    let conditional = fix.rsplit_once(": ").map(|(_, command)| command).filter(|command| types(command));
    if types(fix) { Some(fix) } else { conditional }
}

/// Types it. Nothing to do any more (exit code 3) is fine: living consumers look after much by themselves.
async fn typed(db: &Database, client: &Client, command: &str) {
    match command.starts_with("doorbell ") {
        true => {
            let words = shell_words::split(command).unwrap();
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            let output = ended(doorbell(db, &words[1..])).await;
            assert!(matches!(output.status.code(), Some(0 | 3)), "{command}: {}{}", out(&output), err(&output));
        }
        false => client.batch_execute(command).await.unwrap_or_else(|error| panic!("{command}: {error:?}")),
    }
}

/// Types a command, and compares what is there before and after.
async fn is_all_that_changes(
    db: &Database,
    client: &Client,
    living: &Living,
    command: &str,
    changes: Changes,
    about: Option<(i64, &str)>,
) {
    let before = State::of(client).await;
    typed(db, client, command).await;
    let after = State::of(client).await;
    let (ids, gates) = after.changed_since(&before);
    let orphans = "select id from integration.data_staging where id = any ($1) and target_app like 'target %'";
    let all: Vec<i64> = ids.iter().copied().collect();
    let of_nobody = client.query(orphans, &[&all]).await.unwrap().len();
    assert_eq!(of_nobody, all.len(), "{command} changed messages of living consumers: {before:#?} {after:#?}");
    let own = about.map(|(id, _)| id).into_iter().collect::<BTreeSet<i64>>();
    match changes {
        Changes::Nothing => assert!(ids.is_empty() && gates.is_empty(), "{command}: {ids:?}, {gates:?}"),
        Changes::Message => assert!(ids.is_subset(&own) && gates.is_empty(), "{command}: {ids:?}, {gates:?}"),
        Changes::Orphans => assert!(gates.is_empty(), "{command}: {gates:?}"),
        Changes::Gates => {
            let of_target = |gate: &String| about.is_some_and(|(_, target)| gate.ends_with(target));
            assert!(ids.is_empty() && gates.iter().all(of_target), "{command}: {ids:?}, {gates:?}");
        }
    }
    assert!(before.owners.is_subset(&after.owners), "{command} ended a process: {before:#?} {after:#?}");
    let in_hand: Vec<i64> = living.in_hand.iter().copied().collect();
    let held = "select count(*) from integration.data_staging where id = any ($1) and status = 'processing'";
    assert_eq!(client.query_one(held, &[&in_hand]).await.unwrap().get::<_, i64>(0), 4, "{command}");
    let told = after.audited.difference(&before.audited);
    let strange: Vec<_> = told.filter(|event| event.contains("living") || event.contains("busy")).collect();
    assert!(strange.is_empty(), "{command}: {strange:?}");
}
