//! JSON schemas of Rust types, in the dialect of OpenAPI 3.0.

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde_json::{Value as JsonValue, json};

/// serde attributes may make the two differ.
#[derive(Clone, Copy)]
pub(crate) enum Direction {
    Request,
    Reply,
}

/// The schema of a type, complete in itself. Where a recursive type comes back to itself, anything
/// is allowed: an operation has no place for named schemas.
pub(crate) fn schema_of<T: JsonSchema>(direction: Direction) -> JsonValue {
    let settings = SchemaSettings::openapi3().with(|settings| {
        settings.inline_subschemas = true;
        settings.meta_schema = None;
    });
    let settings = match direction {
        Direction::Request => settings.for_deserialize(),
        Direction::Reply => settings.for_serialize(),
    };
    let mut schema = settings.into_generator().into_root_schema_for::<T>().to_value();
    if let Some(object) = schema.as_object_mut() {
        object.remove("components");
        object.remove("definitions");
    }
    cut_references(&mut schema);
    schema
}

fn cut_references(schema: &mut JsonValue) {
    match schema {
        JsonValue::Object(object) if object.contains_key("$ref") => *schema = json!({}),
        JsonValue::Object(object) => object.values_mut().for_each(cut_references),
        JsonValue::Array(items) => items.iter_mut().for_each(cut_references),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde::{Deserialize, Serialize};

    use super::*;

    #[derive(Serialize, Deserialize, JsonSchema)]
    #[serde(rename_all = "camelCase")]
    struct Account {
        /// In cents.
        available_balance: i64,
        owner: Option<String>,
        #[serde(default)]
        tags: Vec<Tag>,
    }

    #[derive(Serialize, Deserialize, JsonSchema)]
    enum Tag {
        Savings,
        Joint,
    }

    #[derive(Serialize, Deserialize, JsonSchema)]
    struct Tree {
        children: Vec<Tree>,
    }

    #[test]
    fn a_schema_follows_serde() {
        let schema = schema_of::<Account>(Direction::Request);
        let balance = json!({"type": "integer", "format": "int64", "description": "In cents."});
        assert_eq!(schema["properties"]["availableBalance"], balance);
        assert_eq!(schema["properties"]["owner"], json!({"type": "string", "nullable": true}));
        let tag = json!({"type": "string", "enum": ["Savings", "Joint"]});
        assert_eq!(schema["properties"]["tags"]["items"], tag);
        assert_eq!(schema["required"], json!(["availableBalance"]));
        let reply = schema_of::<Account>(Direction::Reply);
        assert_eq!(reply["required"], json!(["availableBalance", "owner", "tags"]));
    }

    #[test]
    fn a_recursive_type_needs_nothing_from_elsewhere() {
        let schema = schema_of::<Tree>(Direction::Reply);
        assert!(!schema.to_string().contains("$ref"), "{schema}");
        assert_eq!(schema["properties"]["children"]["type"], "array");
    }
}
