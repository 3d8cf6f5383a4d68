//! Where a connection is cut.

/// A message of the client: its type, and the SQL it is about where it is about SQL.
pub struct Said<'a> {
    pub tag: u8,
    pub sql: &'a str,
}

impl Said<'_> {
    /// Whether it runs a statement that contains the text.
    pub fn runs(&self, text: &str) -> bool {
        matches!(self.tag, b'E' | b'Q') && self.sql.contains(text)
    }
}

type Which = Box<dyn Fn(&Said) -> bool + Send>;

/// Where one connection is cut, once.
pub enum Cut {
    /// The message reaches the server and is acted upon; not a byte of the answer comes back.
    Unanswered(Which),
    /// The message does not reach the server.
    Unsent(Which),
    /// The message does not reach the server, and the connection carries nothing any more; both sockets stay open.
    Silent(Which),
    /// The nth message of the server from now on, counted over all connections, does not arrive.
    Reply(usize),
}

impl Cut {
    pub fn unanswered(sql: &'static str) -> Self {
        Self::Unanswered(Box::new(move |said| said.runs(sql)))
    }

    pub fn unsent(sql: &'static str) -> Self {
        Self::Unsent(Box::new(move |said| said.runs(sql)))
    }
}
