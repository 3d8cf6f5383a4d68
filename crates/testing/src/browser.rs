//! A real browser: Debian's Chromium without a window, driven as WebDriver says.

use std::process::Stdio;

use base64::{Engine, prelude::BASE64_STANDARD};
use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
};

use crate::soon;

/// The driver ends with its test, and the browser with it.
pub struct Browser {
    _driver: Driver,
    _profile: tempfile::TempDir,
    session: String,
}

/// A driver that is killed leaves its browser running: both are in this group of processes.
struct Driver {
    _process: Child,
    group: u32,
}

impl Drop for Driver {
    fn drop(&mut self) {
        let _ = killpg(Pid::from_raw(self.group as i32), Signal::SIGKILL);
    }
}

impl Browser {
    /// `None`: this machine has none, which is said; where tests must not be left out, that is a failure.
    pub async fn start() -> Option<Self> {
        Self::start_with(&[]).await
    }

    /// With more arguments for Chromium.
    pub async fn start_with(more: &[&str]) -> Option<Self> {
        let profile = tempfile::tempdir().expect("a directory");
        let mut begun = None;
        // Now and then one ends before it says its port, as when that is taken for the other kind of address.
        for _ in 0..5 {
            let mut command = Command::new("chromedriver");
            command.arg("--port=0").env("HOME", profile.path()).process_group(0);
            let Ok(mut driver) = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()
            else {
                missing("no chromedriver (Debian's chromium-driver; .ci/run installs it)");
                return None;
            };
            let stdout = driver.stdout.take().expect("piped");
            let driver = Driver { group: driver.id().expect("nobody has waited for it"), _process: driver };
            let mut lines = BufReader::new(stdout).lines();
            let port = async {
                while let Some(line) = lines.next_line().await.expect("text") {
                    if let Some((_, port)) = line.split_once("started successfully on port ") {
                        return Some(port.trim_end_matches('.').to_owned());
                    }
                }
                None
            };
            if let Some(port) = soon("chromedriver starts", port).await {
                begun = Some((driver, lines, port));
                break;
            }
        }
        let (driver, mut lines, port) = begun.expect("chromedriver says its port");
        let driven = format!("http://127.0.0.1:{port}/session");
        // Nobody reads what else it says.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        let usual = ["--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"];
        let profile_argument = format!("--user-data-dir={}", profile.path().join("profile").display());
        let arguments: Vec<&str> = usual.iter().chain(more).copied().chain([profile_argument.as_str()]).collect();
        let capabilities = json!({ "capabilities": { "alwaysMatch": {
            "goog:chromeOptions": { "args": arguments },
            "goog:loggingPrefs": { "browser": "ALL" },
        } } });
        let begun = ask("POST", driven.clone(), Some(capabilities)).await;
        let id = begun["sessionId"].as_str().unwrap_or_else(|| panic!("no session: {begun}"));
        Some(Self { _driver: driver, _profile: profile, session: format!("{driven}/{id}") })
    }

    pub async fn open(&self, url: &str) {
        self.command("url", json!({ "url": url })).await;
    }

    /// Opens a tab and turns to it; returns its name.
    pub async fn new_tab(&self) -> String {
        let tab =
            self.command("window/new", json!({ "type": "tab" })).await["handle"].as_str().expect("a tab").to_owned();
        self.turn_to(&tab).await;
        tab
    }

    /// Turns to a tab, which is in sight then.
    pub async fn turn_to(&self, tab: &str) {
        self.command("window", json!({ "handle": tab })).await;
        self.devtools("Page.bringToFront", json!({})).await;
    }

    /// Whether pages may run scripts.
    pub async fn allow_scripts(&self, allowed: bool) {
        self.devtools("Emulation.setScriptExecutionDisabled", json!({ "value": !allowed })).await;
    }

    /// What a script of one expression or more comes to.
    pub async fn run(&self, script: &str) -> Value {
        self.command("execute/sync", json!({ "script": script, "args": [] })).await
    }

