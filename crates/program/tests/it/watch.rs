//! How the program is watched: metrics and health over HTTP, logs, and the doctor on the command line.

use std::net::{IpAddr, UdpSocket};

use doorbell_testing::{
    Database, plain_insert,
    proxy::{Proxy, Weather},
    soon, until_status,
};
use nix::sys::signal::Signal;
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::program::{Running, doorbell, ended, ends_with, err, json_of, out};

/// The program with `--metrics`, and where it serves them.
async fn watched(db: &Database, arguments: &[&str]) -> (Running, String) {
    watched_at("127.0.0.1:0", db, arguments).await
}

async fn watched_at(metrics: &str, db: &Database, arguments: &[&str]) -> (Running, String) {
    let watched = [arguments, &["--metrics", metrics, "--log-format", "json"]].concat();
    let mut program = Running::start(doorbell(db, &watched));
    let line: Value = serde_json::from_str(&program.log_line("serving /metrics").await).expect("a line of JSON");
    (program, line["address"].as_str().expect("it says where").to_owned())
}

/// Status and body of a GET.
async fn get(address: &str, path: &str) -> (u16, String) {
    let answer = async {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream
            .write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes())
            .await
            .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    };
    let answer = soon("an answer", answer).await;
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    (status, answer.split_once("\r\n\r\n").expect("a body").1.to_owned())
}

/// Asks until it answers so; returns what it says then.
async fn until_ready_is(address: &str, status: u16) -> String {
    until_it_says(address, "/readyz", status).await
}

