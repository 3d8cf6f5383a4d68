//! What messages have to say: billing takes orders that fulfil a JSON Schema. What does not is refused when it is published, or
//! stored as failed, as its contract says.
//!
//! ```text
//! DATABASE_URL=postgres://localhost/app cargo run --example contracts
//! ```

use std::error::Error;

use doorbell::{
    Broker, Message,
    operate::{Breach, Contract},
    written::json_schema,
};
use serde_json::json;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let broker = Broker::from_env().await?;
    broker.migrate().await?;
    let operator = broker.operator();
    let schema = json!({
        "type": "object",
        "required": ["order", "cents"],
        "properties": { "order": { "type": "integer" }, "cents": { "type": "integer", "minimum": 1 } },
    });
    let mut contract = Contract {
        target: "billing".to_owned(),
        record_type: "order.placed".to_owned(),
        rule: json_schema::rule(&schema)?,
        policy: Breach::Reject,
        version: 1,
    };
    operator.contract(&contract).await?;

    let shop = broker.producer("shop");
    let order = |cents: i64| Message::new("billing", "order.placed", &json!({ "order": 7, "cents": cents }));
    println!("990 cents: {}", if shop.publish(&order(990)?).await.is_ok() { "published" } else { "refused" });
    if let Err(error) = shop.publish(&order(0)?).await {
        println!("0 cents: refused with {}", error.sqlstate().unwrap_or("no code"));
    }

    contract.policy = Breach::Fail;
    operator.contract(&contract).await?;
    let id = shop.publish(&order(-5)?).await?;
    for cause in operator.explain(id).await? {
        println!("-5 cents: {}, {}", cause.code, cause.fix.unwrap_or_default());
    }
    broker.close().await;
    Ok(())
}
