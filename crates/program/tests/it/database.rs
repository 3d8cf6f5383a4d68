//! Which database, and its schema: `doorbell migrate`, `up` and `down`.

use crate::program::*;

#[tokio::test(flavor = "multi_thread")]
async fn migrate_brings_an_empty_database_up_and_its_check_says_by_exit_code_whether_it_is() {
    let db = Database::empty().await;
    let output = ended(doorbell(&db, &["migrate", "--check", "--json"])).await;
    ends_with(&output, 4);
    assert_eq!(json_of(&output)["version"], 0);
    let missing = ended(doorbell(&db, &["publish", "a", "--source", "b", "--type", "c", "--data", "1"])).await;
    ends_with(&missing, 1);
    assert!(err(&missing).contains("doorbell migrate"), "{}", err(&missing));
    for _ in 0..2 {
        ends_with(&ended(doorbell(&db, &["migrate"])).await, 0);
    }
    let output = ended(doorbell(&db, &["migrate", "--check"])).await;
    ends_with(&output, 0);
    assert_eq!(out(&output), "");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_printed_script_makes_the_schema_without_the_program() {
    let output = ended(bare(&["migrate", "--sql"])).await;
    ends_with(&output, 0);
    let db = Database::empty().await;
    db.client().await.batch_execute(&out(&output)).await.unwrap();
    ends_with(&ended(doorbell(&db, &["migrate", "--check"])).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_cannot_be_reached_is_69_and_its_password_is_never_said() {
    let url = "postgres://bob:hunter2@/db?host=/no/such/directory&connect_timeout=2";
    for (command, exit) in [(["stats", "-vvv"], 69), (["processes", "--json"], 69)] {
        let mut given = bare(&command);
        given.args(["--database-url", url]);
        let mut inherited = bare(&command);
        inherited.env("DATABASE_URL", url);
        for command in [given, inherited] {
            let output = ended(command).await;
            ends_with(&output, exit);
            assert!(!(err(&output) + &out(&output)).contains("hunter2"), "{}", err(&output));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_up_starts_is_found_by_every_command_until_down() {
    let directory = Directory::new("up");
    let state = directory.join("state");
    let program = |arguments: &[&str]| {
        let mut command = bare(arguments);
        command.env("DOORBELL_STATE_DIRECTORY", &state);
        command
    };
    let output = ended(program(&["stats"])).await;
    ends_with(&output, 69);
    assert!(err(&output).contains("doorbell up"), "{}", err(&output));
    let up = ended(program(&["up"])).await;
    ends_with(&up, 0);
    let again = json_of(&ended(program(&["up", "--json"])).await);
    assert_eq!(again["connection_string"], out(&up).trim_end());
    // Where programs look whose environment says nothing.
    let file = std::path::Path::new(&state).join("application");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), out(&up));
    // Applications are no superusers, and the schema belongs to nobody who could log in.
    let application = connect(out(&up).trim_end()).await;
    let sql = "select r.rolsuper or o.rolsuper or o.rolcanlogin from pg_roles r, pg_namespace n join pg_roles o on o.oid = n.nspowner \
        where r.rolname = current_user and n.nspname = 'integration'";
    assert!(!application.query_one(sql, &[]).await.unwrap().get::<_, bool>(0));
    let publish = "create table orders (id bigint); select integration.publish('shop', 'billing', 'x', '1'); \
        select * from integration.stats";
    application.batch_execute(publish).await.unwrap();
    assert!(application.batch_execute("select integration.grant_to(current_user, 'look')").await.is_err());
    assert!(out(&ended(program(&["up", "--admin"])).await).contains("user=postgres"));
    // It is a URI, which every driver takes.
    assert!(out(&up).starts_with("postgresql:///postgres?host="), "{}", out(&up));
    ends_with(&ended(program(&[&PUBLISH[..], &["--data", "1"]].concat())).await, 0);
    // The commands of the program are none either, and may all that it has commands for.
    for command in
        ["migrate", "grant doorbell_app look", "rights", "pause billing", "resume billing", "maintain --once", "doctor"]
    {
        let arguments: Vec<&str> = command.split(' ').collect();
        ends_with(&ended(program(&arguments)).await, 0);
    }
    let admin = connect(again["admin_connection_string"].as_str().unwrap()).await;
    let acted =
        "select count(*) from integration.audit_log where action in ('paused', 'resumed') and role_name = 'doorbell'";
    assert_eq!(count(&admin, acted).await, 2);
    assert_eq!(count(&admin, "select rolsuper::integer::bigint from pg_roles where rolname = 'doorbell'").await, 0);
    // A superuser's schema does not stay his.
    admin.batch_execute("select integration.hand_over(current_user)").await.unwrap();
    let both = [ended(program(&["up"])), ended(program(&["up"]))];
    for up in futures::future::join_all(both).await {
        ends_with(&up, 0);
    }
    let owner =
        "select count(*) from pg_namespace where nspname = 'integration' and nspowner = 'doorbell_owner'::regrole";
    assert_eq!(count(&admin, owner).await, 1);
    drop(admin);
    let down = ended(program(&["down", "--json"])).await;
    assert_eq!(json_of(&down), json!({ "stopped": true }));
    assert!(!file.exists());
    assert_eq!(json_of(&ended(program(&["down", "--json"])).await), json!({ "stopped": false }));
}
