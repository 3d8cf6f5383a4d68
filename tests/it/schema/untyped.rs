//! Drivers that send parameters without types, and people who write literals without casts, can call every function that
//! anybody may be granted.

use crate::support::Database;

const PUBLIC: &str = "select distinct p.proname::text, (p.pronargs - p.pronargdefaults)::integer, \
        p.pronargs::integer, p.prokind = 'p' from pg_proc p \
    cross join lateral (values ('publish'), ('consume'), ('look'), ('operate')) v (verb) \
    where p.oid in (select r.oid from integration.rights_of(v.verb) r where r.kind = 'function') order by 1";

#[tokio::test(flavor = "multi_thread")]
async fn every_public_function_can_be_called_with_parameters_of_unknown_types() {
    let client = Database::new().await.client().await;
    let (mut called, mut refused) = (0, Vec::new());
    for row in client.query(PUBLIC, &[]).await.unwrap() {
        let (name, least, most): (String, i32, i32) = (row.get(0), row.get(1), row.get(2));
        for arguments in least..=most {
            let parameters: Vec<String> = (1..=arguments).map(|n| format!("${n}")).collect();
            if row.get::<_, bool>(3) {
                let call = format!("call integration.{name}({})", parameters.join(", "));
                refused.extend(client.prepare(&call).await.err().map(|error| format!("{call}: {error:?}")));
                continue;
            }
            let by_parameters = format!("select integration.{name}({})", parameters.join(", "));
            let literals = vec!["null"; arguments as usize].join(", ");
            let by_literals = format!("prepare called as select integration.{name}({literals}); deallocate called");
            let answers = [client.prepare(&by_parameters).await.err(), client.batch_execute(&by_literals).await.err()];
            refused.extend(answers.into_iter().flatten().map(|error| format!("{by_parameters}: {error:?}")));
            called += 1;
        }
    }
    assert!(called > 100, "{called}");
    assert!(refused.is_empty(), "{refused:#?}");
}
