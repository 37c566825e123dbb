//! Constitutions and ballots, as governance runs them.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod harness;

use coco_kv::{MapName, Seqno, Store, Tx, View};
use coco_script::{
    ApplyNatives, Constitution, Limits, NativeError, Position, ScriptEngine, ScriptError, Thrown,
    Vote, check_ballot, check_constitution, check_sources,
};
use harness::TestNode;
use parking_lot::Mutex;

const CONSTITUTION: &str = r#"
class Action { constructor(check, act) { this.check = check; this.act = act; } }
const actions = new Map([["set", new Action(
    (args) => { if (typeof args.value !== "string") throw new Error("value must be a string"); },
    (args) => {
        const map = ccf.kv["public:ccf.gov.members.info"];
        map.set(ccf.strToBuf("key"), ccf.strToBuf(args.value));
    },
)]]);

export function validate(input) {
    const proposal = JSON.parse(input);
    const errors = [];
    for (const { name, args } of proposal.actions) {
        const action = actions.get(name);
        if (action === undefined) { errors.push(`${name}: no such action`); continue; }
        try { action.check(args); } catch (error) { errors.push(`${name}: ${error.message}`); }
    }
    return { valid: errors.length === 0, description: errors.join(", ") };
}

export function resolve(proposal, proposerId, votes, proposalId) {
    const ayes = votes.filter((vote) => vote.vote).map((vote) => vote.member_id);
    return ayes.length >= 2 ? "Accepted" : `Open ${proposerId} ${proposalId} ${ayes}`;
}

export function apply(proposal, proposalId) {
    for (const { name, args } of JSON.parse(proposal).actions) actions.get(name).act(args);
}
"#;

const PROPOSAL: &str = r#"{"actions": [{"name": "set", "args": {"value": "x"}}]}"#;

struct Fixture {
    engine: ScriptEngine,
    node: TestNode,
    tx: Tx,
}

impl Fixture {
    fn new() -> Self {
        let tx = Store::new(View(2)).begin();
        Self { engine: ScriptEngine::new(), node: TestNode::new(), tx }
    }

    fn with<R>(&mut self, source: &str, act: impl FnOnce(&Constitution<'_>, &mut Tx) -> R) -> R {
        let limits = Limits { execution_ms: 1, heap_bytes: 1, stack_bytes: 1 };
        let (engine, environment) = (&self.engine, &self.node);
        act(&Constitution { engine, source, environment, limits }, &mut self.tx)
    }

    fn apply(&mut self, body: &str, natives: &dyn ApplyNatives) -> Result<(), ScriptError> {
        let source = format!("export function apply(proposal, proposalId) {{ {body} }}");
        self.with(&source, |constitution, tx| constitution.apply(tx, natives, "{}", "p1"))
    }

    fn ballot(&mut self, ballot: &str) -> Result<bool, ScriptError> {
        self.with("", |constitution, tx| constitution.vote(tx, ballot, PROPOSAL, "alice"))
    }
}

fn message(error: &ScriptError) -> &str {
    match error {
        ScriptError::Thrown(thrown) => &thrown.message,
        other => panic!("{other:?}"),
    }
}

/// Refuses everything, as the trait's defaults do.
struct NoNatives;

impl ApplyNatives for NoNatives {}

#[test]
fn a_proposal_goes_its_way() {
    let mut fixture = Fixture::new();
    let validity =
        fixture.with(CONSTITUTION, |constitution, tx| constitution.validate(tx, PROPOSAL).unwrap());
    assert!(validity.valid, "{validity:?}");
    let votes = ["bob", "carol"].map(|id| Vote { member_id: id.to_owned(), vote: true });
    let resolve = |votes: &[Vote]| {
        let votes = votes.to_vec();
        move |constitution: &Constitution<'_>, tx: &mut Tx| {
            constitution.resolve(tx, PROPOSAL, "alice", &votes, "p1").unwrap()
        }
    };
    assert_eq!(fixture.with(CONSTITUTION, resolve(&votes[..1])), "Open alice p1 bob");
    assert_eq!(fixture.with(CONSTITUTION, resolve(&votes)), "Accepted");
    fixture
        .with(CONSTITUTION, |constitution, tx| constitution.apply(tx, &NoNatives, PROPOSAL, "p1"))
        .unwrap();
    let map = MapName::new("public:ccf.gov.members.info");
    assert_eq!(&*fixture.tx.get(&map, b"key").unwrap(), b"x");
}

