//! An application: endpoints by path and verb.

use coco_adapter::{
    Adapter, Call, Endpoints, ErrorResponse, Find, Registry, Response, RouteSyntax,
};
use coco_kv::Tx;
use http::Method;
use serde_json::{Map, Value as JsonValue};

use crate::Endpoint;

/// Endpoints that are compiled into a node; the enclave takes it as its application.
pub struct Application {
    registry: Registry,
    routes: Vec<(Method, String)>,
}

/// An endpoint cannot be added: a mistake in the application itself.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadEndpoint {
    /// The path is not a template.
    #[error(transparent)]
    Path(#[from] RouteSyntax),
    /// There is one already.
    #[error("{method} {path} has an endpoint already")]
    Twice {
        /// The verb.
        method: Method,
        /// The path.
        path: String,
    },
}

impl Application {
    /// An application without endpoints. `name` is for logs and metrics; `title` and `description`
    /// are for the API's document.
    pub fn new(name: &'static str, title: &str, description: &str) -> Self {
        Self { registry: Registry::new(name, title, description), routes: Vec::new() }
    }

    /// Adds an endpoint. A path such as `/records/{key}` has parameters, which the handler finds
    /// by `call.param("key")`.
    pub fn add(
        &mut self,
        method: Method,
        path: &str,
        endpoint: Endpoint,
    ) -> Result<(), BadEndpoint> {
        let route = (method, path.to_owned());
        if self.routes.contains(&route) {
            let (method, path) = route;
            return Err(BadEndpoint::Twice { method, path });
        }
        let (openapi, handler) = (endpoint.openapi(), endpoint.handler);
        let run = move |call: &mut Call<'_>| handler(call);
        self.registry.add(route.0.clone(), path, endpoint.properties, openapi, run)?;
        self.routes.push(route);
        Ok(())
    }

    /// [`add`](Self::add)s a `GET`, and panics where that fails.
    pub fn get(self, path: &str, endpoint: Endpoint) -> Self {
        self.with(Method::GET, path, endpoint)
    }

    /// [`add`](Self::add)s a `PUT`, and panics where that fails.
    pub fn put(self, path: &str, endpoint: Endpoint) -> Self {
        self.with(Method::PUT, path, endpoint)
    }

    /// [`add`](Self::add)s a `POST`, and panics where that fails.
    pub fn post(self, path: &str, endpoint: Endpoint) -> Self {
        self.with(Method::POST, path, endpoint)
    }

    /// [`add`](Self::add)s a `DELETE`, and panics where that fails.
    pub fn delete(self, path: &str, endpoint: Endpoint) -> Self {
        self.with(Method::DELETE, path, endpoint)
    }

    /// [`add`](Self::add)s a `PATCH`, and panics where that fails.
    pub fn patch(self, path: &str, endpoint: Endpoint) -> Self {
        self.with(Method::PATCH, path, endpoint)
    }

    #[expect(clippy::panic, reason = "a mistake in the application's text, found when it starts")]
    fn with(mut self, method: Method, path: &str, endpoint: Endpoint) -> Self {
        match self.add(method, path, endpoint) {
            Ok(()) => self,
            Err(mistake) => panic!("{mistake}"),
        }
    }
}

impl Adapter for Application {
    fn name(&self) -> &'static str {
        self.registry.name()
    }
}

impl Endpoints for Application {
    fn find(&self, _tx: &mut Tx, method: &Method, path: &str) -> Find {
        self.registry.lookup(method, path)
    }

    fn execute(&self, call: &mut Call<'_>) -> Result<Response, ErrorResponse> {
        self.registry.run(call)
    }

    fn openapi_paths(&self, tx: &mut Tx) -> Map<String, JsonValue> {
        self.registry.openapi_paths(tx)
    }

    fn openapi_info(&self) -> (String, String) {
        self.registry.openapi_info()
    }
}

#[cfg(test)]
mod tests {
    use coco_kv::{Store, View};
    use serde_json::json;

    use super::*;
    use crate::{AuthnPolicy, Json};

    fn echo() -> Endpoint {
        Endpoint::new(|_, Json(number): Json<u8>| Ok(Json(number)))
    }

    #[test]
    fn mistakes_are_found_when_the_application_is_put_together() {
        let mut application = Application::new("test", "Test", "");
        assert_eq!(application.add(Method::PUT, "/echo", echo()), Ok(()));
        assert_eq!(application.add(Method::POST, "/echo", echo()), Ok(()));
        let twice = BadEndpoint::Twice { method: Method::PUT, path: "/echo".into() };
        assert_eq!(application.add(Method::PUT, "/echo", echo()), Err(twice));
        let syntax = application.add(Method::PUT, "/{a}/{a}", echo());
        assert!(matches!(syntax, Err(BadEndpoint::Path(RouteSyntax::DuplicateName(..)))));
    }

    #[test]
    fn the_document_says_what_goes_in_and_out_and_for_whom() {
        let endpoint = echo()
            .summary("Echo")
            .query_parameter("loud", "Whether to shout")
            .authenticate([AuthnPolicy::Jwt, AuthnPolicy::AllOf(vec![AuthnPolicy::UserCert])]);
        let application = Application::new("test", "Test", "").put("/echo/{times}", endpoint);
        let paths = application.openapi_paths(&mut Store::new(View(2)).begin());
        let operation = &paths["/echo/{times}"]["put"];
        assert_eq!(operation["summary"], "Echo");
        let body = &operation["requestBody"]["content"]["application/json"]["schema"];
        assert_eq!((&body["type"], &body["maximum"]), (&json!("integer"), &json!(255)));
        let reply = &operation["responses"]["200"]["content"]["application/json"]["schema"];
        assert_eq!(reply, body);
        assert_eq!(operation["parameters"][0]["name"], "times");
        assert_eq!(operation["parameters"][1]["name"], "loud");
        let policies = json!(["jwt", {"all_of": ["user_cert"]}]);
        assert_eq!(operation["x-coco-authn-policies"], policies);
    }
}
