//! Input, line by line, in bounded memory.

use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt};

use super::super::exit::{Exit, Failure};

/// The hard limit of a payload; the producer's own is smaller and says so better.
const LINE_BYTES_MAX: u64 = 64 << 20;

/// The lines of an input that are not blank.
pub(super) struct Lines<R> {
    input: R,
    number: u64,
    line: Vec<u8>,
}

/// One of them.
pub(super) struct Line<'a> {
    /// Counted from 1, blank ones included.
    pub(super) number: u64,
    pub(super) text: &'a str,
    /// What was read for it, the blank lines before it left out.
    pub(super) bytes: usize,
}

impl<R: AsyncBufRead + Unpin> Lines<R> {
    pub(super) fn new(input: R) -> Self {
        Self { input, number: 0, line: Vec::new() }
    }

    /// The next one; nothing at the end. The last needs no line break.
    pub(super) async fn next(&mut self) -> Result<Option<Line<'_>>, Failure> {
        loop {
            self.line.clear();
            let read = (&mut self.input).take(LINE_BYTES_MAX).read_until(b'\n', &mut self.line).await;
            let bytes = read.map_err(|error| Failure::from(error).context("cannot read the input"))?;
            if bytes == 0 {
                return Ok(None);
            }
            self.number += 1;
            if bytes as u64 == LINE_BYTES_MAX {
                return Err(bad(self.number, "longer than 64 MiB"));
            }
            if !self.line.trim_ascii().is_empty() {
                break;
            }
        }
        match std::str::from_utf8(&self.line) {
            Ok(text) => Ok(Some(Line { number: self.number, text, bytes: self.line.len() })),
            Err(error) => {
                let what = format!("not UTF-8 at column {}", error.valid_up_to() + 1);
                Err(bad(self.number, &what))
            }
        }
    }
}

/// A payload is one line: only the column is of interest.
pub(super) fn not_json(error: &serde_json::Error) -> Failure {
    let said = error.to_string();
    let what = said.rsplit_once(" at line ").map_or(said.as_str(), |(what, _)| what);
    Failure::new(Exit::BadData, format!("not JSON: {what} at column {}", error.column()))
}

fn bad(number: u64, what: &str) -> Failure {
    Failure::new(Exit::BadData, format!("line {number}: {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn blank_lines_are_counted_and_left_out_and_the_last_line_break_may_be_missing() {
        let mut lines = Lines::new(&b"\n 1\r\n\t\n\"x\""[..]);
        let mut seen = Vec::new();
        while let Some(line) = lines.next().await.expect("fine lines") {
            seen.push((line.number, line.text.trim().to_owned()));
        }
        assert_eq!(seen, [(2, "1".to_owned()), (4, "\"x\"".to_owned())]);
    }

    #[tokio::test]
    async fn a_line_that_is_not_text_is_named() {
        let mut lines = Lines::new(&b"1\n\"\xff\"\n"[..]);
        assert!(lines.next().await.is_ok());
        assert_eq!(lines.next().await.err().expect("bad").to_string(), "line 2: not UTF-8 at column 2");
    }
}
