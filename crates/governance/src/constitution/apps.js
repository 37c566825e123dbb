// JavaScript applications and the limits they run under.

const policyName = oneOf("user_cert", "member_cert", "any_cert", "jwt", "user_cose_sign1", "no_auth");

function authnPolicy(value, name) {
  if (typeof value === "string") policyName(value, name);
  else checkObject({ all_of: nonEmptyListOf(policyName) })(value, name);
}

// A name as imports resolve to it; the engine would not find any other.
function moduleName(value, name) {
  nonEmptyString(value, name);
  const parts = withSlash(value).slice(1).split("/");
  if (parts.some((part) => ["", ".", ".."].includes(part))) {
    fail(name, 'a path without empty parts, "." and ".."');
  }
}

// What the node reads of an endpoint.
const endpointProperties = checkFields({
  js_module: moduleName,
  js_function: nonEmptyString,
  mode: oneOf("readwrite", "readonly", "historical"),
  forwarding_required: oneOf("always", "sometimes", "never"),
  redirection_strategy: absentOr(oneOf("none", "to_primary", "to_backup")),
  authn_policies: listOf(authnPolicy),
  openapi: optional(object),
  openapi_hidden: absentOr(boolean),
  interpreter_reuse: optional(checkFields({ key: nonEmptyString })),
});

const bundle = checkFields({
  metadata: checkFields({ endpoints: object }),
  modules: listOf(checkFields({ name: nonEmptyString, module: string })),
});

const verb = oneOf("get", "head", "post", "put", "patch", "delete", "options");

actions.set_js_app = {
  validate(args) {
    checkArguments(args, { bundle, disable_bytecode_cache: optional(boolean) });
    const { metadata, modules } = args.bundle;
    const names = modules.map((module) => withSlash(module.name));
    checkDistinct(names, (name) => `args.bundle.modules has ${name} twice`);

    const paths = Object.keys(metadata.endpoints);
    for (const path of paths) {
      const name = `args.bundle.metadata.endpoints["${path}"]`;
      checkPathTemplate(path, name);
      object(metadata.endpoints[path], name);
      for (const [method, properties] of Object.entries(metadata.endpoints[path])) {
        verb(method.toLowerCase(), `${name}: the verb "${method}"`);
        endpointProperties(properties, `${name}.${method}`);
        if (!names.includes(withSlash(properties.js_module))) {
          throw new Error(`${name}.${method}.js_module: ${properties.js_module} is not in the bundle`);
        }
      }
    }
    const shapes = paths.map((path) => withSlash(path).replace(/\{[^}]*\}/g, "{}"));
    checkDistinct(shapes, (shape) => `args.bundle.metadata.endpoints has two paths that match ${shape}`);
  },
  apply(args) {
    removeApp();
    const modules = governed("modules");
    for (const { name, module } of args.bundle.modules) {
      modules.set(ccf.strToBuf(withSlash(name)), ccf.strToBuf(module));
    }
    const endpoints = governed("endpoints");
    for (const [path, methods] of Object.entries(args.bundle.metadata.endpoints)) {
      for (const [method, properties] of Object.entries(methods)) {
        const key = ccf.strToBuf(`${method.toUpperCase()} ${withSlash(path)}`);
        const js_module = withSlash(properties.js_module);
        endpoints.set(key, ccf.jsonCompatibleToBuf({ ...properties, js_module }));
      }
    }
    if (!args.disable_bytecode_cache) ccf.refreshAppBytecodeCache();
  },
};

actions.remove_js_app = { validate: noArguments, apply: removeApp };

actions.refresh_js_app_bytecode_cache = {
  validate: noArguments,
  apply() {
    ccf.refreshAppBytecodeCache();
  },
};

const megabyte = 1024 * 1024;

actions.set_js_runtime_options = {
  validate(args) {
    checkArguments(args, {
      max_heap_bytes: integer(0, 4096 * megabyte),
      max_stack_bytes: integer(0, megabyte), // what a node's threads have
      max_execution_time_ms: integer(0, 3600000),
      log_exception_details: optional(boolean),
      return_exception_details: optional(boolean),
      max_cached_interpreters: optional(integer(0, 10000)),
    });
  },
  apply(args) {
    write(governed("js_runtime_options"), ONLY, {
      max_heap_bytes: args.max_heap_bytes,
      max_stack_bytes: args.max_stack_bytes,
      max_execution_time_ms: args.max_execution_time_ms,
      log_exception_details: args.log_exception_details ?? false,
      return_exception_details: args.return_exception_details ?? false,
      max_cached_interpreters: args.max_cached_interpreters ?? 10,
    });
    flushInterpreters();
  },
};

function removeApp() {
  governed("modules").clear();
  governed("modules_quickjs_bytecode").clear();
  governed("modules_quickjs_version").clear();
  governed("endpoints").clear();
  flushInterpreters();
}

// Interpreters that are kept for reuse hold the old code.
function flushInterpreters() {
  write(governed("interpreter.flush"), ONLY, true);
}

function withSlash(path) {
  return path.startsWith("/") ? path : `/${path}`;
}

function checkPathTemplate(path, name) {
  const names = [];
  for (const segment of withSlash(path).slice(1).split("/")) {
    const hole = /^[^{}]*\{([^{}]+)\}[^{}]*$/.exec(segment);
    if (hole === null && /[{}]/.test(segment)) {
      throw new Error(`${name}: segment "${segment}" must have at most one {parameter}`);
    }
    if (hole !== null) names.push(hole[1]);
  }
  checkDistinct(names, (parameter) => `${name} names the parameter {${parameter}} twice`);
}

function checkDistinct(values, message) {
  const seen = new Set();
  for (const value of values) {
    if (seen.has(value)) throw new Error(message(value));
    seen.add(value);
  }
}
