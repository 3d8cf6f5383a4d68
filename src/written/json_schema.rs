//! JSON Schema, as far as jsonpath can say the same: what messages have to say, as a rule that PostgreSQL asks.
//!
//! Every condition is either true or false of any value, never unknown, so that it can be negated: a member that is not there and
//! a value of another type are met inside of a filter, which takes an unknown for false.

mod pattern;

use serde_json::{Map, Value};

use crate::error::{Error, Result};

/// What says nothing about a value.
const ANNOTATIONS: [&str; 10] = [
    "$schema",
    "$id",
    "$comment",
    "title",
    "description",
    "default",
    "examples",
    "deprecated",
    "readOnly",
    "writeOnly",
];
/// What is said here.
const KEYWORDS: [&str; 19] = [
    "type",
    "const",
    "enum",
    "minimum",
    "maximum",
    "exclusiveMinimum",
    "exclusiveMaximum",
    "minLength",
    "maxLength",
    "pattern",
    "required",
    "properties",
    "additionalProperties",
    "items",
    "minItems",
    "maxItems",
    "allOf",
    "anyOf",
    "not",
];
const COMPARISONS: [(&str, &str); 4] =
    [("minimum", ">="), ("maximum", "<="), ("exclusiveMinimum", ">"), ("exclusiveMaximum", "<")];
/// The most repetitions that PostgreSQL's regular expressions count.
const REPEATED_MAX: u64 = 255;

/// The rule of a contract ([`Contract::rule`](crate::operate::Contract::rule)) that is true of the values that a JSON Schema
/// allows: a condition in jsonpath.
///
/// Said are `type`, `const` and `enum` (of scalars), `minimum`, `maximum` and the exclusive ones, `minLength` and `maxLength` (up to
/// 255), `pattern` (without what ECMAScript and PostgreSQL read differently), `required`, `properties`, `additionalProperties`,
/// `items` (one for all), `minItems`, `maxItems`, `allOf`, `anyOf`, `not`. Titles, descriptions and the like are passed over.
///
/// # Errors
/// [`Invalid`](crate::ErrorKind::Invalid) for everything else, `format` and `$ref` for two, and for what is no JSON Schema; it
/// names keyword and place.
pub fn rule(schema: &Value) -> Result<String> {
    let conditions = conditions(schema, "$", "$")?;
    if conditions.is_empty() {
        return Err(Error::invalid("the schema allows everything"));
    }
    Ok(format!("strict {}", conditions.join(" && ")))
}

/// What has to be true of the value at `at`, all of it; empty: nothing. `place` is where the schema says so.
fn conditions(schema: &Value, at: &str, place: &str) -> Result<Vec<String>> {
    let schema = match schema {
        Value::Bool(true) => return Ok(Vec::new()),
        Value::Object(schema) => Keywords { schema, at, place },
        _ => return Err(Error::invalid(format!("{place}: this is no schema that jsonpath can say"))),
    };
    let strange = |name: &&String| !KEYWORDS.contains(&name.as_str()) && !ANNOTATIONS.contains(&name.as_str());
    if let Some(name) = schema.schema.keys().find(strange) {
        return Err(schema.refused(name, "jsonpath cannot say it, or not here: say it in a rule"));
    }
    let mut all = schema.types()?;
    all.extend(schema.values()?);
    all.extend(schema.numbers()?);
    all.extend(schema.texts()?);
    all.extend(schema.members()?);
    all.extend(schema.elements()?);
    all.extend(schema.combined()?);
    Ok(all)
}

/// The keywords of one schema.
struct Keywords<'a> {
    schema: &'a Map<String, Value>,
    at: &'a str,
    place: &'a str,
}

