//! Every example is run as its reader would run it, and says what its comments promise.

use std::{env, path::PathBuf, process::Stdio, sync::LazyLock};

use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::Command,
};

use crate::support::{Database, SOON, count, repository, soon};

/// Where cargo puts the examples, and whether they are up to date: `cargo test` builds them by itself, `cargo test
/// --test it` does not, and an old example would refuse the schema of a newer library.
static EXAMPLES: LazyLock<PathBuf> = LazyLock::new(|| {
    let this = env::current_exe().expect("this program has a path");
    let profile = this.ancestors().nth(2).expect("it lies in a profile's deps");
    if let Some(cargo) = env::var_os("CARGO") {
        let name = profile.file_name().and_then(|name| name.to_str()).expect("debug, release or a profile's name");
        let mut build = std::process::Command::new(cargo);
        build.args(["build", "--quiet", "--examples"]);
        build.args(["--profile", if name == "debug" { "dev" } else { name }]);
        // Of what cargo tells a test about its package, some build scripts would believe that it changed.
        for (name, _) in env::vars_os() {
            if name.to_str().is_some_and(|name| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_")) {
                build.env_remove(name);
            }
        }
        let built = build.current_dir(env!("CARGO_MANIFEST_DIR")).stdin(Stdio::null()).output().expect("cargo runs");
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    }
    profile.join("examples")
});

/// Runs an example to its end and returns the lines it printed.
async fn run(db: &Database, name: &str, arguments: &[&str]) -> Vec<String> {
    let directory = tokio::task::spawn_blocking(|| EXAMPLES.clone()).await.unwrap();
    let mut command = Command::new(directory.join(name));
    command.args(arguments);
    lines(db, name, command).await
}

async fn lines(db: &Database, name: &str, mut command: Command) -> Vec<String> {
    command.env("DATABASE_URL", &db.url).env_remove("DOORBELL_DATABASE_URL");
    command.stdin(Stdio::null()).kill_on_drop(true);
    let output = soon(&format!("{name} ends"), command.output()).await;
    let output = output.unwrap_or_else(|error| panic!("{name} does not start ({error}); cargo build --examples"));
    let (said, complained) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{name}: {}\n{said}{complained}", output.status);
    said.lines().map(str::to_owned).collect()
}

fn sorted(mut lines: Vec<String>) -> Vec<String> {
    lines.sort();
    lines
}

