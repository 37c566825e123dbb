//! Recorded CCF services: their governed tables read into our types and, written back, are the same
//! bytes wherever the value has the present format; their constitution runs here.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use coco_governance::default_constitution;
use coco_governance::tables::{self, Cell, Table, TableKey, TableValue};
use coco_kv::WriteSet;
use coco_ledger::{ChunkName, ChunkReader, Entry};
use serde_json::json;

use super::harness::{Member, Service};

/// The value read and written back.
type RoundTrip = fn(&[u8], &[u8]) -> Result<Vec<u8>, String>;

fn of_table<K: TableKey, V: TableValue>(table: &Table<K, V>) -> (String, RoundTrip) {
    fn round_trip<K: TableKey, V: TableValue>(key: &[u8], value: &[u8]) -> Result<Vec<u8>, String> {
        assert_eq!(K::from_bytes(key)?.to_bytes(), key);
        Ok(V::from_bytes(value)?.to_bytes())
    }
    (table.name().as_str().to_owned(), round_trip::<K, V>)
}

fn of_cell<V: TableValue>(cell: &Cell<V>) -> (String, RoundTrip) {
    fn round_trip<V: TableValue>(key: &[u8], value: &[u8]) -> Result<Vec<u8>, String> {
        assert_eq!(key, [0; 8]);
        Ok(V::from_bytes(value)?.to_bytes())
    }
    (cell.name().as_str().to_owned(), round_trip::<V>)
}

fn typed_tables() -> BTreeMap<String, RoundTrip> {
    BTreeMap::from([
        of_table(&tables::MEMBER_CERTS),
        of_table(&tables::MEMBER_ENCRYPTION_KEYS),
        of_table(&tables::MEMBERS),
        of_table(&tables::MEMBER_ACKS),
        of_table(&tables::USER_CERTS),
        of_table(&tables::USERS),
        of_table(&tables::NODES),
        of_table(&tables::NODE_ENDORSED_CERTS),
        of_table(&tables::SGX_MEASUREMENTS),
        of_table(&tables::VIRTUAL_MEASUREMENTS),
        of_table(&tables::VIRTUAL_HOST_DATA),
        of_table(&tables::SNP_MEASUREMENTS),
        of_table(&tables::SNP_HOST_DATA),
        of_table(&tables::SNP_UVM_ENDORSEMENTS),
        of_table(&tables::SNP_TCB_VERSIONS),
        of_cell(&tables::SERVICE_INFO),
        of_cell(&tables::SERVICE_CONFIG),
        of_cell(&tables::PREVIOUS_SERVICE_IDENTITY),
        of_cell(&tables::CONSTITUTION),
        of_table(&tables::PROPOSALS),
        of_table(&tables::PROPOSALS_INFO),
        of_table(&tables::COSE_HISTORY),
        of_table(&tables::COSE_RECENT_PROPOSALS),
        of_table(&tables::MODULES),
        of_table(&tables::MODULES_BYTECODE),
        of_cell(&tables::MODULES_BYTECODE_VERSION),
        of_table(&tables::ENDPOINTS),
        of_cell(&tables::JS_RUNTIME_OPTIONS),
        of_cell(&tables::INTERPRETER_FLUSH),
        of_table(&tables::CA_CERT_BUNDLES),
        of_table(&tables::JWT_ISSUERS),
        of_table(&tables::JWT_PUBLIC_SIGNING_KEYS),
        of_cell(&tables::RECOVERY_SHARES),
        of_cell(&tables::HISTORICAL_ENCRYPTED_LEDGER_SECRET),
        of_cell(&tables::ENCRYPTED_LEDGER_SECRETS),
        of_table(&tables::ENCRYPTED_SUBMITTED_SHARES),
        of_cell(&tables::PREVIOUS_SERVICE_IDENTITY_ENDORSEMENT),
        of_cell(&tables::PREVIOUS_SERVICE_LAST_SIGNED_ROOT),
        of_cell(&tables::LAST_RECOVERY_TYPE),
    ])
}

/// Tables of older versions and of the ledger itself, which governance does not read.
const NOT_OURS: [&str; 9] = [
    "public:ccf.gov.history",
    "public:ccf.gov.jwt.public_signing_key_issuer",
    "public:ccf.gov.jwt.public_signing_keys",
    "public:ccf.gov.jwt.public_signing_keys_metadata",
    "public:ccf.internal.signatures",
    "public:ccf.internal.cose_signatures",
    "public:ccf.internal.tree",
    "public:ccf.internal.snapshot_evidence",
    "public:ccf.internal.values",
];

/// Whether two values say the same: JSON that a constitution wrote keeps its own order of keys, and
/// PEM of old ledgers ends with a NUL.
fn is_older_form(ours: &[u8], recorded: &[u8]) -> bool {
    let json = |bytes| serde_json::from_slice::<serde_json::Value>(bytes).ok();
    let same_json = json(ours).is_some() && json(ours) == json(recorded);
    same_json || (ours.starts_with(b"-----BEGIN") && recorded.strip_suffix(b"\0") == Some(ours))
}