#[test]
fn an_invalid_proposal_says_why() {
    let mut fixture = Fixture::new();
    let proposal = r#"{"actions": [{"name": "set", "args": {}}, {"name": "fly"}]}"#;
    let validity = fixture.with(CONSTITUTION, |c, tx| c.validate(tx, proposal)).unwrap();
    assert!(!validity.valid);
    assert_eq!(validity.description, "set: value must be a string, fly: no such action");
    let error = fixture.with(CONSTITUTION, |c, tx| c.validate(tx, "nonsense")).unwrap_err();
    assert!(message(&error).starts_with("SyntaxError"), "{error}");
    assert!(error.trace().unwrap().contains("/constitution.js:"), "{error:?}");
}

#[test]
fn replies_of_another_kind_are_errors() {
    let mut fixture = Fixture::new();
    for reply in ["true", "{}", "{valid: 1}", "{valid: true, description: 7}"] {
        let source = format!("export function validate(input) {{ return ({reply}); }}");
        let error = fixture.with(&source, |c, tx| c.validate(tx, "{}")).unwrap_err();
        assert!(matches!(error, ScriptError::BadReturn { .. }), "{reply}: {error:?}");
    }
    let source = "export function resolve(a, b, c, d) { return 7; }";
    let error = fixture.with(source, |c, tx| c.resolve(tx, "", "", &[], "")).unwrap_err();
    assert!(matches!(error, ScriptError::BadReturn { .. }), "{error:?}");
    let error = fixture.with("export const x = 1;", |c, tx| c.validate(tx, "")).unwrap_err();
    let (module, function) = ("/constitution.js".to_owned(), "validate".to_owned());
    assert_eq!(error, ScriptError::NoSuchFunction { module, function });
}

#[test]
fn ballots_read_governance_and_nothing_else() {
    let mut fixture = Fixture::new();
    let ballot = |body: &str| format!("export function vote(proposal, proposer) {{ {body} }}");
    assert_eq!(fixture.ballot(&ballot("return proposer === 'alice';")), Ok(true));
    let reads = "return ccf.kv['public:ccf.gov.users.certs'].size === 0 && ccf.kv['public:ccf.internal.tree'].size === 0;";
    assert_eq!(fixture.ballot(&ballot(reads)), Ok(true));
    for map in ["records", "public:records"] {
        let body = format!("return ccf.kv['{map}'].has(ccf.strToBuf('k'));");
        let error = fixture.ballot(&ballot(&body)).unwrap_err();
        assert!(
            message(&error).starts_with("TypeError: Cannot call has on table named"),
            "{error}"
        );
        assert!(message(&error).contains(map), "{error}");
    }
    let write = "ccf.kv['public:ccf.gov.x'].set(ccf.strToBuf('k'), ccf.strToBuf('v'));";
    let error = fixture.ballot(&ballot(write)).unwrap_err();
    assert!(message(&error).contains("read-only"), "{error}");
    for missing in ["node", "network", "rpc", "historical", "consensus", "refreshAppBytecodeCache"]
    {
        let body = format!("return ccf.{missing} === undefined && !('{missing}' in ccf);");
        assert_eq!(fixture.ballot(&ballot(&body)), Ok(true), "{missing}");
    }
    assert!(matches!(fixture.ballot(&ballot("return 1;")), Err(ScriptError::BadReturn { .. })));
    let error = fixture.ballot("this is no ballot").unwrap_err();
    assert!(message(&error).starts_with("SyntaxError"), "{error}");
}

#[test]
fn apply_writes_public_application_maps_blindly() {
    let mut fixture = Fixture::new();
    let set = |map: &str| format!("ccf.kv['{map}'].set(ccf.strToBuf('k'), ccf.strToBuf('v'));");
    fixture.apply(&set("public:records"), &NoNatives).unwrap();
    let read = "ccf.kv['public:records'].get(ccf.strToBuf('k'))";
    let error = fixture.apply(read, &NoNatives).unwrap_err();
    assert!(message(&error).contains("write-only"), "{error}");
    let error = fixture.apply(&set("records"), &NoNatives).unwrap_err();
    assert!(message(&error).contains("not accessible"), "{error}");
    let error = fixture.apply(&set("public:ccf.internal.tree"), &NoNatives).unwrap_err();
    assert!(message(&error).contains("read-only"), "{error}");
}

/// Writes down what it is asked.
#[derive(Default)]
struct Recorder(Mutex<Vec<String>>);

impl Recorder {
    fn note(&self, line: String) -> Result<(), NativeError> {
        self.0.lock().push(line);
        Ok(())
    }
}

impl ApplyNatives for Recorder {
    fn trigger_ledger_rekey(&self, tx: &mut Tx) -> Result<(), NativeError> {
        tx.put(&MapName::new("rekey"), b"k".as_slice(), b"v".as_slice());
        self.note("rekey".to_owned())
    }

