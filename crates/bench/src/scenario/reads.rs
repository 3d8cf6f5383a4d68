//! What numbers and lists cost where nobody folds the counters, with many targets, and in a large table.

use std::time::Instant;

use serde_json::json;

use crate::{
    Lab, Result, TARGET,
    measure::{Case, Effort, Scenario, median, ms_since, number, say},
};

/// How often each question is asked, after once for its plan.
const TIMES: usize = 9;
const BYTES: usize = 100;
/// As many messages a look reads.
const LOOK: u64 = 100_000;

/// Publishes of one message each, to a hundred targets, in the last hour.
const OPEN: &str = "insert into integration.deltas (at, created_at, pending, messages, target_app, action, source_app) \
    select t.at, integration.ten_minutes(t.at), 1, 1, 'doorbell_bench' || n % 100, 'published', 'doorbell_bench' \
      from generate_series(1, $) n \
     cross join lateral (select integration.clock() - n * interval '1 hour' / $ as at) t";
/// Targets of which every tenth has something to do; all had, in each minute of the last hour. No other scenario knows
/// them: what was counted for those would be there twice. The clock is read once: a minute that ends meanwhile would be there
/// twice, too.
const TARGETS: &str = "insert into integration.counters (target_app, status, messages) \
    select 'doorbell_reads' || n, s, case when s = 'completed' then 1000 else 0 end \
      from generate_series(1, $) n, unnest('{pending,processing,completed}'::text[]) s; \
    insert into integration.traffic (minute, target_app, action, messages) \
      with now as materialized (select integration.minute_of(integration.clock()) as minute) \
    select now.minute - m * interval '1 min', 'doorbell_reads' || n, a, 10 \
      from now, generate_series(1, $) n, generate_series(0, 59) m, unnest('{published,claimed,completed,found_drain}'::text[]) a; \
    insert into integration.traffic_tens (at, target_app, action, messages) \
    select integration.ten_minutes(t.minute), t.target_app, t.action, sum(t.messages) from integration.traffic t \
     where t.target_app like 'doorbell_reads%' group by 1, 2, 3; \
    insert into integration.data_staging (source_app, target_app, record_type, data) \
    select 'doorbell_bench', 'doorbell_reads' || n, 'order.placed', '1' from generate_series(1, $, 10) n; \
    update integration.counters set messages = 1 where status = 'pending' \
       and target_app in (select 'doorbell_reads' || n from generate_series(1, $, 10) n)";

const STATES: &str = "select * from integration.target_states()";

/// All of it is rolled back.
pub async fn reads(lab: &Lab, effort: &Effort) -> Result<Option<Scenario>> {
    let mut cases = Vec::new();
    lab.clear().await?;
    let open = (effort.deep * 3 / 10).max(10);
    lab.execute("begin").await?;
    lab.execute(&OPEN.replace('$', &open.to_string())).await?;
    let floor = "select d.target_app, sum(d.pending), sum(d.messages) from integration.deltas d group by d.target_app";
    let (ours, floor) = (asked(lab, STATES).await?, asked(lab, floor).await?);
    let slices = asked(lab, "select integration.fold(10000)").await?;
    lab.execute("rollback").await?;
    let name = format!("all targets, {} deltas open", number(open as f64));
    cases.push(told(&name, &ours, &floor, "one sum over the deltas, by target").also("fold_10000_ms", median(&slices)));
    let mut times = Vec::new();
    for targets in [100, 2000] {
        lab.execute("begin").await?;
        lab.execute(&TARGETS.replace('$', &targets.to_string())).await?;
        times.push(asked(lab, STATES).await?);
        lab.execute("rollback").await?;
    }
    cases.push(told("all targets, of 2,000 that are all busy", &times[1], &times[0], "the same, of 100"));
    lab.add(TARGET, "completed", effort.deep, BYTES).await?;
    lab.settle_down().await?;
    let absent = asked(lab, "select * from integration.list(p_type => 'absent')").await?;
    let raw = format!(
        "select count(*) from (select d.record_type from integration.data_staging d order by d.id desc limit {LOOK}) d \
          where d.record_type = 'absent'"
    );
    let floor = asked(lab, &raw).await?;
    let name = format!("a list of what is not among {}", number(effort.deep as f64));
    cases.push(told(&name, &absent, &floor, "as many messages looked through in raw SQL"));
    lab.clear().await?;
    let settings = json!({ "samples": format!("median of {TIMES}, plans warm, in the session that asks"), "payload_bytes": BYTES });
    Ok(Scenario::new("reads", settings, cases))
}

fn told(name: &str, ours: &[f64], floor: &[f64], floor_is: &str) -> Case {
    say(format_args!("{name}: {} ms; {floor_is}: {} ms", number(median(ours)), number(median(floor))));
    Case::new(name, "ms", ours, floor).lower().against(floor_is)
}

/// How many milliseconds an answer takes.
async fn asked(lab: &Lab, question: &str) -> Result<Vec<f64>> {
    lab.execute(question).await?;
    let mut times = Vec::with_capacity(TIMES);
    for _ in 0..TIMES {
        let began = Instant::now();
        lab.execute(question).await?;
        times.push(ms_since(began));
    }
    Ok(times)
}
