//! `doorbell demo`: all of it at once, on a server of its own.
//!
//! ```text
//! server ─▶ wake-ups, one message at a time ─▶ orders, with a consumer killed in the middle ─▶ what the database counts
//! ```

mod handlers;
mod ledger;
mod orders;
mod pages;
mod summary;
mod victim;
mod view;
mod wake;

use std::time::Duration;

use clap::Args;
use doorbell::{Broker, Consumer, ConsumerConfig, MessageId, Producer};
use doorbell_server::{EphemeralOptions, Server};
use futures::future::try_join_all;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use self::{ledger::Ledger, orders::Order, pages::Pages, summary::Summary, victim::Victim, view::View};
use crate::{
    Global,
    consent::consent,
    exit::{Exit, Failure},
    output,
    signals::Signals,
};

pub(crate) use victim::DemoConsumer;

/// How long the orders take to be published, so that there is something to look at.
const PUBLISHING: Duration = Duration::from_secs(5);

/// The same where it is looked at in a browser.
const PUBLISHING_SEEN: Duration = Duration::from_secs(20);

/// When everything is published, this is far more than the rest takes.
const DRAIN_MAX: Duration = Duration::from_secs(60);

/// Handlers at work per target and process.
const CONCURRENCY: usize = 8;

/// Consuming processes within the program; one more runs outside and does not survive.
const PROCESSES: usize = 2;

/// See it work: a private server, producers, consumers, a poison message, and a consumer that is killed
///
/// Starts a PostgreSQL of its own, measures how fast an idle consumer wakes, publishes about 3000 orders from several
/// producers to several consumers, kills one consumer process in the middle with kill -9, and then counts in the database
/// what became of every message. What happens to one order has its number as the key, so it is handled in order, one after the
/// other. Ends with exit code 1 if any was lost or handled out of order. Leaves nothing behind. With --ui it takes a quarter of
/// a minute longer, and can be looked at in a browser meanwhile.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  doorbell demo
  doorbell demo --ui
  doorbell demo --json | jq .lost

JSON: {\"published\", \"completed\", \"failed\", \"lost\", \"handled_twice\", \"out_of_order\", \"wake_p50_ms\", \"wake_p99_ms\"}.")]
pub(crate) struct Demo {
    /// Fetch PostgreSQL without asking where none is installed (or set DOORBELL_FETCH_PG=1)
    #[arg(long)]
    yes: bool,

    /// Serve the pages of `doorbell ui` on it, to this machine alone, until it ends; prints their address, and opens them where
    /// there is a desktop
    #[arg(long)]
    ui: bool,
}

impl Demo {
    pub(crate) async fn run(self, global: &Global, mut signals: Signals) -> Result<Exit, Failure> {
        let view = View::new(global.json);
        let options = EphemeralOptions { consent: consent(self.yes), ..EphemeralOptions::default() };
        let start = Instant::now();
        let server = tokio::select! {
            biased;
            () = signals.next() => return Ok(Exit::Interrupted),
            server = Server::ephemeral(options) => server?,
        };
        view.say(format_args!(
            "PostgreSQL {}, a private server (not durable: it is a demo), ready in {:.1} s",
            server.version(),
            start.elapsed().as_secs_f64()
        ));
        let database = server.connection_string("postgres");
        let shown = tokio::select! {
            biased;
            () = signals.next() => None,
            shown = show(&database, &view, self.ui) => Some(shown),
        };
        view.end();
        server.stop().await?;
        let Some(shown) = shown else { return Ok(Exit::Interrupted) };
        let summary = shown?;
        if global.json {
            output::json(&summary)?;
        } else {
            summary.print()?;
        }
        Ok(if summary.is_well() { Exit::Done } else { Exit::Failed })
    }
}

/// Everything that happens while the server runs.
async fn show(database: &str, view: &View, ui: bool) -> Result<Summary, Failure> {
    let broker = Broker::connect(database).await?;
    broker.migrate().await?;
    let ledger = Ledger::create(database).await?;
    let pages = if ui { Some(Pages::serve(&broker).await?) } else { None };
    if let Some(pages) = &pages {
        pages.show();
    }
    let publishing = if ui { PUBLISHING_SEEN } else { PUBLISHING };

    view.say("wake-ups: one message at a time to a consumer that is parked and never looks by itself");
    let (wake_ups, mut published) = wake::measure(&broker, &ledger, view).await?;
    view.say(&wake_ups);

    let orders = orders::all()?;
    view.say(format_args!(
        "orders: {} messages from {} producers; {PROCESSES} consuming processes, and one that will not survive",
        orders.len(),
        orders::SOURCES.len(),
    ));
    let (consumers, brokers) = consume(database, &ledger).await?;
    let victim = Victim::start(database).await?;
    let (more, killed) = tokio::try_join!(
        async {
            let watching = view.follow(&broker);
            tokio::select! {
                published = publish(&broker, orders, publishing) => published,
                never = watching => match never {},
            }
        },
        victim.kill_at_work(publishing / 2, &ledger, view),
    )?;
    published.extend(more);
    view.say("everything is published; waiting until nothing is pending, scheduled or processing");
    let drained = async {
        tokio::select! {
            drained = ledger.drained() => drained,
            never = view.follow(&broker) => match never {},
        }
    };
    // Whatever is left after that long is lost, and the summary says so.
    let _ = timeout(DRAIN_MAX, drained).await;

    for consumer in consumers {
        consumer.shutdown().await?;
    }
    let summary = Summary::count(&ledger, &published, &wake_ups, &killed).await?;
    for broker in brokers.into_iter().chain([broker]) {
        broker.close().await;
    }
    Ok(summary)
}

/// Starts the consumers of this program, each process of them with a lease of its own.
async fn consume(database: &str, ledger: &Ledger) -> Result<(Vec<Consumer>, Vec<Broker>), Failure> {
    let (mut consumers, mut brokers) = (Vec::new(), Vec::new());
    for _ in 0..PROCESSES {
        let broker = Broker::connect(database).await?;
        for target in orders::TARGETS {
            let config = ConsumerConfig { concurrency: CONCURRENCY, ..ConsumerConfig::default() };
            let quick = handlers::consumer(&broker, target, ledger, Duration::ZERO).config(config);
            consumers.push(quick.start().await?);
        }
        brokers.push(broker);
    }
    Ok((consumers, brokers))
}

/// Publishes the orders, every source by a producer of its own; returns the ids that the database acknowledged.
async fn publish(broker: &Broker, orders: Vec<Order>, during: Duration) -> Result<Vec<MessageId>, Failure> {
    let producers = orders::SOURCES.map(|source| {
        let orders: Vec<Order> = orders.iter().filter(|order| order.source == source).cloned().collect();
        produce(broker.producer(source), orders, during)
    });
    Ok(try_join_all(producers).await?.concat())
}

async fn produce(producer: Producer, orders: Vec<Order>, during: Duration) -> Result<Vec<MessageId>, Failure> {
    let mut pace = interval(during / u32::try_from(orders.len()).unwrap_or(u32::MAX).max(1));
    pace.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut ids = Vec::with_capacity(orders.len());
    for order in orders {
        pace.tick().await;
        ids.push(producer.publish(&order.into_message()?).await?);
    }
    Ok(ids)
}
