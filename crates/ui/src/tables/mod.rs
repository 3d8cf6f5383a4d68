//! The tables that change while somebody looks at them: which lines there are, and what each says.

pub(super) mod consumers;
pub(super) mod keys;
pub(super) mod targets;
