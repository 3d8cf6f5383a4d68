//! Ordering keys, topics, schedules, processes and rights: what their pages say, and what is done on them.

use axum::http::StatusCode;
use doorbell::Outcome;
use doorbell_ui::Rights;
use tokio_postgres::Client;

use super::{Pages, for_anybody};
use crate::support::{Database, count, until};

const BY_ANNA: &str = "select count(*) from integration.audit_log where app_name = 'doorbell ui (anna)' and action = ";

const KEYED: &str = "select integration.publish('shop', 'billing', 'order', to_jsonb(n), p_ordering_key => 'seven') \
    from generate_series(1, 3) n";

/// Has the next message of a target fail for good.
pub(super) async fn fail_next(client: &Client, target: &str, reason: &str) {
    client.execute("select integration.claim($1, 'tester', p_lease => '1 h')", &[&target]).await.unwrap();
    let reject = "select integration.settle('tester', array[d.id], array[d.attempt], array[d.created_at], '{reject}', \
        array[$2::text], '{null}') from integration.data_staging d where d.owner = 'tester' and d.target_app = $1";
    client.execute(reject, &[&target, &reason]).await.unwrap();
}

async fn pages(sql: &str) -> (Database, Client, Pages) {
    let db = Database::new().await;
    let client = db.client().await;
    client.batch_execute(sql).await.unwrap();
    let pages = Pages::of(&db, for_anybody(Rights::ALL)).await;
    (db, client, pages)
}

/// Does it, and returns to which page that led.
async fn done(pages: &Pages, path: &str, form: &str) -> String {
    let answer = pages.post(path, form).await;
    assert_eq!(answer.status, StatusCode::SEE_OTHER, "{path} {form}: {}", answer.body);
    answer.header("location").to_owned()
}

