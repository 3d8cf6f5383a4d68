//! What the pages of the clients print is run.

use std::{
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::languages;
use crate::support::{Database, repository, until};

const TABLES: &str =
    "create table orders (id bigint, cents bigint); create table ledger (message bigint, cents bigint)";

/// The code of a page in one piece, with somebody who asks, and then the line that runs the consumer, at its end.
fn code(page: &str, language: &str, asks: &str, runs: &str) -> String {
    let (page, begin) = (repository(page), format!("```{language}\n"));
    let blocks = page.split(&begin).skip(1).map(|rest| rest.split("```").next().unwrap());
    let all: String = blocks.collect();
    assert!(all.contains(runs), "{runs} is not there");
    format!("{}\n{asks}\n{runs}\n", all.replace(runs, ""))
}

/// Runs it, with two more messages for its handlers, until it was told to end.
async fn does_what_it_says(db: &Database, interpreter: PathBuf, code: String, suffix: &str, orders: &[i64]) {
    let client = db.client().await;
    client.batch_execute(TABLES).await.unwrap();
    let directory = tempfile::tempdir().unwrap();
    let script = directory.path().join(format!("page.{suffix}"));
    std::fs::write(&script, code).unwrap();
    let mut command = Command::new(interpreter);
    command.arg(script).env("DATABASE_URL", &db.url).env("PYTHONUNBUFFERED", "1");
    command.env("PYTHONPATH", concat!(env!("CARGO_MANIFEST_DIR"), "/clients/python/src"));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut running = Running(Some(command.spawn().unwrap()));
    let more = "select integration.publish('shop', 'billing', 'order.placed', '{\"order\": 9, \"cents\": 0}'); \
        select integration.publish('shop', 'billing', 'order.paid', '{\"cents\": 50}')";
    client.batch_execute(more).await.unwrap();
    // Those, one that was paid, and one that was asked.
    let done = orders.len() + 2;
    let ended = format!(
        "select count(*) filter (where status = 'completed') = {done} and count(*) filter (where status = 'failed') = 1 \
         from integration.data_staging"
    );
    until(&client, "all are handled", &ended).await;
    let booked = client.query_one("select count(*) = 1 and sum(cents) = 50 from ledger", &[]).await.unwrap();
    assert!(booked.get::<_, bool>(0));
    let why = client.query_one("select error_message from integration.data_staging where status = 'failed'", &[]).await;
    assert_eq!(why.unwrap().get::<_, String>(0), "nothing to charge");
    let asked = "select not exists (select from pg_stat_activity where datname = current_database() \
        and query like 'call integration.await_reply%' and state = 'active')";
    until(&client, "who asked was told", asked).await;
    let child = running.0.take().unwrap();
    kill(Pid::from_raw(child.id() as i32), Signal::SIGTERM).unwrap();
    let output = tokio::task::spawn_blocking(move || child.wait_with_output()).await.unwrap().unwrap();
    let (said, complained) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}{complained}");
    for order in orders {
        assert!(said.contains(&format!("charged order {order}")), "{said}{complained}");
    }
    assert!(said.contains("it costs 700"), "{said}{complained}");
}

struct Running(Option<Child>);

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_of_the_python_client_is_true() {
    let Some(python) = languages::python_and("sqlalchemy").await else { return };
    let before = "import os, psycopg\nfrom sqlalchemy import create_engine\nfrom sqlalchemy.engine import URL\n\
        DATABASE_URL = os.environ['DATABASE_URL']\nwords = psycopg.conninfo.conninfo_to_dict(DATABASE_URL)\n\
        engine = create_engine(URL.create('postgresql+psycopg', words['user'], host=words['host'], \
        port=int(words['port']), database=words['dbname']))\n";
    let asks = "import threading\n\
        threading.Thread(target=lambda: print('it costs', ask(7)[1]['cents'])).start()";
    let code = before.to_owned() + &code("clients/python/README.md", "python", asks, "asyncio.run(consumer.run())");
    does_what_it_says(&Database::new().await, python, code, "py", &[7, 8]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_of_the_typescript_client_is_true() {
    let Some(node) = languages::node().await else { return };
    let before = "const words = Object.fromEntries(process.env.DATABASE_URL.split(' ').map((word) => word.split('=')));\n\
        const DATABASE_URL = { host: words.host, port: Number(words.port), user: words.user, database: words.dbname };\n";
    let asks = "const asking = new pg.Client(DATABASE_URL);\nawait asking.connect();\n\
        ask(asking, 7).then((answer) => console.log(`it costs ${answer.reply.cents}`)).finally(() => asking.end());";
    let code = code("clients/typescript/README.md", "js", asks, "await consumer.run();");
    let client = concat!(env!("CARGO_MANIFEST_DIR"), "/clients/typescript");
    let code = code
        .replace("from \"doorbell-pg\"", &format!("from \"{client}/src/index.js\""))
        .replace("from \"pg\"", &format!("from \"{client}/node_modules/pg/esm/index.mjs\""));
    does_what_it_says(&Database::new().await, node, before.to_owned() + &code + "await client.end();\n", "mjs", &[7])
        .await;
}
