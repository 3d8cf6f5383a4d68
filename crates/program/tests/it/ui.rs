//! `doorbell ui`: what it serves, and when it refuses to.

use doorbell_testing::browser::Browser;

use crate::program::*;

/// The program, and where it serves.
async fn serving(db: &Database, arguments: &[&str]) -> (Running, String) {
    let mut program = Running::start(doorbell(db, &[&["ui", "--listen", "0"], arguments].concat()));
    let url = program.line().await;
    (program, url.strip_prefix("http://").expect("a URL").to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn ui_prints_where_it_serves_and_serves_there_to_this_machine() {
    let db = Database::new().await;
    let (program, url) = serving(&db, &[]).await;
    let address = url.strip_suffix('/').expect("the root");
    assert!(address.starts_with("127.0.0.1:"), "{address}");
    let page = get(address, "/", address).await;
    assert!(page.starts_with("HTTP/1.1 200") && page.contains("All is well"), "{page}");
    assert!(get(address, "/", "evil.example").await.starts_with("HTTP/1.1 421"));
    program.signal(Signal::SIGINT);
    assert_eq!(program.ended().await, 130);
}

#[tokio::test(flavor = "multi_thread")]
async fn ui_serves_below_a_path_and_by_other_names_where_that_is_said() {
    let db = Database::new().await;
    let arguments = ["--base-path", "/ops/doorbell/", "--allow-host", "ops.example.com", "--read-only", "--json"];
    let (_program, line) = {
        let mut program = Running::start(doorbell(&db, &[&["ui", "--listen", "0"], &arguments[..]].concat()));
        let line = program.line().await;
        (program, line)
    };
    let url = serde_json::from_str::<Value>(&line).unwrap()["url"].as_str().unwrap().to_owned();
    let (address, path) = url.strip_prefix("http://").unwrap().split_once('/').unwrap();
    assert_eq!(path, "ops/doorbell/");
    let page = get(address, "/ops/doorbell/", "ops.example.com").await;
    assert!(page.contains("All is well") && page.contains("read-only"), "{page}");
    assert!(get(address, "/ops/doorbell", "localhost").await.to_lowercase().contains("location: doorbell/"));
    assert!(get(address, "/", "localhost").await.starts_with("HTTP/1.1 404"));
}

#[tokio::test(flavor = "multi_thread")]
async fn ui_asks_for_a_token_where_there_is_one_and_does_not_tell_it() {
    let db = Database::new().await;
    let token = "0123456789abcdef0123456789abcdef";
    let mut command = doorbell(&db, &["ui", "--listen", "0"]);
    command.env("DOORBELL_UI_TOKEN", token);
    let mut program = Running::start(command);
    let url = program.line().await;
    assert!(!url.contains(token), "{url}");
    let address = url.strip_prefix("http://").unwrap().trim_end_matches('/');
    assert!(get(address, "/", address).await.starts_with("HTTP/1.1 401"));
    let opened = get(address, &format!("/?token={token}"), address).await;
    assert!(opened.starts_with("HTTP/1.1 200"), "{opened}");
}

#[tokio::test(flavor = "multi_thread")]
async fn ui_does_not_open_to_others_unless_it_is_said_who_may_come_in() {
    let db = Database::new().await;
    let directory = tempfile::tempdir().unwrap();
    let tokens = directory.path().join("tokens");
    std::fs::write(&tokens, "anna look,fly 0123456789abcdef0123456789abcdef").unwrap();
    let tokens = tokens.to_str().unwrap();
    for (arguments, says) in [
        (&["--listen", "0.0.0.0:0"][..], "say who may come in"),
        (&["--listen", "[::]:0"], "say who may come in"),
        (&["--tokens", tokens], "line 1"),
        (&["--tokens", "/no/such/file"], "/no/such/file"),
        (&["--user-header", "x-user"], "--trusted-proxy"),
        (&["--trusted-proxy", "10.0.0.0/99", "--user-header", "x-user"], "no network"),
        (&["--base-path", "ops"], "begins with a slash"),
        (&["--base-path", "/a/../b"], "begins with a slash"),
        (&["--redact", "card..number"], "no path"),
    ] {
        let refused = ended(doorbell(&db, &[&["ui"], arguments].concat())).await;
        ends_with(&refused, 2);
        assert!(err(&refused).contains(says), "{arguments:?}: {}", err(&refused));
        assert!(!err(&refused).contains("0123456789abcdef"), "{}", err(&refused));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_page_outlives_the_program_that_served_it() {
    let Some(browser) = Browser::start().await else { return };
    let db = Database::new().await;
    let client = db.client().await;
    let publish = "select integration.publish('shop', 'billing', 'order.placed', '{}')";
    client.batch_execute(publish).await.unwrap();
    let (program, url) = serving(&db, &[]).await;
    browser.open(&format!("http://{url}")).await;
    let says = |text: &str| format!("document.getElementById('live').textContent.startsWith('{text}')");
    let pending = |count: u32| format!("document.querySelector('tr[data-row=billing] td').textContent == '{count}'");
    browser.until("it is live", &says("live")).await;
    program.signal(Signal::SIGKILL);
    browser.until("it says so", &says("Doorbell does not answer. These numbers are from ")).await;
    client.batch_execute(publish).await.unwrap();
    assert_eq!(browser.run(&format!("return {}", pending(1))).await, true);
    let address = url.trim_end_matches('/').to_owned();
    let mut again = Running::start(doorbell(&db, &["ui", "--listen", &address]));
    assert_eq!(again.line().await, format!("http://{url}"));
    browser.until("it is live again by itself", &pending(2)).await;
    browser.until("and says so", &says("live")).await;
}
