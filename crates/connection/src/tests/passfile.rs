use super::*;

#[test]
fn lines_match_field_by_field() {
    let wanted = ["db.example", "5432", "orders", "ann"];
    for (line, expected) in [
        ("db.example:5432:orders:ann:secret", Some("secret")),
        ("*:*:*:*:any", Some("any")),
        ("*:*:*:bob:no", None),
        ("db.example:5433:*:*:no", None),
        (r"*:*:*:*:with\:colon\\", Some(r"with:colon\")),
        ("*:*:*:*:un:escaped", Some("un:escaped")),
        (r"db\.example:*:*:*:escaped", Some("escaped")),
        ("#*:*:*:*:comment", None),
        ("*:*:*:*:", None),
        ("*:*", None),
        ("", None),
    ] {
        assert_eq!(password(line, wanted).as_deref(), expected, "{line}");
    }
}

#[cfg(unix)]
#[tokio::test]
async fn a_file_that_others_can_read_is_ignored() {
    use std::os::unix::fs::PermissionsExt;

    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("pgpass");
    std::fs::write(&path, "# ours\nlocalhost:5432:*:*:secret\n").unwrap();
    let host = Host { name: "localhost".into(), address: None, port: 5432 };
    for (mode, found) in [(0o600, true), (0o400, true), (0o640, false), (0o604, false)] {
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        assert_eq!(lookup(&path, &host, "d", "u").await.is_some(), found, "{mode:o}");
    }
}
