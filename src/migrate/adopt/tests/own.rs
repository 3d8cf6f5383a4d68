use super::*;

fn column(name: &str) -> Column {
    Column { name: name.to_owned(), quoted: name.to_owned(), written: "text".to_owned(), ..Column::default() }
}

fn keep(table: &str, column: &Column) -> Result<Own, String> {
    kept(table, column, &["data_staging.gone".to_owned()], |other| other == "created_at")
}

#[test]
fn the_columns_that_the_steps_make_are_known() {
    for (table, name) in [
        ("data_staging", "id"),
        ("data_staging", "ordering_key"),
        ("data_staging", "series"),
        ("data_staging", "origin_id"),
        ("data_staging_archive", "owner"),
        ("audit_log", "new_status"),
    ] {
        assert!(ours(table).contains(&name), "{table}.{name}: {:?}", ours(table));
    }
    assert!(ours("data_staging").iter().all(|name| name.chars().all(|c| c.is_ascii_lowercase() || c == '_')));
    assert!(!ours("audit_log").contains(&"priority"));
}

#[test]
fn a_column_is_made_as_it_was() {
    let default = Some("'x'::text".to_owned());
    let mut tenant = Column { is_not_null: true, default, collation: Some("\"C\"".to_owned()), ..column("tenant") };
    let own = keep("data_staging", &tenant).unwrap();
    assert_eq!(own.definition(), "tenant text collate \"C\" default 'x'::text");
    assert_eq!(own.plain(), "tenant text collate \"C\"");
    assert_eq!(own.sentence(), "the column data_staging.tenant text collate \"C\" default 'x'::text not null");
    tenant.generated = "s".to_owned();
    let own = keep("data_staging", &tenant).unwrap();
    assert_eq!(own.definition(), "tenant text collate \"C\" generated always as ('x'::text) stored");
    assert!(!keep("audit_log", &tenant).unwrap().is_not_null, "who writes history does not know it");
}

#[test]
fn what_would_not_be_as_it_was_is_refused_with_what_to_do() {
    let refused = |column: Column| keep("data_staging", &column).unwrap_err();
    let sequence = refused(Column { has_sequence: true, ..column("number") });
    assert!(sequence.contains("takes its values from a sequence") && sequence.contains("--leave data_staging.number"));
    assert!(refused(Column { is_not_null: true, ..column("tenant") }).contains("alter column tenant set default"));
    assert!(refused(column("attempt")).contains("rename column attempt"));
    let from = |made_of: &str| Column {
        generated: "s".to_owned(),
        default: Some(made_of.to_owned()),
        made_of: vec![made_of.to_owned()],
        ..column("day")
    };
    assert!(refused(from("created_at")).contains("created_at, which becomes timestamptz"));
    assert!(refused(from("gone")).contains("gone, which is left"));
    assert!(keep("data_staging", &from("data")).is_ok());
}
