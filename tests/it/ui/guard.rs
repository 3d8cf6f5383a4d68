//! Who gets in, and with what.

use std::net::SocketAddr;

use axum::{
    Router,
    body::Body,
    extract::ConnectInfo,
    http::{Request, StatusCode, request::Builder},
};
use doorbell_ui::{Access, Options, Rights, router};
use tower::ServiceExt;

use super::{Pages, anna, for_anybody};
use crate::support::{Database, count};

/// What changes something, or would.
fn change() -> Builder {
    Request::post("/messages").header("host", "localhost:7171")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_is_not_ours_is_answered_with_nothing_of_ours() {
    let db = Database::new().await;
    let hosts = ["ops.example.com".to_owned()];
    let pages = Pages::of(&db, for_anybody(Rights::ALL)).await;
    for path in ["/", "/messages", "/style.css", "/login", "/nothing"] {
        let rebound = pages.ask(Request::get(path).header("host", "evil.example:7171")).await;
        assert_eq!(rebound.status, StatusCode::MISDIRECTED_REQUEST, "{path}");
        assert!(!rebound.body.contains("targets") && !rebound.body.contains(db.name()), "{}", rebound.body);
    }
    assert_eq!(pages.ask(Request::get("/")).await.status, StatusCode::MISDIRECTED_REQUEST);
    assert_eq!(pages.get("/").await.status, StatusCode::OK);
    let mut options = for_anybody(Rights::ALL);
    options.hosts.extend(hosts);
    let pages = Pages::of(&db, options).await;
    assert_eq!(pages.ask(Request::get("/").header("host", "ops.example.com")).await.status, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_other_site_can_have_a_browser_change_something() {
    let db = Database::new().await;
    let pages = Pages::of(&db, for_anybody(Rights::ALL)).await;
    for (name, value) in
        [("sec-fetch-site", "cross-site"), ("sec-fetch-site", "same-site"), ("origin", "http://evil.example")]
    {
        let answer = pages.ask(change().header(name, value)).await;
        assert_eq!(answer.status, StatusCode::FORBIDDEN, "{name}: {value}");
    }
    // There is nothing to be changed by that address, and the guard let it pass.
    for (name, value) in [("sec-fetch-site", "same-origin"), ("origin", "http://localhost:7171")] {
        let answer = pages.ask(change().header(name, value)).await;
        assert_eq!(answer.status, StatusCode::METHOD_NOT_ALLOWED, "{name}: {value}");
    }
    let examine =
        Request::get("/doctor?examine=now").header("host", "localhost").header("sec-fetch-site", "cross-site");
    assert_eq!(pages.ask(examine).await.status, StatusCode::FORBIDDEN);
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_may_only_look_changes_nothing() {
    let db = Database::new().await;
    let read_only = Options { read_only: true, ..for_anybody(Rights::ALL) };
    for (options, why) in [(for_anybody(Rights::LOOK), "you may look"), (read_only, "read-only")] {
        let pages = Pages::of(&db, options).await;
        for request in [change(), Request::delete("/target").header("host", "localhost")] {
            let refused = pages.ask(request).await;
            assert_eq!(refused.status, StatusCode::FORBIDDEN);
            assert!(refused.body.contains(why), "{}", refused.body);
        }
        assert!(pages.page("/").await.contains("read-only"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_database_itself_refuses_what_pages_would_change() {
    let db = Database::new().await;
    let client = db.client().await;
    // A page that changes something, as one with a mistake would.
    let wrong = "create or replace function integration.explain(p_id bigint) \
        returns table (code text, sentence text, fix text, details jsonb) language plpgsql volatile as $$ begin \
        insert into integration.data_staging (source_app, target_app, record_type, data) values ('a', 'b', 'c', '1'); \
        return; end $$";
    client.batch_execute("select integration.publish('shop', 'billing', 'order', '1')").await.unwrap();
    client.batch_execute(wrong).await.unwrap();
    let answer = Pages::of(&db, for_anybody(Rights::ALL)).await.get("/message?id=1").await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "{}", answer.body);
    assert!(answer.body.contains("read-only transaction"), "{}", answer.body);
    assert_eq!(count(&client, "select count(*) from integration.data_staging").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_says_what_a_browser_may_do_with_it() {
    let db = Database::new().await;
    let pages = Pages::of(&db, for_anybody(Rights::ALL)).await;
    for path in ["/", "/nothing", "/style.css", "/message?id=x", "/login"] {
        let answer = pages.get(path).await;
        let policy = answer.header("content-security-policy");
        assert!(policy.starts_with("default-src 'none'; ") && !policy.contains("unsafe"), "{path}: {policy}");
        assert_eq!(answer.header("x-content-type-options"), "nosniff", "{path}");
        assert_eq!(answer.header("x-frame-options"), "DENY", "{path}");
        let kept = if path == "/style.css" { "immutable" } else { "no-store" };
        assert!(answer.header("cache-control").contains(kept), "{path}");
        for inline in ["<script>", "<style", " style=", " onclick=", "javascript:"] {
            assert!(!answer.body.contains(inline), "{path}: {inline}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_opens_what_is_closed_and_is_never_shown_again() {
    let db = Database::new().await;
    let token = "0123456789abcdef0123456789abcdef";
    let file = format!("anna look {token}\nben look,payload,act {}", "b".repeat(32));
    let pages = Pages::of(&db, Options::new(Access::tokens(&file).unwrap())).await;
    let localhost = |path: &str| Request::get(path.to_owned()).header("host", "localhost");
    for path in ["/", "/messages", "/message?id=1", "/?token=wrong", "/nothing"] {
        let closed = pages.get(path).await;
        assert_eq!(closed.status, StatusCode::UNAUTHORIZED, "{path}");
        assert!(closed.body.contains("type=\"password\"") && !closed.body.contains(db.name()), "{}", closed.body);
    }
    let opened = pages.get(&format!("/?token={token}")).await;
    assert_eq!(opened.status, StatusCode::OK);
    let cookie = opened.header("set-cookie").to_owned();
    assert!(cookie.ends_with("; HttpOnly; SameSite=Strict"), "{cookie}");
    assert!(!opened.body.contains(token), "{}", opened.body);
    let pair = cookie.split(';').next().unwrap();
    let page = pages.ask(localhost("/").header("cookie", format!("theme=dark; {pair}"))).await;
    assert!(page.status == StatusCode::OK && page.body.contains("anna") && page.body.contains("read-only"));
    let bearer = format!("Bearer {}", "b".repeat(32));
    let page = pages.ask(localhost("/").header("authorization", bearer)).await;
    assert!(page.status == StatusCode::OK && page.body.contains("ben") && !page.body.contains("read-only"));

    let typed = |token: &str| {
        let form = Request::post("/login").header("host", "localhost").header("sec-fetch-site", "same-origin");
        let form = form.header("content-type", "application/x-www-form-urlencoded");
        pages.send(form.body(Body::from(format!("token={token}"))).unwrap())
    };
    let right = typed(token).await;
    assert_eq!((right.status, right.header("location")), (StatusCode::SEE_OTHER, "./"));
    assert_eq!(right.header("set-cookie"), cookie);
    let wrong = typed("wrong").await;
    assert_eq!((wrong.status, wrong.header("set-cookie")), (StatusCode::FORBIDDEN, ""));
    assert!(wrong.body.contains("Nobody has this token"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxys_header_is_believed_of_the_proxy_alone() {
    let db = Database::new().await;
    let access = Access::header("x-remote-user", vec!["10.0.0.0/8".parse().unwrap()]).unwrap();
    let pages = Pages::of(&db, Options::new(access)).await;
    let asks = async |peer: &str, headers: &[(&str, &str)]| {
        let peer: SocketAddr = peer.parse().unwrap();
        let request = Request::get("/").header("host", "localhost").extension(ConnectInfo(peer));
        pages.ask(headers.iter().fold(request, |request, (name, value)| request.header(*name, *value))).await
    };
    let named = [("x-remote-user", "anna")];
    let let_in = asks("10.1.2.3:1", &named).await;
    assert!(let_in.status == StatusCode::OK && let_in.body.contains("anna"), "{}", let_in.body);
    for (peer, headers) in [
        ("192.0.2.1:1", &named[..]),
        ("10.1.2.3:1", &[]),
        ("10.1.2.3:1", &[("x-remote-user", " ")]),
        // The proxy adds its own to what a browser sent.
        ("10.1.2.3:1", &[("x-remote-user", "root"), ("x-remote-user", "anna")]),
    ] {
        assert_eq!(asks(peer, headers).await.status, StatusCode::UNAUTHORIZED, "{peer} {headers:?}");
    }
    // Without the peer's address nobody is believed.
    let request = Request::get("/").header("host", "localhost").header("x-remote-user", "anna");
    assert_eq!(pages.ask(request).await.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_of_ones_own_says_who_somebody_is() {
    let db = Database::new().await;
    let access = Access::asked(|request| request.headers.contains_key("x-session").then(|| anna(Rights::LOOK)));
    let pages = Pages::of(&db, Options::new(access)).await;
    assert_eq!(pages.get("/").await.status, StatusCode::UNAUTHORIZED);
    let page = pages.ask(Request::get("/").header("host", "localhost").header("x-session", "1")).await;
    assert!(page.status == StatusCode::OK && page.body.contains("anna"), "{}", page.body);
}

#[tokio::test(flavor = "multi_thread")]
async fn below_a_path_all_links_lead_below_it_with_and_without_its_slash() {
    let db = Database::new().await;
    let inner = router(&db.broker().await, for_anybody(Rights::ALL)).unwrap();
    let outer = Pages(Router::new().nest_service("/ops/doorbell", inner));
    let bare = outer.get("/ops/doorbell?token=x").await;
    assert_eq!((bare.status, bare.header("location")), (StatusCode::PERMANENT_REDIRECT, "doorbell/?token=x"));
    let page = outer.page("/ops/doorbell/").await;
    assert!(page.contains("All is well"), "{page}");
    for link in ["href=\"./\"", "href=\"targets\"", "href=\"style.css?v=", "action=\"find\""] {
        assert!(page.contains(link), "{link}");
    }
    assert!(!page.contains("href=\"/") && !page.contains("action=\"/"), "{page}");
    for path in ["/ops/doorbell/targets", "/ops/doorbell/style.css", "/ops/doorbell/doctor"] {
        assert_eq!(outer.get(path).await.status, StatusCode::OK, "{path}");
    }
    // Nobody else's pages are touched.
    let request = Request::get("/").header("host", "localhost").body(Body::empty()).unwrap();
    assert_eq!(outer.0.clone().oneshot(request).await.unwrap().status(), StatusCode::NOT_FOUND);
}
