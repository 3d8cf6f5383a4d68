//! What a string, a service, the environment and files make of the settings.

use std::time::Duration;

use proptest::prelude::*;

use super::{PASSWORD, everything, parse};
use crate::{
    Settings,
    environment::Given,
    error::ErrorKind,
    role::Session,
    ssl::{Roots, SslMode},
};

fn config_error(text: &str) -> String {
    let error = parse(text).expect_err(text);
    assert_eq!(error.kind(), ErrorKind::Config, "{text}");
    error.to_string()
}

async fn password_for(settings: &Settings) -> Option<String> {
    let login = settings.login(&settings.hosts[0]).await;
    login.get_password().map(|password| String::from_utf8_lossy(password).into_owned())
}

#[test]
fn the_target_is_shown_without_secrets() {
    for (text, shown) in [
        ("postgres://u:p@h/d", "postgres://u@h:5432/d"),
        ("host=h", "postgres://me@h:5432/me"),
        ("user=app host=a,b port=1,2", "postgres://app@a:1,b:2/app"),
        ("postgres://[::1]:6000/d", "postgres://me@[::1]:6000/d"),
        ("hostaddr=10.0.0.1", "postgres://me@10.0.0.1:5432/me"),
        ("host=name hostaddr=10.0.0.1", "postgres://me@name:5432/me"),
        ("host=/tmp port=7", "postgres://me@/tmp:7/me"),
        // As files have them.
        (" postgres://u:p@h/d\n", "postgres://u@h:5432/d"),
        ("host=h\tuser = app\r\n", "postgres://app@h:5432/app"),
        ("postgres:///", "postgres://me@/var/run/postgresql:5432,/tmp:5432,localhost:5432/me"),
        (
            "user='a b@c' dbname='x/\u{1b}'",
            "postgres://a%20b%40c@/var/run/postgresql:5432,/tmp:5432,localhost:5432/x%2F%1B",
        ),
    ] {
        assert_eq!(parse(text).expect(text).to_string(), shown, "{text}");
    }
    let settings = parse(&format!("host=h password={PASSWORD} options='-c a.b={PASSWORD}'")).unwrap();
    assert_eq!(format!("{settings:?}"), "Settings(postgres://me@h:5432/me)");
}

#[test]
fn errors_name_the_key_and_never_the_value() {
    for (text, expected) in [
        ("port=MARK", "`port` must be a number from 1 to 65535"),
        ("port=0", "`port` must be a number from 1 to 65535"),
        ("host=a,b,c port=1,2", "`port` must have one entry, or as many as `host`"),
        ("hostaddr=MARK", "`hostaddr` must hold numeric IP addresses"),
        ("host=a,b hostaddr=::1", "`hostaddr` must have as many entries as `host`"),
        ("sslmode=MARK", "`sslmode` must be one of disable, allow, prefer, require, verify-ca, verify-full"),
        ("connect_timeout=MARK", "`connect_timeout` must be a whole number"),
        ("client_encoding=LATIN1", "`client_encoding` must be UTF8"),
        ("sslcrl=MARK", "`sslcrl` is not supported: certificate revocation lists cannot be checked"),
        ("requirepeer=MARK", "`requirepeer` is not supported: the owner of a socket cannot be checked"),
        ("gssencmode=require", "`gssencmode` may not be `require`: GSSAPI encryption is not supported"),
        ("sslnegotiation=direct", "`sslnegotiation` may be `direct` only with sslmode=require or stronger"),
        ("sslmode=require sslrootcert=system", "`sslmode` must be verify-full with sslrootcert=system"),
        ("keepalive=1", "unknown key `keepalive` in the connection string"),
        ("host=a\u{7}b", "`host` contains an `@` or a control character"),
        ("host=a@MARK", "`host` contains an `@` or a control character"),
        ("password='a\0b'", "`password` contains a zero byte"),
    ] {
        let error = config_error(text);
        if cfg!(feature = "tls") || !text.starts_with("ssl") {
            assert_eq!(error, expected, "{text}");
        }
        assert!(!error.contains("MARK"), "{text}");
    }
}

#[test]
fn a_key_that_may_be_half_a_password_is_not_named() {
    for text in ["password=my hunter2=x", "postgres://h?password=a&hunter2=b", "hunter2*x=1"] {
        assert!(!config_error(text).contains("hunter2"), "{text}");
    }
}

