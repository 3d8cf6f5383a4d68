//! What others reached, measured once by us with drivers of their own, on another day and another machine.

/// Under the table's heading.
pub(super) const ABOUT: &str = "\
Measured elsewhere, in another run on another two-core machine (PostgreSQL 15.18, fsync on; medians, each peer at the best of \
the few settings tried), so the absolute figures are **not comparable** with those above. Some delete what is done and some \
keep it; PgQ keeps no state per message. Drain: no-op messages from a backlog. Wake-up: from the publisher's acknowledgement \
to the handler of an idle consumer.";

/// Name and version, drain a second, wake-up p50 in milliseconds, what becomes of finished messages.
pub(super) const PEERS: [(&str, &str, &str, &str); 11] = [
    ("PgQ 3.5", "173,000", "-", "tables rotated"),
    ("pgmq 1.11.1", "77,000", "0.81", "deleted"),
    ("graphile_worker (Rust) 0.14.1", "43,000", "1.53", "deleted"),
    ("graphile-worker (Node) 0.18.0", "38,000", "0.69", "deleted"),
    ("pg-boss 12.38.0", "28,000", "-", "kept"),
    ("River for Rust 0.5.0", "19,700", "0.97", "kept"),
    ("apalis-postgres 1.0.0", "14,000", "-", "kept"),
    ("awa 0.6.9", "13,200", "3.29", "kept"),
    ("pgqueuer 1.6.0", "11,000", "-", "deleted, logged"),
    ("sqlxmq 0.6.0", "3,000", "0.64", "deleted"),
    ("procrastinate 3.10.0", "500", "-", "deleted"),
];
