//! A program on a terminal of its own, as a person would see it.

use std::{
    fs::File,
    io::{Read, Write},
    os::fd::OwnedFd,
    process::Stdio,
    sync::{Arc, Mutex},
};

use nix::{
    pty::{Winsize, openpty},
    sys::signal::Signal,
    unistd::Pid,
};
use tokio::process::{Child, Command};

use doorbell_testing::{soon, until_so};

pub(crate) struct Terminal {
    child: Child,
    keyboard: File,
    screen: Arc<Mutex<String>>,
    reader: std::thread::JoinHandle<()>,
}

impl Terminal {
    pub(crate) fn start(command: Command) -> Self {
        Self::of_width(command, 150)
    }

    pub(crate) fn of_width(mut command: Command, columns: u16) -> Self {
        let size = Winsize { ws_row: 30, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        let pty = openpty(Some(&size), None).unwrap();
        let end = |fd: &OwnedFd| Stdio::from(fd.try_clone().unwrap());
        command.stdin(end(&pty.slave)).stdout(end(&pty.slave)).stderr(end(&pty.slave)).env("TERM", "xterm");
        let child = command.spawn().unwrap();
        // The command holds the program's end of the terminal open, too.
        drop(command);
        drop(pty.slave);
        let keyboard = File::from(pty.master);
        let mut output = keyboard.try_clone().unwrap();
        let screen = Arc::new(Mutex::new(String::new()));
        let showing = screen.clone();
        let reader = std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            // Fails when the program has gone.
            while let Ok(read @ 1..) = output.read(&mut bytes) {
                showing.lock().unwrap().push_str(&String::from_utf8_lossy(&bytes[..read]));
            }
        });
        Self { child, keyboard, screen, reader }
    }

    /// Waits until this was drawn.
    pub(crate) async fn shows(&mut self, text: &str) {
        let screen = self.screen.clone();
        until_so(&format!("{text:?} is shown"), || screen.lock().unwrap().contains(text)).await;
    }

    /// Waits until what was drawn ends with one of these prompts; everything since the last time, without the prompt, and which
    /// it was.
    pub(crate) async fn prompts<'a>(&mut self, prompts: &[&'a str]) -> (String, &'a str) {
        let screen = self.screen.clone();
        let prompt = || prompts.iter().find(|prompt| screen.lock().unwrap().ends_with(**prompt)).copied();
        until_so(&format!("one of {prompts:?} is shown"), || prompt().is_some()).await;
        let prompt = prompt().expect("it stays");
        let shown = std::mem::take(&mut *screen.lock().unwrap()).replace('\r', "");
        (shown.strip_suffix(prompt).expect("it ends so").to_owned(), prompt)
    }

    pub(crate) fn types(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).unwrap();
    }

    pub(crate) fn signal(&self, signal: Signal) {
        nix::sys::signal::kill(Pid::from_raw(self.child.id().unwrap() as i32), signal).unwrap();
    }

    /// Waits for its end; everything that it showed.
    pub(crate) async fn all(mut self) -> String {
        soon("the program ends", self.child.wait()).await.unwrap();
        let reader = self.reader;
        soon("all is read", tokio::task::spawn_blocking(|| reader.join().unwrap())).await.unwrap();
        let screen = self.screen.lock().unwrap();
        screen.clone()
    }

    pub(crate) async fn ended(mut self) -> i32 {
        soon("the program ends", self.child.wait()).await.unwrap().code().expect("no signal ended it")
    }
}
