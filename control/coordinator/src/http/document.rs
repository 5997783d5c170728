//! What all operations of the OpenAPI document have in common, which stands with none of them.

use serde_json::{Value, json};

/// How problems are described.
const PROBLEM: &str = "#/components/schemas/Problem";

/// Adds to the document what the derive of each operation and of each type does not say.
pub(super) fn complete(document: &mut Value) {
    let operations = document["paths"].as_object_mut().into_iter().flat_map(|paths| paths.values_mut());
    for operation in operations.flat_map(|path| path.as_object_mut()).flat_map(|path| path.values_mut()) {
        // Of one name among those of its tag alone, and a name is for all: clients are made with these.
        if let (Some(tag), Some(own)) = (operation["tags"][0].as_str(), operation["operationId"].as_str()) {
            operation["operationId"] = format!("{tag}_{own}").into();
        }
        // Who is not known, what cannot be read, a coordinator that is not in charge: any of them may be so.
        let problem = json!({
            "description": "A problem.",
            "content": { "application/problem+json": { "schema": { "$ref": PROBLEM } } },
        });
        if let Some(responses) = operation["responses"].as_object_mut() {
            responses.insert("default".to_owned(), problem);
        }
    }
    unsigned(document);
}

/// Says of each number that cannot be negative how large it may be: the derive takes all for signed ones.
fn unsigned(value: &mut Value) {
    match value {
        Value::Array(values) => values.iter_mut().for_each(unsigned),
        Value::Object(fields) => {
            let is_unsigned = fields.get("minimum").and_then(Value::as_f64) == Some(0.0);
            let kind = match fields.get("format").and_then(Value::as_str) {
                Some("int32") if is_unsigned => Some(("uint32", u64::from(u32::MAX))),
                Some("int64") if is_unsigned => Some(("uint64", u64::MAX)),
                _ => None,
            };
            if let Some((format, maximum)) = kind {
                fields.insert("format".to_owned(), format.into());
                fields.entry("maximum").or_insert_with(|| maximum.into());
            }
            fields.values_mut().for_each(unsigned);
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_cannot_be_negative_say_how_large_they_may_be() {
        let number = |format: &str| json!({ "type": "integer", "format": format, "minimum": 0 });
        let mut document =
            json!({ "a": [number("int32")], "b": { "c": number("int64") }, "d": { "format": "int64" } });
        document["a"][0]["maximum"] = 7.into();
        unsigned(&mut document);
        assert_eq!(
            document["a"][0],
            json!({ "type": "integer", "format": "uint32", "minimum": 0, "maximum": 7 })
        );
        assert_eq!(document["b"]["c"]["maximum"], u64::MAX);
        assert_eq!(document["d"], json!({ "format": "int64" }));
    }

    #[test]
    fn each_operation_has_a_name_and_says_what_a_problem_looks_like() {
        let operation = json!({ "tags": ["apps"], "operationId": "list", "responses": { "200": {} } });
        let mut document = json!({ "paths": { "/a": { "get": operation } } });
        complete(&mut document);
        assert_eq!(document["paths"]["/a"]["get"]["operationId"], "apps_list");
        let responses = &document["paths"]["/a"]["get"]["responses"];
        assert!(responses["200"].is_object());
        let schema = &responses["default"]["content"]["application/problem+json"]["schema"];
        assert_eq!(schema["$ref"], PROBLEM);
    }
}
