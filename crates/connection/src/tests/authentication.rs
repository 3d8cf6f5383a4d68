//! Servers that ask for a password in ways that it should not be given in.

use std::{
    io::Write,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use doorbell_testing::skip_startup;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    sync::oneshot,
};
use tracing::instrument::WithSubscriber;

use super::{PASSWORD, everything, hosts::WELCOME, parse};
use crate::error::{Error, ErrorKind};

const CLEAR_TEXT: &[u8] = b"R\0\0\0\x08\0\0\0\x03";
const MD5: &[u8] = b"R\0\0\0\x0c\0\0\0\x05salt";
const SCRAM: &[u8] = b"R\0\0\0\x17\0\0\0\x0aSCRAM-SHA-256\0\0";

/// A server that asks one login so, byte by byte, and lets in whoever answers. What it was answered.
async fn asking(question: &'static [u8]) -> (u16, oneshot::Receiver<Vec<u8>>) {
    let listener = TcpListener::bind("0.0.0.0:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (answered, answer) = oneshot::channel();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.set_nodelay(true).unwrap();
        skip_startup(&mut stream).await;
        for byte in question {
            stream.write_all(&[*byte]).await.unwrap();
            stream.flush().await.unwrap();
        }
        let mut said = vec![0; 1024];
        let length = stream.read(&mut said).await.unwrap_or_default();
        said.truncate(length);
        let _ = answered.send(said);
        let _ = stream.write_all(WELCOME).await;
        let _ = stream.read_to_end(&mut Vec::new()).await;
    });
    (port, answer)
}

/// This machine by the address that is nobody's own: not one of the loopback's.
const ELSEWHERE: &str = "0.0.0.0";
const HERE: &str = "127.0.0.1";

/// What the server is answered and what becomes of the connection.
async fn login(host: &str, question: &'static [u8], more: &str) -> (Vec<u8>, Result<(), Error>) {
    let (port, answer) = asking(question).await;
    let settings = parse(&format!("host={host} port={port} user=anna password={PASSWORD} {more}")).unwrap();
    let connected = settings.connect().await.map(drop);
    (answer.await.unwrap_or_default(), connected)
}

#[tokio::test]
async fn a_password_is_not_sent_in_the_clear_to_another_machine() {
    for (question, name) in [(CLEAR_TEXT, "password"), (MD5, "md5")] {
        for mode in ["sslmode=prefer", "sslmode=disable"] {
            let (answer, connected) = login(ELSEWHERE, question, mode).await;
            let error = connected.unwrap_err();
            assert!(answer.is_empty(), "{mode}: {answer:?}");
            assert_eq!(error.kind(), ErrorKind::Config);
            assert!(error.to_string().contains(&format!("or require_auth={name} where nobody")), "{error}");
            assert!(!everything(&error).contains(PASSWORD));
        }
        // Who names that way means it, and on this machine nobody can listen who could not do worse.
        for (host, more) in [(ELSEWHERE, format!("require_auth={name},scram-sha-256")), (HERE, String::new())] {
            let (answer, connected) = login(host, question, &format!("{more} sslmode=disable")).await;
            connected.unwrap();
            assert_eq!(answer.first(), Some(&b'p'), "{host} {more}");
        }
    }
}

#[tokio::test]
async fn require_auth_decides_which_questions_are_answered() {
    for (question, setting, allowed) in [
        (CLEAR_TEXT, "password", true),
        (CLEAR_TEXT, "!md5", true),
        (CLEAR_TEXT, "scram-sha-256", false),
        (CLEAR_TEXT, "!password,!md5", false),
        (MD5, "md5,none", true),
        (MD5, "scram-sha-256", false),
        (SCRAM, "scram-sha-256", true),
        (SCRAM, "md5", false),
        (b"".as_slice(), "none", true),
        (b"", "!md5", true),
        (b"", "!none", false),
        (b"", "scram-sha-256,password", false),
    ] {
        let question = if question.is_empty() { WELCOME } else { question };
        let (answer, connected) = login(HERE, question, &format!("require_auth={setting} sslmode=disable")).await;
        match connected {
            Err(error) if !allowed => {
                assert!(error.to_string().contains("which `require_auth` does not allow"), "{setting}: {error}");
                assert_eq!(error.kind(), ErrorKind::Config);
                assert!(answer.is_empty(), "{setting}: {answer:?}");
            }
            connected => {
                assert!(allowed, "{setting}");
                // This server does not know how SCRAM goes on.
                assert!(question == SCRAM && answer.starts_with(b"p") || connected.is_ok(), "{setting}: {connected:?}");
            }
        }
    }
}

#[test]
fn require_auth_that_cannot_be_read_is_refused() {
    for (setting, why) in [
        ("scram", "must list some of none, password, md5"),
        ("md5,!none", "must exclude all that it lists, or none"),
        ("!md5,none", "must exclude all that it lists, or none"),
        ("md5,", "must list some of"),
    ] {
        let error = parse(&format!("require_auth={setting}")).unwrap_err();
        assert!(error.to_string().contains(why), "{setting}: {error}");
    }
    parse("require_auth=''").unwrap();
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        Write::write(&mut *self.0.lock().unwrap(), bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// How often it is said that connections to this host are not encrypted.
async fn warnings(host: &str, more: &str) -> usize {
    let listener = TcpListener::bind("0.0.0.0:0").await.unwrap();
    let address: SocketAddr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            skip_startup(&mut stream).await;
            stream.write_all(WELCOME).await.unwrap();
        }
    });
    let log = Log::default();
    let written = log.clone();
    let subscriber = tracing_subscriber::fmt().with_writer(move || written.clone()).finish();
    let settings = parse(&format!("host={host} port={} {more}", address.port())).unwrap();
    async {
        for settings in [settings.clone(), settings.database("another")] {
            settings.connect().await.unwrap();
        }
    }
    .with_subscriber(subscriber)
    .await;
    let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    log.matches("is not encrypted").count()
}

#[tokio::test]
async fn that_another_machine_is_spoken_to_in_clear_is_said_once() {
    assert_eq!(warnings(ELSEWHERE, "").await, 1);
    assert_eq!(warnings(ELSEWHERE, "sslmode=disable").await, 0);
    assert_eq!(warnings(HERE, "").await, 0);
}
