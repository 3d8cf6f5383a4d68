//! The way back that the page shows.

use super::{adopt, document, populated};
use crate::support::{count, repository};

#[tokio::test(flavor = "multi_thread")]
async fn the_way_back_that_the_page_shows_keeps_what_came_later() {
    let (db, client) = populated().await;
    adopt(&db.broker().await).await;
    let id = crate::support::plain_insert(&client, "billing", "{}").await;
    let handled = "update integration.data_staging set status = 'completed', processed_at = now() where id = 4";
    client.batch_execute(handled).await.unwrap();
    let page = repository("docs/adopt.md");
    let back = page.split("```sql\n").nth(1).unwrap().split("```").next().unwrap();
    client.batch_execute(back).await.unwrap();
    let rows = |condition: &str| format!("select count(*) from integration.data_staging where {condition}");
    assert_eq!(count(&client, &rows("true")).await, 398);
    assert_eq!(count(&client, &rows(&format!("id = {id} and status = 'pending'"))).await, 1);
    assert_eq!(count(&client, &rows("id = 4 and status = 'completed'")).await, 1);
    let next = crate::support::plain_insert(&client, "billing", "{}").await;
    assert!(next > id);
    let same = "select count(*) from information_schema.columns where table_schema = 'integration' \
        and data_type = 'timestamp without time zone'";
    assert_eq!(count(&client, same).await, 7, "{}", document());
}
