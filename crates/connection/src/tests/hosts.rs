//! Hosts that freeze, refuse or are not there, played by listeners of this process.

use std::{net::SocketAddr, time::Duration};

use doorbell_testing::skip_startup;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use super::{PASSWORD, everything, parse};
use crate::{
    Messages,
    error::{ErrorKind, Result},
};

/// A host that takes connections and never says a word.
async fn frozen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// A host that answers one login with the given bytes, after refusing TLS.
async fn answering(answer: impl AsRef<[u8]>) -> SocketAddr {
    let (listener, address) = frozen().await;
    let answer = answer.as_ref().to_vec();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        skip_startup(&mut stream).await;
        stream.write_all(&answer).await.unwrap();
        // Stays open until the client goes, as a server would.
        let _ = stream.read_to_end(&mut Vec::new()).await;
    });
    address
}

/// AuthenticationOk and ReadyForQuery.
pub(super) const WELCOME: &[u8] = b"R\0\0\0\x08\0\0\0\0Z\0\0\0\x05I";
/// AuthenticationCleartextPassword.
const ASKS_FOR_A_PASSWORD: &[u8] = b"R\0\0\0\x08\0\0\0\x03";
/// ErrorResponse of a server that does not let anybody in.
fn refusal(code: &str) -> Vec<u8> {
    let fields = format!("SFATAL\0C{code}\0Mno\0\0");
    let length = u32::try_from(fields.len() + 4).unwrap();
    [b"E", length.to_be_bytes().as_slice(), fields.as_bytes()].concat()
}

async fn connect(hosts: &[SocketAddr], more: &str) -> Result<(tokio_postgres::Client, Messages)> {
    let names: Vec<_> = hosts.iter().map(|host| host.ip().to_string()).collect();
    let ports: Vec<_> = hosts.iter().map(|host| host.port().to_string()).collect();
    let text = format!("host={} port={} password={PASSWORD} {more}", names.join(","), ports.join(","));
    parse(&text).unwrap().connect().await
}

#[tokio::test]
async fn a_frozen_first_host_does_not_hide_a_healthy_second() {
    let (_listener, first) = frozen().await;
    let second = answering(WELCOME).await;
    connect(&[first, second], "connect_timeout=1").await.unwrap();
}

#[tokio::test]
async fn frozen_hosts_are_not_waited_for_and_the_one_that_answered_comes_first_from_then_on() {
    let ((_one, first), (_other, second)) = (frozen().await, frozen().await);
    let third = answering(WELCOME).await;
    let ports = format!("{},{},{}", first.port(), second.port(), third.port());
    // Without a limit: waiting for a frozen host would never end.
    let text = format!("host=127.0.0.1,127.0.0.1,127.0.0.1 port={ports} connect_timeout=0 sslmode=disable");
    let settings = parse(&text).unwrap();
    tokio::time::timeout(Duration::from_secs(30), settings.connect()).await.expect("nobody waits").unwrap();
    let order: Vec<u16> = settings.clone().order().iter().map(|host| host.port).collect();
    assert_eq!(order, [third.port(), first.port(), second.port()]);
}

#[tokio::test]
async fn a_refused_user_does_not_outrun_a_slower_host_in_front() {
    let (slow, first) = frozen().await;
    let (refusing, second) = frozen().await;
    tokio::spawn(async move {
        let (mut stream, _) = slow.accept().await.unwrap();
        skip_startup(&mut stream).await;
        // The second host has refused before the first says a word.
        let (mut other, _) = refusing.accept().await.unwrap();
        skip_startup(&mut other).await;
        other.write_all(&refusal("28P01")).await.unwrap();
        let _ = other.read_to_end(&mut Vec::new()).await;
        stream.write_all(WELCOME).await.unwrap();
        let _ = stream.read_to_end(&mut Vec::new()).await;
    });
    connect(&[first, second], "sslmode=disable connect_timeout=0").await.unwrap();
}

#[tokio::test]
async fn a_host_that_freezes_during_the_login_is_given_up_too() {
    let first = answering(b"").await;
    let second = answering(WELCOME).await;
    connect(&[first, second], "connect_timeout=1 sslmode=disable").await.unwrap();
}

