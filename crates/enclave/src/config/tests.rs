use super::*;

/// What CCF's test infrastructure writes, with all its oddities.
const CCF: &str = r#"{
  "network": {
    "node_to_node_interface": {"bind_address": "127.1.2.3:0"},
    "rpc_interfaces": {
      "primary_rpc_interface": {
        "bind_address": "127.1.2.3:0", "published_address": "node:8000",
        "max_open_sessions_soft": 1000, "max_open_sessions_hard": 1010,
        "app_protocol": "HTTP1",
        "http_configuration": {"max_body_size": "2MB", "max_header_size": "100KB"},
        "endorsement": {"authority": "Node"},
        "accepted_endpoints": ["/node/.*"],
        "forwarding_timeout_ms": 500,
        "redirections": {
          "to_primary": {"kind": "NodeByRole", "target": {"role": "primary"}},
          "to_backup": {"kind": "StaticAddress", "target": {"address": "lb:443"}}
        }
      }
    }
  },
  "node_certificate": {"subject_name": "CN=CCF Node", "subject_alt_names": ["iPAddress:127.1.2.3"],
    "curve_id": "Secp384R1", "initial_validity_days": 1},
  "node_data_json_file": "", "service_data_json_file": null,
  "attestation": {"snp_endorsements_servers": [{"type": "Azure", "url": "example.com"}],
    "snp_security_policy_file": "$POLICY/x"},
  "command": {"type": "Start", "service_certificate_file": "service_cert.pem",
    "start": {"constitution_files": ["a.js"],
      "members": [{"certificate_file": "m.pem", "encryption_public_key_file": "e.pem",
        "recovery_role": "Participant"}],
      "service_configuration": {"recovery_threshold": 1,
        "maximum_service_certificate_validity_days": 365},
      "initial_service_certificate_validity_days": 90, "service_subject_name": "CN=x",
      "cose_signatures": {"issuer": "i", "subject": "s"}}},
  "ledger": {"directory": "0.ledger", "read_only_directories": ["ro"], "chunk_size": "20KB"},
  "snapshots": {"directory": "0.snapshots", "tx_count": 10, "read_only_directory": "ro"},
  "logging": {"host_level": "info", "format": "Text"},
  "consensus": {"message_timeout": "100ms", "election_timeout": "4000ms"},
  "ledger_signatures": {"tx_count": 5000, "delay": "100ms"},
  "jwt": {"key_refresh_interval": "30min"},
  "output_files": {"node_certificate_file": "0.pem", "pid_file": "node.pid",
    "node_to_node_address_file": "0.node_address", "rpc_addresses_file": "0.rpc_addresses"},
  "tick_interval": "1ms", "slow_io_logging_threshold": "10ms",
  "client_connection_timeout": "2000ms", "idle_connection_timeout": null,
  "node_client_interface": "127.100.0.1", "worker_threads": 0,
  "memory": {"circuit_size": "16MB", "max_msg_size": "64MB", "max_fragment_size": "256KB"},
  "ignore_first_sigterm": false, "node_to_node_message_limit": 23726566,
  "historical_cache_soft_limit": "512MB"
}"#;

const LEAST: &str = r#"{"network": {"rpc_interfaces": {"main": {"bind_address": "[::1]:0"}}},
    "command": {"type": "Restart"}}"#;

#[test]
fn a_file_of_ccf_is_accepted() {
    let config = Config::parse(CCF).unwrap();
    assert_eq!(config.ledger.chunk_size, Size(20 << 10));
    assert_eq!(config.idle_connection_timeout, None);
    let interface = config.interface("primary_rpc_interface").unwrap();
    assert_eq!(interface.endorsement.authority, Authority::Node);
    let redirections = interface.redirections.clone().unwrap();
    let expected = Redirection::NodeByRole { role: Role::Primary, interface: None };
    assert_eq!(redirections.to_primary, Some(expected));
    let again = serde_json::to_string(&config).unwrap();
    assert_eq!(Config::parse(&again).unwrap(), config);
}

#[test]
fn absent_keys_take_the_defaults() {
    let config = Config::parse(LEAST).unwrap();
    assert_eq!(config.ledger_signatures.tx_count, 5_000);
    assert_eq!(config.ledger_signatures.delay, millis(10));
    assert_eq!(config.ledger_signatures.node_delay, millis(1_000));
    assert_eq!(config.node_certificate.curve_id, CurveId::Secp256R1);
    assert_eq!(config.ledger.sync, Sync::Always);
    assert_eq!(config.idle_connection_timeout, Some(millis(60_000)));
    let interface = config.interface("main").unwrap();
    assert_eq!(interface.max_open_sessions_hard, 1_010);
    assert_eq!(interface.http_configuration.max_body_size, megabytes(1));
}

#[test]
fn unknown_keys_and_impossible_values_are_refused() {
    let changed = |from: &str, to: &str| {
        assert!(CCF.contains(from), "{from}");
        Config::parse(&CCF.replacen(from, to, 1)).map(|_| ()).unwrap_err().to_string()
    };
    assert!(changed("\"tick_interval\"", "\"tick\"").contains("unknown field `tick`"));
    assert!(changed("\"chunk_size\"", "\"chunksize\"").contains("unknown field `chunksize`"));
    assert!(changed("20KB", "20 kilo").contains("20 kilo"));
    assert!(changed("20KB", "0B").contains("ledger.chunk_size"));
    assert!(changed("\"Start\"", "\"Join\"").contains("command.join"));
    assert!(changed("\"Node\"", "\"Nobody\"").contains("Nobody"));
    assert!(changed("soft\": 1000", "soft\": 2000").contains("max_open_sessions_soft"));
    let days = "validity_days\": 90";
    assert!(changed(days, "validity_days\": 0").contains("initial_service_certificate"));
    assert!(changed("\"primary\"", "\"king\"").contains("king"));
    assert!(changed("\"4000ms\"", "\"0ms\"").contains("consensus.election_timeout"));
    assert!(
        changed("\"message_timeout\": \"100ms\"", "\"message_timeout\": \"0ms\"").contains("1ms")
    );
    assert!(changed("127.1.2.3:0", "127.1.2.3").contains("node_to_node_interface.bind_address"));
    assert!(changed("\"100KB\"", "\"0B\"").contains("max_header_size"));
    let threshold = "\"recovery_threshold\": 1";
    let service = |text: &str| changed(threshold, &format!("{threshold}, {text}"));
    assert!(service("\"recent_cose_proposals_window_size\": 0").contains("1 to 10000"));
    assert!(service("\"reconfiguration_type\": \"Foo\"").contains("OneTransaction"));
    assert!(service("\"consensus\": \"BFT\"").contains("CFT"));
    let cleanup = |text: &str| {
        let with = format!("\"files_cleanup\": {{{text}}}, \"ignore_first_sigterm\"");
        changed("\"ignore_first_sigterm\"", &with)
    };
    assert!(cleanup("\"max_snapshots\": 0").contains("files_cleanup.max_snapshots"));
    assert!(cleanup("\"interval\": \"0s\"").contains("files_cleanup.interval"));
    let chunks = "files_cleanup.max_committed_ledger_chunks";
    assert!(cleanup("\"max_committed_ledger_chunks\": 0").contains(chunks));
    let five = "\"files_cleanup\": {\"max_committed_ledger_chunks\": 5}, \"command\"";
    let without_archive = Config::parse(&LEAST.replacen("\"command\"", five, 1)).unwrap_err();
    assert!(without_archive.to_string().contains("read_only_directories"));
}
