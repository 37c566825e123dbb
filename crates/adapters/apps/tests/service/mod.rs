//! A store with an application in it, and requests that go through the adapter as the enclave
//! sends them.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    dead_code,
    reason = "a test double"
)]

use std::sync::Arc;

use bytes::Bytes;
use coco_adapter::{
    Call, Caller, Endpoints, ErrorResponse, Find, HistoricalState, Outcome, Request, Response,
};
use coco_apps::JsApps;
use coco_kv::{MapName, Store, View};
use coco_script::ScriptEngine;
use http::Method;
use serde_json::{Value as Json, json};

use crate::harness::TestNode;

pub const MODULES: &str = "public:ccf.gov.modules";
pub const ENDPOINTS: &str = "public:ccf.gov.endpoints";

/// An application that runs.
pub struct Service {
    pub store: Store,
    pub apps: JsApps,
    pub node: TestNode,
}

/// What came of a request.
pub struct Reply {
    pub response: Result<Response, ErrorResponse>,
    pub outcome: Outcome,
}

impl Service {
    /// An application from its modules and endpoints.
    pub fn new(modules: &[(&str, &str)], endpoints: Json) -> Self {
        let apps = JsApps::new(Arc::new(ScriptEngine::new()));
        let service = Self { store: Store::new(View(2)), apps, node: TestNode::new() };
        service.install(modules, endpoints);
        service
    }

    /// An application whose only endpoint is `POST /run`, with this module.
    pub fn of(module: &str) -> Self {
        Self::new(&[("app.js", module)], json!({"/run": {"post": endpoint("app.js", "run")}}))
    }

    /// The same with this body of the handler.
    pub fn run(body: &str) -> Self {
        Self::of(&format!("export function run(request) {{ {body} }}"))
    }

    pub fn ticking(mut self, tick_ms: u64) -> Self {
        self.node = TestNode::ticking(tick_ms);
        self
    }

    /// Replaces the application as `set_js_app` does.
    pub fn install(&self, modules: &[(&str, &str)], endpoints: Json) {
        let [modules_map, endpoints_map] = [MODULES, ENDPOINTS].map(MapName::new);
        let mut tx = self.store.begin();
        tx.clear(&modules_map);
        tx.clear(&endpoints_map);
        for (name, text) in modules {
            tx.put(&modules_map, with_slash(name).as_bytes(), text.as_bytes());
        }
        for (path, verbs) in endpoints.as_object().unwrap() {
            for (verb, properties) in verbs.as_object().unwrap() {
                let key = format!("{} {path}", verb.to_uppercase());
                let module = with_slash(properties["js_module"].as_str().unwrap());
                let properties = with(properties.clone(), "js_module", json!(module));
                tx.put(&endpoints_map, key.as_bytes(), properties.to_string().as_bytes());
            }
        }
        tx.put(&MapName::new("public:ccf.gov.interpreter.flush"), [0; 8], b"true");
        self.store.commit(tx, |_, _| ()).unwrap();
    }

    pub fn put(&self, map: &str, key: &[u8], value: &[u8]) {
        let mut tx = self.store.begin();
        tx.put(&MapName::new(map), key, value);
        self.store.commit(tx, |_, _| ()).unwrap();
    }

    pub fn get(&self, map: &str, key: &[u8]) -> Option<Vec<u8>> {
        self.store.begin().get(&MapName::new(map), key).map(|value| value.to_vec())
    }

    /// Sets the runtime options.
    pub fn options(&self, options: &Json) {
        let map = "public:ccf.gov.js_runtime_options";
        self.put(map, &[0; 8], options.to_string().as_bytes());
    }

    pub fn request(&self, request: Request, caller: &Caller) -> Reply {
        self.request_at(request, caller, None)
    }

    /// Finds, executes and commits, as the enclave does.
    pub fn request_at(
        &self,
        request: Request,
        caller: &Caller,
        historical: Option<&HistoricalState>,
    ) -> Reply {
        let mut tx = self.store.begin();
        let path = request.uri().path();
        let path = path.strip_prefix("/app").unwrap_or(path);
        let matched = match self.apps.find(&mut tx, request.method(), path) {
            Find::Endpoint(matched) => matched,
            Find::Failed(error) => {
                return Reply { response: Err(error), outcome: Outcome::default() };
            }
            _ => panic!("no endpoint for {path}"),
        };
        let mut call = Call {
            request: &request,
            matched: &matched,
            caller,
            tx: &mut tx,
            historical,
            environment: &self.node,
            outcome: Outcome::default(),
        };
        let response = self.apps.execute(&mut call);
        let outcome = call.outcome;
        let succeeded = response.as_ref().is_ok_and(|response| response.status().is_success());
        if outcome.apply_writes.unwrap_or(succeeded) && response.is_ok() {
            self.store.commit(tx, |_, _| ()).unwrap();
        }
        Reply { response, outcome }
    }

    /// `POST /run` with a body.
    pub fn post(&self, body: impl Into<Bytes>) -> Reply {
        let request = http::Request::post("/app/run").body(body.into()).unwrap();
        self.request(request, &Caller::NoAuth)
    }

    /// The JSON that `POST /run` replies with.
    pub fn json(&self) -> Json {
        self.post("").json()
    }
}

impl Reply {
    pub fn response(&self) -> &Response {
        self.response.as_ref().unwrap()
    }

    pub fn error(&self) -> &ErrorResponse {
        self.response.as_ref().unwrap_err()
    }

    pub fn text(&self) -> String {
        String::from_utf8(self.response().body().to_vec()).unwrap()
    }

    pub fn json(&self) -> Json {
        serde_json::from_slice(self.response().body()).unwrap()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.response().headers().get(name).map(|value| value.to_str().unwrap())
    }
}

fn with_slash(name: &str) -> String {
    if name.starts_with('/') { name.to_owned() } else { format!("/{name}") }
}

/// Properties of a read-write endpoint for anybody.
pub fn endpoint(module: &str, function: &str) -> Json {
    json!({
        "js_module": module, "js_function": function, "mode": "readwrite",
        "forwarding_required": "always", "authn_policies": ["no_auth"],
    })
}

/// An endpoint with one property changed.
pub fn with(mut endpoint: Json, field: &str, value: Json) -> Json {
    endpoint[field] = value;
    endpoint
}

pub fn get(path: &str) -> Request {
    http::Request::builder().method(Method::GET).uri(path).body(Bytes::new()).unwrap()
}
