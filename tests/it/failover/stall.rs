//! A process with a long handler, and another one that dies: the first goes on with everything else.

use super::{
    Long, broker,
    child::{self, Process, begun},
};
use crate::support::{Database, echo, message, plain_insert, soon, until, until_count};

#[tokio::test(flavor = "multi_thread")]
async fn a_death_elsewhere_does_not_stop_the_targets_of_a_process_with_a_long_handler() {
    let db = Database::new().await;
    let client = db.client().await;
    let survivor = broker(&db.url).await;
    let producer = survivor.producer("shop");
    let long = Long::default();
    let slow = long.consumer(&survivor, "t0").await;
    producer.publish(&message("t0", 1)).await.unwrap();
    until_count(&client, "processing", 1).await;
    let (process, mut told) = Process::start(&db.url, "t1");
    plain_insert(&client, "t1", child::HANG).await;
    plain_insert(&client, "t1", child::HANG).await;
    begun(&mut told, 2).await;
    process.kill();
    let rescued = "select count(*) = 2 from integration.audit_log where action = 'rescued'";
    until(&client, "the dead process is rescued from", rescued).await;
    let (quick, mut handled) = echo(&survivor, "t1").await;
    let mut expected = Vec::new();
    for n in 0..20 {
        expected.push(producer.publish(&message("t1", n)).await.unwrap());
        // In the midst of them the two suspects are taken.
        let next = async { while handled.next().await.payload() == child::HANG {} };
        soon(&format!("message {n} of t1 is handled while a handler of t0 runs"), next).await;
    }
    assert_eq!(long.begun(), 1);
    long.let_go();
    until_count(&client, "completed", 1 + 2 + expected.len()).await;
    slow.shutdown().await.unwrap();
    quick.shutdown().await.unwrap();
}
