//! A realm that is prepared once and rewound after every use.

use std::cell::Cell;

use rquickjs::context::Intrinsic;
use rquickjs::function::IntoJsFunc;
use rquickjs::loader::{Loader, Resolver};
use rquickjs::{Array, Context, Ctx, Error, Exception, Function, Object, Result, Runtime, Value};
use rquickjs::{FromJs, JsLifetime};

use crate::guard::Guarded;
use crate::memory::SharedMemory;

/// An engine with one realm, which can be put back to how it was when it was prepared: whatever
/// scripts did to it, down to the last byte.
///
/// The engine keeps all its state in memory of ours; rewinding writes the old bytes back. What
/// belongs to Rust is not in that memory. What safe code could do to break that is kept from it:
/// * the runtime is never handed out: what has to be set in it is given to [`Realm::new`], and what
///   that calls holds no value of the engine's, for it is `Send`;
/// * functions of Rust are made by [`native`], which keeps them alive, while the realm is prepared;
/// * a panic in any of them becomes an exception at once. The engine's binding would carry it, in
///   memory of its own, to whoever meets an exception next, though the realm be rewound meanwhile;
/// * other ways of `rquickjs` to keep a value, a context or a class on the side of Rust are
///   disallowed methods in the workspace's `clippy.toml`.
pub struct Realm {
    // Dropped in this order.
    context: Context,
    runtime: Runtime,
    memory: SharedMemory,
}

impl Realm {
    /// Prepares a realm. `modules` resolves and loads what scripts import; `interrupted` is asked
    /// while they run whether to stop; `prepare` sets the realm's globals. Rewinding comes back to
    /// the moment when that is done.
    pub fn new<I: Intrinsic, E: From<Error>>(
        modules: impl Resolver + Loader + Clone + Send + 'static,
        interrupted: impl FnMut() -> bool + Send + 'static,
        prepare: impl for<'js> FnOnce(&Ctx<'js>) -> std::result::Result<(), E>,
    ) -> std::result::Result<Self, E> {
        let memory = SharedMemory::default();
        let runtime = Runtime::new_with_alloc(memory.clone())?;
        runtime.set_loader(Guarded(modules.clone()), Guarded(modules));
        let mut interrupted = Guarded(interrupted);
        runtime.set_interrupt_handler(Some(Box::new(move || interrupted.call())));
        let context = Context::custom::<I>(&runtime)?;
        let realm = Self { context, runtime, memory };
        realm.with(|ctx| {
            let kept = Kept::new(&ctx)?;
            #[expect(clippy::disallowed_methods, reason = "it holds values of the image alone")]
            ctx.store_userdata(kept).map_err(|_| Error::Unknown)?;
            // A class finds its prototype when it is first used, and remembers it outside of the
            // engine's memory.
            native(&ctx, "first", || ())?;
            prepare(&ctx)?;
            ctx.userdata::<Kept<'_>>().ok_or(Error::Unknown)?.complete.set(true);
            Ok::<_, E>(())
        })?;
        realm.runtime.run_gc();
        realm.memory.capture();
        Ok(realm)
    }

    /// Enters the realm.
    pub fn with<R>(&self, body: impl for<'js> FnOnce(Ctx<'js>) -> R) -> R {
        self.context.with(body)
    }

    /// Makes the realm and its runtime what they were when they were prepared, limits included.
    pub fn rewind(&mut self) {
        #[expect(unsafe_code, reason = "the engine's memory is overwritten")]
        // SAFETY: nobody is inside: `with` borrows the realm, which we have alone; runtime and
        // context are ours alone, and values cannot leave `with` but by what the rules above
        // forbid. The runtime and the context that we hold are in the image. The engine has no
        // state outside of its memory but Rust's: the prototype of functions, which `new` made it
        // remember; functions, loader and interrupt handler, which live as long as the realm; and
        // the payload of a panic, of which there is none, since all of those are guarded.
        unsafe {
            self.memory.rewind();
        }
    }

    /// Whether a job is left that would run the next time anybody runs jobs.
    pub fn has_pending_jobs(&self) -> bool {
        self.runtime.is_job_pending()
    }

    /// Limits the engine's memory, bytes; 0 is no limit.
    pub fn set_memory_limit(&self, bytes: usize) {
        self.runtime.set_memory_limit(bytes);
    }

    /// Limits the native stack that scripts may use, bytes.
    pub fn set_max_stack_size(&self, bytes: usize) {
        self.runtime.set_max_stack_size(bytes);
    }

    /// Bytes of memory in use.
    pub fn heap_bytes(&self) -> u64 {
        u64::try_from(self.runtime.memory_usage().malloc_size).unwrap_or(0)
    }

    /// Bytes that a rewind writes.
    pub fn image_bytes(&self) -> usize {
        self.memory.image_bytes()
    }
}

impl Drop for Realm {
    fn drop(&mut self) {
        // Whatever scripts did, the engine then frees each Rust function of the image once.
        self.rewind();
        self.memory.forget_image();
    }
}

