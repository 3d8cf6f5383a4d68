//! `doorbell consume --exec` with requests: what the program prints is the reply.

use doorbell_testing::until;

use crate::program::*;

#[tokio::test(flavor = "multi_thread")]
async fn what_a_program_prints_is_the_reply_of_who_waits_for_one() {
    let db = Database::new().await;
    let program = r#"test "$DOORBELL_REPLY" = 1 || exit 65; read -r item; echo "{\"of\": $item, \"cents\": 1.50}""#;
    let running = Running::start(doorbell(&db, &["consume", "billing", "--shell", "--exec", program]));
    let asked = ended(doorbell(&db, &["request", "billing", "--source", "shop", "--type", "n", "--data", "7"])).await;
    ends_with(&asked, 0);
    assert_eq!(out(&asked), "{\"of\": 7, \"cents\": 1.50}\n");
    running.signal(Signal::SIGTERM);
    assert_eq!(running.ended().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_for_batches_replies_in_its_lines() {
    let db = Database::new().await;
    let client = db.client().await;
    let ask = "select integration.request('shop', 'billing', 'ask', to_jsonb(n), '1 h', p_reply_to => 'me.' || n, \
        p_ordering_key => 'key ' || n / 4) from generate_series(1, 5) n";
    client.batch_execute(ask).await.unwrap();
    // The fifth is of the key of the fourth, which is not done, and has to wait for it.
    let program = r#"sed -unE -e 's/^.*"id":(1|5),.*/{"id": \1, "outcome": "done", "reply": {"of": \1}}/p' \
            -e 's/^.*"id":2,.*/{"id": 2, "outcome": "done", "reply": null}/p' \
            -e 's/^.*"id":4,.*/{"id": 4, "outcome": "snooze", "after": "1h"}/p' -e '/^."batch":/p'"#;
    let arguments = ["consume", "billing", "--shell", "--exec", program, "--batch", "5"];
    let running = Running::start(doorbell(&db, &arguments));
    let said = "select count(*) filter (where status = 'completed') = 3 and count(*) filter (where available_at > clock_timestamp()) >= 1         from integration.data_staging";
    until(&client, "all but those of the second key are done", said).await;
    running.signal(Signal::SIGTERM);
    assert_eq!(running.ended().await, 0);
    let told = "select string_agg(concat_ws(' ', a.id, a.state, a.reply), '; ' order by a.id) \
        from integration.answers('{1, 2, 3, 4, 5}', '{me.1, me.2, me.3, me.4, me.5}') a";
    let told: String = client.query_one(told, &[]).await.unwrap().get(0);
    assert_eq!(told, "1 replied {\"of\": 1}; 2 replied null; 3 completed");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_reply_has_a_reason_and_who_waits_for_none_has_it_passed_on() {
    let db = Database::new().await;
    let client = db.client().await;
    let ask = "select integration.request('shop', 'billing', 'ask', to_jsonb(n), '1 h', p_reply_to => 'me.' || n) from generate_series(1, 5) n";
    client.batch_execute(ask).await.unwrap();
    publish(&db, "6\n").await;
    let program = r#"read -r number; case $number in
            1) ;;
            2) echo 'what?';;
            3) echo 3; echo no >&2; exit 65;;
            4) head -c 1048577 /dev/zero | tr '\0' 1;;
            5) echo 5;;
            6) echo "passed on: $number$DOORBELL_REPLY";;
        esac"#;
    let mut command = doorbell(&db, &["consume", "billing", "--shell", "--exec", program, "--count", "6"]);
    command.env("DOORBELL_REPLY", "of somebody else");
    let output = ended(command).await;
    ends_with(&output, 0);
    assert_eq!(out(&output), "passed on: 6\n");
    let told = "select string_agg(concat_ws(' ', a.state, a.reply, a.reason), '; ' order by a.id) \
        from integration.answers('{1, 2, 3, 4, 5}', '{me.1, me.2, me.3, me.4, me.5}') a";
    let told: String = client.query_one(told, &[]).await.unwrap().get(0);
    assert_eq!(
        told,
        "completed; failed what it prints, its reply, is no JSON: expected value at line 1 column 1; \
         failed rejected with exit code 65: no; \
         failed what it prints, its reply, is over the limit of 1048576 bytes; replied 5"
    );
}
