//! Hosts in front of the server that accept and never answer, as frozen machines do.

use std::net::TcpListener;

use doorbell::{Broker, BrokerConfig, Settings};
use doorbell_server::Shutdown;

use super::{Long, all_have_looked_around, nothing_happened_to, server};
use crate::support::{connect, message, until_count};

/// Waited for in turn, so many would cost a lease.
const SILENT: usize = 4;

#[tokio::test(flavor = "multi_thread")]
async fn silent_hosts_in_front_of_the_list_cost_a_process_that_reconnects_nothing() {
    let (mut server, url) = server().await;
    let silent: Vec<TcpListener> = (0..SILENT).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    let hosts: String = silent.iter().map(|_| "127.0.0.1,").collect();
    let ports: String = silent.iter().map(|host| format!("{},", host.local_addr().unwrap().port())).collect();
    let behind = url.replacen("host=", &format!("host={hosts}"), 1).replacen("port=", &format!("port={ports}"), 1);
    // With the usual lease; the other process has no such hosts, is back at once, and looks who is dead.
    let broker =
        async |url: &str| Broker::with_config(Settings::parse(url).unwrap(), BrokerConfig::default()).await.unwrap();
    let brokers = [broker(&behind).await, broker(&url).await];
    let long = Long::default();
    let consumers = [long.consumer(&brokers[0], "t0").await, long.consumer(&brokers[1], "t1").await];
    brokers[0].producer("shop").publish(&message("t0", 1)).await.unwrap();
    let client = connect(&url).await;
    until_count(&client, "processing", 1).await;
    client.batch_execute("checkpoint").await.unwrap();
    for restart in ["the first restart", "the second restart"] {
        server.restart(Shutdown::Fast).await.unwrap();
        let client = connect(&url).await;
        all_have_looked_around(&client, brokers.len()).await;
        nothing_happened_to(&client, 1, restart).await;
    }
    long.let_go();
    until_count(&connect(&url).await, "completed", 1).await;
    assert_eq!(long.begun(), 1);
    for consumer in consumers {
        consumer.shutdown().await.unwrap();
    }
    server.stop().await.unwrap();
}