impl Keywords<'_> {
    fn refused(&self, name: &str, why: &str) -> Error {
        Error::invalid(format!("{name:?} at {}: {why}", self.place))
    }

    fn types(&self) -> Result<Vec<String>> {
        let types = self.type_names()?.into_iter().map(|name| match name {
            "object" | "array" | "string" | "number" | "boolean" | "null" => Ok(self.is_a(name)),
            "integer" => Ok(format!("({} && {} % 1 == 0)", self.is_a("number"), self.at)),
            other => Err(self.refused("type", &format!("there is no type {other:?}"))),
        });
        Ok(either(types.collect::<Result<_>>()?))
    }

    fn type_names(&self) -> Result<Vec<&str>> {
        let names = match self.schema.get("type") {
            None => return Ok(Vec::new()),
            Some(Value::Array(names)) if !names.is_empty() => names.iter().map(Value::as_str).collect(),
            Some(name) => name.as_str().map(|name| vec![name]),
        };
        names.ok_or_else(|| self.refused("type", "a name, or a list of names"))
    }

    fn is_a(&self, kind: &str) -> String {
        format!("{}.type() == \"{kind}\"", self.at)
    }

    /// A condition of values of one kind, true of all others.
    fn of_a(&self, kind: &str, condition: String) -> Result<String> {
        let is_said = self.type_names()?.iter().all(|name| *name == kind || (*name, kind) == ("integer", "number"));
        Ok(match self.schema.contains_key("type") && is_said {
            true => condition,
            false => format!("({}.type() != \"{kind}\" || {condition})", self.at),
        })
    }

    fn values(&self) -> Result<Vec<String>> {
        let mut all = Vec::new();
        if let Some(value) = self.schema.get("const") {
            all.push(self.equals("const", value)?);
        }
        if let Some(values) = self.schema.get("enum") {
            let values = values.as_array().filter(|values| !values.is_empty());
            let values = values.ok_or_else(|| self.refused("enum", "a list of values"))?;
            all.extend(either(values.iter().map(|value| self.equals("enum", value)).collect::<Result<_>>()?));
        }
        Ok(all)
    }

    fn equals(&self, name: &str, value: &Value) -> Result<String> {
        let kind = match value {
            Value::Null => return Ok(self.is_a("null")),
            Value::Bool(_) => "boolean",
            Value::Number(_) => "number",
            Value::String(_) => "string",
            _ => return Err(self.refused(name, "jsonpath compares no objects and no lists")),
        };
        // Values of different types compare as unknown.
        Ok(format!("({} && {} == {value})", self.is_a(kind), self.at))
    }

    fn numbers(&self) -> Result<Vec<String>> {
        let mut all = Vec::new();
        for (name, sign) in COMPARISONS {
            if let Some(value) = self.schema.get(name) {
                if !value.is_number() {
                    return Err(self.refused(name, "a number"));
                }
                all.push(self.of_a("number", format!("{} {sign} {value}", self.at))?);
            }
        }
        Ok(all)
    }

    /// A count that a keyword names, if it is there.
    fn count(&self, name: &str) -> Result<Option<u64>> {
        let count = |value: &Value| value.as_u64().ok_or_else(|| self.refused(name, "a whole number of 0 or more"));
        self.schema.get(name).map(count).transpose()
    }

    fn texts(&self) -> Result<Vec<String>> {
        let mut all = Vec::new();
        let (least, most) = (self.count("minLength")?, self.count("maxLength")?);
        if let Some(name) = [("minLength", least), ("maxLength", most)]
            .into_iter()
            .find_map(|(name, count)| count.is_some_and(|count| count > REPEATED_MAX).then_some(name))
        {
            return Err(self.refused(name, &format!("lengths are counted up to {REPEATED_MAX}")));
        }
        if least.is_some() || most.is_some() {
            let most = most.map(|most| most.to_string()).unwrap_or_default();
            let counted = format!("^.{{{},{most}}}$", least.unwrap_or_default());
            all.push(self.of_a("string", self.is_like(&counted))?);
        }
        if let Some(pattern) = self.schema.get("pattern") {
            let pattern = pattern.as_str().ok_or_else(|| self.refused("pattern", "a text"))?;
            let read = pattern::read(pattern).map_err(|why| self.refused("pattern", &why))?;
            all.push(self.of_a("string", self.is_like(&read))?);
        }
        Ok(all)
    }

    /// With the flag a dot is any character, also that which ends a line.
    fn is_like(&self, regex: &str) -> String {
        format!("{} like_regex {} flag \"s\"", self.at, quoted(regex))
    }

    fn members(&self) -> Result<Vec<String>> {
        let (at, place) = (self.at, self.place);
        let mut all = Vec::new();
        let none = Map::new();
        let properties = match self.schema.get("properties") {
            None => &none,
            Some(properties) => properties.as_object().ok_or_else(|| self.refused("properties", "an object"))?,
        };
        let required = match self.schema.get("required") {
            None => Vec::new(),
            Some(names) => names
                .as_array()
                .and_then(|names| names.iter().map(Value::as_str).collect())
                .ok_or_else(|| self.refused("required", "a list of names"))?,
        };
        for name in &required {
            all.push(self.of_a("object", format!("exists({at} ? (exists(@.{})))", quoted(name)))?);
        }
        for (name, schema) in properties {
            let said = conditions(schema, "@", &format!("{place}.{name}"))?;
            if !said.is_empty() {
                all.push(format!("!exists({at} ? (exists(@.{} ? ({}))))", quoted(name), not(&said)));
            }
        }
        let others = match self.schema.get("additionalProperties") {
            None => return Ok(all),
            Some(Value::Bool(false)) => None,
            Some(others) => Some(conditions(others, "@", &format!("{place}.additionalProperties"))?),
        };
        if others.as_ref().is_some_and(Vec::is_empty) {
            return Ok(all);
        }
        let is_known = either(properties.keys().map(|name| format!("@.key == {}", quoted(name))).collect());
        let is_other = (!is_known.is_empty()).then(|| not(&is_known));
        let is_wrong = others.map(|said| format!("exists(@.value ? ({}))", not(&said)));
        let found: Vec<String> = [is_other, is_wrong].into_iter().flatten().collect();
        let filter = if found.is_empty() { String::new() } else { format!(" ? ({})", found.join(" && ")) };
        all.push(format!("!exists({at} ? (exists(@.keyvalue(){filter})))"));
        Ok(all)
    }

    fn elements(&self) -> Result<Vec<String>> {
        let at = self.at;
        let mut all = Vec::new();
        for (name, sign) in [("minItems", ">="), ("maxItems", "<=")] {
            if let Some(count) = self.count(name)? {
                all.push(self.of_a("array", format!("{at}.size() {sign} {count}"))?);
            }
        }
        if let Some(schema) = self.schema.get("items") {
            let said = conditions(schema, "@", &format!("{}.items", self.place))?;
            if !said.is_empty() {
                all.push(format!("!exists({at} ? (exists(@[*] ? ({}))))", not(&said)));
            }
        }
        Ok(all)
    }

    fn combined(&self) -> Result<Vec<String>> {
        let mut all = Vec::new();
        for name in ["allOf", "anyOf"] {
            let Some(schemas) = self.schema.get(name) else { continue };
            let schemas = schemas.as_array().filter(|schemas| !schemas.is_empty());
            let schemas = schemas.ok_or_else(|| self.refused(name, "a list of schemas"))?;
            let said = schemas.iter().map(|schema| conditions(schema, self.at, &format!("{}.{name}", self.place)));
            let said = said.collect::<Result<Vec<_>>>()?;
            match name {
                "allOf" => all.extend(said.into_iter().flatten()),
                // One that allows everything.
                _ if said.iter().any(Vec::is_empty) => {}
                _ => all.extend(either(said.into_iter().map(|said| format!("({})", said.join(" && "))).collect())),
            }
        }
        if let Some(schema) = self.schema.get("not") {
            let said = conditions(schema, self.at, &format!("{}.not", self.place))?;
            if said.is_empty() {
                return Err(self.refused("not", "then nothing is allowed"));
            }
            all.push(not(&said));
        }
        Ok(all)
    }
}

/// One condition of several of which one is enough; none of none.
fn either(conditions: Vec<String>) -> Vec<String> {
    if conditions.len() < 2 { conditions } else { vec![format!("({})", conditions.join(" || "))] }
}

/// That not all of them are true.
fn not(conditions: &[String]) -> String {
    match conditions {
        [one] if one.starts_with('(') => format!("!{one}"),
        all => format!("!({})", all.join(" && ")),
    }
}

/// As jsonpath writes a text, which is as JSON does.
fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}
