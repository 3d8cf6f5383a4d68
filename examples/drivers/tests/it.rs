//! Each program is run as its reader would run it, and what the pages print of it is there.

use std::process::Stdio;

use doorbell_testing::{Database, count, repository, soon};
use tokio::process::Command;

/// The first commit of an invoice fails, when all of its transaction has been done.
const REFUSED_ONCE: &str = "
    create table orders (id bigint generated always as identity primary key, item text not null);
    create table invoices (order_id bigint not null, item text not null);
    create sequence commits;
    create function refused_once() returns trigger language plpgsql as $$
    begin
        if nextval('commits') = 1 then
            raise exception 'not now';
        end if;
        return null;
    end $$;
    create constraint trigger refused_once after insert on invoices deferrable initially deferred
        for each row execute function refused_once();";

/// As a URI, which all drivers understand.
fn uri(db: &Database) -> String {
    let value = |name: &str| {
        let word = db.url.split_whitespace().find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
        word.unwrap_or_else(|| panic!("{} has no {name}", db.url)).trim_matches('\'').replace('/', "%2F")
    };
    format!("postgresql://{}@{}:{}/{}", value("user"), value("host"), value("port"), value("dbname"))
}

async fn publishes_and_consumes_in_transactions_of(program: &str) {
    let db = Database::new().await;
    let client = db.client().await;
    client.batch_execute(REFUSED_ONCE).await.unwrap();
    let mut command = Command::new(program);
    command.env("DATABASE_URL", uri(&db)).env_remove("DOORBELL_DATABASE_URL");
    command.stdin(Stdio::null()).kill_on_drop(true);
    let output = soon("it ends", command.output()).await.unwrap();
    let (said, complained) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}{complained}");
    assert_eq!(said, "bell: committed\nrope: rolled back\ninvoiced: bell\n", "{complained}");
    let once = "select count(*) from orders join invoices on order_id = id and orders.item = invoices.item";
    assert_eq!(count(&client, once).await, 1);
    assert_eq!(count(&client, "select count(*) from invoices").await, 1);
    assert_eq!(count(&client, "select last_value from commits").await, 2, "the first commit failed");
    let messages = "select count(*) from integration.data_staging \
        where source_app = 'shop' and status = 'completed' and attempt = 2 and retry_count = 1";
    assert_eq!(count(&client, messages).await, 1);
    assert_eq!(count(&client, "select count(*) from integration.data_staging").await, 1);
}

#[tokio::test]
async fn the_program_with_sqlx_has_one_invoice_for_what_was_committed() {
    publishes_and_consumes_in_transactions_of(env!("CARGO_BIN_EXE_with_sqlx")).await;
}

#[tokio::test]
async fn the_program_with_sea_orm_has_one_invoice_for_what_was_committed() {
    publishes_and_consumes_in_transactions_of(env!("CARGO_BIN_EXE_with_sea_orm")).await;
}

#[tokio::test]
async fn the_program_with_diesel_async_has_one_invoice_for_what_was_committed() {
    publishes_and_consumes_in_transactions_of(env!("CARGO_BIN_EXE_with_diesel_async")).await;
}

#[tokio::test]
async fn the_program_with_diesel_has_one_invoice_for_what_was_committed() {
    publishes_and_consumes_in_transactions_of(env!("CARGO_BIN_EXE_with_diesel")).await;
}

#[tokio::test]
async fn the_program_with_tokio_postgres_has_one_invoice_for_what_was_committed() {
    publishes_and_consumes_in_transactions_of(env!("CARGO_BIN_EXE_with_tokio_postgres")).await;
}

/// Lines without their indentation and comments.
fn lines(text: &str) -> Vec<&str> {
    text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with("//")).collect()
}

/// Where a page says `<!-- from: with_sqlx -->`, what follows stands in that program, up to each empty line.
#[test]
fn what_the_pages_print_of_a_program_stands_in_it() {
    let mut parts = 0;
    for page in ["README.md", "docs/drivers.md"] {
        let text = repository(page);
        for rest in text.split("<!-- from: ").skip(1) {
            let (name, rest) = rest.split_once(" -->").unwrap();
            let block = rest.split("```").nth(1).unwrap().split_once('\n').unwrap().1;
            let program = repository(&format!("examples/drivers/src/bin/{name}.rs"));
            let program = lines(&program);
            for part in block.split("\n\n") {
                let part = lines(part);
                let found = !part.is_empty() && program.windows(part.len()).any(|window| window == part);
                assert!(found, "{page} prints what is not in {name}.rs:\n{block}");
                parts += 1;
            }
        }
    }
    assert!(parts >= 10, "{parts}");
}
