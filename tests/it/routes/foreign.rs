//! Another database as a source: read by whoever knows the way, with the same rule, and nothing of the way is kept.

use std::{collections::BTreeMap, time::Duration};

use doorbell::{
    ErrorKind, Settings,
    operate::{Extract, ExtractFrom, ForeignDatabase, Operator, Watermark},
};
use futures::{poll, task::Poll};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use tokio_postgres::Client;

use super::said;
use crate::{
    doors::answer,
    logs::Logs,
    proxy::Proxy,
    support::{Database, connect, soon, until},
};

/// A database to publish in, and one to read, in the name of a role that may read and no more.
struct Both {
    there: Database,
    client: Client,
    source: Client,
    operator: Operator,
    foreign: ForeignDatabase,
}

impl Both {
    async fn new() -> Self {
        let (here, there) = (Database::read_committed().await, Database::empty().await);
        let (client, source) = (here.client().await, there.client().await);
        let reader = format!("reader_{}", there.name());
        let tables = format!(
            "create role {reader} login; create schema erp; grant usage on schema erp to {reader}; \
             create table erp.items (id bigint generated always as identity primary key, at timestamptz not null); \
             grant select on erp.items to {reader}; create table erp.secrets (id bigint primary key)"
        );
        source.batch_execute(&tables).await.unwrap();
        let operator = here.broker().await.operator();
        let foreign = ForeignDatabase::new(read_by(&reader, &there.url));
        Self { there, client, source, operator, foreign }
    }

    async fn extracted(self) -> Self {
        assert!(self.operator.extract_from(&self.foreign, &items()).await.unwrap());
        self
    }

    async fn look(&self) -> u64 {
        let looked = async {
            loop {
                if let Some(done) = self.operator.extract_more_from(&self.foreign, "i", 20).await.unwrap() {
                    return done.published;
                }
            }
        };
        soon("a look ends", looked).await
    }

    /// What is published, and what there is: each version of a row, as often as it is there.
    async fn versions(&self) -> [BTreeMap<String, usize>; 2] {
        let published =
            "select concat(data -> 'new' ->> 'id', '@', data -> 'new' ->> 'at') from integration.data_staging";
        let there = "select concat(to_jsonb(i) ->> 'id', '@', to_jsonb(i) ->> 'at') from erp.items i";
        [tally(&self.client, published).await, tally(&self.source, there).await]
    }
}

fn read_by(reader: &str, url: &str) -> Settings {
    Settings::parse(&format!("{} password=hush", url.replace("user=postgres", &format!("user={reader}")))).unwrap()
}

fn items() -> Extract {
    let every = Watermark { grace: Duration::ZERO, every: Duration::from_secs(1), ..Watermark::new("at") };
    Extract { watermark: Some(every), ..Extract::new("i", "mirror", ExtractFrom::Table("erp.items".into())) }
}