async fn refused(pages: &Pages, path: &str, form: &str, status: StatusCode) {
    let answer = pages.post(path, form).await;
    assert_eq!(answer.status, status, "{path} {form}: {}", answer.body);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blocked_key_is_shown_with_what_blocks_it_and_goes_on_by_either_way() {
    let (_db, client, pages) = pages(KEYED).await;
    fail_next(&client, "billing", "no such customer").await;
    for path in ["/keys", "/keys?target=billing"] {
        let page = pages.page(path).await;
        for text in ["seven", "blocked", "message?id=1\"", "no such customer", "action=\"unblock\""] {
            assert!(page.contains(text), "{path}: {text}: {page}");
        }
    }
    assert!(pages.page("/keys?target=mail").await.contains("No message of this target"));
    assert!(
        pages.page("/target?name=billing").await.contains("<a href=\"keys?target=billing\">1 ordering key is blocked")
    );
    let back = done(&pages, "/unblock", "target=billing&key=seven&how=redrive").await;
    assert_eq!(back, "keys?target=billing");
    assert_eq!(count(&client, "select count(*) from integration.data_staging where status = 'pending'").await, 3);
    assert_eq!(count(&client, &format!("{BY_ANNA} 'redriven'")).await, 1);
    assert!(pages.page("/keys").await.contains("No key is blocked"));
    refused(&pages, "/unblock", "target=billing&key=seven&how=redrive", StatusCode::CONFLICT).await;
    refused(&pages, "/unblock", "target=billing&key=seven&how=forget", StatusCode::BAD_REQUEST).await;
    fail_next(&client, "billing", "no such customer").await;
    done(&pages, "/unblock", "target=billing&key=seven&how=cancel").await;
    assert_eq!(count(&client, &format!("{BY_ANNA} 'cancelled'")).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_keys_are_shown_page_by_page() {
    let many = "select integration.publish('shop', 'billing', 'order', '1', p_ordering_key => 'key ' || n) \
        from generate_series(100, 159) n";
    let (_db, _client, pages) = pages(many).await;
    let first = pages.page("/keys?target=billing").await;
    assert!(first.contains("key 149") && !first.contains("key 150"), "{first}");
    let next = first.split("rel=\"next\" href=\"").nth(1).expect("a next page").split('"').next().unwrap();
    let second = pages.page(&format!("/{}", next.replace("&#38;", "&"))).await;
    assert!(second.contains("key 150") && !second.contains("key 149") && !second.contains("rel=\"next\""), "{second}");
}

#[tokio::test(flavor = "multi_thread")]
async fn targets_are_subscribed_to_topics_and_it_is_said_who_would_get_what() {
    let (_db, client, pages) = pages("select 1").await;
    assert!(pages.page("/topics").await.contains("There are no topics"));
    assert_eq!(done(&pages, "/subscribe", "topic=orders&target=mail&types=order.*%0D%0Arefund").await, "topics");
    done(&pages, "/subscribe", "topic=orders&target=billing&sources=shop").await;
    let page = pages.page("/topics").await;
    for text in ["order.*, refund", "target?name=mail", "target?name=billing", "action=\"unsubscribe\""] {
        assert!(page.contains(text), "{text}: {page}");
    }
    let takers = async |query: &str| {
        let page = pages.page(&format!("/topics?topic=orders&{query}")).await;
        let (_, rest) = page.split_once("Who would get it?").unwrap();
        (rest.contains("target?name=mail"), rest.contains("target?name=billing"), rest.contains("Nobody would get it"))
    };
    assert_eq!(takers("type=order.placed&source=shop").await, (true, true, false));
    assert_eq!(takers("type=order.placed&source=till").await, (true, false, false));
    assert_eq!(takers("type=invoice&source=till").await, (false, false, true));
    done(&pages, "/unsubscribe", "topic=orders&target=mail").await;
    assert_eq!(count(&client, "select count(*) from integration.topics where target_app = 'mail'").await, 0);
    refused(&pages, "/unsubscribe", "topic=orders&target=mail", StatusCode::CONFLICT).await;
    refused(&pages, "/subscribe", "topic=orders&target=orders", StatusCode::CONFLICT).await;
    refused(&pages, "/subscribe", "topic=orders&target=mail&since=soon", StatusCode::BAD_REQUEST).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn schedules_say_when_they_come_and_are_paused_resumed_fired_and_removed() {
    let nightly = "select integration.schedule('nightly', 'billing', 'report', '{}', p_cron => '30 2 * * *', \
        p_zone => 'Europe/Berlin')";
    let (_db, client, pages) = pages("select 1").await;
    assert!(pages.page("/schedules").await.contains("There are no schedules"));
    client.batch_execute(nightly).await.unwrap();
    let page = pages.page("/schedules").await;
    assert!(page.contains("30 2 * * * Europe/Berlin") && page.contains("target?name=billing"), "{page}");
    let row = page.split("<tbody>").nth(1).unwrap();
    let ticks: Vec<&str> = row.split("<time datetime=\"").skip(1).map(|rest| rest.split('"').next().unwrap()).collect();
    assert!(ticks.len() == 3 && ticks.is_sorted(), "{ticks:?}");
    for (verb, state) in [("pause", "paused by <bdi>doorbell ui (anna)"), ("resume", "well\">on")] {
        assert_eq!(done(&pages, "/schedule", &format!("name=nightly&verb={verb}")).await, "schedules");
        let page = pages.page("/schedules").await;
        assert!(page.contains(state), "{verb}: {page}");
        refused(&pages, "/schedule", &format!("name=nightly&verb={verb}"), StatusCode::CONFLICT).await;
    }
    done(&pages, "/schedule", "name=nightly&verb=fire").await;
    assert_eq!(count(&client, "select count(*) from integration.data_staging where target_app = 'billing'").await, 1);
    done(&pages, "/schedule", "name=nightly&verb=remove").await;
    refused(&pages, "/schedule", "name=nightly&verb=fire", StatusCode::NOT_FOUND).await;
    refused(&pages, "/schedule", "name=nightly&verb=forget", StatusCode::BAD_REQUEST).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schedule_is_made_on_its_page() {
    let (_db, client, pages) = pages("select 1").await;
    let nightly = "name=nightly&target=billing&type=report&cron=30+2+*+*+*&zone=Europe%2FBerlin&data=%7B%22a%22%3A1%7D";
    assert_eq!(done(&pages, "/add-schedule", nightly).await, "schedules");
    done(&pages, "/add-schedule", "name=poll&target=billing&type=poll&every=5m&skip_overlap=yes").await;
    let page = pages.page("/schedules").await;
    for text in ["30 2 * * * Europe/Berlin", "every 5m", "Pause<span"] {
        assert!(page.contains(text), "{text}: {page}");
    }
    done(&pages, "/schedule", "name=nightly&verb=fire").await;
    let fired = "select count(*) from integration.data_staging where data = '{\"a\": 1}' and record_type = 'report'";
    assert_eq!(count(&client, fired).await, 1);
    for wrong in ["", "&cron=x", "&every=soon", "&cron=*+*+*+*+*&every=5m", "&every=5m&data=%7B"] {
        let form = format!("name=x&target=billing&type=report{wrong}");
        refused(&pages, "/add-schedule", &form, StatusCode::BAD_REQUEST).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn history_is_replayed_after_it_was_counted() {
    let history = "insert into integration.data_staging (source_app, target_app, record_type, data, status) \
        select 'shop', 'orders', 'order.placed', to_jsonb(n), 'completed' from generate_series(1, 30) n; \
        select integration.publish('shop', 'warehouse', 'order.placed', '1')";
    let (_db, client, pages) = pages(history).await;
    assert!(pages.page("/topics").await.contains("href=\"replay\""));
    assert!(pages.page("/replay?target=nothing").await.contains("There is no such history"));
    let preview = pages.page("/replay?target=orders&to=warehouse&since=7d&types=order.*&sources=shop").await;
    for text in ["30 messages would be replayed", "consumers: 0", "doorbell replay orders --to warehouse --since 7d"] {
        assert!(preview.contains(text), "{text}: {preview}");
    }
    // What is completed from now on is not meant.
    client.batch_execute(history.split("; ").next().unwrap()).await.unwrap();
    let replayed = pages.post("/replay", &super::acts::form(&preview)).await;
    assert!(replayed.body.contains("30 messages were replayed"), "{}", replayed.body);
    let copies =
        "select count(*) from integration.data_staging where target_app = 'warehouse' and headers ? 'replayed'";
    assert_eq!(count(&client, copies).await, 30);
    refused(&pages, "/replay", "since=7d", StatusCode::BAD_REQUEST).await;
    assert_eq!(pages.get("/replay?target=orders&since=soon").await.status, StatusCode::BAD_REQUEST);
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_wait_and_tables_that_are_captured_have_pages() {
    let (_db, client, pages) = pages("create table orders (id integer primary key)").await;
    assert!(pages.page("/requests").await.contains("Nobody waits for an answer"));
    assert!(pages.page("/captures").await.contains("No table is captured"));
    let asked = "select integration.request('shop', 'billing', 'price', '{}', '1 h'); \
        select integration.publish('shop', 'billing', 'order', '{}'); \
        select integration.capture('orders', 'mail', p_when => '$.new.id > 7')";
    client.batch_execute(asked).await.unwrap();
    let page = pages.page("/requests").await;
    assert!(page.contains("message?id=1\"") && !page.contains("message?id=2\"") && page.contains("price"), "{page}");
    let page = pages.page("/captures").await;
    for text in ["orders", "target?name=mail", "&#62; 7", "well\">on"] {
        assert!(page.contains(text), "{text}: {page}");
    }
    assert_eq!(done(&pages, "/uncapture", "table=orders").await, "captures");
    refused(&pages, "/uncapture", "table=orders", StatusCode::CONFLICT).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_is_evicted_has_nothing_in_hand_any_more() {
    let hung = "select integration.publish('shop', 'billing', 'order', '1'); \
        select integration.claim('billing', 'hung', p_lease => '1 h')";
    let (db, client, pages) = pages("select 1").await;
    let consumer = db.broker().await.consumer("mail").fallback(|_| async { Ok(Outcome::Done) }).start().await.unwrap();
    until(&client, "it is registered", "select exists (select from integration.processes)").await;
    let page = pages.page("/consumers").await;
    assert!(page.contains("action=\"evict\"") && page.contains("with no retry used"), "{page}");
    for statement in hung.split("; ") {
        client.batch_execute(statement).await.unwrap();
    }
    assert_eq!(done(&pages, "/evict", "owner=hung").await, "consumers");
    assert_eq!(count(&client, "select count(*) from integration.data_staging where status = 'pending'").await, 1);
    refused(&pages, "/evict", "owner=nobody", StatusCode::CONFLICT).await;
    consumer.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn rights_are_granted_and_revoked_for_one_application_and_for_all() {
    let (db, client, pages) = pages("select 1").await;
    // Roles are the server's: this one is this test's.
    let role = format!("{}_web", db.name());
    client.batch_execute(&format!("create role \"{role}\"")).await.unwrap();
    let of_all = format!("role={role}&verb=look");
    assert_eq!(done(&pages, "/grant", &of_all).await, "rights");
    let rights = format!("role={role}&app=shop&publish_to=billing%0D%0Amail&consume=yes&max_priority=5&max_pending=");
    done(&pages, "/grant", &rights).await;
    let page = pages.page("/rights").await;
    for text in ["billing, mail", "priority 5", "Revoke look", "<bdi>shop</bdi>"] {
        assert!(page.contains(text), "{text}: {page}");
    }
    refused(&pages, "/grant", &format!("role={role}"), StatusCode::BAD_REQUEST).await;
    refused(&pages, "/grant", &format!("role={role}&verb=fly"), StatusCode::BAD_REQUEST).await;
    refused(&pages, "/grant", &format!("{rights}many"), StatusCode::BAD_REQUEST).await;
    refused(&pages, "/revoke", &format!("role={role}&app=mail"), StatusCode::CONFLICT).await;
    done(&pages, "/revoke", &of_all).await;
    done(&pages, "/revoke", &format!("role={role}&app=shop")).await;
    assert!(pages.page("/rights").await.contains("Nobody else may anything"));
    client.batch_execute(&format!("drop role \"{role}\"")).await.unwrap();
}