/// Values that live as long as the realm, out of the reach of scripts.
struct Kept<'js> {
    functions: Array<'js>,
    named: Object<'js>,
    /// Whether the realm is prepared.
    complete: Cell<bool>,
}

#[expect(unsafe_code, reason = "rquickjs wants to know about lifetimes of values in structs")]
// SAFETY: `Changed` is the same type with another lifetime.
unsafe impl<'js> JsLifetime<'js> for Kept<'js> {
    type Changed<'to> = Kept<'to>;
}

impl<'js> Kept<'js> {
    fn new(ctx: &Ctx<'js>) -> Result<Self> {
        // Without a prototype: what is not there is not found elsewhere.
        let named = Object::new_proto(ctx.clone(), None)?;
        Ok(Self { functions: Array::new(ctx.clone())?, named, complete: Cell::new(false) })
    }
}

/// A function of Rust for scripts, to whom its panic is an exception. Only while a [`Realm`] is
/// prepared. It may be called on another thread than the one it was made on, hence `Send`.
pub fn native<'js, P, F>(ctx: &Ctx<'js>, name: &str, function: F) -> Result<Function<'js>>
where
    F: IntoJsFunc<'js, P> + Send + 'static,
{
    let kept = ctx.userdata::<Kept<'js>>().filter(|kept| !kept.complete.get());
    let kept = kept.ok_or_else(|| Exception::throw_internal(ctx, "The realm is complete"))?;
    #[expect(clippy::disallowed_methods, reason = "the realm keeps it alive")]
    let function = Function::new(ctx.clone(), Guarded(function))?.with_name(name)?;
    kept.functions.set(kept.functions.len(), function.clone())?;
    Ok(function)
}

/// Keeps a value, so that [`kept`] finds it whatever scripts do to their globals. Only while a
/// [`Realm`] is prepared.
pub fn keep<'js>(ctx: &Ctx<'js>, name: &str, value: Value<'js>) -> Result<()> {
    let kept = ctx.userdata::<Kept<'js>>().filter(|kept| !kept.complete.get());
    let kept = kept.ok_or_else(|| Exception::throw_internal(ctx, "The realm is complete"))?;
    kept.named.set(name, value)
}

