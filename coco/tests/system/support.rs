//! A `coco` process, and calls to it as a participant makes them.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;
use ureq::Agent;
use ureq::tls::{Certificate, ClientCert, PrivateKey, RootCerts, TlsConfig, TlsProvider};

/// A program run to its end.
pub fn coco(directory: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_coco"));
    command.current_dir(directory).args(arguments).output().unwrap()
}

/// The JSON that a successful command prints.
pub fn coco_json(directory: &Path, arguments: &[&str]) -> Value {
    let output = coco(directory, &[arguments, &["--json"]].concat());
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {error}");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// A process that is told to stop, or killed, at the end.
pub struct Process {
    child: Child,
    stdout: Option<BufReader<std::process::ChildStdout>>,
}

impl Process {
    pub fn spawn(directory: &Path, arguments: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_coco"))
            .current_dir(directory)
            .args(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stdout = child.stdout.take().map(BufReader::new);
        Self { child, stdout }
    }

    /// The next line of output; fails with what the process said on stderr.
    pub fn line(&mut self) -> String {
        let mut line = String::new();
        if self.stdout.as_mut().unwrap().read_line(&mut line).unwrap() == 0 {
            let status = self.child.wait().unwrap();
            panic!("the process ended ({status}): {}", self.error_text());
        }
        line
    }

    /// What `| head` does in the end.
    pub fn stop_reading(&mut self) {
        self.stdout = None;
    }

    pub fn signal(&self, name: &str) {
        let status = Command::new("kill").args(["-s", name, &self.child.id().to_string()]).status();
        assert!(status.unwrap().success());
    }

    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Waits for the end; a node stops within 10 s.
    pub fn wait(&mut self) -> ExitStatus {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(start.elapsed() < Duration::from_secs(10), "the process does not stop");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub fn error_text(&mut self) -> String {
        let mut text = String::new();
        let stderr = self.child.stderr.as_mut().unwrap();
        std::io::Read::read_to_string(stderr, &mut text).unwrap();
        text
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ended_already = self.child.kill();
        let _reaped_already = self.child.wait();
    }
}

/// `coco dev` in a directory of its own.
pub struct Dev {
    pub directory: TempDir,
    pub process: Process,
    pub service: Value,
}

impl Dev {
    pub fn start(more: &[&str]) -> Self {
        Self::start_in(TempDir::new().unwrap(), more)
    }

    pub fn start_in(directory: TempDir, more: &[&str]) -> Self {
        let arguments = [&["dev", "--port", "0", "--json"], more].concat();
        let mut process = Process::spawn(directory.path(), &arguments);
        let service = serde_json::from_str(&process.line()).unwrap();
        Self { directory, process, service }
    }

    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    fn file(&self, name: &str) -> PathBuf {
        self.path().join("coco-dev").join(name)
    }

    pub fn url(&self) -> &str {
        self.service["url"].as_str().unwrap()
    }

    /// A client with a participant's certificate.
    pub fn client(&self, user: &str) -> Agent {
        let read = |name: String| std::fs::read(self.file(&name)).unwrap();
        let root = Certificate::from_pem(&read("service_cert.pem".into())).unwrap();
        let own = Certificate::from_pem(&read(format!("{user}_cert.pem"))).unwrap();
        let key = PrivateKey::from_pem(&read(format!("{user}_privk.pem"))).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = TlsConfig::builder()
            .provider(TlsProvider::Rustls)
            .root_certs(RootCerts::Specific(Arc::new(vec![root])))
            .client_cert(Some(ClientCert::new_with_certs(&[own], key)))
            .unversioned_rustls_crypto_provider(provider)
            .build();
        Agent::config_builder().tls_config(tls).http_status_as_error(false).build().into()
    }

    /// Writes a record; gives its transaction id once it is committed.
    pub fn put(&self, client: &Agent, path: &str, body: &str) -> String {
        let url = format!("{}{path}", self.url());
        let reply = client.put(&url).header("x-coco-wait", "committed").send(body).unwrap();
        assert_eq!(reply.status(), 204, "{path}");
        reply.headers()["x-ms-ccf-transaction-id"].to_str().unwrap().to_owned()
    }

    pub fn get(&self, client: &Agent, path: &str) -> (u16, String) {
        let mut reply = client.get(format!("{}{path}", self.url())).call().unwrap();
        (reply.status().as_u16(), reply.body_mut().read_to_string().unwrap())
    }

    /// Asks the node to stop, as an operator does.
    pub fn stop(mut self) -> TempDir {
        self.process.signal("TERM");
        assert!(self.process.wait().success());
        assert_eq!(self.process.error_text(), "");
        self.directory
    }

    /// What a power cut does to the process.
    pub fn kill(mut self) -> TempDir {
        self.process.kill();
        self.directory
    }
}
