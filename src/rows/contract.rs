//! Contracts: what messages of a record type have to say.

use std::time::SystemTime;

/// What [`Operator::contract`](crate::operate::Operator::contract) asks of messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contract {
    /// To whom they are published.
    pub target: String,
    /// What they are, by name.
    pub record_type: String,
    /// A condition in jsonpath over the payload: `strict $.cents > 0 && exists($.order)`. Of a JSON Schema
    /// [`json_schema::rule`](crate::written::json_schema::rule) makes one.
    pub rule: String,
    /// What becomes of one that breaks it.
    pub policy: Breach,
    /// Of several versions one is enough; the newest one has the policy.
    pub version: u16,
}

/// What becomes of a message that breaks its contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Breach {
    /// Its publish fails. A copy for a subscriber is stored as failed.
    Reject,
    /// It is stored as failed, with the rule as the reason.
    Fail,
    /// It is counted, and noted in the audit log.
    Warn,
}

impl Breach {
    /// As SQL and the program have it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Reject => "reject",
            Self::Fail => "fail",
            Self::Warn => "warn",
        }
    }
}

/// A contract as it stands.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ContractRow {
    /// To whom messages are published.
    pub target: String,
    /// What they are.
    pub record_type: String,
    /// Which of several.
    pub version: i32,
    /// The condition, as PostgreSQL writes it.
    pub rule: String,
    /// `reject`, `fail` or `warn`.
    pub policy: String,
    /// How many messages of the target have broken one of its contracts and were not rejected.
    pub breaches: i64,
    /// When it was made.
    pub created_at: SystemTime,
}
