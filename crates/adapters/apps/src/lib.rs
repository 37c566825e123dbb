//! JS and TS applications with CCF's API.
//!
//! Governance installs an application by writing its endpoints and modules into tables; this
//! adapter serves them. It knows what an application is; how a script runs and what it sees is
//! `coco-script`'s business, who calls is the enclave's.
//!
//! ```text
//!   set_js_app ─▶ endpoints: "GET /log/{id}" ─▶ {js_module, js_function, mode, policies, …}
//!                 modules:   "/src/log.js"   ─▶ text
//!
//!   request ─▶ JsApps::find ─▶ Routes (parsed once per version of the table)
//!           ─▶ JsApps::execute ─▶ Program (compiled once per version) ─▶ ScriptEngine ─▶ response
//! ```
//!
//! Invariants:
//! * What is cached is checked against the very tables that a transaction sees: a request never
//!   runs code of another version of the application.
//! * A transaction's read set holds the endpoint and the module that it ran.
//! * A script's failure is CCF's error reply; its details reach the client only if governance
//!   said so.
//!
//! ```
//! use coco_apps::install_bundle;
//! use coco_kv::{Store, View};
//! use serde_json::json;
//!
//! let mut tx = Store::new(View(2)).begin();
//! let hello = "export function hello(request) { return { body: 'Hello ' + request.query }; }";
//! let bundle = json!({
//!     "metadata": { "endpoints": { "/hello": { "get": {
//!         "js_module": "hello.js", "js_function": "hello", "mode": "readonly",
//!         "forwarding_required": "never", "authn_policies": ["no_auth"],
//!     } } } },
//!     "modules": [ { "name": "hello.js", "module": hello } ],
//! });
//! install_bundle(&mut tx, &bundle, false)?;
//! # Ok::<(), coco_apps::BundleError>(())
//! ```

mod app;
mod bundle;
mod endpoint;
mod options;
mod routes;
mod tables;

pub use app::JsApps;
pub use bundle::{BundleError, check_modules, install_bundle, remove};
pub use endpoint::{Endpoint, EndpointError, InterpreterReuse};
pub use options::RuntimeOptions;
