//! Waking: bells, the latch that spares them, the session that hears them.

mod bell;
mod latch;
mod listener;
