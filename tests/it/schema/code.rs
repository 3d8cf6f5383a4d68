//! What every function of the schema keeps to, whoever wrote it.

use doorbell::migrate::{CODE, STEPS};

use crate::support::Database;

/// Functions that are to be inlined pin no search_path. These are called from outside, so they name everything in full.
const FROM_OUTSIDE: [&str; 14] = [
    "actions_of",
    "changes_of",
    "channel",
    "check_counters",
    "clock",
    "due_channel",
    "latch_class",
    "lock_class",
    "minute_of",
    "next_xid",
    "oldest_xid",
    "outcomes_of",
    "somebody_is_parked",
    "takes",
];
/// These are called by functions that pin theirs.
const FROM_INSIDE: [&str; 35] = [
    "accepts",
    "action_of",
    "actor",
    "asking_role",
    "backoff_ms",
    "bell_is_on",
    "bounded",
    "bytes_of",
    "captured_as",
    "clean_text",
    "empty_in",
    "expiry_reason",
    "gates",
    "in_words",
    "is_copying",
    "is_hand_edit",
    "is_limited",
    "is_of_keys",
    "is_of_verb",
    "is_ours",
    "is_passing",
    "is_plain",
    "is_publish",
    "is_within",
    "key_chars_max",
    "key_slot",
    "name_chars_max",
    "next_look",
    "policy",
    "role_name",
    "shell_word",
    "since",
    "ten_minutes",
    "text_bytes_max",
    "time_in_words",
];

/// Procedures that commit cannot have it pinned for them: these pin it themselves, before all else.
const COMMIT: [&str; 1] = ["await_reply"];

/// Too hot for settings of their own: whoever calls them pins the search path and says how to plan.
const PLANNED_BY_CALLERS: [&str; 1] = ["pick"];

fn files() -> impl Iterator<Item = (&'static str, &'static str)> {
    STEPS.iter().chain(CODE).copied()
}