#[tokio::test(flavor = "multi_thread")]
async fn the_programs_of_the_readme_print_what_it_shows_and_the_consumer_is_woken_by_psql() {
    let readme = repository("README.md");
    for name in ["hello_producer", "hello_consumer"] {
        let source = repository(&format!("examples/{name}.rs"));
        let (_, program) = source.split_once("\n\n").unwrap();
        assert!(readme.contains(&format!("```rust,no_run\n{program}```")), "the README does not show {name}");
    }
    // The producer makes the schema itself.
    let db = Database::empty().await;
    let shown = |program: &str| {
        let typed = format!("$ DATABASE_URL=postgres://localhost/app cargo run --bin {program}\n");
        readme.split_once(&typed).unwrap().1.lines().next().unwrap().to_owned()
    };
    assert_eq!(run(&db, "hello_producer", &[]).await, [shown("producer")]);
    let mut command = Command::new(EXAMPLES.join("hello_consumer"));
    command.env("DATABASE_URL", &db.url).env_remove("DOORBELL_DATABASE_URL");
    let mut consumer = command.stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
    let mut lines = BufReader::new(consumer.stdout.take().unwrap()).lines();
    assert_eq!(soon("it charges", lines.next_line()).await.unwrap(), Some(shown("consumer")));
    let client = db.client().await;
    let inserted = readme.split("insert into integration.data_staging (").nth(1).unwrap().split(';').next().unwrap();
    let inserted = format!("insert into integration.data_staging ({}", inserted.replace("app-> ", ""));
    client.batch_execute(&inserted).await.unwrap();
    assert_eq!(soon("it is woken", lines.next_line()).await.unwrap(), Some("charging 990 cents for order 8".into()));
    let number = i32::try_from(consumer.id().expect("it runs")).unwrap();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(number), nix::sys::signal::Signal::SIGINT).unwrap();
    assert!(soon("it ends", consumer.wait()).await.unwrap().success());
    assert_eq!(count(&client, "select count(*) from integration.data_staging where status = 'completed'").await, 2);
    assert_eq!(count(&client, "select count(*) from integration.processes").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_outbox_publishes_what_was_committed_and_nothing_else() {
    let db = Database::new().await;
    assert_eq!(
        run(&db, "outbox", &[]).await,
        [
            "order 1 (bell): committed",
            "order 2 (rope): rolled back",
            "order 3 (clapper): committed",
            "invoiced: bell",
            "invoiced: clapper",
        ]
    );
    let client = db.client().await;
    for table in ["orders", "invoices", "integration.data_staging"] {
        assert_eq!(count(&client, &format!("select count(*) from {table}")).await, 2, "{table}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn batches_copy_each_order_into_the_warehouse_once() {
    let db = Database::new().await;
    let said = run(&db, "batches", &[]).await;
    assert_eq!(said.first().map(String::as_str), Some("a batch of 500"));
    assert_eq!(said.last().map(String::as_str), Some("999 orders of 99900 cents are in the warehouse"));
    let failed = "select count(*) from integration.data_staging where status = 'failed' \
                   and error_message = 'order 7 is one of nothing'";
    assert_eq!(count(&db.client().await, failed).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_what_is_coalesced_each_user_is_told_the_latest() {
    let db = Database::new().await;
    let said = sorted(run(&db, "coalesce", &[]).await);
    assert_eq!(said, ["ada has 20 unread messages", "bob has 20 unread messages"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_bulk_consumer_sums_up_what_the_bulk_producer_published() {
    let db = Database::new().await;
    let said = run(&db, "bulk_producer", &["5500"]).await.join("\n");
    assert!(said.starts_with("published 5500 messages in "), "{said}");
    let said = run(&db, "bulk_consumer", &["5500"]).await;
    assert!(said[0].starts_with("handled 5500 messages in "), "{said:?}");
    assert_eq!(said[1], format!("sum of the readings: {}", 5500 * 5501 / 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn two_services_pass_an_order_on() {
    let db = Database::new().await;
    let said = run(&db, "two_services", &[]).await;
    assert_eq!(
        sorted(said.clone()),
        [
            "billing: 2 completed, 1 failed",
            "billing: charged order 1",
            "billing: charged order 3",
            "billing: order 2 has no amount",
            "shipping: 2 completed, 0 failed",
            "shipping: shipped order 1",
            "shipping: shipped order 3",
            "shop: placed order 1",
            "shop: placed order 2",
            "shop: placed order 3",
        ]
    );
    let at = |line: &str| said.iter().position(|said| said == line);
    assert!(at("billing: charged order 1") < at("shipping: shipped order 1"), "{said:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_event_reaches_all_who_are_subscribed_and_who_comes_late() {
    let db = Database::new().await;
    assert_eq!(
        sorted(run(&db, "topics", &[]).await),
        [
            "billing: order.paid 1",
            "billing: order.placed 1",
            "billing: order.placed 2",
            "mailer: order.placed 1",
            "mailer: order.placed 2",
            "warehouse: order.paid 1",
            "warehouse: order.placed 1",
            "warehouse: order.placed 2",
        ]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_for_prices_is_told_those_and_why_there_is_none() {
    let db = Database::new().await;
    assert_eq!(
        run(&db, "request", &[]).await,
        ["item 7 costs 990 cents", "item 8 has no price: there is no item 8", "when nobody is there: Expired",]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_is_charged_once_although_it_is_shipped_by_the_second_attempt() {
    let db = Database::new().await;
    assert_eq!(
        run(&db, "steps", &[]).await,
        [
            "the bank charges 1250 cents",
            "attempt 1: the van is full",
            "the warehouse ships order 7, paid with receipt 3141",
            "charge was done by attempt 1",
            "ship was done by attempt 2",
        ]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_supplier_is_called_no_more_often_than_it_may_be() {
    let db = Database::new().await;
    let said = run(&db, "rates", &[]).await;
    let (calls, waits) = said.split_at(2);
    let called = |order: u64| format!("the supplier is called for order {order}");
    assert_eq!(sorted(calls.to_vec()), [called(1), called(2)]);
    assert_eq!(waits, ["order 5 waits: rate_limited"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_opentelemetry_trace_goes_through_a_message() {
    let db = Database::new().await;
    assert_eq!(
        run(&db, "tracing_otel", &[]).await,
        [
            "the message carries a traceparent: true",
            "process billing (Consumer) links to publish billing (Producer): true",
            "  messaging.destination.name = billing",
            "  messaging.doorbell.attempt = 1",
            "  messaging.doorbell.outcome = done",
            "  messaging.doorbell.record_type = order.placed",
            "  messaging.doorbell.source = shop",
            "  messaging.message.id = 1",
            "  messaging.operation.name = process",
            "  messaging.operation.type = process",
            "  messaging.system = doorbell",
        ]
    );
}

/// The seed's own Python classes, unchanged, on both ends of the table.
#[tokio::test(flavor = "multi_thread")]
async fn the_seeds_python_client_and_rust_understand_each_other() {
    let Some(python) = python_with_psycopg2().await else {
        println!("skipped: no python3 with psycopg2 (name one in DOORBELL_TEST_PYTHON; .ci/run makes one)");
        return;
    };
    let db = Database::new().await;
    let seed_client = async |verb| {
        let mut command = Command::new(&python);
        command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/python/seed_client.py")).args([verb, "3"]);
        command.env("PYTHONIOENCODING", "utf-8");
        lines(&db, "seed_client.py", command).await
    };
    let published =
        |target| -> Vec<String> { (1..=3).map(|id| format!("published message {id} for {target}")).collect() };

    assert_eq!(seed_client("produce").await, published("rust-app"));
    assert_eq!(
        sorted(run(&db, "python_interop", &["consume", "3"]).await),
        (1..=3).map(|n| format!("reading {n} from python-app: from Python: 'grüße'")).collect::<Vec<_>>()
    );
    let said = run(&db, "python_interop", &["produce", "3"]).await;
    assert_eq!(said.len(), 3, "{said:?}");
    assert_eq!(
        sorted(seed_client("consume").await),
        (1..=3).map(|n| format!("reading {n}: from Rust: \"grüße\"")).collect::<Vec<_>>()
    );
    let client = db.client().await;
    let sql = "select count(*) from integration.data_staging where status = 'completed' and processed_at is not null";
    assert_eq!(count(&client, sql).await, 6);
}

/// The Python named in the environment must work; one that merely happens to be there may.
pub(crate) async fn python_with_psycopg2() -> Option<PathBuf> {
    let named = env::var_os("DOORBELL_TEST_PYTHON").filter(|python| !python.is_empty()).map(PathBuf::from);
    let python = named.clone().unwrap_or_else(|| "python3".into());
    let mut import = Command::new(&python);
    import.args(["-c", "import psycopg2"]).stdin(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    let works = matches!(tokio::time::timeout(SOON, import.status()).await, Ok(Ok(status)) if status.success());
    assert!(works || named.is_none(), "{} (DOORBELL_TEST_PYTHON) cannot import psycopg2", python.display());
    works.then_some(python)
}
