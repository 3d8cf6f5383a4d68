//! What became of a request.

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::MessageId;
use crate::error::{Error, ErrorKind, Result};

/// A request that was published, and what its answer can be asked for with. Can be stored, and asked with by another process;
/// whoever has it may read the answer.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Request {
    /// The message's id.
    pub id: MessageId,
    /// Its header of that name: who is told, and behind the first dot the request's secret.
    pub reply_to: String,
}

/// What became of a request: every way in which a message can end, and that it has not yet.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Answer<R> {
    /// Who handled it replied.
    Reply(R),
    /// It was handled and completed, by somebody who does not reply.
    Completed,
    /// It failed for good.
    Failed {
        /// Its `error_message`.
        reason: String,
    },
    /// An operator cancelled it.
    Cancelled {
        /// Its `error_message`.
        reason: String,
    },
    /// Nobody took it in time, and nobody will any more.
    Expired,
    /// It is not there: somebody deleted it, or it ended too long ago.
    Gone,
    /// It has not ended in the time that was given: somebody is at it, it is kept, or it was asked before, under the same dedup
    /// key and for longer. Ask again with this, see
    /// [`Producer::answer`](crate::Producer::answer).
    Late(Request),
}

impl<R> Answer<R> {
    /// The reply.
    ///
    /// # Errors
    /// [`Unanswered`](ErrorKind::Unanswered) for every other answer, which the error tells.
    pub fn reply(self) -> Result<R> {
        let (what, reason) = match self {
            Self::Reply(reply) => return Ok(reply),
            Self::Completed => ("the request was completed without a reply", String::new()),
            Self::Failed { reason } => ("the request failed for good", reason),
            Self::Cancelled { reason } => ("the request was cancelled", reason),
            Self::Expired => ("nobody took the request in time, and it has expired", String::new()),
            Self::Gone => ("the request is not there any more", String::new()),
            Self::Late(_) => ("the request has not ended in time", String::new()),
        };
        let said = if reason.is_empty() { what.to_owned() } else { format!("{what}: {reason}") };
        Err(Error::new(ErrorKind::Unanswered, said))
    }
}

impl Answer<Box<str>> {
    /// As the database has it.
    pub(crate) fn of(state: &str, reply: Option<Box<str>>, reason: Option<String>) -> Option<Self> {
        let reason = reason.unwrap_or_default();
        Some(match state {
            "replied" => Self::Reply(reply.unwrap_or_else(|| "null".into())),
            "completed" => Self::Completed,
            "failed" => Self::Failed { reason },
            "cancelled" => Self::Cancelled { reason },
            "expired" => Self::Expired,
            "gone" => Self::Gone,
            _ => return None,
        })
    }

    /// As telemetry names it.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Reply(_) => "replied",
            Self::Completed => "completed",
            Self::Failed { .. } => "failed",
            Self::Cancelled { .. } => "cancelled",
            Self::Expired => "expired",
            Self::Gone => "gone",
            Self::Late(_) => "late",
        }
    }

    /// With the reply decoded.
    pub(crate) fn read<R: DeserializeOwned>(self) -> Result<Answer<R>> {
        Ok(match self {
            Self::Reply(text) => Answer::Reply(serde_json::from_str(&text).map_err(|error| {
                Error::invalid(format!("the reply cannot be read as {}", std::any::type_name::<R>())).with_source(error)
            })?),
            Self::Completed => Answer::Completed,
            Self::Failed { reason } => Answer::Failed { reason },
            Self::Cancelled { reason } => Answer::Cancelled { reason },
            Self::Expired => Answer::Expired,
            Self::Gone => Answer::Gone,
            Self::Late(request) => Answer::Late(request),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_answer_that_is_no_reply_is_an_error_that_tells_it() {
        assert_eq!(Answer::Reply(7).reply().expect("it is one"), 7);
        let late = Request { id: 7, reply_to: "a.b".into() };
        let reason = || "no such item".to_owned();
        for (answer, told) in [
            (Answer::<i32>::Completed, "without a reply"),
            (Answer::Failed { reason: reason() }, "failed for good: no such item"),
            (Answer::Cancelled { reason: reason() }, "cancelled: no such item"),
            (Answer::Cancelled { reason: String::new() }, "was cancelled"),
            (Answer::Expired, "expired"),
            (Answer::Gone, "not there"),
            (Answer::Late(late), "not ended"),
        ] {
            let error = answer.reply().expect_err("it is none");
            assert_eq!(error.kind(), ErrorKind::Unanswered);
            assert!(error.to_string().contains(told), "{error}");
        }
    }

    #[test]
    fn a_reply_of_another_type_is_an_error_that_names_the_type() {
        let error = Answer::Reply("\"seven\"".into()).read::<i32>().expect_err("it is text");
        assert!(error.to_string().contains("i32"), "{error}");
    }
}
