//! `doorbell demo`.

use tokio::net::TcpStream;

use crate::program::*;

#[tokio::test(flavor = "multi_thread")]
async fn the_demo_loses_nothing_and_says_so_in_one_line_of_json() {
    let mut child = bare(&["demo", "--json"]).spawn().unwrap();
    let mut said = String::new();
    let end = async {
        child.stdout.take().unwrap().read_to_string(&mut said).await.unwrap();
        child.wait().await.unwrap()
    };
    let status = tokio::time::timeout(DEMO_MAX, end).await.expect("the demo ends");
    assert_eq!(status.code(), Some(0), "{said}");
    let summary: Value = serde_json::from_str(&said).unwrap();
    let number = |name: &str| summary[name].as_f64().unwrap_or_else(|| panic!("no {name} in {said}"));
    assert!(number("published") > 3000.0);
    assert_eq!((number("failed"), number("lost"), number("out_of_order")), (1.0, 0.0, 0.0));
    assert_eq!(number("completed"), number("published") - 1.0);
    assert!(number("wake_p50_ms") <= number("wake_p99_ms"));
    assert!(summary["handled_twice"].is_u64());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_demo_can_be_looked_at_in_a_browser_until_it_ends() {
    let mut running = Running::start(bare(&["demo", "--ui", "--json"]));
    let told = running.log_line("look at it: http://").await;
    let address = told.split("http://").nth(1).unwrap().split('/').next().unwrap().to_owned();
    assert!(address.starts_with("127.0.0.1:"), "{told}");
    assert!(get(&address, "/", "evil.example").await.starts_with("HTTP/1.1 421"));
    soon("the orders are there", async {
        while !get(&address, "/", &address).await.contains("target?name=shipping") {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let end = async {
        let summary = running.stdout.next_line().await.unwrap().expect("a summary");
        (summary, running.child.wait().await.unwrap())
    };
    let (summary, status) = tokio::time::timeout(DEMO_MAX, end).await.expect("the demo ends");
    assert_eq!(status.code(), Some(0), "{summary}");
    assert!(summary.contains("\"lost\":0"), "{summary}");
    assert!(TcpStream::connect(&address).await.is_err(), "the pages end with it");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_demo_takes_its_server_along() {
    let mut running = Running::start(bare(&["demo", "-v"]));
    running.logs("wake-ups").await;
    let its_own = processes(&format!("--ppid {}", running.child.id().unwrap())).await;
    assert!(!its_own.is_empty(), "the server is a child of the demo");
    running.signal(Signal::SIGINT);
    assert_eq!(running.ended().await, 130);
    for pid in its_own {
        assert_eq!(processes(&format!("-p {pid}")).await, [] as [String; 0]);
    }
}

/// The living processes that `ps` selects.
async fn processes(selection: &str) -> Vec<String> {
    let listing = Command::new("sh").args(["-c", &format!("ps -o pid=,state= {selection}")]).output().await.unwrap();
    let listing = out(&listing);
    let living = listing.lines().filter(|line| !line.trim_end().ends_with('Z'));
    living.filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect()
}
