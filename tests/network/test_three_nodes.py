"""Three nodes as processes on loopback: they join, replicate, and survive their primary."""

import copy
import json
import pathlib
import ssl
import subprocess
import time

import httpx
import pytest
from service import BINARIES, Service

APP = {
    "metadata": {
        "endpoints": {
            "/records/{key}": {
                verb: {
                    "js_module": "records.js",
                    "js_function": verb,
                    "forwarding_required": "sometimes",
                    "authn_policies": ["no_auth"],
                    "mode": mode,
                    "openapi": {},
                }
                for verb, mode in (("put", "readwrite"), ("get", "readonly"))
            }
        }
    },
    "modules": [
        {
            "name": "records.js",
            "module": """
const records = ccf.kv["records"];
export function put(request) {
  records.set(ccf.strToBuf(request.params.key), request.body.arrayBuffer());
  return { statusCode: 204 };
}
export function get(request) {
  const value = records.get(ccf.strToBuf(request.params.key));
  return value === undefined ? { statusCode: 404 } : { body: ccf.bufToStr(value) };
}
""",
        }
    ],
}


class Node(Service):
    """One node of several: `coco node start` with a folder of its own, and the keys of the first."""

    def __init__(self, keys: pathlib.Path, folder: pathlib.Path, config: dict):
        super().__init__(keys)
        self.home = folder
        self.config = config

    @property
    def ledger(self) -> pathlib.Path:
        return self.home / "ledger"

    def start(self):
        self.home.mkdir()
        file = self.home / "node.json"
        file.write_text(json.dumps(self.config))
        self.log = open(self.home / "node.log", "ab")
        self.process = subprocess.Popen(
            [str(BINARIES / "coco"), "node", "start", "--config", str(file)],
            stdout=self.log,
            stderr=self.log,
            stdin=subprocess.PIPE,
        )
        addresses = self.home / "rpc_addresses.json"
        deadline = time.monotonic() + 30
        while not addresses.exists() or not addresses.read_text():
            log = (self.home / "node.log").read_text()
            assert self.process.poll() is None and time.monotonic() < deadline, log
            time.sleep(0.02)
        self.url = "https://" + json.loads(addresses.read_text())["primary_rpc_interface"]

    def release(self):
        if self.process:
            self.process.stdin.close()
            self.log.close()
            self.process = None

    def put(self, key: str, value: str) -> httpx.Response:
        """Writes wherever the primary is, and waits until it is committed."""
        with httpx.Client(verify=self.context(), timeout=10, follow_redirects=True) as client:
            headers = {"x-coco-wait": "committed"}
            return client.put(f"{self.url}/app/records/{key}", content=value, headers=headers)

    def get(self, path: str) -> httpx.Response:
        with httpx.Client(verify=self.context(), timeout=10) as client:
            return client.get(f"{self.url}{path}")

    def context(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=self.service_cert_file)


def configs(keys: pathlib.Path, folder: pathlib.Path, count: int):
    """From what `coco dev` writes: a node that starts a service, and some that join it."""
    template = json.loads((keys / "node.json").read_text())
    interfaces = template["network"]["rpc_interfaces"]
    template["network"]["rpc_interfaces"] = {
        name: it for name, it in interfaces.items() if "coco" not in it
    }
    template["command"]["start"].pop("protocols")
    template["output_files"].pop("sealed_service_location")
    for number in range(count):
        config, home = copy.deepcopy(template), folder / f"node{number}"
        config["network"]["node_to_node_interface"] = {"bind_address": "127.0.0.1:0"}
        for interface in config["network"]["rpc_interfaces"].values():
            interface["bind_address"] = "127.0.0.1:0"
        config["ledger"] = {"directory": str(home / "ledger"), "chunk_size": "50KB"}
        config["snapshots"] = {"directory": str(home / "snapshots")}
        config["output_files"] |= {
            "node_certificate_file": str(home / "node_cert.pem"),
            "pid_file": str(home / "node.pid"),
            "rpc_addresses_file": str(home / "rpc_addresses.json"),
            "node_to_node_address_file": str(home / "node_address"),
        }
        config["command"]["type"] = "Join" if number else "Start"
        yield home, config


def open_service(node: Node):
    for member in node.members:
        path = f"members/state-digests/{member.id}"
        digest = node.govern(member, f"{path}:update", "state_digest", b"")
        assert digest.status_code == 200, digest.text
        acknowledged = node.govern(member, f"{path}:ack", "ack", digest.json())
        assert acknowledged.status_code == 204, acknowledged.text
    node.propose(
        {"name": "set_js_app", "args": {"bundle": APP}},
        {
            "name": "transition_service_to_open",
            "args": {"next_service_identity": node.service_cert_file.read_text()},
        },
    )
    until(lambda: node.get("/node/ready/app").status_code == 204)


def until(holds, seconds: float = 20):
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture
def nodes(tmp_path):
    """An open service of three nodes, which all count."""
    keys = tmp_path / "keys"
    with Service(keys):
        pass
    started = []
    try:
        for number, (home, config) in enumerate(configs(keys, tmp_path, 3)):
            if number:
                target = started[0].url.removeprefix("https://")
                config["command"]["join"] = {"target_rpc_address": target, "retry_timeout": "100ms"}
            node = Node(keys, home, config)
            started.append(node)
            node.start()

        def voters():
            details = started[0].get("/node/consensus").json()["details"]
            return [len(config["nodes"]) for config in details["configs"]]

        until(lambda: voters() == [3])
        open_service(started[0])
        yield started
    finally:
        for node in started:
            if node.process:
                node.process.kill()
                node.process.wait()
                node.release()


def put_in_time(node: Node, key: str, deadline: float) -> httpx.Response:
    """Tries until there is a primary; until then clients are sent to the one that is gone."""
    while True:
        try:
            written = node.put(key, "value")
            if written.status_code == 204:
                return written
        except httpx.TransportError:
            pass
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_service_of_three_nodes_survives_its_primary(nodes):
    for number, node in enumerate(nodes):
        written = node.put(f"through{number}", f"value {number}")
        assert written.status_code == 204, written.text
    transaction = written.headers["x-ms-ccf-transaction-id"]
    for node in nodes:
        status = lambda: node.get(f"/node/tx?transaction_id={transaction}").json()["status"]
        until(lambda: status() == "Committed")
        assert node.get("/app/records/through0").text == "value 0"
        primary = node.get("/node/network").json()["primary_id"]
        assert node.get("/node/network/nodes/primary").json()["node_id"] == primary
    assert nodes[0].get("/node/primary").status_code == 200
    assert [node.get("/node/backup").status_code for node in nodes] == [404, 200, 200]

    killed_at = time.monotonic()
    nodes[0].kill()
    for number, node in enumerate(nodes[1:]):
        written = put_in_time(node, f"after{number}", killed_at + 20)
    print(f"written again {time.monotonic() - killed_at:.2f} s after the primary was killed")
    transaction = written.headers["x-ms-ccf-transaction-id"]
    for node in nodes[1:]:
        node.wait_committed(transaction)
        for number in range(3):
            assert node.get(f"/app/records/through{number}").text == f"value {number}"
        assert node.get("/app/records/after0").text == "value"
    for node in nodes[1:]:
        node.stop()
    for node in nodes:
        node.verify_ledger()