async fn until_it_says(address: &str, path: &str, status: u16) -> String {
    soon("health changes", async {
        loop {
            let (is, body) = get(address, path).await;
            if is == status {
                return body;
            }
            tokio::task::yield_now().await;
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_serves_its_metrics_and_its_health() {
    let db = Database::new().await;
    let client = db.client().await;
    let (program, address) = watched(&db, &["consume", "billing", "--complete"]).await;
    assert_eq!(get(&address, "/healthz").await, (200, "ok\n".to_owned()));
    assert_eq!(until_ready_is(&address, 200).await, "ok\n");
    let id = plain_insert(&client, "billing", "1").await;
    until_status(&client, id, "completed").await;
    let (status, text) = get(&address, "/metrics").await;
    assert_eq!(status, 200);
    openmetrics_parser::openmetrics::parse_openmetrics(&text).unwrap_or_else(|error| panic!("{error:?}\n{text}"));
    assert!(text.contains("messaging_client_consumed_messages_total{target=\"billing\"} 1"), "{text}");
    assert_eq!(get(&address, "/").await.0, 404);
    program.signal(Signal::SIGTERM);
    assert_eq!(program.ended().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_without_its_database_lives_and_is_not_ready() {
    let db = Database::new().await;
    let proxy = Proxy::to(&db.url).await;
    let (program, address) = watched(&Database { url: proxy.url.clone() }, &["consume", "billing", "--complete"]).await;
    until_ready_is(&address, 200).await;
    proxy.refuse(usize::MAX);
    proxy.reset();
    let reason = until_ready_is(&address, 503).await;
    assert!(reason.starts_with("the database cannot be used: "), "{reason}");
    assert_eq!(get(&address, "/healthz").await.0, 200);
    assert!(get(&address, "/metrics").await.1.contains("doorbell_database_up 0"));
    proxy.refuse(0);
    until_ready_is(&address, 200).await;
    program.signal(Signal::SIGTERM);
    assert_eq!(program.ended().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_whose_heartbeat_alone_does_not_get_through_is_to_be_restarted() {
    let db = Database::new().await;
    let (program, address) = watched(&db, &["consume", "billing", "--complete"]).await;
    until_ready_is(&address, 200).await;
    let person = db.client().await;
    person.batch_execute("begin; lock table integration.processes in exclusive mode").await.unwrap();
    let reason = until_it_says(&address, "/healthz", 503).await;
    assert!(reason.contains("the heartbeat has not got through"), "{reason}");
    assert!(until_ready_is(&address, 503).await.contains("the heartbeat does not get through"));
    person.batch_execute("rollback").await.unwrap();
    until_it_says(&address, "/healthz", 200).await;
    until_ready_is(&address, 200).await;
    program.signal(Signal::SIGTERM);
    assert_eq!(program.ended().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_that_no_bell_reaches_is_ready_only_where_sweeping_is_meant() {
    let db = Database::new().await;
    let proxy = Proxy::to(&db.url).await;
    proxy.set(Weather::DEAF);
    let (program, address) = watched(&Database { url: proxy.url.clone() }, &["consume", "billing", "--complete"]).await;
    let (status, reason) = get(&address, "/readyz").await;
    assert_eq!(status, 503);
    assert!(reason.contains("bells do not arrive"), "{reason}");
    assert!(get(&address, "/metrics").await.1.contains("doorbell_listener_up 0"));
    let off = "insert into integration.targets (target_app, bell) values ('billing', 'off')";
    db.client().await.execute(off, &[]).await.unwrap();
    assert_eq!(get(&address, "/readyz").await, (200, "ok\n".to_owned()));
    program.signal(Signal::SIGTERM);
    assert_eq!(program.ended().await, 0);
}

/// The address that this machine has for others; nothing is sent to find it.
fn address_for_others() -> Option<IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("192.0.2.1:9").ok()?;
    Some(socket.local_addr().ok()?.ip())
}

#[tokio::test(flavor = "multi_thread")]
async fn why_a_consumer_is_not_ready_is_told_to_its_machine_and_its_log_alone() {
    let db = Database::new().await;
    let proxy = Proxy::to(&db.url).await;
    proxy.set(Weather::DEAF);
    let (mut program, address) =
        watched_at("0.0.0.0:0", &Database { url: proxy.url.clone() }, &["consume", "billing", "--complete"]).await;
    let port = address.rsplit_once(':').unwrap().1;
    let (status, reason) = get(&format!("127.0.0.1:{port}"), "/readyz").await;
    assert_eq!(status, 503);
    assert!(reason.contains("bells do not arrive"), "{reason}");
    let logged: Value = serde_json::from_str(&program.log_line("not ready").await).unwrap();
    assert!(logged["reason"].as_str().unwrap().contains("bells do not arrive"), "{logged}");
    match address_for_others() {
        Some(ip) => assert_eq!(get(&format!("{ip}:{port}"), "/readyz").await, (503, "not ready\n".to_owned())),
        None => eprintln!("this machine has no address for others: only the unit test in watch.rs covers them"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn maintenance_serves_its_metrics_and_its_health() {
    let db = Database::new().await;
    let (program, address) = watched(&db, &["maintain"]).await;
    assert_eq!(get(&address, "/healthz").await, (200, "ok\n".to_owned()));
    assert_eq!(get(&address, "/readyz").await, (200, "ok\n".to_owned()));
    assert!(get(&address, "/metrics").await.1.contains("doorbell_database_up 1"));
    program.signal(Signal::SIGTERM);
    assert_eq!(program.ended().await, 130);
}

#[tokio::test(flavor = "multi_thread")]
async fn maintenance_waits_for_a_server_that_comes_later() {
    let db = Database::new().await;
    let proxy = Proxy::to(&db.url).await;
    proxy.refuse(usize::MAX);
    let later = Database { url: proxy.url.clone() };
    // Once is at once, or not at all.
    ends_with(&ended(doorbell(&later, &["maintain", "--once"])).await, 69);
    let mut program = Running::start(doorbell(&later, &["maintain", "--every", "100ms", "--log-format", "json"]));
    let line = program.log_line("the database cannot be reached").await;
    assert!(line.contains("trying until it can"), "{line}");
    let client = db.client().await;
    let sql = "select integration.publish('shop', 'billing', 'n', '1', p_delay => '1 us')";
    client.batch_execute(sql).await.unwrap();
    proxy.refuse(0);
    until_status(&client, 1, "pending").await;
    program.signal(Signal::SIGTERM);
    assert_eq!(program.ended().await, 130);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_cannot_be_served_is_refused() {
    let db = Database::new().await;
    let output = ended(doorbell(&db, &["consume", "billing", "--complete", "--metrics", "nowhere"])).await;
    ends_with(&output, 2);
    assert!(err(&output).contains("as in 0.0.0.0:9187"), "{}", err(&output));
    let output = ended(doorbell(&db, &["consume", "billing", "--complete", "--metrics", "192.0.2.1:9187"])).await;
    ends_with(&output, 2);
    assert!(err(&output).contains("--metrics 192.0.2.1:9187: "), "{}", err(&output));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_line_of_json_logs_is_an_object_that_tells_no_payload() {
    let db = Database::new().await;
    let client = db.client().await;
    // The server quotes the whole row when a settle breaks a rule of somebody else's.
    let rule = "alter table integration.data_staging add constraint no_reasons check (error_message is null)";
    client.batch_execute(rule).await.unwrap();
    let (mut program, _) = watched(&db, &["consume", "billing", "-vv", "--exec", "grep -q fine"]).await;
    plain_insert(&client, "billing", "\"sesame\"").await;
    let mut messages = Vec::new();
    while !messages.iter().any(|message| message == "draining") {
        let line = program.log_line("").await;
        assert!(!line.contains("sesame"), "{line}");
        let line: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert!(line["level"].is_string() && line["timestamp"].is_string(), "{line}");
        let message = line["message"].as_str().expect("a message").to_owned();
        if message.starts_with("settling was refused") {
            assert!(line["error"].as_str().unwrap().ends_with("(SQLSTATE 23514)"), "{line}");
            client.batch_execute("alter table integration.data_staging drop constraint no_reasons").await.unwrap();
            program.signal(Signal::SIGTERM);
        }
        messages.push(message);
    }
    assert!(messages.iter().any(|message| message.starts_with("settling was refused")), "{messages:?}");
    assert_eq!(program.ended().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_doctor_ends_with_four_when_there_is_a_problem_and_says_what_to_type() {
    let db = Database::new().await;
    db.client().await.batch_execute("drop trigger data_staging_published on integration.data_staging").await.unwrap();
    let output = ended(doorbell(&db, &["doctor", "--quiet"])).await;
    ends_with(&output, 4);
    let said = out(&output);
    assert!(said.contains("problem  drift         trigger data_staging.data_staging_published is missing"), "{said}");
    assert!(
        said.contains("> create or replace trigger data_staging_published after insert on integration.data_staging"),
        "{said}"
    );
    assert!(!said.lines().any(|line| line.starts_with("ok ")), "{said}");
    let output = ended(doorbell(&db, &["doctor", "--json"])).await;
    ends_with(&output, 4);
    let report = json_of(&output);
    assert_eq!(report["worst"], "problem");
    let bell = report["findings"].as_array().unwrap().iter().find(|finding| finding["check"] == "bell").unwrap();
    assert_eq!(bell["level"], "problem");
}
