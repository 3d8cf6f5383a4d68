//! The bundled orders: a day and a half of an imaginary shop, in fourteen countries.

use doorbell::Message;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::exit::{Exit, Failure};

/// One message a line: source, target, type and payload.
const ORDERS: &str = include_str!("orders.ndjson");

/// The order whose total is wrong: no retry will ever help.
const POISON: &str = r#"{"source":"shop","target":"billing","type":"order.placed","data":{"order":"SO-2026-009999",
"customer":{"id":10007,"name":"Łukasz Wiśniewski"},"items":[{"sku":"KNF-SAN-17","name":"Santoku 17 cm","quantity":1,
"unit_price":8800}],"shipping":0,"total":880000,"currency":"EUR","payment":"card"}}"#;

/// The applications that publish, and those that consume.
pub(super) const SOURCES: [&str; 3] = ["shop", "billing", "warehouse"];
pub(super) const TARGETS: [&str; 3] = ["billing", "shipping", "mail"];

/// A message to be.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Order {
    pub(super) source: String,
    target: String,
    #[serde(rename = "type")]
    record_type: String,
    data: Box<RawValue>,
}

impl Order {
    /// With the order's number as its key: what happens to an order is handled in the order in which it did.
    pub(super) fn into_message(self) -> Result<Message, Failure> {
        let Of { order } = serde_json::from_str(self.data.get()).map_err(unreadable)?;
        Ok(Message::from_raw(self.target, self.record_type, self.data).ordering_key(order))
    }
}

/// Which order it is about.
#[derive(Deserialize)]
struct Of {
    order: String,
}

/// All orders, the poison among them.
pub(super) fn all() -> Result<Vec<Order>, Failure> {
    let mut lines: Vec<&str> = ORDERS.lines().collect();
    lines.insert(lines.len() / 4, POISON);
    lines.into_iter().map(|line| serde_json::from_str(line).map_err(unreadable)).collect()
}

fn unreadable(error: serde_json::Error) -> Failure {
    Failure::new(Exit::Failed, format!("the bundled orders cannot be read: {error}"))
}

/// What `order.placed` says, as far as billing cares. Money is in the currency's smallest unit.
#[derive(Debug, Deserialize)]
pub(super) struct Placed {
    items: Vec<Item>,
    shipping: u64,
    total: u64,
    currency: String,
}

#[derive(Debug, Deserialize)]
struct Item {
    quantity: u64,
    unit_price: u64,
}

impl Placed {
    /// Whether the total is the sum of its parts.
    pub(super) fn check(&self) -> Result<(), String> {
        let sum = self.items.iter().map(|item| item.quantity * item.unit_price).sum::<u64>() + self.shipping;
        if sum == self.total {
            return Ok(());
        }
        Err(format!("the items and shipping sum to {sum} {}, but the total says {}", self.currency, self.total))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_order_adds_up_but_the_poison_and_goes_from_a_producer_to_a_consumer_of_the_demo() {
        let orders = all().expect("readable");
        let placed = orders.iter().filter(|order| order.record_type == "order.placed");
        let wrong = placed.filter(|order| {
            let placed: Placed = serde_json::from_str(order.data.get()).expect("an order");
            placed.check().is_err()
        });
        assert_eq!(wrong.count(), 1);
        for order in orders {
            assert!(SOURCES.contains(&order.source.as_str()) && TARGETS.contains(&order.target.as_str()), "{order:?}");
            order.into_message().expect("it says which order it is about");
        }
    }
}
