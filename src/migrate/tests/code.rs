use super::*;

#[test]
fn statements_end_where_they_end() {
    let file = "-- about; it\n\ncreate or replace function integration.a(p_x text default ';', out y integer) \
                returns void as $$\n  select ';'; -- it's;\n$$;\n-- more\n--\n-- of it\n\
                create or replace view integration.b as\nselect 1; -- end\nselect integration.c();\n";
    let (abouts, texts): (Vec<_>, Vec<_>) = statements(file).unzip();
    assert_eq!(abouts, ["", "more\n\nof it", "end"]);
    let found: Vec<_> = texts.iter().map(|text| named(text).unwrap_or((Kind::Call, (*text).into()))).collect();
    let wanted = [
        (Kind::Function, "a(text)".to_owned()),
        (Kind::View, "b".to_owned()),
        (Kind::Call, "select integration.c()".to_owned()),
    ];
    assert_eq!(found, wanted);
}

#[test]
fn each_part_is_there_once_and_can_be_applied_to_any_schema() {
    let parts = parts();
    for (at, part) in parts.iter().enumerate() {
        assert!(parts[..at].iter().all(|other| (other.kind, &other.name) != (part.kind, &part.name)), "{part:?}");
        let call = part.text.starts_with("select integration.");
        assert!(call || part.text.starts_with("create or replace "), "{}", part.text);
    }
    assert!(parts.is_sorted_by_key(|part| part.kind.min(Kind::Trigger)));
}
