//! The parts of the path by themselves, each beside its floor: `cargo bench`, or `cargo bench -- drain` for one of them; floor and ours in turns.
//!
//! One durable private server for all. Criterion tells what changed since the last run; the ratios at the end are what to
//! read on another machine. `doorbell bench` measures the same path under load.

mod claim;
mod codec;
mod drain;
mod publish;
mod wake;

use std::time::Duration;

use criterion::{Criterion, Throughput};
use doorbell::Broker;
use doorbell_bench::{Lab, Result, SERVER_SETTINGS};
use doorbell_server::{EphemeralOptions, Server};
use tokio::runtime::Runtime;

/// Payload of all but the codec's.
const BYTES: usize = 200;

/// The server, and what was measured on it.
struct Speed {
    runtime: Runtime,
    lab: Lab,
    criterion: Criterion,
    pairs: Vec<Pair>,
    server: Server,
}

impl Speed {
    fn new() -> Result<Self> {
        let runtime = Runtime::new()?;
        let (server, lab) = runtime.block_on(async {
            let settings = SERVER_SETTINGS.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
            let server = Server::ephemeral(EphemeralOptions { durable: true, settings, ..Default::default() }).await?;
            let url = server.connection_string("postgres");
            let broker = Broker::connect(&url).await?;
            broker.migrate().await?;
            broker.close().await;
            println!("PostgreSQL {}, durable, {SERVER_SETTINGS:?}, payload {BYTES} bytes", server.version());
            let lab = Lab::open(&url).await?;
            lab.run_in().await?;
            Result::Ok((server, lab))
        })?;
        let criterion = Criterion::default().configure_from_args();
        Ok(Self { runtime, lab, criterion, pairs: Vec::new(), server })
    }

    /// Measures `ours`, which returns how long the `elements` of one call took without its preparations, and before each
    /// call the floor: criterion sees ours alone, the ratio is of both.
    fn measure(
        &mut self,
        name: &str,
        elements: u64,
        mut floor: impl FnMut(&Runtime, &Lab) -> Result<Duration>,
        mut ours: impl FnMut(&Runtime, &Lab) -> Result<Duration>,
    ) {
        let mut pair = Pair { name: name.to_owned(), floor: Vec::new(), ours: Vec::new() };
        let (runtime, lab) = (&self.runtime, &self.lab);
        let (part, what) = name.split_once('/').unwrap_or(("speed", name));
        let mut group = self.criterion.benchmark_group(part);
        group.sample_size(10).throughput(Throughput::Elements(elements));
        group.warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(3));
        group.bench_function(what, |bencher| {
            bencher.iter_custom(|iterations| {
                let mut total = Duration::ZERO;
                for _ in 0..iterations {
                    let took = [floor(runtime, lab), ours(runtime, lab)]
                        .map(|took| took.unwrap_or_else(|error| panic!("{name}: {error}")));
                    pair.floor.push(took[0].as_secs_f64() / elements as f64);
                    pair.ours.push(took[1].as_secs_f64() / elements as f64);
                    total += took[1];
                }
                total
            });
        });
        group.finish();
        // Nothing when the command line filters it out.
        if !pair.ours.is_empty() {
            self.pairs.push(pair);
        }
    }

    /// Prints the ratios.
    fn end(self) -> Result<()> {
        println!("\nmedians in microseconds; the ratio is of times: 1.00 is the floor, 2.00 twice as slow");
        for Pair { name, floor, ours } in &self.pairs {
            let (ours_us, floor_us) = (median(ours) * 1e6, median(floor) * 1e6);
            let (count, ratio) = (ours.len(), ours_us / floor_us);
            println!("{name:<24} {ours_us:>10.2}   floor {floor_us:>10.2}   ratio {ratio:.2}   of {count} in turns");
        }
        self.criterion.final_summary();
        let Self { runtime, lab, server, .. } = self;
        drop(lab);
        runtime.block_on(server.stop())?;
        Ok(())
    }
}

/// Seconds per element, in turns.
struct Pair {
    name: String,
    floor: Vec<f64>,
    ours: Vec<f64>,
}

fn median(samples: &[f64]) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
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
