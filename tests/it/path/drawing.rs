//! The drawing of a message's life is the life of a message.

use std::collections::BTreeSet;

use crate::support::{Database, count, plain_insert, repository};

/// What the drawing leaves to the reader: what only people do by hand, and what stays as it is.
const BY_HAND: [(&str, &str); 7] = [
    ("pending", "scheduled"),
    ("pending", "completed"),
    ("pending", "failed"),
    ("scheduled", "completed"),
    ("scheduled", "failed"),
    ("failed", "completed"),
    ("failed", "cancelled"),
];

#[tokio::test(flavor = "multi_thread")]
async fn each_arrow_of_the_drawing_is_a_change_that_the_database_allows_and_no_other_is_left_out() {
    let client = Database::new().await.client().await;
    let page = repository("docs/explanation.md");
    let drawing = page.split("stateDiagram-v2\n").nth(1).unwrap().split("```").next().unwrap();
    let arrows = drawing.lines().filter_map(|line| line.split(':').next()?.trim().split_once(" --> "));
    let arrows: BTreeSet<(&str, &str)> =
        arrows.filter(|(from, to)| !from.starts_with('[') && !to.starts_with('[')).collect();
    let statuses: BTreeSet<&str> = arrows.iter().flat_map(|(from, to)| [*from, *to]).collect();
    let known = "select count(*) from unnest($1::text[]) s (status) where status in \
        ('pending', 'scheduled', 'processing', 'completed', 'failed', 'cancelled')";
    let listed: Vec<&str> = statuses.iter().copied().collect();
    assert_eq!(client.query_one(known, &[&listed]).await.unwrap().get::<_, i64>(0), 6, "{statuses:?}");
    let mut allowed = BTreeSet::new();
    for from in &statuses {
        for to in statuses.iter().filter(|to| *to != from) {
            let id = plain_insert(&client, "billing", "{}").await;
            let change = |to: &str| {
                format!(
                    "update integration.data_staging set status = '{to}', \
                        available_at = case '{to}' when 'scheduled' then now() + interval '1 h' end where id = {id}"
                )
            };
            if *from != "pending" {
                client.batch_execute(&change(from)).await.unwrap();
            }
            match client.batch_execute(&change(to)).await {
                Ok(()) => drop(allowed.insert((*from, *to))),
                Err(error) => assert_eq!(error.code().unwrap().code(), "MQ003", "{from} to {to}: {error:?}"),
            }
        }
    }
    let impossible: Vec<_> = arrows.difference(&allowed).collect();
    assert!(impossible.is_empty(), "drawn and refused: {impossible:?}");
    let revived =
        |(from, to): &&(&str, &str)| *to == "scheduled" && ["completed", "failed", "cancelled"].contains(from);
    let missing: Vec<_> =
        allowed.difference(&arrows).filter(|change| !revived(change) && !BY_HAND.contains(change)).collect();
    assert!(missing.is_empty(), "allowed and neither drawn nor only done by hand: {missing:?}");
    assert!(count(&client, "select count(*) from integration.data_staging").await == 30);
}
