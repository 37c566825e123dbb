//! The JavaScript application as it is deployed.

use coco_adapter::{Call, ErrorCode, ErrorResponse, Response};
use serde_json::{Map, Value as Json, json};

use super::request::{ApiVersion, not_found, text_response};
use super::{Endpoints, Governance};
use crate::tables::{ENDPOINTS, MODULES};

pub(super) fn add_to(endpoints: &mut Endpoints) {
    let since = ApiVersion::V2024;
    endpoints.get("/service/javascript-app", since, "Endpoints of the application", app);
    let modules = "/service/javascript-modules";
    endpoints.get(modules, since, "Names of its modules", module_names);
    endpoints.get(&format!("{modules}/{{moduleName}}"), since, "Source of a module", module);
}

fn app(_: &Governance, call: &mut Call<'_>) -> Result<Response, ErrorResponse> {
    let as_stored = match call.query("case") {
        None => false,
        Some("original") => true,
        Some(other) => {
            let message = format!(
                "Accepted values for the 'case' query parameter are: original, not '{other}'."
            );
            return Err(ErrorResponse::bad_request(ErrorCode::InvalidQueryParameterValue, message));
        }
    };
    let mut endpoints = Map::new();
    for (key, properties) in ENDPOINTS.rows(call.tx)? {
        let Some((verb, path)) = key.split_once(' ') else {
            return Err(ErrorResponse::internal(format!("Malformed endpoint key {key:?}.")));
        };
        let shown = if as_stored { properties } else { in_camel_case(properties) };
        let of_path = endpoints.entry(path).or_insert_with(|| json!({}));
        if let Some(of_path) = of_path.as_object_mut() {
            of_path.insert(verb.to_owned(), shown);
        }
    }
    call.reply(&json!({"endpoints": endpoints}))
}

fn module_names(_: &Governance, call: &mut Call<'_>) -> Result<Response, ErrorResponse> {
    let rows = MODULES.rows(call.tx)?.into_iter();
    let value: Vec<_> = rows.map(|(name, _)| json!({"moduleName": name})).collect();
    call.reply(&json!({"value": value}))
}

fn module(_: &Governance, call: &mut Call<'_>) -> Result<Response, ErrorResponse> {
    let name = call.param("moduleName").to_owned();
    let source = MODULES.get(call.tx, &name)?;
    let source = source.ok_or_else(|| not_found(format!("Module {name} does not exist.")))?;
    Ok(text_response(source.0, "text/javascript"))
}

/// The endpoint's own fields in the API's case; an OpenAPI document and what else lies deeper keep
/// theirs.
fn in_camel_case(properties: Json) -> Json {
    let Json::Object(fields) = properties else { return properties };
    let renamed = fields.into_iter().map(|(name, value)| {
        let name = match name.as_str() {
            "openapi" => "openApi".to_owned(),
            "openapi_hidden" => "openApiHidden".to_owned(),
            _ => camel_case(&name),
        };
        let value = if name == "interpreterReuse" { in_camel_case(value) } else { value };
        (name, value)
    });
    Json::Object(renamed.collect())
}

fn camel_case(name: &str) -> String {
    let mut words = name.split('_');
    let mut result = words.next().unwrap_or_default().to_owned();
    for word in words {
        let mut letters = word.chars();
        result.extend(letters.next().map(|first| first.to_ascii_uppercase()));
        result.push_str(letters.as_str());
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_endpoints_own_fields_change_case() {
        let stored = json!({
            "js_module": "/a.js",
            "openapi": {"x_y": 1},
            "authn_policies": [{"all_of": ["user_cert"]}],
        });
        let shown = json!({
            "jsModule": "/a.js",
            "openApi": {"x_y": 1},
            "authnPolicies": [{"all_of": ["user_cert"]}],
        });
        assert_eq!(in_camel_case(stored), shown);
    }
}
