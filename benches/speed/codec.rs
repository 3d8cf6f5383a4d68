//! Payloads on the way in and out: `Message::new` against serde_json alone, and a handler's decoding against a mere scan.

use std::{hint::black_box, time::Instant};

use doorbell::Message;
use doorbell_bench::Result;
use serde::{Deserialize, Serialize, de::IgnoredAny};

use crate::Speed;

const SIZES: [(usize, &str); 3] = [(100, "100 B"), (1000, "1 KB"), (10_000, "10 KB")];

/// So short that a clock's reading would count.
const TIMES: u64 = 1000;

#[derive(Deserialize, Serialize)]
struct Order {
    id: u64,
    note: String,
}

pub(crate) fn bench(speed: &mut Speed) -> Result<()> {
    for (bytes, size) in SIZES {
        let order = Order { id: 7, note: "x".repeat(bytes) };
        let text = serde_json::to_string(&order)?;
        let encode = || {
            let began = Instant::now();
            for _ in 0..TIMES {
                black_box(serde_json::to_string(black_box(&order))?);
            }
            Ok(began.elapsed())
        };
        let message = || {
            let began = Instant::now();
            for _ in 0..TIMES {
                black_box(Message::new("billing", "order.placed", black_box(&order))?);
            }
            Ok(began.elapsed())
        };
        speed.measure(&format!("codec/encode {size}"), TIMES, |_, _| encode(), |_, _| message());
        let scan = || {
            let began = Instant::now();
            for _ in 0..TIMES {
                black_box(serde_json::from_str::<IgnoredAny>(black_box(&text))?);
            }
            Ok(began.elapsed())
        };
        let decode = || {
            let began = Instant::now();
            for _ in 0..TIMES {
                let order: Order = serde_json::from_str(black_box(&text))?;
                black_box((order.id, order.note));
            }
            Ok(began.elapsed())
        };
        speed.measure(&format!("codec/decode {size}"), TIMES, |_, _| scan(), |_, _| decode());
    }
    Ok(())
}
