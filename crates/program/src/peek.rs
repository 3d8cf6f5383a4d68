//! `doorbell peek`: looking without taking.

use clap::Args;

use crate::{
    Global,
    exit::{Exit, Failure},
    line::Line,
    names, output,
};

/// Look at the next messages of a target, and leave them where they are
///
/// Prints pending messages as they will be claimed, one line of JSON each, payloads too. They are neither claimed nor locked,
/// so the same ones are printed again, and consumers notice nothing. What a pause or an open breaker holds back is printed
/// as well. Exit code 3 when nothing is pending.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  doorbell peek billing
  doorbell peek billing --limit 1 | jq .data
  doorbell peek billing --type order.placed --limit 100 | jq -r .source | sort | uniq -c

Lines, as `doorbell consume --complete` has them: {\"id\", \"attempt\", \"source\", \"target\", \"type\", \"priority\", \
\"headers\", \"created_at\", \"data\"}; attempt is how often it was claimed so far.")]
pub(crate) struct Peek {
    /// The application whose messages these are
    target: String,

    /// Only these record types; may be repeated
    #[arg(long = "type", value_name = "TYPE")]
    types: Vec<String>,

    /// At most so many
    #[arg(short = 'n', long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    limit: u32,
}

impl Peek {
    pub(crate) async fn run(self, global: &Global) -> Result<Exit, Failure> {
        let broker = global.database.broker().await?;
        let types = (!self.types.is_empty()).then_some(self.types.as_slice());
        let messages = broker.operator().peek(&self.target, self.limit, types).await?;
        for message in &messages {
            output::json(&Line::of_stored(message).map_err(std::io::Error::from)?)?;
        }
        if messages.is_empty() {
            if !names::is_unknown(&broker, Some(&self.target)).await? {
                eprintln!("nothing is pending for {}", output::printable(&self.target));
            }
            return Ok(Exit::NothingFound);
        }
        Ok(Exit::Done)
    }
}
