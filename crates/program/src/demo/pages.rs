//! `doorbell demo --ui`: the pages of `doorbell ui`, on the demo.

use std::{
    io::{IsTerminal, stderr},
    net::Ipv4Addr,
    process::Stdio,
};

use doorbell::Broker;
use doorbell_ui::{Access, Options, router};
use tokio::{net::TcpListener, process::Command, task::JoinSet};

use crate::{exit::Failure, ui};

/// Served until this is dropped.
pub(super) struct Pages {
    url: String,
    _serving: JoinSet<()>,
}

impl Pages {
    /// To this machine alone, on a port that is free.
    pub(super) async fn serve(broker: &Broker) -> Result<Self, Failure> {
        let pages = router(broker, Options::new(Access::anybody(ui::here())))?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let url = format!("http://{}/", listener.local_addr()?);
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            // It ends with the demo.
            let _ = axum::serve(listener, pages).await;
        });
        Ok(Self { url, _serving: serving })
    }

    /// Says where they are, and has them opened where somebody sits before a desktop.
    pub(super) fn show(&self) {
        eprintln!("look at it: {}, until the demo ends", self.url);
        let desktop = ["DISPLAY", "WAYLAND_DISPLAY"].iter().any(|name| std::env::var_os(name).is_some());
        let opener = if cfg!(target_os = "macos") { "open" } else { "xdg-open" };
        if stderr().is_terminal() && (desktop || cfg!(target_os = "macos")) {
            let mut command = Command::new(opener);
            // Whoever has none reads the address.
            let _ = command.arg(&self.url).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        }
    }
}
