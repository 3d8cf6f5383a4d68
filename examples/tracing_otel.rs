//! One trace from the publisher to the handler, by OpenTelemetry. Its context travels in the headers of the message, and
//! the handler's span links to it. The spans are kept in memory here and printed at the end; give the provider an OTLP
//! exporter instead, and nothing else changes.
//!
//! `cargo run --example tracing_otel`

use std::sync::Arc;

use doorbell::{Broker, BrokerConfig, Headers, Message, Outcome, Settings, observe::Propagator};
use opentelemetry::{
    propagation::{Extractor, Injector, TextMapPropagator},
    trace::{TraceContextExt, TracerProvider},
};
use opentelemetry_sdk::{
    propagation::TraceContextPropagator,
    trace::{InMemorySpanExporter, SdkTracerProvider},
};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_subscriber::{Layer, filter::LevelFilter, layer::SubscriberExt, util::SubscriberInitExt};

/// What an application writes once.
#[derive(Debug, Default)]
struct W3c(TraceContextPropagator);

impl Propagator for W3c {
    fn inject(&self, span: &Span, headers: &mut Headers) {
        self.0.inject_context(&span.context(), &mut Carrier(headers));
    }

    fn link(&self, span: &Span, headers: &Headers) {
        // To have one trace and not two with a link, span.set_parent(context) instead.
        let context = self.0.extract(&Carrier(headers));
        span.add_link(context.span().span_context().clone());
    }
}

struct Carrier<T>(T);

impl Injector for Carrier<&mut Headers> {
    fn set(&mut self, name: &str, value: String) {
        self.0.insert(name.to_owned(), value);
    }
}

impl Extractor for Carrier<&Headers> {
    fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(String::as_str).collect()
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let exporter = InMemorySpanExporter::default();
    let provider = SdkTracerProvider::builder().with_simple_exporter(exporter.clone()).build();
    let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("shop"));
    tracing_subscriber::registry().with(layer.with_filter(LevelFilter::INFO)).init();

    let config = BrokerConfig { propagator: Some(Arc::new(W3c::default())), ..BrokerConfig::default() };
    let broker = Broker::with_config(Settings::from_env()?, config).await?;
    broker.migrate().await?;

    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    let consumer = broker.consumer("billing").fallback(move |delivery| {
        let tell = tell.clone();
        async move {
            let _ = tell.send(delivery.headers.contains_key("traceparent"));
            Ok(Outcome::Done)
        }
    });
    let consumer = consumer.start().await?;
    broker.producer("shop").publish(&Message::new("billing", "order.placed", &7)?).await?;
    println!("the message carries a traceparent: {}", told.recv().await == Some(true));
    consumer.shutdown().await?;
    broker.close().await;
    provider.force_flush()?;

    let spans = exporter.get_finished_spans()?;
    let publish = spans.iter().find(|span| span.name == "publish billing").ok_or("no publish span")?;
    let process = spans.iter().find(|span| span.name == "process billing").ok_or("no process span")?;
    let (trace, span) = (publish.span_context.trace_id(), publish.span_context.span_id());
    let links = process.links.iter().map(|link| &link.span_context);
    let linked = links.filter(|link| (link.trace_id(), link.span_id()) == (trace, span)).count() == 1;
    println!(
        "{} ({:?}) links to {} ({:?}): {linked}",
        process.name, process.span_kind, publish.name, publish.span_kind
    );
    let mut attributes: Vec<String> = process
        .attributes
        .iter()
        .filter(|attribute| {
            attribute.key.as_str().starts_with("messaging.") && attribute.key.as_str() != "messaging.client.id"
        })
        .map(|attribute| format!("  {} = {}", attribute.key, attribute.value))
        .collect();
    attributes.sort();
    println!("{}", attributes.join("\n"));
    Ok(())
}
