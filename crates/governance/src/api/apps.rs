//! The JavaScript application as it is deployed.

use coco_adapter::{Call, ErrorCode, ErrorResponse, RedirectionStrategy, Response};
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

/// What CCF shows of an endpoint, in the API's case; an OpenAPI document keeps its own.
fn in_camel_case(mut properties: Json) -> Json {
    let mut take = |name: &str| properties.get_mut(name).map(Json::take).unwrap_or_default();
    let or = |value: Json, default: Json| if value.is_null() { default } else { value };
    json!({
        "jsModule": take("js_module"),
        "jsFunction": take("js_function"),
        "forwardingRequired": take("forwarding_required"),
        "redirectionStrategy": or(take("redirection_strategy"), json!(RedirectionStrategy::default())),
        "authnPolicies": take("authn_policies"),
        "mode": take("mode"),
        "openApi": or(take("openapi"), json!({})),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_shown_with_defaults() {
        let stored = json!({
            "js_module": "/a.js", "js_function": "f", "mode": "readonly",
            "forwarding_required": "never", "authn_policies": [{"all_of": ["user_cert"]}],
            "openapi_hidden": true, "newer": 1,
        });
        let shown = json!({
            "jsModule": "/a.js", "jsFunction": "f", "mode": "readonly",
            "forwardingRequired": "never", "authnPolicies": [{"all_of": ["user_cert"]}],
            "redirectionStrategy": "to_primary", "openApi": {},
        });
        assert_eq!(in_camel_case(stored.clone()), shown);

        let (mut stored, mut shown) = (stored, shown);
        stored["redirection_strategy"] = json!("none");
        stored["openapi"] = json!({"x_y": 1});
        shown["redirectionStrategy"] = json!("none");
        shown["openApi"] = json!({"x_y": 1});
        assert_eq!(in_camel_case(stored), shown);
    }
}
