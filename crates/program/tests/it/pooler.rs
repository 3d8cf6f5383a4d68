//! The program behind PgBouncer.

use crate::program::*;
use doorbell_testing::pooler::{Pooler, programs};

#[tokio::test(flavor = "multi_thread")]
async fn the_program_works_from_migrate_to_doctor() {
    for program in programs() {
        let db = Database::empty().await;
        let pooler = Pooler::start(&program, "session", &db).await;
        let through = pooler.database();
        ends_with(&ended(doorbell(&through, &["migrate"])).await, 0);
        let publish = ["publish", "billing", "--source", "shop", "--type", "n", "--data", "7"];
        for _ in 0..3 {
            ends_with(&ended(doorbell(&through, &publish)).await, 0);
        }
        let consumed = ended(doorbell(&through, &["consume", "billing", "--complete", "--count", "2"])).await;
        ends_with(&consumed, 0);
        assert_eq!(out(&consumed).lines().count(), 2, "{}", out(&consumed));
        let stats = ended(doorbell(&through, &["stats", "--json"])).await;
        ends_with(&stats, 0);
        assert!(json_of(&stats).to_string().contains("\"completed\":2"), "{}", out(&stats));
        ends_with(&ended(doorbell(&through, &["maintain", "--once"])).await, 0);
        let report = json_of(&ended(doorbell(&through, &["doctor", "--json"])).await);
        let bell = report["findings"].as_array().unwrap().iter().find(|finding| finding["check"] == "bell").unwrap();
        assert_eq!(bell["level"], "ok", "{}: {bell}", pooler.version);
        assert_eq!(pooler.left_behind().await, Vec::<String>::new(), "{}: {}", pooler.version, pooler.log());
    }
}