#[test]
fn harmless_keys_of_libpq_are_accepted() {
    parse("krbsrvname=x gsslib=gssapi gssdelegation=0 gssencmode=prefer sslcompression=0 sslcrl='' requirepeer=''")
        .unwrap();
    parse("client_encoding=UTF8 sslpassword=x ssl_min_protocol_version=TLSv1.2 sslsni=1").unwrap();
}

#[test]
fn the_string_wins_over_the_service_over_the_environment_over_defaults() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("services");
    std::fs::write(&file, "[s]\nuser=service\ndbname=service\n").unwrap();
    let environment = || {
        Given::default()
            .with("PGSERVICEFILE", &file)
            .with("PGUSER", "environment")
            .with("PGDATABASE", "environment")
            .with("PGHOST", "environment")
            .with("PGPORT", "6000")
    };
    let show = |text: &str, environment: Given| Settings::parse_in(text, &environment).unwrap().to_string();
    assert_eq!(show("", environment()), "postgres://environment@environment:6000/environment");
    assert_eq!(show("service=s", environment()), "postgres://service@environment:6000/service");
    assert_eq!(show("service=s user=string", environment()), "postgres://string@environment:6000/service");
    assert_eq!(show("user=string", environment().with("PGSERVICE", "s")), "postgres://string@environment:6000/service");
}

#[test]
fn errors_say_where_the_value_came_from() {
    let error = Settings::parse_in("", &Given::default().with("PGPORT", "MARK")).unwrap_err().to_string();
    assert_eq!(error, "environment variable PGPORT (`port`) must be a number from 1 to 65535");

    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("services");
    std::fs::write(&file, "[s]\nsslmode=MARK\n[t]\nnonsense=MARK\n").unwrap();
    let error = |service: &str| {
        let environment = Given::default().with("PGSERVICEFILE", &file).with("PGSERVICE", service);
        Settings::parse_in("", &environment).unwrap_err().to_string()
    };
    assert!(error("s").starts_with("`sslmode` of service `s` must be one of"));
    assert_eq!(error("t"), "unknown key `nonsense` in service `t`");
}

#[cfg(unix)]
#[test]
fn a_variable_that_is_not_text_is_refused() {
    use std::os::unix::ffi::OsStringExt;
    let environment = Given::default().with("PGSSLMODE", std::ffi::OsString::from_vec(vec![0xff]));
    assert!(Settings::parse_in("", &environment).is_err());
}

#[test]
fn limits_have_libpqs_units_and_our_defaults() {
    let settings = parse("").unwrap();
    let keepalive = settings.socket.keepalive.unwrap();
    assert_eq!(settings.connect_timeout(), Some(Duration::from_secs(5)));
    assert_eq!(settings.socket.user_timeout, Some(Duration::from_secs(20)));
    assert_eq!((keepalive.idle, keepalive.interval), (Some(Duration::from_secs(10)), Some(Duration::from_secs(5))));
    assert_eq!(keepalive.count, Some(3));

    let settings = parse("connect_timeout=7 tcp_user_timeout=5000 keepalives_idle=0 keepalives_count=9").unwrap();
    let keepalive = settings.socket.keepalive.unwrap();
    assert_eq!(settings.connect_timeout(), Some(Duration::from_secs(7)));
    assert_eq!(settings.socket.user_timeout, Some(Duration::from_millis(5000)));
    assert_eq!((keepalive.idle, keepalive.count), (None, Some(9)));

    let settings = parse("connect_timeout=0 tcp_user_timeout=0 keepalives=0").unwrap();
    assert_eq!((settings.connect_timeout(), settings.socket.user_timeout), (None, None));
    assert_eq!(settings.socket.keepalive, None);
}

#[test]
fn encryption_has_libpqs_defaults() {
    let home = tempfile::tempdir().unwrap();
    let own = home.path().join(".postgresql");
    let read = |text: &str| Settings::parse_in(text, &Given::default().home(home.path())).map(|settings| settings.ssl);
    assert_eq!(read("").unwrap().mode, SslMode::Prefer);
    assert_eq!(read("").unwrap().roots, Roots::None);
    assert!(read("sslmode=verify-ca").is_err(), "there is nothing to verify with");

    std::fs::create_dir(&own).unwrap();
    for name in ["root.crt", "postgresql.crt"] {
        std::fs::write(own.join(name), "").unwrap();
    }
    assert_eq!(read("").unwrap().roots, Roots::File(own.join("root.crt")));
    assert_eq!(read("").unwrap().identity.unwrap().key, own.join("postgresql.key"));
    assert_eq!(read("sslcertmode=disable").unwrap().identity, None);
    if cfg!(feature = "tls") {
        assert_eq!(read("sslrootcert=system").unwrap().mode, SslMode::VerifyFull);
        assert_eq!(read("sslmode=require sslrootcert=/x").unwrap().roots, Roots::File("/x".into()));
    } else {
        assert!(read("sslmode=require").is_err());
    }
}