    fn transition_service_to_open(
        &self,
        _tx: &mut Tx,
        previous: Option<&[u8]>,
        next: &[u8],
    ) -> Result<(), NativeError> {
        self.note(format!("open {previous:?} {next:?}"))
    }

    fn latest_ledger_secret_seqno(&self, _tx: &mut Tx) -> Result<Seqno, NativeError> {
        Ok(Seqno(17))
    }

    fn generate_endorsed_certificate(
        &self,
        _tx: &mut Tx,
        csr_pem: &str,
        valid_from: &str,
        validity_days: u32,
    ) -> Result<String, NativeError> {
        Ok(format!("{csr_pem} {valid_from} {validity_days}"))
    }

    fn set_jwt_public_signing_keys(
        &self,
        _tx: &mut Tx,
        issuer: &str,
        metadata: &serde_json::Value,
        jwks: &serde_json::Value,
    ) -> Result<(), NativeError> {
        self.note(format!("keys {issuer} {metadata} {jwks}"))
    }
}

#[test]
fn natives_are_asked_and_may_refuse() {
    let mut fixture = Fixture::new();
    let recorder = Recorder::default();
    let body = r#"
        const buf = ccf.strToBuf;
        ccf.node.triggerLedgerRekey();
        ccf.node.transitionServiceToOpen(undefined, buf("b"));
        ccf.node.transitionServiceToOpen(buf("a"), buf("b"));
        ccf.node.transitionServiceToOpen(buf("c"));
        if (ccf.network.getLatestLedgerSecretSeqno() !== 17) throw new Error("seqno");
        const cert = ccf.network.generateEndorsedCertificate("csr", "from", 30);
        if (cert !== "csr from 30") throw new Error(cert);
        ccf.setJwtPublicSigningKeys("issuer", {a: [1, null]}, {keys: []});
    "#;
    fixture.apply(body, &recorder).unwrap();
    let expected = [
        "rekey",
        "open None [98]",
        "open Some([97]) [98]",
        "open None [99]",
        r#"keys issuer {"a":[1,null]} {"keys":[]}"#,
    ];
    assert_eq!(*recorder.0.lock(), expected);
    assert!(fixture.tx.has(&MapName::new("rekey"), b"k"));
    for (native, name) in [
        ("node.triggerSnapshot()", "ccf.node.triggerSnapshot"),
        ("node.triggerLedgerChunk()", "ccf.node.triggerLedgerChunk"),
        ("node.triggerRecoverySharesRefresh()", "ccf.node.triggerRecoverySharesRefresh"),
        ("network.generateNetworkCertificate('x', 1)", "ccf.network.generateNetworkCertificate"),
        ("refreshAppBytecodeCache()", "ccf.refreshAppBytecodeCache"),
        ("removeJwtPublicSigningKeys('x')", "ccf.removeJwtPublicSigningKeys"),
    ] {
        let error = fixture.apply(&format!("ccf.{native};"), &recorder).unwrap_err();
        assert_eq!(message(&error), format!("Error: {name} is not supported by this node"));
    }
    let error = fixture.apply("ccf.node.transitionServiceToOpen('pem')", &recorder).unwrap_err();
    assert!(message(&error).contains("must be an ArrayBuffer"), "{error}");
}

#[test]
fn the_time_of_ballots_is_limited_whatever_they_call() {
    let mut fixture = Fixture::new();
    fixture.node = TestNode::ticking(50);
    let ballot = "export function vote() {
        for (let i = 0; i < 200; i++) { try { ccf.strToBuf('x'); } catch {} }
        return true;
    }";
    let limit_ms = Limits::default().execution_ms;
    assert_eq!(fixture.ballot(ballot), Err(ScriptError::Timeout { limit_ms }));
    assert_eq!(fixture.ballot("export function vote() { return true; }"), Ok(true));
}

