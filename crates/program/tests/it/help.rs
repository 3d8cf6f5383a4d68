//! `doorbell --help` and `completions`.

use crate::program::*;

#[tokio::test(flavor = "multi_thread")]
async fn help_teaches_and_completions_complete() {
    let help = out(&ended(bare(&["--help"])).await);
    for code in
        ["0  done", "1  failed", "2  wrong", "3  found", "4  a check", "65  bad", "69  no", "75  failed", "130  int"]
    {
        assert!(help.contains(code), "{code} is missing in {help}");
    }
    for command in [
        "demo",
        "up",
        "down",
        "migrate",
        "publish",
        "consume",
        "peek",
        "stats",
        "top",
        "ui",
        "targets",
        "list",
        "show",
        "explain",
        "follow",
        "audit",
        "retry",
        "redrive",
        "replay",
        "subscribe",
        "unsubscribe",
        "topics",
        "cancel",
        "pause",
        "resume",
        "grant",
        "revoke",
        "rights",
        "processes",
        "completions",
        "man",
    ] {
        assert!(help.contains(&format!("\n  {command} ")), "{command} is missing in {help}");
        let help = out(&ended(bare(&[command, "--help"])).await);
        assert!(help.contains("Examples:"), "{command} has no examples");
    }
    assert!(!help.contains("demo-consumer"));
    assert!(out(&ended(bare(&["completions", "bash"])).await).contains("--exit-when-empty"));
}
