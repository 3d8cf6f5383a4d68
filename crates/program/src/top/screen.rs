//! The terminal while `top` has it: raw, on its second screen, and given back however the program ends.

use std::io::{Error, ErrorKind, Result};

use crossterm::event::{Event, EventStream, KeyCode, KeyEventKind, KeyModifiers};
use futures::StreamExt;
use ratatui::{DefaultTerminal, Frame};

/// The terminal; dropping it gives it back. A panic does so before it speaks: ratatui's hook sees to that.
pub(super) struct Screen {
    terminal: DefaultTerminal,
    events: EventStream,
}

/// What somebody wants.
pub(super) enum Key {
    Quit,
    Interrupt,
    Redraw,
}

impl Screen {
    pub(super) fn open() -> Result<Self> {
        Ok(Self { terminal: ratatui::try_init()?, events: EventStream::new() })
    }

    pub(super) fn draw(&mut self, draw: impl FnOnce(&mut Frame<'_>)) -> Result<()> {
        self.terminal.draw(draw)?;
        Ok(())
    }

    /// Waits for a key that means something, or for a new size.
    pub(super) async fn key(&mut self) -> Result<Key> {
        loop {
            match self.events.next().await {
                Some(Ok(Event::Resize(..))) => return Ok(Key::Redraw),
                Some(Ok(Event::Key(key))) if key.kind == KeyEventKind::Press => match key.code {
                    // A raw terminal sends no signal.
                    KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => return Ok(Key::Interrupt),
                    KeyCode::Char('q' | 'Q') | KeyCode::Esc => return Ok(Key::Quit),
                    _ => {}
                },
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(error),
                None => return Err(Error::new(ErrorKind::BrokenPipe, "the terminal is gone")),
            }
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        ratatui::restore();
    }
}
