use super::{super::environment::Given, *};

const FILE: &str =
    "# all of ours\n[other]\nhost=elsewhere\n\n[mine]\nhost=here\n# why\n  port=6000  \n\n[mine]\nhost=twice\n";

fn pair(key: &str, value: &str) -> Pair {
    (key.into(), value.into())
}

#[test]
fn the_first_section_of_that_name_counts() {
    assert_eq!(parse(FILE, "mine").unwrap(), Some(vec![pair("host", "here"), pair("port", "6000")]));
    assert_eq!(parse(FILE, "none").unwrap(), None);
}

#[test]
fn errors_name_the_line_and_never_its_text() {
    for text in ["[mine]\nhunter2\n", "[mine]\nservice=hunter2\n"] {
        let error = parse(text, "mine").unwrap_err().to_string();
        assert!(error.contains("line 2") && !error.contains("hunter2"), "{error}");
    }
}

#[test]
fn files_are_looked_for_in_libpqs_order() {
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = directory.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    write(".pg_service.conf", "[a]\nhost=home\n");
    write("pg_service.conf", "[a]\nhost=system\n[b]\nhost=system\n");
    let named = write("named", "[a]\nhost=named\n");
    let at_home = || Given::default().home(directory.path()).with("PGSYSCONFDIR", directory.path());

    let host = |name: Option<&str>, environment: Given| {
        read(name, None, &environment).unwrap().map(|(_, pairs)| pairs[0].1.clone())
    };
    assert_eq!(host(Some("a"), at_home()).as_deref(), Some("home"));
    assert_eq!(host(Some("b"), at_home()).as_deref(), Some("system"));
    assert_eq!(host(None, at_home().with("PGSERVICE", "a").with("PGSERVICEFILE", &named)).as_deref(), Some("named"));
    assert_eq!(host(None, at_home()), None);
    assert!(read(Some("c"), None, &at_home()).is_err(), "an unknown service is an error");
    assert!(read(Some("a"), Some("/nowhere/at/all"), &at_home()).is_err(), "a named file must exist");
}
