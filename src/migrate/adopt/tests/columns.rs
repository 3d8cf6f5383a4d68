use super::*;

fn column(name: &str, kind: &str) -> Column {
    Column { name: name.into(), quoted: name.into(), written: kind.into(), kind: kind.into(), ..Column::default() }
}

fn minimal() -> Vec<Column> {
    let names = [("id", "int4"), ("source_app", "varchar"), ("target_app", "text"), ("record_type", "enum")];
    let rest = [("data", "json"), ("status", "varchar")];
    names.into_iter().chain(rest).map(|(name, kind)| column(name, kind)).collect()
}

#[test]
fn a_table_without_what_has_a_default_is_read() {
    let reading = read("data_staging", &minimal(), &[]);
    assert!(reading.differences.is_empty() && !reading.has_zoneless, "{:?}", reading.differences);
    let of = |name: &str| &reading.expressions.iter().find(|(column, _)| *column == name).expect(name).1;
    assert_eq!((&**of("id"), &**of("data"), &**of("priority")), ("o.id::bigint", "o.data::jsonb", "coalesce(null, 0)"));
    assert_eq!((&**of("created_at"), &**of("processed_at")), ("coalesce(integration.clock())", "null::timestamptz"));
}

#[test]
fn every_difference_is_named_and_what_may_stay_behind_does() {
    let mut columns = minimal();
    columns.retain(|column| column.name != "status");
    columns.push(column("priority", "int8"));
    columns.push(column("created_at", "timestamp"));
    columns.push(column("owner", "text"));
    columns.push(column("tenant", "text"));
    columns.push(column("note", "text"));
    let reading = read("data_staging", &columns, &["data_staging.note".to_owned()]);
    assert_eq!(reading.differences.len(), 3, "{:?}", reading.differences);
    assert!(reading.differences[0].starts_with("data_staging.owner text has the name of a column of Doorbell's"));
    assert_eq!(reading.own.iter().map(|own| &*own.of).collect::<Vec<_>>(), ["data_staging.tenant"]);
    assert_eq!(reading.differences[1], "data_staging has no column status");
    assert!(reading.differences[2].starts_with("data_staging.priority is int8"));
    assert_eq!(reading.left, ["the column data_staging.note text"]);
    assert!(reading.has_zoneless);
}