#[tokio::test(flavor = "multi_thread")]
async fn who_calls_what_is_planned_by_its_callers_says_how() {
    let client = Database::new().await.client().await;
    let settings = "{\"search_path=pg_catalog, pg_temp\",jit=off,enable_seqscan=off,enable_bitmapscan=off,enable_sort=off,\
        plan_cache_mode=force_generic_plan}";
    for name in PLANNED_BY_CALLERS {
        let callers = "select p.proname::text, (select count(*) from unnest(p.proconfig) c, unnest($2::text::text[]) s where starts_with(c, s)) \
            from pg_proc p where p.pronamespace = 'integration'::regnamespace and p.prosrc like '%integration.' || $1 || '(%' order by 1";
        let callers = client.query(callers, &[&name, &settings]).await.unwrap();
        assert!(callers.len() > 2);
        for row in callers {
            assert_eq!(row.get::<_, i64>(1), 6, "{} calls {name}", row.get::<_, String>(0));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_function_depends_on_tables_and_all_but_the_inlined_pin_their_search_path() {
    let client = Database::new().await.client().await;
    let sql = "select p.proname::text, p.prosqlbody is not null, p.prosecdef, l.lanname::text, p.prosrc, \
            coalesce('search_path=pg_catalog, pg_temp' = any (p.proconfig), false) \
        from pg_proc p join pg_language l on l.oid = p.prolang \
        where p.pronamespace = 'integration'::regnamespace order by 1";
    let mut inlined = Vec::new();
    for row in client.query(sql, &[]).await.unwrap() {
        let (name, definer, language): (String, bool, String) = (row.get(0), row.get(2), row.get(3));
        assert!(!row.get::<_, bool>(1), "{name} has a body that the server keeps as a tree");
        if row.get::<_, bool>(5) {
            continue;
        }
        if COMMIT.contains(&name.as_str()) {
            let (_, body) = row.get::<_, &str>(4).split_once("    loop\n").unwrap();
            let first = body.lines().find(|line| !line.trim_start().starts_with("--")).unwrap();
            assert!(
                first.contains("pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true)"),
                "{name}: {first}"
            );
            assert!(!definer && language == "plpgsql");
            continue;
        }
        let planned = PLANNED_BY_CALLERS.contains(&name.as_str());
        assert!((planned || language == "sql") && !definer, "{name} pins no search_path");
        if FROM_OUTSIDE.contains(&name.as_str()) {
            let (body, unqualified) = (row.get::<_, String>(4), names_something_without_its_schema(row.get(4)));
            assert_eq!(unqualified, None, "{name}: {body}");
        }
        inlined.push(name);
    }
    inlined.dedup();
    let mut expected = [FROM_OUTSIDE.as_slice(), &FROM_INSIDE, &PLANNED_BY_CALLERS].concat();
    expected.sort_unstable();
    assert_eq!(inlined, expected);
}

/// A function or operator that the search_path decides about.
fn names_something_without_its_schema(body: &str) -> Option<String> {
    let code: String = body.split('\'').step_by(2).collect::<Vec<_>>().join("''");
    let code =
        ["operator(pg_catalog.>)", "operator(pg_catalog.=)", "operator(pg_catalog.@>)", "operator(pg_catalog.~)"]
            .iter()
            .fold(code, |code, operator| code.replace(operator, ""));
    let words = code.split_inclusive('(').filter_map(|piece| piece.strip_suffix('('));
    let function = words
        .map(|piece| piece.rsplit(|c: char| !(c.is_alphanumeric() || c == '_' || c == '.')).next().unwrap_or_default())
        .find(|word| !["", "coalesce"].contains(word) && !word.contains('.'));
    let operator = code.find(|c: char| "+-*/<>=~!@#%^&|".contains(c)).map(|at| &code[at..at + 1]);
    function.or(operator).map(str::to_owned)
}

#[test]
fn names_without_a_schema_are_seen() {
    for (body, seen) in [
        ("select pg_catalog.f('a = b(', x::pg_catalog.text)", None),
        ("select f(1)", Some("f")),
        ("select pg_catalog.f(1) + 1", Some("+")),
        ("select a operator(pg_catalog.=) coalesce(b, c)", None),
        ("select case when a.b(g(1)) then 1 end", Some("g")),
    ] {
        assert_eq!(names_something_without_its_schema(body).as_deref(), seen, "{body}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_body_compiles_and_the_code_can_be_applied_again() {
    let mut client = Database::new().await.client().await;
    let tx = client.transaction().await.unwrap();
    tx.batch_execute("set local check_function_bodies = on").await.unwrap();
    for (name, sql) in CODE {
        tx.batch_execute(sql).await.unwrap_or_else(|error| panic!("{name}: {error:?}"));
    }
}

#[test]
fn migrations_are_ascii_in_lines_of_120_and_use_no_backslash_in_plain_literals() {
    let mut breaches = Vec::new();
    for (name, sql) in files() {
        for (at, line) in sql.lines().enumerate() {
            let code = line.split("--").next().unwrap_or_default();
            if !line.is_ascii() || line.len() > 120 || has_a_plain_backslash(code) {
                breaches.push(format!("{name}.sql:{}: {line}", at + 1));
            }
        }
    }
    assert!(breaches.is_empty(), "{}", breaches.join("\n"));
}

/// What it means depends on standard_conforming_strings.
fn has_a_plain_backslash(code: &str) -> bool {
    let mut before = "";
    code.split('\'').enumerate().any(|(at, piece)| {
        let literal = at % 2 == 1;
        let escaped = before.ends_with('E') || before.is_empty() && at > 1;
        let breach = literal && piece.contains('\\') && !escaped;
        before = piece;
        breach
    })
}

#[test]
fn backslashes_in_plain_literals_are_seen() {
    assert!(has_a_plain_backslash(r"select 'a\b'"));
    assert!(!has_a_plain_backslash(r"select E'a\\b', 'c'"));
}

/// What a server says of the functions in whose middle something happens, in languages that it may speak.
#[tokio::test]
async fn who_calls_whom_is_known_whatever_language_the_server_speaks() {
    let db = Database::new().await;
    let client = db.client().await;
    let within = async |stack: &str| {
        let sql = "select integration.is_within($1, 'copy_history|fan_out')";
        client.query_one(sql, &[&stack]).await.unwrap().get::<_, bool>(0)
    };
    let call = "integration.fan_out(text,bigint[],boolean)";
    for stack in [
        format!("SQL statement \"insert\"\nPL/pgSQL function {call} line 61 at SQL statement"),
        format!("PL/pgSQL-Funktion {call} Zeile 61 bei SQL-Anweisung\nSQL-Anweisung »select 1«"),
        format!("fonction PL/pgSQL {call}, ligne 61, à instruction SQL"),
        format!("функция PL/pgSQL {call}, строка 61, оператор SQL-оператор"),
        format!("PL/pgSQL関数{call}の61行目 - SQLステートメント"),
    ] {
        assert!(within(&stack).await, "{stack}");
    }
    for stack in [
        "PL/pgSQL function integration.fan_out_all(text) line 1 at SQL statement",
        "PL/pgSQL function disintegration.fan_out(text) line 1 at SQL statement",
        "PL/pgSQL function mine.\"integration.fan_out(\"(text) line 1 at SQL statement",
        "PL/pgSQL function integration_fan_out(text) line 1 at SQL statement",
        "SQL statement \"insert /* integration.fan_out( */ into t values (1)\"",
    ] {
        assert!(!within(stack).await, "{stack}");
    }
}
