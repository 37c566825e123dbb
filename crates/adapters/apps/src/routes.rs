//! The table of endpoints, parsed, and the endpoint for a request line.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use coco_adapter::{EndpointProperties, Find, Matched, Template};
use coco_adapter::{ErrorResponse, Params};
use coco_kv::StateMap;
use http::Method;
use serde_json::{Map, Value as Json, json};

use crate::endpoint::Endpoint;

/// All endpoints of an application at one version of its table.
pub(crate) struct Routes {
    endpoints: Vec<Route>,
    /// Paths without holes.
    literal: HashMap<String, Vec<usize>>,
    templated: Vec<usize>,
}

/// An endpoint at its path.
pub(crate) struct Route {
    pub(crate) method: Method,
    template: Template,
    text: Arc<str>,
    properties: Arc<EndpointProperties>,
    /// Or why it cannot be served.
    pub(crate) endpoint: Result<Endpoint, String>,
}

impl Routes {
    /// Parses the table. An entry that cannot be read is an endpoint that fails when it is called.
    pub(crate) fn parse(table: &StateMap) -> Self {
        let mut routes =
            Self { endpoints: Vec::new(), literal: HashMap::new(), templated: Vec::new() };
        for (key, entry) in table.iter() {
            let key = String::from_utf8_lossy(key);
            match Route::parse(&key, &entry.value) {
                Ok(route) => routes.add(route),
                Err(error) => tracing::error!(key = &*key, %error, "this endpoint is not served"),
            }
        }
        routes
    }

    fn add(&mut self, route: Route) {
        let index = self.endpoints.len();
        if route.template.is_literal() {
            self.literal.entry(route.text.to_string()).or_default().push(index);
        } else {
            self.templated.push(index);
        }
        self.endpoints.push(route);
    }

    /// The endpoint for a request line: a literal path before templates. Two templates that fit
    /// are an error.
    pub(crate) fn find(&self, method: &Method, path: &str) -> Find {
        let literal = self.literal.get(path).into_iter().flatten();
        let literal = literal.filter_map(|&index| Some((index, self.endpoints.get(index)?)));
        let mut verbs = Vec::new();
        for (index, route) in literal {
            if route.method == *method {
                return Find::Endpoint(route.matched(index, Params::new()));
            }
            verbs.push(route.method.clone());
        }
        let mut fitting: Vec<(&Route, Matched)> = Vec::new();
        for &index in &self.templated {
            let Some(route) = self.endpoints.get(index) else { continue };
            let Some(params) = route.template.match_path(path) else { continue };
            if route.method == *method {
                fitting.push((route, route.matched(index, params)));
            } else if !verbs.contains(&route.method) {
                verbs.push(route.method.clone());
            }
        }
        // A verb after a hole, `{id}:close`, is meant more precisely than the hole alone.
        if fitting.len() > 1 && fitting.iter().any(|(route, _)| route.text.contains("}:")) {
            fitting.retain(|(route, _)| route.text.contains("}:"));
        }
        if fitting.len() > 1 {
            let templates: Vec<&str> = fitting.iter().map(|(route, _)| &*route.text).collect();
            let message = format!("{path} could match any of [{}].", templates.join(", "));
            return Find::Failed(ErrorResponse::internal(message));
        }
        match fitting.pop() {
            Some((_, matched)) => Find::Endpoint(matched),
            None if verbs.is_empty() => Find::UnknownPath,
            None => Find::WrongVerb(verbs),
        }
    }

    /// The endpoint registered for exactly this verb and template.
    pub(crate) fn route(&self, method: &Method, matched: &Matched) -> Option<&Route> {
        let is_meant = |route: &&Route| route.method == *method && *route.text == *matched.template;
        // The index still holds unless the table has changed since it was looked up.
        let guess = self.endpoints.get(matched.index).filter(is_meant);
        guess.or_else(|| self.endpoints.iter().find(is_meant))
    }

    /// The OpenAPI `paths` object.
    pub(crate) fn openapi_paths(&self) -> Map<String, Json> {
        let mut paths: BTreeMap<&str, Map<String, Json>> = BTreeMap::new();
        for route in &self.endpoints {
            let Ok(endpoint) = &route.endpoint else { continue };
            if !endpoint.openapi_hidden {
                let verb = route.method.as_str().to_lowercase();
                paths.entry(&route.text).or_default().insert(verb, route.operation(endpoint));
            }
        }
        paths.into_iter().map(|(path, item)| (path.to_owned(), Json::Object(item))).collect()
    }
}

