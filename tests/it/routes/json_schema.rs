//! Rules that are made of JSON Schemas allow what the schemas allow, and what cannot be said so is refused by name.

use doorbell::written::json_schema::rule;

use crate::support::{Database, repository};

/// A schema, what it allows and what it does not. By hand, from the specification.
const VERDICTS: [(&str, &[&str], &[&str]); 38] = [
    (r#"{"type": "object"}"#, &["{}", r#"{"a": 1}"#], &["[]", "1", "null", "[{}]"]),
    (r#"{"type": "array"}"#, &["[]", "[[1]]"], &["{}", "null"]),
    (r#"{"type": "string"}"#, &[r#""""#, r#""a""#], &["1", r#"["a"]"#]),
    (r#"{"type": "integer"}"#, &["1", "-7", "1.0", "1e3"], &["1.5", r#""1""#, "[1]", "null"]),
    (r#"{"type": "number"}"#, &["1.5", "0"], &["true", r#""0""#]),
    (r#"{"type": ["boolean", "null"]}"#, &["true", "false", "null"], &["0", r#""null""#, "{}"]),
    (r#"{"type": ["integer", "null"], "minimum": 3}"#, &["null", "3"], &["2", "3.5", r#""a""#]),
    (r#"{"const": "a"}"#, &[r#""a""#], &[r#""b""#, "1", "null", r#"["a"]"#]),
    (r#"{"const": null}"#, &["null"], &["0", "false", r#""""#]),
    (r#"{"const": 2.50}"#, &["2.5"], &["2", r#""2.5""#]),
    (
        r#"{"enum": ["a", 1, true, null, -2]}"#,
        &[r#""a""#, "1", "1.0", "true", "null", "-2"],
        &["false", "2", r#""1""#, "{}"],
    ),
    (r#"{"minimum": 1, "maximum": 3}"#, &["1", "3", r#""a""#, "[9]", "{}"], &["0", "4", "3.01"]),
    (r#"{"exclusiveMinimum": -1, "exclusiveMaximum": 1e2}"#, &["0", "99.9"], &["-1", "100", "-5"]),
    (
        r#"{"type": "string", "minLength": 2, "maxLength": 3}"#,
        &[r#""ab""#, r#""a\nb""#, r#""äöü""#],
        &[r#""a""#, r#""abcd""#, "12"],
    ),
    (r#"{"maxLength": 0}"#, &[r#""""#, "7", r#"["long"]"#], &[r#""a""#]),
    (
        r#"{"pattern": "^[A-Z]{2}-\\d+$"}"#,
        &[r#""AB-12""#, "5"],
        &[r#""ab-12""#, r#""AB-""#, r#""xAB-1""#, r#""AB-1\n""#, r#""AB-\u0663""#],
    ),
    (r#"{"pattern": "b.d"}"#, &[r#""abcde""#, r#""b\"d""#], &[r#""b\nd""#, r#""bd""#]),
    (r#"{"pattern": "[^a]$"}"#, &[r#""\n""#, r#""ab""#], &[r#""a""#, r#""""#]),
    (r#"{"pattern": "^(?:a|[\\w.[:]+)\\/\\.$"}"#, &[r#""a/.""#, r#""_9.[:/.""#], &[r#""ä/.""#, r#""a/x""#]),
    (r#"{"required": ["a"]}"#, &[r#"{"a": null}"#, "[]", "1", r#"[{"b": 1}]"#], &["{}", r#"{"b": 1}"#]),
    (r#"{"type": "object", "required": ["a", "b \"c\""]}"#, &[r#"{"a": 1, "b \"c\"": 2}"#], &[r#"{"a": 1}"#, "[]"]),
    (
        r#"{"properties": {"a": {"type": "integer"}}}"#,
        &["{}", r#"{"a": 1}"#, r#"{"b": "x"}"#, r#"[{"a": "x"}]"#, "7"],
        &[r#"{"a": "x"}"#, r#"{"a": [1]}"#, r#"{"a": null}"#],
    ),
    (
        r#"{"type": "object", "required": ["a"], "properties": {"a": {"type": "object", "required": ["b"], "properties": {"b": {"minimum": 2}}}}}"#,
        &[r#"{"a": {"b": 2}}"#, r#"{"a": {"b": "x"}, "c": 1}"#],
        &["{}", r#"{"a": {}}"#, r#"{"a": {"b": 1}}"#, r#"{"a": [{"b": 2}]}"#, r#"{"a": 1}"#],
    ),
    (
        r#"{"properties": {"a": true}, "additionalProperties": false}"#,
        &["{}", r#"{"a": [1]}"#, "[1]", r#""x""#],
        &[r#"{"b": 1}"#, r#"{"a": 1, "b": null}"#],
    ),
    (r#"{"type": "object", "additionalProperties": false}"#, &["{}"], &[r#"{"a": 1}"#, "1"]),
    (
        r#"{"properties": {"a": {"type": "null"}}, "additionalProperties": {"type": "integer"}}"#,
        &[r#"{"a": null, "b": 1, "c": 2}"#],
        &[r#"{"a": null, "b": "x"}"#, r#"{"a": 1}"#],
    ),
    (
        r#"{"additionalProperties": {"items": {"type": "string"}}}"#,
        &[r#"{"a": ["x"], "b": 7}"#],
        &[r#"{"a": ["x"], "b": ["y", 1]}"#],
    ),
    (
        r#"{"items": {"type": "string"}}"#,
        &["[]", r#"["a", "b"]"#, "{}", "7", r#""a""#],
        &["[1]", r#"["a", null]"#, r#"[["a"]]"#],
    ),
    (
        r#"{"type": "array", "items": {"type": "array", "items": {"enum": [1, "x"]}}}"#,
        &["[[]]", r#"[[1], ["x", 1]]"#],
        &["[1]", "[[2]]", r#"[[1], ["y"]]"#, "[[[1]]]"],
    ),
    (r#"{"type": "array", "minItems": 1, "maxItems": 2}"#, &["[1]", "[[], []]"], &["[]", "[1, 2, 3]", "{}"]),
    (r#"{"minItems": 1}"#, &["7", "{}", "[0]"], &["[]"]),
    (
        r#"{"items": {"required": ["n"], "properties": {"n": {"exclusiveMinimum": 0}}}}"#,
        &[r#"[{"n": 1}, {"n": 2, "m": 0}]"#, "[3]"],
        &[r#"[{"n": 1}, {}]"#, r#"[{"n": 0}]"#],
    ),
    (r#"{"allOf": [{"type": "integer"}, {"minimum": 2}, {"maximum": 4}]}"#, &["2", "4"], &["1", "5", "2.5", r#""3""#]),
    (r#"{"anyOf": [{"type": "string"}, {"type": "integer", "minimum": 5}]}"#, &[r#""a""#, "5"], &["4", "null", "[]"]),
    (
        r#"{"items": {"anyOf": [{"const": "a"}, {"properties": {"b": {"const": 1}}, "type": "object"}]}}"#,
        &[r#"["a", {"b": 1}, {}]"#],
        &[r#"["b"]"#, r#"[{"b": 2}]"#, "[1]"],
    ),
    (r#"{"not": {"type": "object", "required": ["a"]}}"#, &["1", "{}", r#"[{"a": 1}]"#], &[r#"{"a": 1}"#]),
    (
        r#"{"not": {"properties": {"a": {"const": "x"}}, "required": ["a"]}, "type": "object"}"#,
        &["{}", r#"{"a": "y"}"#, r#"{"a": 1}"#],
        &[r#"{"a": "x"}"#],
    ),
    (
        r#"{"title": "a text", "description": "of any kind", "default": "x", "$schema": "y", "type": "string"}"#,
        &[r#""x""#],
        &["1"],
    ),
];

#[tokio::test(flavor = "multi_thread")]
async fn the_rule_of_a_schema_allows_what_the_schema_allows_and_nothing_else() {
    let (mut rules, mut documents, mut expected) = (Vec::new(), Vec::new(), Vec::new());
    for (schema, allowed, refused) in VERDICTS {
        let rule = rule(&serde_json::from_str(schema).unwrap()).unwrap_or_else(|error| panic!("{schema}: {error}"));
        for (document, is_allowed) in
            allowed.iter().map(|one| (one, true)).chain(refused.iter().map(|one| (one, false)))
        {
            rules.push(rule.clone());
            documents.push(*document);
            expected.push((schema, *document, Some(is_allowed)));
        }
    }
    // True or false, and never unknown: else what is negated would be allowed.
    let sql =
        "select d::jsonb @@ r::jsonpath from unnest($1::text[], $2::text[]) with ordinality v (d, r, n) order by n";
    let client = Database::empty().await.client().await;
    let rows = client.query(sql, &[&documents, &rules]).await.unwrap();
    let verdicts: Vec<Option<bool>> = rows.iter().map(|row| row.get(0)).collect();
    for (((schema, document, expected), verdict), rule) in expected.into_iter().zip(verdicts).zip(rules) {
        assert_eq!(verdict, expected, "{document} by {schema}: {rule}");
    }
}

#[test]
fn what_jsonpath_cannot_say_of_a_schema_is_refused_with_its_name_and_place() {
    for (schema, told) in [
        (r#"{"properties": {"at": {"type": "string", "format": "date-time"}}}"#, r#""format" at $.at"#),
        (r##"{"items": {"$ref": "#/$defs/item"}}"##, r#""$ref" at $.items"#),
        (r#"{"anyOf": [{"oneOf": []}]}"#, r#""oneOf" at $.anyOf"#),
        (r#"{"uniqueItems": true}"#, r#""uniqueItems" at $"#),
        (r#"{"patternProperties": {}}"#, r#""patternProperties" at $"#),
        (r#"{"const": {"a": 1}}"#, r#""const" at $"#),
        (r#"{"enum": [1, [2]]}"#, r#""enum" at $"#),
        (r#"{"type": "date"}"#, r#"there is no type "date""#),
        (r#"{"minimum": "1"}"#, r#""minimum" at $: a number"#),
        (r#"{"minimum": 1, "exclusiveMinimum": true}"#, r#""exclusiveMinimum" at $: a number"#),
        (r#"{"maxLength": 256}"#, r#""maxLength" at $: lengths are counted up to 255"#),
        (r#"{"minItems": -1}"#, r#""minItems" at $"#),
        (r#"{"pattern": "\\bword\\b"}"#, r"\b is read differently"),
        (r#"{"pattern": "\\p{L}"}"#, r"\p is read differently"),
        (r#"{"pattern": "(?<year>\\d+)"}"#, "(?< is read differently"),
        (r#"{"pattern": "[a"}"#, "a [ without its ]"),
        (r#"{"required": "a"}"#, r#""required" at $"#),
        (r#"{"properties": {"a": false}}"#, "$.a: this is no schema"),
        (r#"{"items": [{"type": "string"}]}"#, "$.items: this is no schema"),
        (r#"{"title": "anything"}"#, "the schema allows everything"),
        ("7", "$: this is no schema"),
    ] {
        let error = rule(&serde_json::from_str(schema).unwrap()).unwrap_err();
        assert!(error.to_string().contains(told), "{schema}: {error}");
    }
}

#[test]
fn the_page_shows_the_rule_that_is_made_of_its_schema() {
    let page = repository("docs/contracts.md");
    let block = |kind: &str| page.split_once(&format!("```{kind}\n")).unwrap().1.split_once("\n```").unwrap().0;
    assert_eq!(rule(&serde_json::from_str(block("json")).unwrap()).unwrap(), block("jsonpath").replace("\n ", " "));
}
