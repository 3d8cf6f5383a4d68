//! What people do to the database beside us: locks over lunch, a read-only spell, a new rule, somebody who plays with our locks
//! and bells. All of it is legal, and over after a while.

use tokio_postgres::Client;

use super::{
    nemesis::{Nemesis, connect},
    pace::pause,
};

/// Old rows that break it cannot be claimed or completed any more; new ones do not.
const RULES: [&str; 2] =
    ["status <> 'processing' or id % 5 <> 2", "status <> 'completed' or target_app <> 'plain' or id % 5 <> 2"];
/// What is left of people where a server went away, or another one took over, in the midst of it.
const MEND: &str = "set lock_timeout = '2 s'; alter database postgres reset default_transaction_read_only; \
    alter table integration.data_staging drop constraint if exists new_rule; select integration.look_again()";
const SESSIONS: &str = "select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() \
    and backend_type = 'client backend' and application_name <> 'operator'";
/// How often a lock that others are in the way of is tried.
const TRIES: usize = 20;

/// Every lock of ours that any role can take, beside junk on our channels.
const PLAY: &str = "select pg_advisory_lock(k.class + 2, hashtext(t.name)), pg_advisory_lock(k.class + 3, hashtext(t.name)), \
        pg_notify(t.bell, 'junk') from (values (KLASS)) k (class), (values TARGETS) t (name, bell); \
    select pg_try_advisory_lock(KLASS, n) from generate_series(-50, 50) n";

impl Nemesis {
    pub(super) async fn meddle(&mut self, kind: &str) {
        let Some(person) = connect(&self.url).await else { return };
        match kind {
            "rows locked" => {
                let rows = "begin; select from integration.data_staging where status in ('pending', 'processing') and target_app in ('plain', 'tx', 'asked') \
                    order by random() limit 5 for update skip locked";
                let _ = person.batch_execute(rows).await;
                pause(&mut self.random, 300, 4000).await;
            }
            "table locked" => {
                let lock = "begin; lock table integration.data_staging in access exclusive mode";
                if tried(&person, lock).await {
                    pause(&mut self.random, 500, 6000).await;
                }
            }
            "read-only spell" => {
                let set = "alter database postgres set default_transaction_read_only = on";
                let _ = person.batch_execute(set).await;
                let _ = person.batch_execute(SESSIONS).await;
                pause(&mut self.random, 500, 4000).await;
            }
            "rule added" => {
                let rule = RULES[usize::from(rand::RngExt::random_bool(&mut self.random, 0.5))];
                let add =
                    format!("alter table integration.data_staging add constraint new_rule check ({rule}) not valid");
                if tried(&person, &add).await {
                    pause(&mut self.random, 500, 4000).await;
                }
            }
            "stranger" => {
                if let Some(stranger) = stranger(&person, &self.url).await {
                    pause(&mut self.random, 500, 4000).await;
                    drop(stranger);
                }
            }
            _ => unreachable!("{kind}"),
        }
        drop(person);
        self.mend().await;
    }

    /// Puts right what people have done and what is in the database.
    pub(super) async fn mend(&self) {
        for _ in 0..TRIES {
            let Some(client) = connect(&self.url).await else { return };
            if tried(&client, MEND).await {
                return;
            }
        }
    }
}

/// Whether it was done, or could not be because the server went away.
async fn tried(client: &Client, sql: &str) -> bool {
    if client.batch_execute("set lock_timeout = '500 ms'").await.is_err() {
        return false;
    }
    for _ in 0..TRIES {
        match client.batch_execute(sql).await {
            Ok(()) => return true,
            Err(error) if error.as_db_error().is_some_and(|refused| refused.code().code() == "55P03") => {
                let _ = client.batch_execute("rollback").await;
            }
            Err(_) => return false,
        }
    }
    false
}

/// A role without any right, which holds what it can until its session ends.
async fn stranger(person: &Client, url: &str) -> Option<Client> {
    let role = "do $$ begin if to_regrole('stranger') is null then create role stranger login; end if; end $$";
    person.batch_execute(role).await.ok()?;
    let facts = "select integration.lock_class()::text, string_agg(format('(%L, %L)', t, integration.channel(t)), ', ') \
        from unnest('{plain, tx}'::text[]) t";
    let row = person.query_one(facts, &[]).await.ok()?;
    let play = PLAY.replace("KLASS", row.get::<_, &str>(0)).replace("TARGETS", row.get::<_, &str>(1));
    let stranger = connect(&url.replace("user=postgres", "user=stranger")).await?;
    stranger.batch_execute("set statement_timeout = '1 s'").await.ok()?;
    // A latch that somebody is parked on is not to be had.
    let _ = stranger.batch_execute(&play).await;
    let refused = stranger.batch_execute("delete from integration.data_staging").await.err()?;
    if let Some(refused) = refused.as_db_error() {
        assert!(["42501", "57P01", "57P03"].contains(&refused.code().code()), "{refused:?}");
    }
    Some(stranger)
}
