//! Endpoints written in Rust, by path and verb.

use std::collections::HashMap;
use std::sync::Arc;

use coco_kv::Tx;
use http::Method;
use serde_json::{Map, Value as Json, json};

use crate::{
    Adapter, Call, EndpointProperties, Endpoints, ErrorResponse, Find, Matched, Params, Response,
    RouteSyntax, Template,
};

/// What runs when an endpoint is called.
pub type Handler =
    Arc<dyn Fn(&mut Call<'_>) -> Result<Response, ErrorResponse> + Send + Sync + 'static>;

/// A table of endpoints; itself [`Endpoints`].
pub struct Registry {
    name: &'static str,
    info: (String, String),
    endpoints: Vec<Endpoint>,
    literal: HashMap<String, Vec<usize>>,
    templated: Vec<usize>,
}

struct Endpoint {
    method: Method,
    template: Template,
    template_text: Arc<str>,
    properties: Arc<EndpointProperties>,
    openapi: Json,
    handler: Handler,
}

impl Registry {
    /// An empty table; `title` and `description` go into the OpenAPI document.
    pub fn new(name: &'static str, title: &str, description: &str) -> Self {
        Self {
            name,
            info: (title.to_owned(), description.to_owned()),
            endpoints: Vec::new(),
            literal: HashMap::new(),
            templated: Vec::new(),
        }
    }

    /// Adds an endpoint. `openapi` is its Operation Object.
    pub fn add(
        &mut self,
        method: Method,
        path: &str,
        properties: EndpointProperties,
        openapi: Json,
        handler: impl Fn(&mut Call<'_>) -> Result<Response, ErrorResponse> + Send + Sync + 'static,
    ) -> Result<(), RouteSyntax> {
        let template = Template::parse(path)?;
        let index = self.endpoints.len();
        if template.is_literal() {
            self.literal.entry(path.to_owned()).or_default().push(index);
        } else {
            self.templated.push(index);
        }
        self.endpoints.push(Endpoint {
            method,
            template_text: template.as_str().into(),
            template,
            properties: Arc::new(properties),
            openapi,
            handler: Arc::new(handler),
        });
        Ok(())
    }

    /// The endpoint for a request line.
    pub fn lookup(&self, method: &Method, path: &str) -> Find {
        let mut allowed = Vec::new();
        for (index, params) in self.candidates(path) {
            let Some(endpoint) = self.endpoints.get(index) else { continue };
            if endpoint.method == *method {
                return Find::Endpoint(Matched {
                    properties: endpoint.properties.clone(),
                    template: endpoint.template_text.clone(),
                    params,
                    index,
                });
            }
            allowed.push(endpoint.method.clone());
        }
        if allowed.is_empty() { Find::UnknownPath } else { Find::WrongVerb(allowed) }
    }

    /// Endpoints whose path fits, whatever their verb: a literal path hides templated ones.
    fn candidates<'a>(&'a self, path: &'a str) -> Box<dyn Iterator<Item = (usize, Params)> + 'a> {
        if let Some(literal) = self.literal.get(path) {
            return Box::new(literal.iter().map(|&index| (index, Params::new())));
        }
        Box::new(self.templated.iter().filter_map(move |&index| {
            let params = self.endpoints.get(index)?.template.match_path(path)?;
            Some((index, params))
        }))
    }

    /// Runs the endpoint with this index.
    pub fn run(&self, call: &mut Call<'_>) -> Result<Response, ErrorResponse> {
        match self.endpoints.get(call.matched.index) {
            Some(endpoint) => (endpoint.handler)(call),
            None => Err(ErrorResponse::internal("The endpoint is not in this registry.")),
        }
    }

    /// The OpenAPI `paths` object.
    pub fn paths(&self) -> Map<String, Json> {
        let mut paths = Map::new();
        for endpoint in &self.endpoints {
            let item = paths.entry(endpoint.template.as_str()).or_insert_with(|| json!({}));
            if let Some(item) = item.as_object_mut() {
                item.insert(endpoint.method.as_str().to_lowercase(), endpoint.operation());
            }
        }
        paths
    }
}

impl Endpoint {
    /// The Operation Object with the path parameters that the template implies.
    fn operation(&self) -> Json {
        let mut operation = self.openapi.clone();
        let parameters: Vec<Json> = self
            .template
            .names()
            .map(|name| {
                json!({"name": name, "in": "path", "required": true, "schema": {"type": "string"}})
            })
            .collect();
        if let Some(object) = operation.as_object_mut() {
            object
                .entry("responses")
                .or_insert_with(|| json!({"default": {"description": "Reply"}}));
            if !parameters.is_empty() {
                let all = object.entry("parameters").or_insert_with(|| json!([]));
                if let Some(all) = all.as_array_mut() {
                    all.splice(0..0, parameters);
                }
            }
        }
        operation
    }
}

impl Adapter for Registry {
    fn name(&self) -> &'static str {
        self.name
    }
}

impl Endpoints for Registry {
    fn find(&self, _tx: &mut Tx, method: &Method, path: &str) -> Find {
        self.lookup(method, path)
    }

    fn execute(&self, call: &mut Call<'_>) -> Result<Response, ErrorResponse> {
        self.run(call)
    }

    fn openapi_paths(&self, _tx: &mut Tx) -> Map<String, Json> {
        self.paths()
    }

    fn openapi_info(&self) -> (String, String) {
        self.info.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn registry() -> Registry {
        let mut registry = Registry::new("test", "Test", "");
        for (method, path) in [
            (Method::GET, "/records/{key}"),
            (Method::PUT, "/records/{key}"),
            (Method::GET, "/records/all"),
        ] {
            let properties = EndpointProperties::default();
            let handler = |_: &mut Call<'_>| Ok(Response::default());
            registry.add(method, path, properties, json!({}), handler).unwrap();
        }
        registry
    }

    #[test]
    fn a_literal_path_wins() {
        let registry = registry();
        let Find::Endpoint(found) = registry.lookup(&Method::GET, "/records/all") else { panic!() };
        assert_eq!(&*found.template, "/records/all");
        let Find::Endpoint(found) = registry.lookup(&Method::PUT, "/records/x") else { panic!() };
        assert_eq!(found.params, vec![("key".to_owned(), "x".to_owned())]);
    }

    #[test]
    fn a_wrong_verb_names_the_right_ones() {
        let Find::WrongVerb(allowed) = registry().lookup(&Method::POST, "/records/x") else {
            panic!()
        };
        assert_eq!(allowed, [Method::GET, Method::PUT]);
        assert!(matches!(registry().lookup(&Method::GET, "/nothing"), Find::UnknownPath));
    }
}
