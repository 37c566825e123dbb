//! A node's configuration.
#![no_main]

use coco_enclave::config::Config;
use libfuzzer_sys::fuzz_target;

const SEED: &str = r#"{"network": {"node_to_node_interface": {"bind_address": "127.0.0.1:1"},
    "rpc_interfaces": {"a": {"bind_address": "[::1]:8000", "published_address": "a.b:443",
        "max_open_sessions_soft": 10, "max_open_sessions_hard": 20, "app_protocol": "HTTP2",
        "endorsement": {"authority": "Node"}, "accepted_endpoints": ["/node/.*"],
        "http_configuration": {"max_body_size": "1MB", "max_headers_count": 7},
        "coco": {"protocol": "ethereum", "allowed_origins": ["*"]}}}},
    "node_certificate": {"subject_name": "CN=a,O=b", "subject_alt_names": ["dNSName:a.b"],
        "curve_id": "Secp256R1", "initial_validity_days": 1},
    "command": {"type": "Start", "service_certificate_file": "a.pem", "start": {
        "constitution_files": ["a.js"], "members": [{"certificate_file": "a.pem",
            "encryption_public_key_file": "b.pem", "recovery_role": "Owner"}],
        "service_configuration": {"recovery_threshold": 1,
            "maximum_node_certificate_validity_days": 365}}},
    "ledger": {"directory": "l", "read_only_directories": ["r"], "chunk_size": "5MB"},
    "snapshots": {"directory": "s", "tx_count": 10, "min_tx_count": 2, "time_interval": "5m"},
    "logging": {"host_level": "Info", "format": "Json"}, "idle_connection_timeout": "60s",
    "tick_interval": "10ms"}"#;

fuzz_target!(init: coco_fuzz::seed("enclave_config", [SEED]), |text: &str| {
    let _ = Config::parse(text);
});
