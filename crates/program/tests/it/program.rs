//! The program, as scripts and people use it: what it prints, how it ends, and what it leaves in the database.

use std::process::Output;

use nix::unistd::Pid;
use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    net::TcpStream,
    process::{Child, ChildStderr, ChildStdout},
};

// What nearly every test of the program needs.
pub(crate) use std::{path::PathBuf, process::Stdio, time::Duration};

pub(crate) use doorbell_testing::{Database, connect, count, grants, soon};
pub(crate) use nix::sys::{signal::Signal, stat::Mode};
pub(crate) use serde_json::{Value, json};
pub(crate) use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    process::Command,
};

pub(crate) use crate::terminal::Terminal;

/// The demo takes about ten seconds by design, and shares the machine with all other tests.
pub(crate) const DEMO_MAX: Duration = Duration::from_secs(120);

/// The program with this test's database and nothing else of the environment that it would heed.
pub(crate) fn doorbell(db: &Database, arguments: &[&str]) -> Command {
    let mut command = bare(arguments);
    command.env("DOORBELL_DATABASE_URL", &db.url);
    command
}

pub(crate) fn bare(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_doorbell"));
    for (name, _) in std::env::vars_os() {
        let bytes = name.as_encoded_bytes();
        let kept = bytes == b"DOORBELL_PG_BINDIR" || bytes == b"DOORBELL_PG_ARCHIVE" || bytes == b"DOORBELL_FETCH_PG";
        if !kept && (bytes.starts_with(b"PG") || bytes.starts_with(b"DOORBELL_") || bytes == b"DATABASE_URL") {
            command.env_remove(name);
        }
    }
    command.env_remove("RUST_LOG").args(arguments).kill_on_drop(true);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

pub(crate) async fn ended(mut command: Command) -> Output {
    soon("the program ends", command.output()).await.unwrap()
}

pub(crate) async fn fed(mut command: Command, input: &str) -> Output {
    let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // A program that found a bad line does not read on.
    let _ = stdin.write_all(input.as_bytes()).await;
    drop(stdin);
    soon("the program ends", child.wait_with_output()).await.unwrap()
}

pub(crate) fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

pub(crate) fn err(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// The program's exit code; with what it said, should it be another one.
#[track_caller]
pub(crate) fn ends_with(output: &Output, code: i32) {
    assert_eq!(output.status.code(), Some(code), "{}{}", out(output), err(output));
}

pub(crate) fn json_of(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", out(output)))
}

pub(crate) fn lines_of(output: &Output) -> Vec<Value> {
    out(output).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

pub(crate) const PUBLISH: [&str; 6] = ["publish", "billing", "--source", "shop", "--type", "n"];

pub(crate) async fn publish(db: &Database, payloads: &str) -> Output {
    let output = fed(doorbell(db, &[&PUBLISH[..], &["-"]].concat()), payloads).await;
    ends_with(&output, 0);
    output
}

/// A program that runs, and what it says.
pub(crate) struct Running {
    pub(crate) child: Child,
    pub(crate) stdout: Lines<BufReader<ChildStdout>>,
    pub(crate) stderr: Lines<BufReader<ChildStderr>>,
}

impl Running {
    pub(crate) fn start(mut command: Command) -> Self {
        let mut child = command.spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap()).lines();
        let stderr = BufReader::new(child.stderr.take().unwrap()).lines();
        Self { child, stdout, stderr }
    }

    pub(crate) async fn line(&mut self) -> String {
        soon("a line on stdout", self.stdout.next_line()).await.unwrap().expect("stdout is open")
    }

    pub(crate) async fn logs(&mut self, what: &str) {
        self.log_line(what).await;
    }

    /// Waits for a line of log that contains this, and returns it.
    pub(crate) async fn log_line(&mut self, what: &str) -> String {
        soon(what, async {
            loop {
                let line = self.stderr.next_line().await.unwrap().expect("stderr is open");
                if line.contains(what) {
                    return line;
                }
            }
        })
        .await
    }

    pub(crate) fn signal(&self, signal: Signal) {
        nix::sys::signal::kill(Pid::from_raw(self.child.id().unwrap() as i32), signal).unwrap();
    }

    /// Waits for its end, and for the end of everybody who could still write to its stdout.
    pub(crate) async fn ended(mut self) -> i32 {
        soon("stdout ends", async { while self.stdout.next_line().await.unwrap().is_some() {} }).await;
        soon("the program ends", self.child.wait()).await.unwrap().code().expect("no signal ended it")
    }
}

/// An answer in full: to a GET of this path by this host.
pub(crate) async fn get(address: &str, path: &str, host: &str) -> String {
    let answer = async {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    };
    soon("an answer", answer).await
}

/// A directory of this test that any account may enter.
pub(crate) struct Directory(pub(crate) PathBuf);

impl Directory {
    pub(crate) fn new(name: &str) -> Self {
        use std::os::unix::fs::PermissionsExt;
        let path = std::env::temp_dir().join(format!("doorbell-cli-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
        Self(path)
    }

    pub(crate) fn join(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_owned()
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
