//! One suite for all consumers: the scenarios of `clients/conformance`, against the library's own and each client's.

use std::sync::Arc;

use doorbell_server::{EphemeralOptions, Server, Shutdown};
use serde_json::{Value, json};
use tokio_postgres::Client;

use super::{
    driver::{Driver, Program},
    languages,
};
use crate::support::{Database, LISTENERS, connect, repository, until};

#[tokio::test(flavor = "multi_thread")]
async fn the_consumer_of_the_library_does_what_the_scenarios_say() {
    conforms(Program::this()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_python_client_does_what_the_scenarios_say() {
    let Some(python) = languages::python().await else { return };
    conforms(Program::new(python, "clients/conformance/driver.py")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_typescript_client_does_what_the_scenarios_say() {
    let Some(node) = languages::node().await else { return };
    conforms(Program::new(node, "clients/conformance/driver.mjs")).await;
}

/// All scenarios, a few at the same time, each in a database of its own.
async fn conforms(program: Program) {
    let scenarios: Vec<Value> = serde_json::from_str(&repository("clients/conformance/scenarios.json")).unwrap();
    assert!(scenarios.len() > 10, "{} scenarios", scenarios.len());
    let (program, turns) = (Arc::new(program), Arc::new(tokio::sync::Semaphore::new(4)));
    let runs = scenarios.into_iter().map(|scenario| {
        let (program, turns, name) = (program.clone(), turns.clone(), scenario["name"].as_str().unwrap().to_owned());
        let run = tokio::spawn(async move {
            let _turn = turns.acquire().await.unwrap();
            Scenario::run(&program, scenario["steps"].as_array().unwrap()).await;
        });
        (name, run)
    });
    let mut failed = Vec::new();
    for (name, run) in runs.collect::<Vec<_>>() {
        if let Err(error) = run.await {
            failed.push(format!("{name}: {error}"));
        }
    }
    assert!(failed.is_empty(), "these failed: {failed:#?}");
}

/// Where a scenario takes place.
struct Scenario {
    url: String,
    /// Its own server, when it is to be restarted.
    server: Option<Server>,
    client: Client,
    drivers: Vec<(String, Driver)>,
}

impl Scenario {
    async fn run(program: &Program, steps: &[Value]) {
        let mut scenario = Self::new(steps.iter().any(|step| !step["restart"].is_null())).await;
        for step in steps {
            scenario.step(program, step).await;
        }
    }

    async fn new(own_server: bool) -> Self {
        let (url, server) = if own_server {
            let options = EphemeralOptions { durable: true, ..Default::default() };
            let server = Server::ephemeral(options).await.unwrap();
            let url = server.connection_string("postgres");
            doorbell::Broker::connect(&url).await.unwrap().migrate().await.unwrap();
            (url, Some(server))
        } else {
            (Database::new().await.url, None)
        };
        Self { client: connect(&url).await, url, server, drivers: Vec::new() }
    }

    async fn step(&mut self, program: &Program, step: &Value) {
        let (verb, argument) =
            step.as_object().unwrap().iter().find(|(verb, _)| !matches!(verb.as_str(), "line" | "config")).unwrap();
        let name = argument.as_str().unwrap_or_default();
        match verb.as_str() {
            "start" => {
                let mut config = configuration();
                config.as_object_mut().unwrap().extend(step["config"].as_object().cloned().unwrap_or_default());
                self.drivers.push((name.to_owned(), Driver::start(program, &self.url, &config)));
            }
            "say" => self.driver(name).say(&step["line"]),
            "hear" => self.driver(name).hear(&step["line"]).await,
            "kill" => self.driver(name).kill(),
            "exits" => self.driver(name).exits().await,
            "sql" => self.client.batch_execute(&sql(name)).await.unwrap_or_else(|error| panic!("{name}: {error:?}")),
            "until" => until(&self.client, name, &sql(name)).await,
            "check" => assert!(self.client.query_one(name, &[]).await.unwrap().get::<_, bool>(0), "{name}"),
            "restart" => {
                self.server.as_mut().expect("has its own").restart(Shutdown::Fast).await.unwrap();
                self.client = connect(&self.url).await;
            }
            _ => panic!("no step is named {verb}"),
        }
    }

    fn driver(&mut self, name: &str) -> &mut Driver {
        &mut self.drivers.iter_mut().find(|(known, _)| known == name).expect("it was started").1
    }
}

/// How a driver consumes where nothing else is said: it sweeps once an hour.
pub(super) fn configuration() -> Value {
    json!({"concurrency": 2, "beat_ms": 1000, "drain_ms": 30_000, "sweep_ms": 3_600_000, "schema": "integration"})
}

/// What the scenarios have short words for.
fn sql(said: &str) -> String {
    match said.split_once(' ') {
        Some(("PUBLISH", data)) => format!("select integration.publish('shop', 'billing', 'n', '\"{data}\"')"),
        None if said == "PARKED" => "select integration.somebody_is_parked('billing')".to_owned(),
        // Has not looked again for a moment, so that nothing but a bell explains that it will.
        None if said == "WAITING" => "select exists (select from pg_locks l join pg_stat_activity a on a.pid = l.pid \
            join pg_database d on d.oid = l.database and d.datname = current_database() \
            where l.locktype = 'advisory' and l.classid::bigint = integration.latch_class() and a.state = 'idle' \
              and a.state_change < clock_timestamp() - interval '300 ms')"
            .to_owned(),
        // Waits until they are gone.
        None if said == "CUT" => format!("select pg_terminate_backend(l.pid, 60000) from ({LISTENERS}) l"),
        _ => said.to_owned(),
    }
}
