use super::*;

fn show(text: &str) -> String {
    match pairs(text) {
        Ok(pairs) => pairs.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(" "),
        Err(error) => format!("! {error}"),
    }
}

#[test]
fn uris_are_read_as_libpq_reads_them() {
    for (text, expected) in [
        ("postgres://", ""),
        ("postgresql:///mydb", "dbname=mydb"),
        ("postgres://h", "host=h"),
        ("postgres://h:5433", "host=h port=5433"),
        ("postgres://u@h/d", "user=u host=h dbname=d"),
        ("postgres://u:p@h", "user=u password=p host=h"),
        ("postgres://u:a:b?#@h", "user=u password=a:b?# host=h"),
        ("postgres://:p@h", "user= password=p host=h"),
        ("postgres://u:%40%2F%3a@h", "user=u password=@/: host=h"),
        ("postgres://[::1]:6000/d", "host=::1 port=6000 dbname=d"),
        ("postgres://[2001:db8::1]/d", "host=2001:db8::1 dbname=d"),
        ("postgres://a:1,b:2/d", "host=a,b port=1,2 dbname=d"),
        ("postgres://a,b:2", "host=a,b port=,2"),
        ("postgres://%2Fvar%2Frun/d", "host=/var/run dbname=d"),
        ("postgres:///d?host=/tmp&port=7", "dbname=d host=/tmp port=7"),
        (
            "postgres://h/d?sslmode=disable&application_name=a%20b",
            "host=h dbname=d sslmode=disable application_name=a b",
        ),
        ("postgres://h?ssl=true", "host=h sslmode=require"),
        ("  postgres://h/d\n", "host=h dbname=d"),
    ] {
        assert_eq!(show(text), expected, "{text}");
    }
}

#[test]
fn key_value_strings_are_read_as_libpq_reads_them() {
    for (text, expected) in [
        ("", ""),
        ("host=h port = 5 dbname= d", "host=h port=5 dbname=d"),
        (
            "password='it''",
            "! a word in the connection string is not followed by `=` (a value with spaces needs single quotes)",
        ),
        (r"password='it\'s \\ here' user=u", r"password=it's \ here user=u"),
        (r"password=a\ b user=u", "password=a b user=u"),
        ("password='' user=u", "password= user=u"),
        ("options='-c a=b'", "options=-c a=b"),
        ("host=h\n\tuser=u\n", "host=h user=u"),
    ] {
        assert_eq!(show(text), expected, "{text}");
    }
}

#[test]
fn broken_strings_are_refused_without_being_repeated() {
    for text in [
        "postgres://u:hunter/2@h/d",
        "postgres://u:hun@ter2@h/d",
        "postgres://?user=u&password=hunter@2",
        "postgres://u:hunter%2@h",
        "postgres://u:hunter%ff@h",
        "postgres://u:p@[::1/hunter2",
        "postgres://u@h?hunter2",
        "mysql://u:hunter2@h/d",
        "password=my hunter2",
        "password='hunter2",
        "=hunter2",
    ] {
        let error = pairs(text).expect_err(text);
        assert!(!error.to_string().contains("hun"), "{error}");
    }
}
