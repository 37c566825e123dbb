//! OpenAPI 3.0.0 documents of the frontends.

use serde_json::{Map, Value as Json, json};

/// A frontend's document.
pub(crate) fn document(
    prefix: &str,
    (title, description): (String, String),
    mut paths: Map<String, Json>,
) -> Json {
    paths.sort_keys();
    json!({
        "openapi": "3.0.0",
        "info": {
            "title": title,
            "description": description,
            "version": env!("CARGO_PKG_VERSION"),
        },
        "servers": [{ "url": prefix }],
        "paths": paths,
        "components": {
            "responses": { "default": { "description": "An error", "content": {
                "application/json": { "schema": { "$ref": "#/components/schemas/Error" } },
            } } },
            "schemas": { "Error": error_schema() },
            "securitySchemes": {
                "jwt": { "type": "http", "scheme": "bearer", "bearerFormat": "JWT" },
                "user_cose_sign1": {
                    "type": "http", "scheme": "cose_sign1",
                    "description": "The body is a COSE_Sign1 message signed by a user.",
                },
            },
        },
    })
}

/// The Responses Object of an endpoint that answers 200 with JSON.
pub(crate) fn json_responses(schema: &Json) -> Json {
    responses("application/json", schema)
}

/// The Responses Object of an endpoint that answers 200 with a body.
pub(crate) fn responses(content_type: &str, schema: &Json) -> Json {
    json!({
        "200": { "description": "Success", "content": { content_type: { "schema": schema } } },
        "default": { "$ref": "#/components/responses/default" },
    })
}

fn error_schema() -> Json {
    let text = json!({ "type": "string" });
    json!({
        "type": "object",
        "required": ["error"],
        "properties": { "error": {
            "type": "object",
            "required": ["code", "message"],
            "properties": {
                "code": text,
                "message": text,
                "details": { "type": "array", "items": { "type": "object" } },
            },
        } },
    })
}