#[test]
fn modules_are_checked_from_within_apply() {
    /// Compiles the application's modules, as the real native does.
    struct Refresh<'a>(&'a ScriptEngine, &'a TestNode);

    impl ApplyNatives for Refresh<'_> {
        fn refresh_app_bytecode_cache(&self, tx: &mut Tx) -> Result<(), NativeError> {
            let table = MapName::new("public:ccf.gov.modules");
            let checked = self.0.check_modules(tx, self.1, &table);
            checked.map_err(|error| NativeError::new(error.to_string()))
        }
    }

    let Fixture { engine, node, mut tx } = Fixture::new();
    let mut install = |modules: &str| {
        let source = format!(
            "export function apply(proposal, proposalId) {{
                const modules = ccf.kv['public:ccf.gov.modules'];
                modules.clear();
                for (const [name, text] of {modules}) {{
                    modules.set(ccf.strToBuf(name), ccf.strToBuf(text));
                }}
                ccf.refreshAppBytecodeCache();
                return ccf.kv['public:ccf.gov.modules'].size;
            }}"
        );
        let constitution = Constitution {
            engine: &engine,
            source: &source,
            environment: &node,
            limits: Limits::default(),
        };
        constitution.apply(&mut tx, &Refresh(&engine, &node), "{}", "p")
    };
    install(r#"[["/a.js", "import './b.js';"], ["/b.js", "import './a.js'; let x;"]]"#).unwrap();
    let error = install(r#"[["/a.js", "let let = 1;"]]"#).unwrap_err();
    assert!(message(&error).contains("SyntaxError"), "{error}");
    let error = install(r#"[["/a.js", "import './gone.js';"]]"#).unwrap_err();
    assert!(message(&error).contains("/gone.js"), "{error}");
}

#[test]
fn modules_are_checked_without_a_store() {
    let good = [("a.js", "import './lib/b.js'; export let x = 1;"), ("/lib/b.js", "missing();")];
    check_sources(&good).unwrap();
    let error = check_sources(&[good[0], ("lib/b.js", "let y = 1;\nlet let = 1;")]).unwrap_err();
    assert!(message(&error).contains("SyntaxError"), "{error}");
    let ScriptError::Thrown(Thrown { position, .. }) = error else { panic!("{error:?}") };
    assert_eq!(position, Some(Position { file: "/lib/b.js".to_owned(), line: 2 }));
    let error = check_sources(&good[..1]).unwrap_err();
    assert!(message(&error).contains("/lib/b.js"), "{error}");
}

#[test]
fn ballots_are_recognised() {
    check_ballot("export function vote(proposal, proposerId) { return missing; }").unwrap();
    let error = check_ballot("\nexport function vote( {").unwrap_err();
    let ScriptError::Thrown(Thrown { position, .. }) = error else { panic!("{error:?}") };
    assert_eq!(position.unwrap().line, 2);
    let error = check_ballot("export function votes() {}").unwrap_err();
    assert!(matches!(error, ScriptError::NoSuchFunction { .. }), "{error:?}");
}

#[test]
fn constitutions_are_recognised() {
    check_constitution(CONSTITUTION).unwrap();
    let missing = CONSTITUTION.replace("export function apply", "function apply");
    let error = check_constitution(&missing).unwrap_err();
    assert!(matches!(error, ScriptError::NoSuchFunction { .. }), "{error:?}");
    let fewer =
        CONSTITUTION.replace("resolve(proposal, proposerId, votes, proposalId)", "resolve(a)");
    let error = check_constitution(&fewer).unwrap_err();
    let function = "resolve".to_owned();
    assert_eq!(error, ScriptError::BadParameters { function, expected: 4, found: 1 });
    assert!(check_constitution("export function").is_err());
    let endless = check_constitution(&format!("{CONSTITUTION}\nfor (;;);")).unwrap_err();
    assert!(matches!(endless, ScriptError::Timeout { .. }), "{endless:?}");

    // The same from within a script, which is not disturbed by it.
    let ballot = |candidate: &str| {
        format!(
            "export function vote() {{
                const before = ccf.kv['public:ccf.gov.constitution'].size;
                const valid = ccf.gov.validateConstitution({});
                return valid && before === ccf.kv['public:ccf.gov.constitution'].size;
            }}",
            serde_json::to_string(candidate).unwrap(),
        )
    };
    let mut fixture = Fixture::new();
    assert_eq!(fixture.ballot(&ballot(CONSTITUTION)), Ok(true));
    let error = fixture.ballot(&ballot("export function validate(input) {}")).unwrap_err();
    assert!(message(&error).starts_with("Error: Invalid constitution"), "{error}");
    let endless = format!("while (true); {CONSTITUTION}");
    let mut fixture = Fixture { node: TestNode::ticking(50), ..fixture };
    let error = fixture.ballot(&ballot(&endless)).unwrap_err();
    assert!(message(&error).contains("took longer"), "{error:?}");
}

#[test]
fn governance_never_gets_less_than_the_defaults() {
    let mut fixture = Fixture::new();
    let ballot = "export function vote() {
        const big = new Array(100000).fill(0).map((_, index) => `text ${index}`);
        return big.length === 100000;
    }";
    assert_eq!(fixture.ballot(ballot), Ok(true));
}

#[test]
fn awaited_functions_are_settled() {
    let mut fixture = Fixture::new();
    let ballot = "export async function vote() { await null; return true; }";
    assert_eq!(fixture.ballot(ballot), Ok(true));
    let ballot = "export function vote() { return new Promise(() => {}); }";
    let error = fixture.ballot(ballot).unwrap_err();
    assert_eq!(error, ScriptError::NeverSettles { function: "vote".to_owned() });
}
