//! `doorbell stats`, `targets`, `consumers` and `top`: how things stand.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn stats_count_the_messages_of_every_target() {
    let db = Database::new().await;
    publish(&db, "1\n2\n").await;
    ends_with(&ended(doorbell(&db, &["consume", "billing", "--count", "1"])).await, 0);
    let mut stats = json_of(&ended(doorbell(&db, &["stats", "--json"])).await);
    let age = stats["targets"][0]["oldest_age_seconds"].take();
    assert!(age.as_f64().is_some_and(|age| age >= 0.0), "{age}");
    let billing = json!({
        "target": "billing", "pending": 1, "scheduled": 0, "processing": 0, "completed": 1, "failed": 0, "cancelled": 0,
        "oldest_age_seconds": null,
    });
    assert_eq!(stats, json!({ "targets": [billing] }));
    let plain = out(&ended(doorbell(&db, &["stats"])).await);
    let fields: Vec<Vec<&str>> = plain.lines().map(|line| line.split('\t').collect()).collect();
    assert_eq!((fields.len(), fields[0][0], fields[0].len()), (2, "TARGET", 8));
    assert_eq!(fields[1][..5], ["billing", "1", "0", "0", "1"]);
}