#[tokio::test]
async fn the_role_must_be_told_within_the_deadline() {
    let first = answering(WELCOME).await;
    let error = connect(&[first], "connect_timeout=1 target_session_attrs=primary").await.unwrap_err();
    assert!(error.to_string().ends_with("timed out while asking for the server's role"), "{error}");
}

#[tokio::test]
async fn when_all_hosts_fail_each_has_its_line() {
    let (_listener, first) = frozen().await;
    let (listener, second) = frozen().await;
    drop(listener);
    let error = connect(&[first, second], "connect_timeout=1 sslmode=disable").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Connect);
    let text = error.to_string();
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines.len(), 3, "{text}");
    assert_eq!(lines[1].trim(), format!("{first}: timed out while logging in"));
    assert!(lines[2].trim().starts_with(&format!("{second}: ")), "{text}");
    assert!(!everything(&error).contains(PASSWORD));
}

#[tokio::test]
async fn a_refused_user_ends_the_search() {
    let first = answering(refusal("28P01")).await;
    let second = answering(WELCOME).await;
    let error = connect(&[first, second], "").await.unwrap_err();
    assert_eq!((error.kind(), error.sqlstate()), (ErrorKind::Database, Some("28P01")));
    assert!(!everything(&error).contains(PASSWORD));
}

#[tokio::test]
async fn a_refusal_counts_for_more_than_a_host_that_is_down() {
    let (listener, first) = frozen().await;
    drop(listener);
    let second = answering(refusal("28000")).await;
    let error = connect(&[first, second], "sslmode=disable").await.unwrap_err();
    assert_eq!((error.kind(), error.sqlstate()), (ErrorKind::Database, Some("28000")));
}

#[tokio::test]
async fn a_server_that_is_starting_up_is_passed_over() {
    let first = answering(refusal("57P03")).await;
    let second = answering(WELCOME).await;
    connect(&[first, second], "").await.unwrap();

    let only = answering(refusal("57P03")).await;
    let error = connect(&[only], "").await.unwrap_err();
    assert_eq!((error.kind(), error.sqlstate()), (ErrorKind::Connect, Some("57P03")));
    assert_eq!(format!("{error:?}").matches("57P03").count(), 1, "{error:?}");
}

#[tokio::test]
async fn a_missing_password_is_a_matter_of_settings() {
    let address = answering(ASKS_FOR_A_PASSWORD).await;
    let settings = parse(&format!("host=127.0.0.1 port={} passfile=/nowhere", address.port())).unwrap();
    let error = settings.connect().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.to_string().contains("password missing"), "{error}");
}

#[tokio::test]
async fn a_name_that_does_not_resolve_is_reported_as_such() {
    let settings = parse(&format!("host=no-such-host.invalid password={PASSWORD}")).unwrap();
    let error = settings.connect().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Connect);
    assert!(!everything(&error).contains(PASSWORD));
}

#[cfg(unix)]
#[tokio::test]
async fn a_missing_socket_is_reported_as_such() {
    let directory = tempfile::tempdir().unwrap();
    let error = parse(&format!("host={}", directory.path().display())).unwrap().connect().await.unwrap_err();
    let expected = format!("cannot connect to {}:5432: ", directory.path().display());
    assert!(error.to_string().starts_with(&expected), "{error}");
}

#[cfg(feature = "tls")]
#[tokio::test]
async fn require_does_not_go_on_without_tls() {
    let address = answering(WELCOME).await;
    let error = connect(&[address], "sslmode=require").await.unwrap_err();
    assert!(error.to_string().ends_with("the server does not offer TLS"), "{error}");
}

#[cfg(feature = "tls")]
#[tokio::test]
async fn a_root_certificate_that_cannot_be_read_is_a_config_error() {
    let (_listener, address) = frozen().await;
    let error = connect(&[address], "sslmode=verify-ca sslrootcert=/nowhere/root.crt").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.to_string().contains("`sslrootcert`"), "{error}");
}