impl Route {
    fn parse(key: &str, value: &[u8]) -> Result<Self, String> {
        let (method, template) = split_key(key)?;
        let endpoint = Endpoint::parse(value).map_err(|error| error.to_string());
        let properties = match &endpoint {
            Ok(endpoint) => endpoint.properties(),
            Err(_) => EndpointProperties::default(),
        };
        let text = template.as_str().into();
        Ok(Self { method, text, template, properties: Arc::new(properties), endpoint })
    }

    fn matched(&self, index: usize, params: Params) -> Matched {
        let (properties, template) = (self.properties.clone(), self.text.clone());
        Matched { properties, template, params, index }
    }

    /// The Operation Object, with what the template implies.
    fn operation(&self, endpoint: &Endpoint) -> Json {
        let mut operation = endpoint.openapi.as_object().cloned().unwrap_or_default();
        operation
            .entry("responses")
            .or_insert_with(|| json!({"default": {"description": "Reply"}}));
        let parameters = operation.entry("parameters").or_insert_with(|| json!([]));
        if let Some(parameters) = parameters.as_array_mut() {
            for name in self.template.names() {
                let is_this = |parameter: &Json| {
                    parameter.get("name").and_then(Json::as_str) == Some(name)
                        && parameter.get("in").and_then(Json::as_str) == Some("path")
                };
                if !parameters.iter().any(is_this) {
                    parameters.push(json!({
                        "name": name, "in": "path", "required": true, "schema": {"type": "string"},
                    }));
                }
            }
        }
        if operation.get("parameters").and_then(Json::as_array).is_some_and(Vec::is_empty) {
            operation.remove("parameters");
        }
        Json::Object(operation)
    }
}

/// The verb and the template of a key of the table, `VERB /path`.
pub(crate) fn split_key(key: &str) -> Result<(Method, Template), String> {
    let (verb, path) = key.split_once(' ').ok_or("the key is not \"VERB /path\"")?;
    let method = verb.parse().map_err(|_| format!("{verb:?} is no HTTP verb"))?;
    let template = Template::parse(path).map_err(|error| error.to_string())?;
    Ok((method, template))
}

#[cfg(test)]
mod tests {
    use coco_kv::{Snapshot, TxId, WriteSet};

    use super::*;
    use crate::tables::Tables;

    fn routes(keys: &[&str]) -> Routes {
        let tables = Tables::new();
        let mut writes = WriteSet::new();
        for key in keys {
            let value = br#"{"js_module":"m","js_function":"f","forwarding_required":"never"}"#;
            writes.put(&tables.endpoints, key.as_bytes(), value.as_slice());
        }
        let snapshot = Snapshot::of_writes(TxId::new(2, 1), &writes);
        Routes::parse(snapshot.map(&tables.endpoints).unwrap())
    }

    fn find(routes: &Routes, method: Method, path: &str) -> Result<String, String> {
        match routes.find(&method, path) {
            Find::Endpoint(matched) => Ok(matched.template.to_string()),
            Find::WrongVerb(verbs) => Err(format!("{verbs:?}")),
            Find::UnknownPath => Err("unknown".to_owned()),
            Find::Failed(error) => Err(error.message),
        }
    }

    #[test]
    fn a_literal_path_wins_for_its_verb() {
        let routes = routes(&["GET /log/all", "GET /log/{id}", "PUT /log/{id}"]);
        assert_eq!(find(&routes, Method::GET, "/log/all").unwrap(), "/log/all");
        assert_eq!(find(&routes, Method::GET, "/log/7").unwrap(), "/log/{id}");
        assert_eq!(find(&routes, Method::PUT, "/log/all").unwrap(), "/log/{id}");
        assert_eq!(find(&routes, Method::POST, "/log/all").unwrap_err(), "[GET, PUT]");
        assert_eq!(find(&routes, Method::GET, "/log").unwrap_err(), "unknown");
    }

    #[test]
    fn two_fitting_templates_are_an_error() {
        let routes = routes(&["GET /{a}/x", "GET /y/{b}", "GET /p/{id}", "GET /p/{id}:close"]);
        let error = find(&routes, Method::GET, "/y/x").unwrap_err();
        assert_eq!(error, "/y/x could match any of [/y/{b}, /{a}/x].");
        assert_eq!(find(&routes, Method::GET, "/p/7:close").unwrap(), "/p/{id}:close");
        assert_eq!(find(&routes, Method::GET, "/p/7").unwrap(), "/p/{id}");
    }

    #[test]
    fn paths_are_described() {
        let routes = routes(&["GET /log/{id}"]);
        let paths = Json::Object(routes.openapi_paths());
        assert_eq!(paths["/log/{id}"]["get"]["parameters"][0]["name"], "id");
        assert!(paths["/log/{id}"]["get"]["responses"]["default"].is_object());
    }
}
