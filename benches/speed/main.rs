//! The parts of the path by themselves, each beside its floor: `cargo bench`, or `cargo bench -- drain` for one of them.
//!
//! One durable private server for all. Criterion tells what changed since the last run; the ratios at the end are what to
//! read on another machine. `doorbell bench` measures the same path under load.

// The program's benchmarks are built of the same parts.
#[allow(dead_code, reason = "each of the two uses its own half")]
#[path = "../../src/cli/bench/floor.rs"]
mod floor;
#[allow(dead_code, reason = "each of the two uses its own half")]
#[path = "../../src/cli/bench/lab.rs"]
mod lab;
#[allow(dead_code, reason = "each of the two uses its own half")]
#[path = "../../src/cli/bench/ours.rs"]
mod ours;

mod claim;
mod codec;
mod drain;
mod publish;
mod wake;

use std::time::Duration;

use criterion::{Criterion, Throughput};
use doorbell::{
    Broker,
    server::{EphemeralOptions, Server},
};
use tokio::runtime::Runtime;

use self::lab::{Lab, Result};

const SETTINGS: [(&str, &str); 3] =
    [("shared_buffers", "512MB"), ("max_wal_size", "8GB"), ("checkpoint_timeout", "30min")];

/// Payload of all but the codec's.
const BYTES: usize = 200;

/// The server, and what was measured on it.
struct Speed {
    runtime: Runtime,
    lab: Lab,
    criterion: Criterion,
    /// Name and the seconds of each sample.
    figures: Vec<(String, Vec<f64>)>,
    pairs: Vec<(String, String)>,
    server: Server,
}

impl Speed {
    fn new() -> Result<Self> {
        let runtime = Runtime::new()?;
        let (server, lab) = runtime.block_on(async {
            let settings = SETTINGS.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
            let server = Server::ephemeral(EphemeralOptions { durable: true, settings, ..Default::default() }).await?;
            let url = server.connection_string("postgres");
            let broker = Broker::connect(&url).await?;
            broker.migrate().await?;
            broker.close().await;
            println!("PostgreSQL {}, durable, {SETTINGS:?}, payload {BYTES} bytes", server.version());
            Result::Ok((server, Lab::open(&url).await?))
        })?;
        let criterion = Criterion::default().configure_from_args();
        Ok(Self { runtime, lab, criterion, figures: Vec::new(), pairs: Vec::new(), server })
    }

    /// Measures `once`, which returns how long the `elements` of one call took without its preparations.
    fn measure(&mut self, name: &str, elements: u64, mut once: impl FnMut(&Runtime, &Lab) -> Result<Duration>) {
        let mut samples = Vec::new();
        let (runtime, lab) = (&self.runtime, &self.lab);
        let (part, what) = name.split_once('/').unwrap_or(("speed", name));
        let mut group = self.criterion.benchmark_group(part);
        group.sample_size(10).throughput(Throughput::Elements(elements));
        group.warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(3));
        group.bench_function(what, |bencher| {
            bencher.iter_custom(|iterations| {
                (0..iterations)
                    .map(|_| {
                        let took = once(runtime, lab).unwrap_or_else(|error| panic!("{name}: {error}"));
                        samples.push(took.as_secs_f64() / elements as f64);
                        took
                    })
                    .sum()
            });
        });
        group.finish();
        // Nothing when the command line filters it out.
        if !samples.is_empty() {
            self.figures.push((name.to_owned(), samples));
        }
    }

    /// To be printed at the end: a figure beside its floor.
    fn compare(&mut self, name: &str, floor: &str) {
        self.pairs.push((name.to_owned(), floor.to_owned()));
    }

    fn median(&self, name: &str) -> Option<f64> {
        let (_, samples) = self.figures.iter().find(|(known, _)| known == name)?;
        let mut sorted = samples.clone();
        sorted.sort_by(f64::total_cmp);
        sorted.get(sorted.len() / 2).copied()
    }

    /// Prints the ratios.
    fn end(self) -> Result<()> {
        println!(
            "\nmedians of this run; the ratio is figure / floor in time, so 1.00 is the floor and 2.00 twice as slow"
        );
        for (name, floor) in &self.pairs {
            if let (Some(ours), Some(least)) = (self.median(name), self.median(floor)) {
                println!(
                    "{name:<28} {:>10.2} us   {floor:<28} {:>10.2} us   ratio {:.2}",
                    ours * 1e6,
                    least * 1e6,
                    ours / least
                );
            }
        }
        self.criterion.final_summary();
        let Self { runtime, lab, server, .. } = self;
        drop(lab);
        runtime.block_on(server.stop())?;
        Ok(())
    }
}

fn main() -> Result<()> {
    let mut speed = Speed::new()?;
    codec::bench(&mut speed)?;
    publish::bench(&mut speed)?;
    claim::bench(&mut speed)?;
    drain::bench(&mut speed)?;
    wake::bench(&mut speed)?;
    speed.end()
}