async fn tally(client: &Client, sql: &str) -> BTreeMap<String, usize> {
    client.batch_execute("set timezone = 'UTC'").await.unwrap();
    let mut all = BTreeMap::new();
    for row in client.query(sql, &[]).await.unwrap() {
        *all.entry(row.get(0)).or_default() += 1;
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn what_commits_late_there_is_found_and_what_is_prepared_there_keeps_the_place() {
    let both = Both::new().await.extracted().await;
    let [writes, waits] = [both.there.client().await, both.there.client().await];
    writes.batch_execute("begin; insert into erp.items (at) values (now())").await.unwrap();
    // It has its time, and no xid yet.
    waits.batch_execute("begin; select now()").await.unwrap();
    both.source.batch_execute("insert into erp.items (at) values (now())").await.unwrap();
    assert_eq!([both.look().await, both.look().await, both.look().await], [1, 0, 0]);
    writes.batch_execute("commit").await.unwrap();
    assert_eq!([both.look().await, both.look().await], [1, 0]);
    let gid = both.there.name();
    let prepare = format!("insert into erp.items (at) values (now()); prepare transaction '{gid}'");
    waits.batch_execute(&prepare).await.unwrap();
    assert_eq!([both.look().await, both.look().await, both.look().await], [0, 0, 0]);
    assert_eq!(said(&both.client, "select coalesce(place, 'none') from integration.extracts").await, "none");
    waits.batch_execute(&format!("commit prepared '{gid}'")).await.unwrap();
    assert_eq!(both.look().await, 1);
    // Others of this server may have something open still.
    let moved = "select place is not null from integration.extracts";
    let moves = async {
        while !both.client.query_one(moved, &[]).await.unwrap().get::<_, bool>(0) {
            assert_eq!(both.look().await, 0);
        }
    };
    soon("the place moves", moves).await;
    let first = "select concat(record_type, ' ', ordering_key, ' ', data - 'new') from integration.data_staging order by id limit 1";
    assert_eq!(
        said(&both.client, first).await,
        "erp.items.read erp.items:2 {\"op\": \"read\", \"table\": \"erp.items\"}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn each_version_is_published_once_however_often_the_reader_is_broken_off_while_many_write() {
    let both = Both::new().await.extracted().await;
    let writers: Vec<_> = (0..3)
        .map(|_| {
            let url = both.there.url.clone();
            tokio::spawn(async move {
                let client = connect(&url).await;
                for round in 0..25 {
                    let begin = "begin isolation level read committed; insert into erp.items (at) values (now()), (clock_timestamp()); \
                        update erp.items set at = clock_timestamp() where id = (select min(id) from erp.items)";
                    client.batch_execute(begin).await.unwrap();
                    tokio::task::yield_now().await;
                    client.batch_execute(if round % 5 == 4 { "rollback" } else { "commit" }).await.unwrap();
                }
            })
        })
        .collect();
    let ended = futures::future::join_all(writers);
    tokio::pin!(ended);
    let mut random = StdRng::seed_from_u64(7);
    let (mut broken_off, mut over) = (0, false);
    while !over {
        let reading = both.operator.keep_extracting(&both.foreign, "i");
        tokio::pin!(reading);
        for _ in 0..random.random_range(1..2000) {
            match poll!(&mut reading) {
                Poll::Ready(ended) => panic!("{ended:?}"),
                Poll::Pending => tokio::task::yield_now().await,
            }
        }
        broken_off += 1;
        over = poll!(&mut ended).is_ready();
    }
    while both.look().await > 0 {}
    assert!(broken_off > 3, "{broken_off}");
    let [published, there] = both.versions().await;
    assert_eq!(there.len(), 120);
    // Versions that were there only between two looks may be among them, and none twice.
    assert!(published.values().all(|times| *times == 1), "{published:?}");
    let lost: Vec<_> = there.keys().filter(|version| !published.contains_key(*version)).collect();
    assert!(lost.is_empty(), "{lost:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn all_of_it_is_read_once_as_it_is_written_there_and_two_readers_publish_nothing_twice() {
    let both = Both::new().await;
    both.source
        .batch_execute(
            "create table erp.kinds (id integer primary key, n numeric, f float8, t timestamptz, b bytea, i interval, j jsonb); \
             insert into erp.kinds select n, n / 3.0, n / 3.0, '2026-03-01 12:00Z', '\\x00ff', '1 mon 2 h', '{\"a\": 1e400}' \
               from generate_series(1, 25) n; grant select on erp.kinds to public",
        )
        .await
        .unwrap();
    let kinds = Extract::new("k", "mirror", ExtractFrom::Table("erp.kinds".into()));
    assert!(both.operator.extract_from(&both.foreign, &kinds).await.unwrap());
    let other = ForeignDatabase::new(Settings::parse(&both.there.url).unwrap());
    let read = async |foreign| {
        loop {
            let more = both.operator.extract_more_from(foreign, "k", 10).await.unwrap();
            if more.is_some_and(|more| more.is_done) {
                return;
            }
        }
    };
    soon("both have read it", futures::future::join(read(&both.foreign), read(&other))).await;
    assert!(!both.operator.extract_from(&both.foreign, &kinds).await.unwrap(), "said again, it stays");
    let as_here =
        "set timezone = 'UTC'; set intervalstyle = postgres; set extra_float_digits = 1; set bytea_output = hex";
    both.source.batch_execute(as_here).await.unwrap();
    let there = said(&both.source, "select to_jsonb(k)::text from erp.kinds k order by id").await;
    assert_eq!(
        said(&both.client, "select (data -> 'new')::text from integration.data_staging order by id").await,
        there
    );
    let row = both.operator.extracts().await.unwrap().pop().unwrap();
    assert_eq!((row.table.as_deref(), row.query, row.is_foreign), (Some("erp.kinds"), None, true));
    assert_eq!((row.published, row.ended_at.is_some(), row.key), (25, true, vec!["id".to_owned()]));
}

#[tokio::test]
async fn while_the_other_database_is_out_of_reach_it_is_said_once_and_tried_until_it_is_back() {
    let logs = Logs::capture();
    let both = Both::new().await;
    let proxy = Proxy::to(&both.there.url).await;
    let foreign = ForeignDatabase::new(read_by(&format!("reader_{}", both.there.name()), &proxy.url));
    both.operator.extract_from(&foreign, &items()).await.unwrap();
    both.source.batch_execute("insert into erp.items (at) values (now())").await.unwrap();
    let watching = async {
        until(&both.client, "the first is there", "select count(*) = 1 from integration.data_staging").await;
        proxy.refuse(usize::MAX / 2);
        proxy.reset();
        let fails = "select coalesce(last_error like 'the database that is read: %', false) from integration.extracts";
        until(&both.client, "the extract says so", fails).await;
        both.source.batch_execute("insert into erp.items (at) values (now())").await.unwrap();
        proxy.refuse(0);
        until(&both.client, "the second is there", "select count(*) = 2 from integration.data_staging").await;
        until(&both.client, "all is well", "select last_error is null from integration.extracts").await;
        both.operator.forget_extract("i").await.unwrap();
    };
    let (ended, ()) = futures::join!(both.operator.keep_extracting(&foreign, "i"), watching);
    assert_eq!(ended.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!((logs.count("an extract does not get on"), logs.count("the extract gets on again")), (1, 1));
    assert_eq!(logs.count("hush"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_read_there_is_refused_and_nothing_of_the_way_is_kept() {
    let both = Both::new().await;
    let of = |table: &str| Extract {
        key: vec!["id".into()],
        ..Extract::new("x", "mirror", ExtractFrom::Table(table.into()))
    };
    let query =
        |sql: &str| Extract { key: vec!["id".into()], ..Extract::new("x", "mirror", ExtractFrom::Query(sql.into())) };
    for (wanted, why) in [
        (of("items"), "relation \"items\" does not exist"),
        (of("erp.secrets"), "permission denied"),
        (query("select 1 as number"), "column a.id does not exist"),
        (query("delete from erp.items returning id"), "syntax error"),
        (query("select id from erp.secrets"), "permission denied"),
        (Extract { key: Vec::new(), ..query("select 1 as id") }, "has no primary key"),
        (Extract { watermark: Some(Watermark::new("id")), ..query("select 'a' as id") }, "no watermark"),
    ] {
        let error = both.operator.extract_from(&both.foreign, &wanted).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
        assert!(error.to_string().contains(why) && !format!("{error:?}").contains("hush"), "{error:?}");
    }
    let both = both.extracted().await;
    assert!(!both.operator.extract_from(&both.foreign, &items()).await.unwrap());
    let all = "select concat((select string_agg(e::text, ' ') from integration.extracts e), \
        (select string_agg(a::text, ' ') from integration.audit_log a), (select count(*) from integration.extracts))";
    let kept = said(&both.client, all).await;
    assert!(kept.ends_with('1') && !kept.contains("hush") && !kept.contains("reader_"), "{kept}");
    // Who reads this database is not who reads others, and a standby does not know who writes.
    assert_eq!(both.operator.extract_more("i", 1).await.unwrap_err().kind(), ErrorKind::IllegalTransition);
    let standby = "select integration.extract_take('i', a.as_of, 1, '{\"is_standby\": true}', '{}', '{}', '{}', '{}', null, 0) \
        from integration.extract_asks('i') a";
    assert_eq!(answer(&both.client, standby).await, "MQ002");
    assert!(both.operator.pause_extract("i", true).await.unwrap());
    assert_eq!(both.operator.extract_more_from(&both.foreign, "i", 1).await.unwrap(), None);
    both.client.batch_execute("create table mine (id integer primary key)").await.unwrap();
    let mine = Extract::new("m", "mirror", ExtractFrom::Table("mine".into()));
    both.operator.extract(&mine).await.unwrap();
    let error = both.operator.keep_extracting(&both.foreign, "m").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::IllegalTransition);
}
