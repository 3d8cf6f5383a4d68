//! Drivers: programs that consume as they are told in lines of JSON, and say what their handlers are told.

use std::{
    collections::HashMap,
    io::{BufRead, Write},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    time::Duration,
};

use doorbell::{Broker, BrokerConfig, ConsumerConfig, Delivery, Message, Outcome, Settings};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    sync::oneshot,
};

use crate::support::{Seen, seen, soon};

/// How a driver is started.
pub(super) struct Program {
    path: PathBuf,
    arguments: Vec<String>,
}

impl Program {
    /// A script of the repository.
    pub(super) fn new(interpreter: PathBuf, script: &str) -> Self {
        Self { path: interpreter, arguments: vec![format!("{}/{script}", env!("CARGO_MANIFEST_DIR"))] }
    }

    /// The driver of the library's own consumer: this program, started again.
    pub(super) fn this() -> Self {
        let name = format!("{}::driver_process", module_path!().split_once("::").expect("below the crate").1);
        let arguments = ["--exact", &name, "--nocapture"].map(str::to_owned).to_vec();
        Self { path: std::env::current_exe().expect("this program has a path"), arguments }
    }
}

/// Set in drivers, and nowhere else.
const IS_DRIVER: &str = "DOORBELL_TEST_DRIVER";

/// A running driver; dropping it kills it.
pub(super) struct Driver {
    child: Child,
    said: Seen<Value>,
    /// What it has said and nobody has asked for yet.
    unheard: Vec<Value>,
    complaints: Arc<Mutex<String>>,
}

impl Driver {
    pub(super) fn start(program: &Program, url: &str, config: &Value) -> Self {
        let mut command = Command::new(&program.path);
        command.args(&program.arguments).env("DATABASE_URL", url).env(IS_DRIVER, "1");
        // What a client in another language is, is in the repository, installed or not.
        command.env("PYTHONPATH", concat!(env!("CARGO_MANIFEST_DIR"), "/clients/python/src"));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{}: {error}", program.path.display()));
        let (tell, said) = seen();
        let lines = std::io::BufReader::new(child.stdout.take().expect("asked for as a pipe"));
        std::thread::spawn(move || {
            let lines = lines.lines().map_while(Result::ok).filter(|line| line.starts_with('{'));
            lines.for_each(|line| drop(tell.send(serde_json::from_str(&line).expect("a line of JSON"))));
        });
        let complaints = Arc::new(Mutex::new(String::new()));
        let (complained, errors) = (complaints.clone(), child.stderr.take().expect("asked for as a pipe"));
        std::thread::spawn(move || {
            let lines = std::io::BufReader::new(errors).lines().map_while(Result::ok);
            lines.for_each(|line| complained.lock().unwrap().push_str(&(line + "\n")));
        });
        let mut driver = Self { child, said, unheard: Vec::new(), complaints };
        driver.say(config);
        driver
    }

    pub(super) fn say(&mut self, line: &Value) {
        let said = writeln!(self.child.stdin.as_mut().expect("asked for as a pipe"), "{line}");
        said.unwrap_or_else(|error| panic!("it does not listen: {error}\n{}", self.complaints.lock().unwrap()));
    }

    /// Waits until it says a line with these fields, whatever else it says.
    pub(super) async fn hear(&mut self, fields: &Value) {
        let fields = fields.as_object().unwrap();
        let has_them = |line: &Value| fields.iter().all(|(field, value)| &line[field] == value);
        loop {
            if let Some(at) = self.unheard.iter().position(has_them) {
                self.unheard.remove(at);
                return;
            }
            match tokio::time::timeout(crate::support::SOON, self.said.next_or_end()).await {
                Ok(Some(line)) => self.unheard.push(line),
                _ => panic!("never said {fields:?}, but {:?}\n{}", self.unheard, self.complaints.lock().unwrap()),
            }
        }
    }

