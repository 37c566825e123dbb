//! The adapter: finds endpoints in the store's tables and runs their functions.

use std::collections::HashMap;
use std::sync::Arc;

use coco_adapter::{
    Adapter, Call, Endpoints, ErrorCode, ErrorDetail, ErrorResponse, Find, Mode, Response,
};
use coco_kv::{StateMap, Tx, Value};
use coco_script::{Context, Handler, ModuleTable, Program, ScriptEngine, ScriptError};
use http::Method;
use parking_lot::Mutex;
use serde_json::{Map, Value as Json};

use crate::RuntimeOptions;
use crate::endpoint::Endpoint;
use crate::routes::Routes;
use crate::tables::{SINGLE, Tables};

/// JS and TS applications, installed by governance.
pub struct JsApps {
    engine: Arc<ScriptEngine>,
    tables: Tables,
    /// The application as the last request saw it.
    latest: Mutex<Option<Arc<Installed>>>,
    options: Mutex<Option<(Value, RuntimeOptions)>>,
}

/// An application at one version of its tables.
struct Installed {
    endpoints: StateMap,
    modules: StateMap,
    /// When interpreters were last flushed.
    flushed: Option<coco_kv::Seqno>,
    routes: Routes,
    /// By module name.
    programs: Mutex<HashMap<String, Program>>,
}

impl JsApps {
    /// The adapter; `engine` may be shared with governance.
    pub fn new(engine: Arc<ScriptEngine>) -> Self {
        Self { engine, tables: Tables::new(), latest: Mutex::default(), options: Mutex::default() }
    }

    /// The application that a transaction sees.
    fn installed(&self, tx: &mut Tx) -> Arc<Installed> {
        let flushed = tx.version_of_previous_write(&self.tables.interpreter_flush, &SINGLE);
        let map = |name| tx.snapshot().map(name).cloned().unwrap_or_default();
        let (endpoints, modules) = (map(&self.tables.endpoints), map(&self.tables.modules));
        let latest = self.latest.lock().clone();
        if let Some(latest) = latest
            && latest.endpoints.is_same(&endpoints)
            && latest.modules.is_same(&modules)
            && latest.flushed == flushed
        {
            return latest;
        }
        let routes = Routes::parse(&endpoints);
        let programs = Mutex::default();
        let installed = Arc::new(Installed { endpoints, modules, flushed, routes, programs });
        *self.latest.lock() = Some(installed.clone());
        self.engine.flush_kept();
        installed
    }

    fn options(&self, tx: &mut Tx) -> RuntimeOptions {
        let Some(stored) = tx.get(&self.tables.runtime_options, &SINGLE) else {
            return RuntimeOptions::default();
        };
        let mut cached = self.options.lock();
        match &*cached {
            Some((text, options)) if **text == *stored => *options,
            _ => {
                let options = RuntimeOptions::load_from(tx, &self.tables.runtime_options);
                *cached = Some((stored, options));
                options
            }
        }
    }

    fn program(
        &self,
        call: &mut Call<'_>,
        installed: &Installed,
        module: &str,
        options: &RuntimeOptions,
    ) -> Result<Program, ScriptError> {
        let known = installed.programs.lock().get(module).cloned();
        if let Some(program) = known {
            return Ok(program);
        }
        let source = Arc::new(ModuleTable(self.tables.modules.clone()));
        let limits = options.limits();
        let program =
            self.engine.compile(&mut *call.tx, call.environment, source, module, limits)?;
        installed.programs.lock().insert(module.to_owned(), program.clone());
        Ok(program)
    }

