//! Consumers as processes of their own, which can be stopped and killed: this test binary, started again. What they do to
//! a message is said by its payload; what they have begun is told on their standard output.

use std::{
    io::{BufRead, Write},
    process::{Child, Command, Stdio},
};

use doorbell::{Broker, ConsumerConfig, Outcome, Settings};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::pace;
pub(super) use crate::support::Seen;
use crate::support::seen;

/// Set in the processes that a test starts from its own program: the database, and the target to consume.
const URL: &str = "DOORBELL_TEST_FAILOVER_URL";
const TARGET: &str = "DOORBELL_TEST_FAILOVER_TARGET";

/// Never ends by itself.
pub(super) const HANG: &str = "\"hang\"";
/// Does not give the thread back before a line comes on standard input.
pub(super) const BLOCK: &str = "\"block\"";

/// A running consumer process; dropping it kills it.
pub(super) struct Process {
    child: Child,
}

impl Process {
    /// Starts a consumer of `target`. What it begins and what the library logs there is told.
    pub(super) fn start(url: &str, target: &str) -> (Self, Seen<String>) {
        let mut command = Command::new(std::env::current_exe().expect("this program has a path"));
        let name = format!("{}::consumer_process", module_path!().split_once("::").expect("below the crate").1);
        command.args(["--exact", &name, "--nocapture"]).env(URL, url).env(TARGET, target);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().expect("the program starts again");
        let said = child.stdout.take().expect("asked for as a pipe");
        let (tell, told) = seen();
        std::thread::spawn(move || {
            std::io::BufReader::new(said).lines().map_while(Result::ok).try_for_each(|line| tell.send(line).ok())
        });
        (Self { child }, told)
    }

    pub(super) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id() as i32), signal).expect("it runs");
    }

    /// Lets one blocked handler go on.
    pub(super) fn unblock(&mut self) {
        self.child.stdin.as_mut().expect("asked for as a pipe").write_all(b"\n").expect("it reads");
    }

    /// Kills it as nothing else does, and waits until it is gone.
    pub(super) fn kill(mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits until it has begun so many messages; their payloads.
pub(super) async fn begun(told: &mut Seen<String>, count: usize) -> Vec<String> {
    let mut all = Vec::new();
    while all.len() < count {
        let line = told.next().await;
        all.extend(line.strip_prefix("begun ").map(str::to_owned));
    }
    all
}

/// Not a test of its own: what the processes started by [`Process::start`] do. Two threads, as on a small machine.
#[test]
fn consumer_process() {
    let (Ok(url), Ok(target)) = (std::env::var(URL), std::env::var(TARGET)) else { return };
    crate::logs::everywhere(|line| println!("log {line}"));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let broker = Broker::with_config(Settings::parse(&url).unwrap(), pace::config()).await.unwrap();
        let consumer = broker
            .consumer(target)
            .config(ConsumerConfig { handler_timeout: None, ..ConsumerConfig::default() })
            .fallback(|delivery| async move {
                println!("begun {}", delivery.payload());
                match delivery.payload() {
                    HANG => std::future::pending().await,
                    BLOCK => std::io::stdin().read_line(&mut String::new()).map(drop)?,
                    _ => {}
                }
                Ok(Outcome::Done)
            });
        consumer.run_until(std::future::pending()).await.unwrap();
    });
}