    pub(super) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Waits until it has ended by itself, and well.
    pub(super) async fn exits(&mut self) {
        soon("its output ends", async { while self.said.next_or_end().await.is_some() {} }).await;
        let status = self.child.wait().unwrap();
        assert!(status.success(), "{status}\n{}", self.complaints.lock().unwrap());
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Not a test of its own: the driver of the library's consumer.
#[test]
fn driver_process() {
    if std::env::var_os(IS_DRIVER).is_none() {
        return;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(drive());
}

/// Handlers that wait for their end, by what they handle.
type Waiting = Arc<Mutex<HashMap<String, oneshot::Sender<Value>>>>;

async fn drive() {
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    let config: Value = serde_json::from_str(&lines.next_line().await.unwrap().unwrap()).unwrap();
    let ms = |name: &str| Duration::from_millis(config[name].as_u64().unwrap());
    let settings = Settings::parse(&std::env::var("DATABASE_URL").unwrap()).unwrap();
    let beat = BrokerConfig { beat: ms("beat_ms"), ..BrokerConfig::default() };
    let broker = Broker::with_config(settings, beat).await.unwrap();
    let waiting = Waiting::default();
    let handlers = waiting.clone();
    let consumer = broker.consumer("billing").config(ConsumerConfig {
        concurrency: config["concurrency"].as_u64().unwrap() as usize,
        prefetch: Some(0),
        hold: None,
        sweep: Some(ms("sweep_ms")),
        drain_timeout: ms("drain_ms"),
        ..ConsumerConfig::default()
    });
    let consumer = consumer.fallback(move |delivery| handle(delivery, handlers.clone())).start().await.unwrap();
    while let Some(line) = lines.next_line().await.unwrap() {
        let said: Value = serde_json::from_str(&line).unwrap();
        if let Some(end) = said["end"].as_str() {
            let handler = waiting.lock().unwrap().remove(end);
            let _ = handler.expect("it runs").send(said);
        } else if said["publish"].is_object() {
            publish(&broker, &said["publish"]).await;
        } else {
            // What is said from now on is still listened to.
            tokio::spawn(async move { while listen(&mut lines, &waiting).await {} });
            break;
        }
    }
    consumer.shutdown().await.unwrap();
    broker.close().await;
    println!("\n{}", json!({"stopped": true}));
    std::process::exit(0);
}

async fn listen(lines: &mut tokio::io::Lines<BufReader<tokio::io::Stdin>>, waiting: &Waiting) -> bool {
    let Ok(Some(line)) = lines.next_line().await else { return false };
    let said: Value = serde_json::from_str(&line).unwrap();
    let handler = waiting.lock().unwrap().remove(said["end"].as_str().unwrap());
    let _ = handler.expect("it runs").send(said);
    true
}

async fn handle(delivery: Delivery, waiting: Waiting) -> Result<Outcome, Box<dyn std::error::Error + Send + Sync>> {
    struct Cancelled(Option<String>);
    impl Drop for Cancelled {
        fn drop(&mut self) {
            if let Some(name) = self.0.take() {
                println!("\n{}", json!({"cancelled": name}));
            }
        }
    }
    let name: String = delivery.json()?;
    let (end, ended) = oneshot::channel();
    waiting.lock().unwrap().insert(name.clone(), end);
    println!("\n{}", json!({"began": name, "attempt": delivery.attempt}));
    let mut guard = Cancelled(Some(name));
    let said = ended.await.expect("it is told how to end");
    guard.0 = None;
    let reason = said["reason"].as_str().unwrap_or_default();
    let after = said["after_ms"].as_u64().map(Duration::from_millis);
    Ok(match said["outcome"].as_str().unwrap() {
        "complete" => Outcome::Done,
        "retry" => Outcome::Retry { after, reason: reason.to_owned() },
        "reject" => Outcome::reject(reason),
        "snooze" => Outcome::snooze(after.unwrap()),
        "unavailable" => Outcome::unavailable(reason),
        "throw" => return Err(reason.into()),
        other => panic!("no outcome is named {other}"),
    })
}

async fn publish(broker: &Broker, given: &Value) {
    let mut message = Message::new("billing", "n", &given["data"]).unwrap();
    if let Some(key) = given["dedup_key"].as_str() {
        message = message.dedup_key(key);
    }
    if let Some(key) = given["ordering_key"].as_str() {
        message = message.ordering_key(key);
    }
    if let Some(key) = given["coalesce_key"].as_str() {
        message = message.coalesce(key);
    }
    if let Some(priority) = given["priority"].as_i64() {
        message = message.priority(priority as i32);
    }
    if let Some(retries) = given["max_retries"].as_u64() {
        message = message.max_retries(retries as u32);
    }
    if let Some(delay) = given["delay_ms"].as_u64() {
        message = message.delay(Duration::from_millis(delay));
    }
    for (name, value) in given["headers"].as_object().into_iter().flatten() {
        message = message.header(name, value.as_str().unwrap());
    }
    let id = broker.producer("shop").publish(&message).await.unwrap();
    println!("\n{}", json!({"published": id}));
}