#[test]
fn recorded_tables_read_and_write_back() {
    let Some(root) = vectors("ccf") else { return };
    let typed = typed_tables();
    let (mut checked, mut unequal) = (BTreeMap::<String, usize>::new(), 0);
    for writes in ledger_files(&root).iter().flat_map(|file| transactions(file)) {
        for map in writes.maps() {
            let name = map.name().as_str();
            let framework = name.starts_with("public:ccf.");
            if !framework || NOT_OURS.contains(&name) {
                continue;
            }
            let round_trip = typed.get(name).unwrap_or_else(|| panic!("no type for {name}"));
            for (key, value) in map.puts() {
                let ours = round_trip(key, value)
                    .unwrap_or_else(|why| panic!("{name} {}: {why}", value.escape_ascii()));
                if ours != value.as_slice() {
                    assert!(is_older_form(&ours, value), "{name}: {}", value.escape_ascii());
                    unequal += 1;
                }
                *checked.entry(name.to_owned()).or_default() += 1;
            }
        }
    }
    let total: usize = checked.values().sum();
    eprintln!("{total} values of {} tables, {unequal} in an older form", checked.len());
    assert!(total > 500 && checked.len() > 25, "{checked:?}");
}

/// What each transaction of a chunk writes in plain text.
fn transactions(file: &Path) -> Vec<WriteSet> {
    let bytes = std::fs::read(file).unwrap();
    let name: ChunkName = file.file_name().unwrap().to_str().unwrap().parse().unwrap();
    let chunk = ChunkReader::new(name, &bytes).unwrap();
    let entries = chunk.entries().map(|entry| Entry::parse(entry.unwrap().bytes).unwrap());
    entries.map(|entry| entry.public_writes().unwrap()).collect()
}

/// CCF's own constitution, as a service that was started with it recorded it.
#[test]
fn ccfs_constitution_governs_here_too() {
    let Some(root) = vectors("ccf/cose_flipflop_service") else { return };
    let first = transactions(&root.join("ledger/ledger_1-14.committed")).remove(0);
    let recorded = first.map(tables::CONSTITUTION.name()).and_then(|map| map.get(&[0; 8]));
    let constitution: String = serde_json::from_slice(recorded.unwrap().unwrap()).unwrap();

    let service = Service::with_constitution(constitution);
    for member in &service.members {
        service.activate(member);
    }
    service.pass("transition_service_to_open", json!({"next_service_identity": service.cert}));
    let user = Member::new("user0", false, service.environment_entropy());
    service.pass("set_user", json!({"cert": user.cert.to_pem(), "user_data": {"role": "auditor"}}));
    service.get(&format!("/service/users/{}", user.id)).expect(200);
    service.pass("set_recovery_threshold", json!({"recovery_threshold": 3}));
    let endpoint = json!({
        "js_module": "app.js", "js_function": "hello", "mode": "readonly",
        "forwarding_required": "never", "authn_policies": ["user_cert"], "openapi": {},
    });
    let bundle = json!({
        "metadata": {"endpoints": {"/hello": {"get": endpoint}}},
        "modules": [{"name": "app.js", "module": "export function hello() {}"}],
    });
    service.pass("set_js_app", json!({"bundle": bundle, "disable_bytecode_cache": false}));
    let shown = service.get("/service/javascript-app").expect(200).json();
    assert_eq!(shown["endpoints"]["/hello"]["GET"]["jsModule"], "/app.js");
    let noise = service.propose(json!([{"name": "no_such_action", "args": {}}]));
    noise.refused(400, "ProposalFailedToValidate");
    service.pass("set_constitution", json!({"constitution": default_constitution()}));
    assert_eq!(service.get("/service/constitution").text(), default_constitution());
}

fn ledger_files(root: &Path) -> Vec<PathBuf> {
    let services = std::fs::read_dir(root).unwrap().map(|service| service.unwrap().path());
    let ledgers = services.map(|service| service.join("ledger")).filter(|path| path.is_dir());
    let files = ledgers.flat_map(|ledger| std::fs::read_dir(ledger).unwrap());
    files.map(|file| file.unwrap().path()).collect()
}

/// The recorded data, or `None` with a word about it.
fn vectors(name: &str) -> Option<PathBuf> {
    let default = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/vectors");
    let (root, in_ci) = (std::env::var_os("COCO_VECTORS"), std::env::var_os("CI"));
    let path = root.map_or_else(|| PathBuf::from(default), PathBuf::from).join(name);
    if path.is_dir() {
        return Some(path);
    }
    assert!(in_ci.is_none_or(|ci| ci != "true"), "{} is missing", path.display());
    eprintln!("skipped: {} is missing", path.display());
    None
}
