//! Which installation is meant, and the pool.

use std::{net::SocketAddr, time::Duration};

use doorbell_connection::Given;
use doorbell_testing::skip_startup;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use super::{Pool, PoolConfig, Settings};
use crate::error::ErrorKind;

/// AuthenticationOk and ReadyForQuery.
const WELCOME: &[u8] = b"R\0\0\0\x08\0\0\0\0Z\0\0\0\x05I";

fn parse(text: &str) -> Settings {
    Settings::parse_in(text, &Given::default()).unwrap()
}

#[test]
fn the_schema_and_how_statements_are_prepared_come_from_the_environment() {
    let read = |name: &str, value: &str| Settings::parse_in("", &Given::default().with(name, value));
    let settings = read("DOORBELL_SCHEMA", "other").unwrap();
    assert_eq!((settings.schema().to_string().as_str(), settings.prepares()), ("other", true));
    assert!(read("DOORBELL_SCHEMA", "no name").unwrap_err().to_string().starts_with("DOORBELL_SCHEMA: "));
    assert!(!read("DOORBELL_PREPARED_STATEMENTS", "off").unwrap().prepares());
    assert_eq!(read("DOORBELL_PREPARED_STATEMENTS", "perhaps").unwrap_err().kind(), ErrorKind::Config);
}

#[tokio::test]
async fn what_was_said_when_connecting_is_an_error_of_the_library() {
    let (listener, address) = listening().await;
    drop(listener);
    let settings = parse(&format!("host=127.0.0.1 port={} sslmode=disable", address.port()));
    let error = settings.connect().await.unwrap_err();
    assert!(error.kind() == ErrorKind::Connect && error.is_transient() && error.is_refused(), "{error:?}");

    for (code, kind, passes) in [("28P01", ErrorKind::Database, false), ("57P03", ErrorKind::Connect, true)] {
        let (listener, address) = listening().await;
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            skip_startup(&mut stream).await;
            let fields = format!("SFATAL\0C{code}\0Mno\0\0");
            let length = u32::try_from(fields.len() + 4).unwrap();
            let refusal = [b"E", length.to_be_bytes().as_slice(), fields.as_bytes()].concat();
            stream.write_all(&refusal).await.unwrap();
            let _ = stream.read_to_end(&mut Vec::new()).await;
        });
        let error = parse(&format!("host=127.0.0.1 port={}", address.port())).connect().await.unwrap_err();
        assert_eq!((error.kind(), error.sqlstate(), error.is_transient()), (kind, Some(code), passes));
        assert_eq!(format!("{error:?}").matches(code).count(), 1, "{error:?}");
    }
}

#[test]
fn the_environment_may_hold_a_whole_string() {
    let show = |environment: Given| Settings::from_env_in(&environment).unwrap().to_string();
    let both = Given::default().with("DATABASE_URL", "postgres://second/d").with("PGUSER", "u");
    assert_eq!(show(both), "postgres://u@second:5432/d");
    let both = Given::default().with("DATABASE_URL", "host=second").with("DOORBELL_DATABASE_URL", "host=first");
    assert_eq!(show(both), "postgres://me@first:5432/me");
    let empty = Given::default().with("DATABASE_URL", "").with("PGHOST", "h");
    assert_eq!(show(empty), "postgres://me@h:5432/me");

    let broken = Given::default().with("DATABASE_URL", "postgres://u:hunter2/x@h");
    let error = Settings::from_env_in(&broken).unwrap_err().to_string();
    assert!(error.starts_with("DATABASE_URL: ") && !error.contains("hunter2"), "{error}");
}

#[test]
fn without_any_choice_the_server_of_doorbell_up_is_meant_where_it_is_up() {
    let home = tempfile::tempdir().unwrap();
    let show = |environment: Given| Settings::from_env_in(&environment.home(home.path())).unwrap().to_string();
    let usual = show(Given::default().with("DOORBELL_STATE_DIRECTORY", home.path().join("elsewhere")));
    let place = home.path().join(".local/state/doorbell");
    std::fs::create_dir_all(&place).unwrap();
    std::fs::write(place.join("application"), "postgresql:///d?host=/tmp/kept&port=5432&user=doorbell_app\n").unwrap();
    let kept = show(Given::default());
    assert!(kept.contains("doorbell_app") && kept.contains("kept"), "{kept}");
    assert_ne!(kept, usual);
    // How to talk to it may be said.
    assert_eq!(show(Given::default().with("PGAPPNAME", "shop")), kept);
    for (name, value) in [("PGHOST", "h"), ("DATABASE_URL", "host=h"), ("PGUSER", "u"), ("PGSERVICE", "")] {
        assert_eq!(show(Given::default().with(name, value)) == kept, value.is_empty(), "{name}");
    }
    // One's own place goes before.
    let other = home.path().join("other");
    std::fs::create_dir_all(&other).unwrap();
    std::fs::write(other.join("application"), "host=/tmp/other").unwrap();
    assert!(show(Given::default().with("DOORBELL_STATE_DIRECTORY", &other)).contains("other"));
}

#[tokio::test]
async fn a_pool_hands_out_no_more_than_it_may_and_replaces_what_was_discarded() {
    let (listener, address) = listening().await;
    tokio::spawn(async move {
        let mut open = Vec::new();
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            skip_startup(&mut stream).await;
            stream.write_all(WELCOME).await.unwrap();
            // It is asked what limits its sessions, and has no idea.
            let mut question = [0; 1024];
            assert!(stream.read(&mut question).await.unwrap() > 0);
            stream.write_all(b"E\0\0\0\x17SERROR\0CXX000\0Mno\0\0Z\0\0\0\x05I").await.unwrap();
            open.push(stream);
        }
    });
    let settings = parse(&format!("host=127.0.0.1 port={} sslmode=disable", address.port()));
    let config = PoolConfig {
        connections_max: 1,
        wait_max: Some(Duration::from_millis(50)),
        locks_max: Duration::from_secs(20),
        read_only: false,
    };
    let pool = Pool::new(settings, &config).unwrap();

    let first = pool.get().await.unwrap();
    assert_eq!(pool.get().await.unwrap_err().kind(), ErrorKind::Timeout);
    first.discard();
    let second = pool.get().await.unwrap();
    assert!(!second.is_closed());
    drop(second);
    pool.close();
    assert_eq!(pool.get().await.unwrap_err().kind(), ErrorKind::Closed);
}

#[test]
fn a_pool_without_connections_is_refused() {
    let locks_max = Duration::from_secs(20);
    let config = PoolConfig { connections_max: 0, wait_max: None, locks_max, read_only: false };
    assert_eq!(Pool::new(parse(""), &config).unwrap_err().kind(), ErrorKind::Invalid);
}

/// A host that takes connections and never says a word.
async fn listening() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}