    /// What a script tells its last argument, a function.
    pub async fn run_until_told(&self, script: &str) -> Value {
        self.command("execute/async", json!({ "script": script, "args": [] })).await
    }

    /// Waits until an expression is true of the page, whichever that is by then.
    pub async fn until(&self, what: &str, expression: &str) {
        let script = format!("return !!({expression})");
        soon(what, async {
            while self.run(&script).await != true {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }

    /// Presses what a selector finds, as a person would; again, where the page has put another in its place meanwhile.
    pub async fn click(&self, selector: &str) {
        loop {
            let found = self.command("element", json!({ "using": "css selector", "value": selector })).await;
            let id = found.as_object().and_then(|found| found.values().next()?.as_str());
            let id = id.unwrap_or_else(|| panic!("{selector}: {found}"));
            let clicked = ask("POST", format!("{}/element/{id}/click", self.session), Some(json!({}))).await;
            match clicked["error"].as_str() {
                None => return,
                Some("stale element reference") => {}
                Some(_) => panic!("{selector}: {clicked}"),
            }
        }
    }

    /// Presses keys, wherever the focus is.
    pub async fn keys(&self, keys: &str) {
        let presses =
            keys.chars().flat_map(|key| ["keyDown", "keyUp"].map(|kind| json!({ "type": kind, "value": key })));
        let actions = json!([{ "type": "key", "id": "keyboard", "actions": presses.collect::<Vec<_>>() }]);
        self.command("actions", json!({ "actions": actions })).await;
    }

    /// How wide the page is, and in which theme.
    pub async fn appear(&self, width: u32, theme: &str) {
        let size = json!({ "width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 600 });
        self.devtools("Emulation.setDeviceMetricsOverride", size).await;
        let features = json!([{ "name": "prefers-color-scheme", "value": theme }]);
        self.devtools("Emulation.setEmulatedMedia", json!({ "features": features })).await;
    }

    /// What is to be seen, down to this many pixels, as a PNG.
    pub async fn picture(&self, width: u32, height: u32) -> Vec<u8> {
        let clip = json!({ "x": 0, "y": 0, "width": width, "height": height, "scale": 1 });
        let taken = self.devtools("Page.captureScreenshot", json!({ "format": "png", "clip": clip })).await;
        BASE64_STANDARD.decode(taken["data"].as_str().expect("a picture")).expect("base64")
    }

    pub async fn devtools(&self, name: &str, parameters: Value) -> Value {
        self.command("goog/cdp/execute", json!({ "cmd": name, "params": parameters })).await
    }

    /// What the browser has complained of since it was last asked: errors, and what the policy refused.
    pub async fn complaints(&self) -> Vec<String> {
        let log = self.command("se/log", json!({ "type": "browser" })).await;
        log.as_array().into_iter().flatten().map(|entry| entry["message"].to_string()).collect()
    }

    async fn command(&self, path: &str, body: Value) -> Value {
        let value = ask("POST", format!("{}/{path}", self.session), Some(body)).await;
        assert!(value.get("error").is_none() || value.get("stacktrace").is_none(), "{path}: {value}");
        value
    }
}

/// Says that something was not tested, or fails where everything must be.
pub fn missing(what: &str) {
    assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "{what}");
    println!("skipped: {what}");
}

/// The value of an answer; of a command that failed, what failed.
async fn ask(method: &'static str, url: String, body: Option<Value>) -> Value {
    let answer = tokio::task::spawn_blocking(move || {
        let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
        let request = ureq::http::Request::builder().method(method).uri(url).header("content-type", "application/json");
        let body = body.map(|body| body.to_string()).unwrap_or_default();
        let mut response = agent.run(request.body(body).expect("a request")).expect("the driver answers");
        response.body_mut().with_config().limit(64 << 20).read_to_string().expect("text")
    });
    let answer: Value = serde_json::from_str(&answer.await.expect("it does not panic")).expect("JSON");
    answer["value"].clone()
}