#[tokio::test]
async fn the_password_comes_from_the_string_then_the_environment_then_the_file() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join(".pgpass");
    std::fs::write(&file, "h:5432:other:*:for-other\nlocalhost:*:*:*:for-local\nh:*:*:*:from-file\n").unwrap();
    #[cfg(unix)]
    std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let environment = || Given::default().home(home.path());
    let at = |text: &str, environment: Given| Settings::parse_in(text, &environment).unwrap();

    let settings = at("host=h", environment());
    assert_eq!(password_for(&settings).await.as_deref(), Some("from-file"));
    assert_eq!(password_for(&settings.database("other")).await.as_deref(), Some("for-other"));
    assert_eq!(password_for(&at("", environment())).await.as_deref(), Some("for-local"), "the socket is local");
    let settings = at("host=h", environment().with("PGPASSWORD", "from-environment"));
    assert_eq!(password_for(&settings).await.as_deref(), Some("from-environment"));
    let settings = at("host=h password=mine", environment().with("PGPASSWORD", "from-environment"));
    assert_eq!(password_for(&settings).await.as_deref(), Some("mine"));
    assert_eq!(password_for(&at("host=elsewhere", environment())).await, None);
}

#[tokio::test]
async fn setters_reach_the_login() {
    let settings = parse("host=h application_name=theirs options='-c b=2'").unwrap();
    let settings = settings.fallback_application_name("ours");
    let login = settings.login(&settings.hosts[0]).await;
    assert_eq!(login.get_application_name(), Some("theirs"));
    assert_eq!(login.get_options(), Some("-c b=2"));

    let settings = settings.application_name("mine").database("other");
    let login = settings.login(&settings.hosts[0]).await;
    assert_eq!((login.get_application_name(), login.get_dbname()), (Some("mine"), Some("other")));
    assert_eq!((settings.user(), settings.database_name()), ("me", "other"));
}

#[test]
fn every_target_session_is_known() {
    for (word, session) in [
        ("any", Session::Any),
        ("read-write", Session::ReadWrite),
        ("read-only", Session::ReadOnly),
        ("primary", Session::Primary),
        ("standby", Session::Standby),
        ("prefer-standby", Session::PreferStandby),
    ] {
        assert_eq!(parse(&format!("target_session_attrs={word}")).unwrap().session, session);
    }
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused(text in ".*", head in "(postgres(ql)?://|host=|password=')?") {
        let _ = parse(&format!("{head}{text}"));
    }

    /// Pieces that mean something, in any order: reaches deeper than random text.
    #[test]
    fn any_sequence_of_pieces_is_read_or_refused(
        pieces in prop::collection::vec("[@:/?&=,%'\\\\ \\[\\]]|host|port|user|%2F|::1|5432|postgres://|é", 0..20),
    ) {
        let _ = parse(&pieces.concat());
        let _ = parse(&format!("postgres://{}", pieces.concat()));
    }

    /// The password, well or badly written, with whatever around it.
    #[test]
    fn a_password_is_never_echoed(
        before in "[a-z/@?%# ]{0,3}", after in "[a-z/@?%#& =]{0,3}", tail in "[a-z0-9:/?&=,%@]{0,20}",
    ) {
        for text in [
            format!("postgres://u:{before}{PASSWORD}{after}@{tail}"),
            format!("postgres://h/d?password={before}{PASSWORD}{after}&{tail}"),
            format!("user=u password={before}{PASSWORD}{after} {tail}"),
            format!("user=u password='{before}{PASSWORD}{after}' {tail}"),
        ] {
            let shown = match parse(&text) {
                Ok(settings) => format!("{settings} {settings:?}"),
                Err(error) => everything(&error),
            };
            prop_assert!(!shown.contains(PASSWORD), "{} shows {}", text, shown);
        }
    }
}