    fn run(
        &self,
        call: &mut Call<'_>,
        installed: &Installed,
        endpoint: &Endpoint,
        options: &RuntimeOptions,
    ) -> Result<Response, ScriptError> {
        let module = full_name(&endpoint.js_module);
        let program = self.program(call, installed, &module, options)?;
        // The transaction depends on the code that it runs.
        call.tx.version_of_previous_write(&self.tables.modules, module.as_bytes());
        let handler = Handler {
            program: &program,
            source: Arc::new(ModuleTable(self.tables.modules.clone())),
            function: &endpoint.js_function,
            context: match endpoint.mode {
                Mode::ReadWrite => Context::AppReadWrite,
                Mode::ReadOnly | Mode::Historical => Context::AppReadOnly,
            },
            limits: options.limits(),
            reuse: endpoint.interpreter_reuse.as_ref().map(|reuse| reuse.key.as_str()),
            max_kept: options.max_cached_interpreters,
        };
        self.engine.handle(&handler, call)
    }
}

impl Adapter for JsApps {
    fn name(&self) -> &'static str {
        "apps"
    }
}

impl Endpoints for JsApps {
    fn find(&self, tx: &mut Tx, method: &Method, path: &str) -> Find {
        self.installed(tx).routes.find(method, path)
    }

    fn execute(&self, call: &mut Call<'_>) -> Result<Response, ErrorResponse> {
        let installed = self.installed(call.tx);
        let method = call.request.method();
        let template = &call.matched.template;
        let key = format!("{method} {template}");
        call.tx.version_of_previous_write(&self.tables.endpoints, key.as_bytes());
        let Some(route) = installed.routes.route(method, call.matched) else {
            let message = format!("Unknown path: {}.", call.request.uri().path());
            return Err(ErrorResponse::not_found(ErrorCode::ResourceNotFound, message));
        };
        let endpoint = route.endpoint.as_ref().map_err(|reason| {
            ErrorResponse::internal(format!("The endpoint {key} is malformed: {reason}."))
        })?;
        let options = self.options(call.tx);
        self.run(call, &installed, endpoint, &options).map_err(|error| {
            if options.log_exception_details {
                log(&key, endpoint, &error);
            }
            refusal(&error, options.return_exception_details)
        })
    }

    fn openapi_paths(&self, tx: &mut Tx) -> Map<String, Json> {
        self.installed(tx).routes.openapi_paths()
    }

    fn openapi_info(&self) -> (String, String) {
        ("Application".to_owned(), "JS application installed by governance".to_owned())
    }
}

fn full_name(module: &str) -> String {
    if module.starts_with('/') { module.to_owned() } else { format!("/{module}") }
}

/// CCF's reply for a script that failed.
fn refusal(error: &ScriptError, with_details: bool) -> ErrorResponse {
    let mut response = ErrorResponse::internal(match error {
        ScriptError::Timeout { .. } => "Operation took too long to complete.".to_owned(),
        ScriptError::OutOfMemory { .. } => "Operation ran out of memory.".to_owned(),
        ScriptError::Thrown(_) => "Exception thrown while executing.".to_owned(),
        ScriptError::InvalidReply { .. } => error.to_string(),
        other => format!("{}.", capitalised(&other.to_string())),
    });
    if with_details {
        let message = match error {
            ScriptError::InvalidReply { thrown: Some(thrown), .. } => thrown.message.clone(),
            other => other.to_string(),
        };
        response.details.push(ErrorDetail {
            auth_policy: None,
            code: ErrorCode::JSException,
            message,
            trace: error.trace().map(str::to_owned),
        });
    }
    response
}

fn capitalised(text: &str) -> String {
    let mut rest = text.chars();
    rest.next().map_or_else(String::new, |first| first.to_uppercase().chain(rest).collect())
}

fn log(key: &str, endpoint: &Endpoint, error: &ScriptError) {
    let thrown = match error {
        ScriptError::Thrown(thrown) => Some(thrown),
        ScriptError::InvalidReply { thrown, .. } => thrown.as_ref(),
        _ => None,
    };
    let position = thrown.and_then(|thrown| thrown.position.as_ref());
    tracing::error!(
        target: "coco::script",
        tag = "app",
        endpoint = key,
        function = endpoint.js_function,
        file = position.map_or(endpoint.js_module.as_str(), |position| position.file.as_str()),
        line = position.map(|position| position.line),
        stack = error.trace(),
        "{error}"
    );
}
