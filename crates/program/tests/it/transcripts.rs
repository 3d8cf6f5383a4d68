//! The transcripts in the guide are what the program prints.

use crate::program::*;
use doorbell_testing::stop_the_clock;

/// Blocks of what is typed and what comes of it: commands of the program, and a session of psql.
const KINDS: [&str; 2] = ["```console", "```psql"];

/// Runs a page: what is typed in it on a terminal, one after the other, and between them what its comments prepare. Returns the
/// page as it should be; `None` where there is no psql, which is said.
async fn played(db: &Database, page: &str) -> Option<String> {
    let client = db.client().await;
    stop_the_clock(&client, 0).await;
    let mut real = String::new();
    let mut kind = None;
    let mut psql = None;
    for (at, line) in page.lines().enumerate() {
        let comment =
            |name| line.strip_prefix("<!-- ").and_then(|line: &str| line.strip_prefix(name)?.strip_suffix(" -->"));
        if let Some(sql) = comment("sql: ") {
            client.batch_execute(sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
        } else if let Some(second) = comment("clock: ") {
            stop_the_clock(&client, second.parse().unwrap()).await;
        }
        if line.starts_with("```") {
            if kind == Some("```psql") {
                // psql leaves a line free after each result.
                real.truncate(real.trim_end_matches('\n').len());
                real += "\n";
            }
            // What somebody types to build and run a program of his own is other tests'.
            let first = page.lines().nth(at + 1).unwrap_or_default();
            let ours = !first.starts_with("$ ") || first.starts_with("$ doorbell ");
            kind = KINDS.into_iter().find(|kind| ours && *kind == line);
        }
        let typed = match kind {
            Some("```console") => line.strip_prefix("$ "),
            Some(_) => PROMPTS.iter().find_map(|prompt| line.strip_prefix(prompt)),
            None => None,
        };
        if kind.is_some() && typed.is_none() && !KINDS.contains(&line) {
            continue;
        }
        if !(kind == Some("```psql") && typed.is_some()) {
            real += line;
            real += "\n";
        }
        match typed {
            Some(command) if kind == Some("```console") => real += &said(db, command).await,
            Some(statement) => {
                if psql.is_none() {
                    psql = Some(Psql::start(db).await?);
                }
                real += &psql.as_mut().expect("it runs").said(statement).await;
            }
            None => {}
        }
    }
    Some(real)
}

/// Whatever channel that is in the database of the test.
const NOTIFIED: &str =
    "Asynchronous notification \"doorbell_7bd38eb9ca0780e2\" received from server process with PID 5082.";
const PROMPTS: [&str; 2] = ["app=> ", "app-> "];

/// One session for a page.
struct Psql {
    terminal: Terminal,
    prompt: &'static str,
}

impl Psql {
    async fn start(db: &Database) -> Option<Self> {
        let program = doorbell_server::Installation::find(None).unwrap().bin_directory().join("psql");
        if !program.exists() {
            println!("skipped: {} is not there", program.display());
            return None;
        }
        let mut psql = Command::new(program);
        psql.args(["-X", "-n", "-P", "pager=off", "-v", "PROMPT1=app=> ", "-v", "PROMPT2=app-> "]);
        // Where in our functions an error came up is for us.
        psql.args(["-v", "SHOW_CONTEXT=never", "-d", &db.url]);
        psql.env("LC_ALL", "C.UTF-8").kill_on_drop(true);
        let mut terminal = Terminal::of_width(psql, 500);
        let (_, prompt) = terminal.prompts(&PROMPTS).await;
        Some(Self { terminal, prompt })
    }

    /// Types a line; it with its prompt and what comes of it, with numbers of processes and transactions of any run.
    async fn said(&mut self, line: &str) -> String {
        self.terminal.types(&format!("{line}\n"));
        let (shown, next) = self.terminal.prompts(&PROMPTS).await;
        let before = std::mem::replace(&mut self.prompt, next);
        let shown = shown.lines().map(|line| match line.split_once("from server process with PID ") {
            Some(_) => format!("{NOTIFIED}\n"),
            None if line.len() > 7 && line.trim().parse::<u64>().is_ok_and(|xid| xid > 100) => {
                format!("{:>1$}\n", 781, line.len())
            }
            None => format!("{line}\n"),
        });
        before.to_owned() + &shown.collect::<String>()
    }
}

/// What a command prints on a terminal.
async fn said(db: &Database, command: &str) -> String {
    let arguments = shell_words::split(command).unwrap();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    assert_eq!(arguments[0], "doorbell", "{command}");
    let mut program = doorbell(db, &arguments[1..]);
    program.env("PGAPPNAME", "anna").env("RUST_LOG", "off").env("NO_COLOR", "1");
    let printed = Terminal::start(program).all().await.replace('\r', "");
    printed.lines().map(|line| with_a_made_up_process(line) + "\n").collect()
}

/// A line with a made up owner, host and number in place of a real process's, as `explain` tells of one.
fn with_a_made_up_process(line: &str) -> String {
    let told = || {
        let (before, rest) = line.split_once(", process ")?;
        let (_, after) = rest.split_once(')')?;
        let (before, owner) = before.rsplit_once(" (")?.0.rsplit_once(" by ")?;
        let (_, random) = owner.rsplit_once('-')?;
        let real = random.len() == 16 && random.bytes().all(|byte| byte.is_ascii_hexdigit());
        real.then(|| format!("{before} by larch-4711-8e28d1372bc3c05e (larch, process 4711){after}"))
    };
    told().unwrap_or_else(|| line.to_owned())
}

/// To accept a change, run the test with `DOORBELL_ACCEPT=1` and review the difference.
async fn is_what_happens(path: &std::path::Path) {
    let page = std::fs::read_to_string(path).unwrap();
    let Some(real) = played(&Database::new().await, &page).await else { return };
    if std::env::var_os("DOORBELL_ACCEPT").is_some() {
        std::fs::write(path, &real).unwrap();
        return;
    }
    let name = path.display();
    for (at, (written, happens)) in page.lines().zip(real.lines()).enumerate() {
        assert_eq!(written, happens, "{name}, line {}; accept with DOORBELL_ACCEPT=1", at + 1);
    }
    assert_eq!(page.lines().count(), real.lines().count(), "{name}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_pages_show_being_typed_is_what_happens() {
    let mut pages = vec![concat!(env!("CARGO_MANIFEST_DIR"), "/../../README.md").into()];
    for entry in std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs")).unwrap() {
        let path = entry.unwrap().path();
        let is_page = path.extension().is_some_and(|extension| extension == "md");
        if is_page && std::fs::read_to_string(&path).unwrap().lines().any(|line| KINDS.contains(&line)) {
            pages.push(path);
        }
    }
    assert!(pages.len() >= 5, "{pages:?}");
    let mut playing = tokio::task::JoinSet::new();
    for page in pages {
        playing.spawn(async move { is_what_happens(&page).await });
    }
    while let Some(played) = playing.join_next().await {
        played.unwrap_or_else(|failed| std::panic::resume_unwind(failed.into_panic()));
    }
}

/// What is in backticks in the text of a page, and sets a target.
fn inline(page: &str) -> impl Iterator<Item = &str> {
    page.split('`')
        .skip(1)
        .step_by(2)
        .filter(|typed| typed.starts_with("doorbell target set ") && !typed.contains('\n'))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_readme_says_in_passing_about_targets_can_be_typed() {
    let db = Database::new().await;
    publish(&db, "1\n").await;
    let readme = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../README.md")).unwrap();
    let commands: Vec<&str> = inline(&readme).collect();
    assert!(commands.contains(&"doorbell target set billing bell=off"), "{commands:?}");
    for command in commands {
        let arguments = shell_words::split(command).unwrap();
        let arguments: Vec<&str> = arguments.iter().skip(1).map(String::as_str).collect();
        let output = ended(doorbell(&db, &arguments)).await;
        assert!(output.status.success(), "{command}: {}", err(&output));
    }
    let off = "select bell = 'off' from integration.targets where target_app = 'billing'";
    let off: bool = db.client().await.query_one(off, &[]).await.unwrap().get(0);
    assert!(off, "its bell is off");
}