/// What [`keep`] kept; `undefined` if nothing was.
pub fn kept<'js, V: FromJs<'js>>(ctx: &Ctx<'js>, name: &str) -> Result<V> {
    let kept = ctx.userdata::<Kept<'js>>();
    let kept = kept.ok_or_else(|| Exception::throw_internal(ctx, "Not a prepared realm"))?;
    kept.named.get(name)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use rquickjs::context::intrinsic;
    use rquickjs::loader::ImportAttributes;
    use rquickjs::module::{Declared, Module};

    use super::*;

    /// One module, and one that is a bug of the loader's.
    #[derive(Clone)]
    struct Modules;

    impl Resolver for Modules {
        fn resolve<'js>(
            &mut self,
            _ctx: &Ctx<'js>,
            _base: &str,
            name: &str,
            _attributes: Option<ImportAttributes<'js>>,
        ) -> Result<String> {
            assert_ne!(name, "unresolvable");
            Ok(name.to_owned())
        }
    }

    impl Loader for Modules {
        fn load<'js>(
            &mut self,
            ctx: &Ctx<'js>,
            name: &str,
            _attributes: Option<ImportAttributes<'js>>,
        ) -> Result<Module<'js, Declared>> {
            assert_ne!(name, "unloadable");
            Module::declare(ctx.clone(), name, "export const seven = 7;")
        }
    }

    fn realm() -> Realm {
        realm_until(Arc::default())
    }

    /// A realm that panics when it is asked whether to stop, once `fail` says so.
    fn realm_until(fail: Arc<AtomicBool>) -> Realm {
        let prepare = |ctx: &Ctx<'_>| {
            let add = native(ctx, "add", |a: i32, b: i32| a + b)?;
            let fail = native(ctx, "fail", || -> i32 { panic!("a bug") })?;
            keep(ctx, "kept", Value::new_int(ctx.clone(), 7))?;
            ctx.globals().set("fail", fail)?;
            ctx.globals().set("add", add)
        };
        let interrupted = move || {
            assert!(!fail.load(Ordering::Relaxed), "a bug");
            false
        };
        Realm::new::<intrinsic::All, Error>(Modules, interrupted, prepare).unwrap()
    }

    fn eval(realm: &Realm, script: &str) -> String {
        realm.with(|ctx| match ctx.eval::<rquickjs::Coerced<String>, _>(script) {
            Ok(text) => text.0,
            Err(_) => format!("{:?}", ctx.catch()),
        })
    }

    #[test]
    fn nothing_survives_a_rewind() {
        let mut realm = realm();
        let probe = "[typeof leak, Object.getPrototypeOf(add).leak, [].leak, add(2, 3),
            typeof gone, Symbol.for('leak').leak, Math.max(1, 2)].join()";
        let untouched = eval(&realm, probe);
        assert_eq!(untouched, "undefined,,,5,undefined,,2");
        realm.rewind();
        for script in [
            "globalThis.leak = 1; Array.prototype.leak = 2; Math.max = () => 9; 0",
            "Object.getPrototypeOf(add).leak = 'here'; 0",
            "delete globalThis.add; for (let i = 0; i < 1e5; i++) { const a = {}; a.a = a; } 0",
            "Object.defineProperty(globalThis, 'add', {get() { throw 1 }}); Object.freeze(Array.prototype); 0",
            "for (const key of Object.getOwnPropertyNames(globalThis)) { delete globalThis[key]; } 0",
            "globalThis.big = 'x'.repeat(5e6) + Symbol.for('leak').toString(); 0",
            "(async () => { await null; globalThis.leak = 1; })(); 0",
            "new Promise(() => { throw new Error('lost'); }); null.nothing",
            "function f() { f(); } f()",
            "globalThis.ref = new WeakRef({}); new FinalizationRegistry(() => { leak = 1 }).register({}, 1); 0",
            "class A extends Map {}; globalThis.leak = new A([[1, new Uint8Array(1e6)]]); 0",
        ] {
            eval(&realm, script);
            realm.rewind();
            assert_eq!(eval(&realm, probe), untouched, "{script}");
            realm.rewind();
            assert_eq!(eval(&realm, probe), untouched, "{script}, once more");
        }
    }

    #[test]
    fn limits_hold_and_are_rewound() {
        let mut realm = realm();
        for _ in 0..3 {
            realm.set_memory_limit(2 << 20);
            let error = eval(&realm, "const all = []; for (;;) { all.push(new Array(100)); }");
            // The engine throws null when there is no room left for an exception.
            assert!(error.contains("out of memory") || error.contains("null"), "{error}");
            realm.rewind();
            assert_eq!(eval(&realm, "'x'.repeat(5e6).length"), "5000000");
            realm.rewind();
        }
    }

    #[test]
    fn memory_does_not_grow() {
        let mut realm = realm();
        let before = realm.heap_bytes();
        for _ in 0..100 {
            eval(&realm, "globalThis.all = [add, Array.from({length: 1000}, () => ({}))]; 0");
            realm.rewind();
        }
        assert_eq!(realm.heap_bytes(), before);
        assert!(realm.image_bytes() > 10_000);
    }

    #[test]
    fn panics_become_exceptions_and_are_over() {
        let fail = Arc::new(AtomicBool::new(false));
        let mut realm = realm_until(Arc::clone(&fail));
        let bug = "InternalError: A function of the node failed";
        assert_eq!(eval(&realm, "try { fail(); } catch (error) { String(error); }"), bug);
        // Whoever meets an exception next meets only that.
        assert!(eval(&realm, "throw new TypeError('mine')").contains("mine"));
        assert!(eval(&realm, "fail()").contains("A function of the node failed"));
        realm.rewind();
        for module in ["unresolvable", "unloadable"] {
            let script = format!("let got; import('{module}').catch((e) => {{ got = e; }}); 0");
            eval(&realm, &script);
            realm.with(|ctx| while ctx.execute_pending_job() {});
            assert!(eval(&realm, "String(got)").contains("Error"), "{module}");
            realm.rewind();
        }
        fail.store(true, Ordering::Relaxed);
        let endless = "try { for (;;) {} } catch (error) { 'caught' }";
        assert!(eval(&realm, endless).contains("interrupted"));
        fail.store(false, Ordering::Relaxed);
        realm.rewind();
        assert!(eval(&realm, "throw new TypeError('mine')").contains("mine"));
        assert_eq!(eval(&realm, "add(2, 3)"), "5");
    }

    #[test]
    fn pending_jobs_are_told_and_rewound() {
        let mut realm = realm();
        assert!(!realm.has_pending_jobs());
        eval(&realm, "Promise.resolve().then(() => { globalThis.leak = 1; }); 0");
        assert!(realm.has_pending_jobs());
        realm.rewind();
        assert!(!realm.has_pending_jobs());
        assert_eq!(eval(&realm, "typeof leak"), "undefined");
    }

    #[test]
    fn a_realm_moves_between_threads() {
        let mut realm = realm();
        for _ in 0..4 {
            realm = std::thread::scope(|scope| {
                let used = scope.spawn(move || {
                    assert_eq!(eval(&realm, "globalThis.leak = 1; add(2, 3)"), "5");
                    realm.rewind();
                    realm
                });
                used.join().unwrap()
            });
            assert_eq!(eval(&realm, "typeof leak"), "undefined");
        }
    }

    #[test]
    fn functions_are_made_while_preparing_only() {
        let realm = realm();
        realm.with(|ctx| {
            assert_eq!(kept::<i32>(&ctx, "kept").unwrap(), 7);
            native(&ctx, "late", || ()).unwrap_err();
            ctx.catch();
            keep(&ctx, "late", Value::new_null(ctx.clone())).unwrap_err();
            ctx.catch();
        });
        drop(realm);
        let prepare = |ctx: &Ctx<'_>| native(ctx, "f", || ()).and(Err(Error::Unknown));
        assert!(Realm::new::<intrinsic::All, Error>(Modules, || false, prepare).is_err());
    }
}
