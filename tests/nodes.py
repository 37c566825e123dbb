"""A service of several nodes, each a `coco node start` of its own on loopback."""

from __future__ import annotations

import contextlib
import copy
import datetime
import json
import pathlib
import ssl
import subprocess
import time
from collections.abc import Iterator

import httpx

from service import BINARIES, Service

# The interface for wallets, as `coco dev` names it.
ETHEREUM = "ethereum_rpc_interface"

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

    def __init__(self, keys: pathlib.Path, folder: pathlib.Path, config: dict, accounts: list = ()):
        super().__init__(keys)
        self.accounts = accounts
        self.home = folder
        self.config = config
        self.description: dict = {}

    @property
    def ledger(self) -> pathlib.Path:
        return self.home / "ledger"

    @property
    def snapshots(self) -> pathlib.Path:
        return self.home / "snapshots"

    def committed_snapshots(self) -> list[tuple[int, pathlib.Path]]:
        found = [
            (int(file.name.split("_")[1]), file) for file in self.snapshots.glob("*.committed")
        ]
        return sorted(found)

    def chunks(self) -> dict[int, pathlib.Path]:
        """The ledger's files, by their first position."""
        files = [file for file in self.ledger.iterdir() if not file.name.endswith(".ignored")]
        return {int(file.name.removeprefix("ledger_").split("-")[0].split(".")[0]): file for file in files}

    def verify_ledger(self, *more):
        """A ledger that goes on after a snapshot is verified from there on."""
        first = min(self.chunks())
        snapshot = [file for seqno, file in self.committed_snapshots() if seqno + 1 == first]
        super().verify_ledger(*(("--snapshot", snapshot[0]) if snapshot else ()), *more)

    def start(self):
        self.launch()
        self.ready()

    def launch(self):
        """Starts the process; whoever joins may have to be trusted first."""
        self.home.mkdir(exist_ok=True)
        self.addresses.unlink(missing_ok=True)
        file = self.home / "node.json"
        file.write_text(json.dumps(self.config))
        self.log = open(self.home / "node.log", "ab")
        self.process = subprocess.Popen(
            self.command(str(BINARIES / "coco"), "node", "start", "--config", str(file)),
            stdout=self.log,
            stderr=self.log,
            stdin=subprocess.PIPE,
        )

    def command(self, *words: str) -> list[str]:
        """How this is run where the node is."""
        return list(words)

    @property
    def addresses(self) -> pathlib.Path:
        return self.home / "rpc_addresses.json"

    def ready(self):
        """Waits until the node serves."""

        def is_written():
            assert self.process.poll() is None, (self.home / "node.log").read_text()
            return self.addresses.exists() and self.addresses.read_text()

        until(is_written, 60)
        served = json.loads(self.addresses.read_text())
        self.url = "https://" + served["primary_rpc_interface"]
        if address := served.get(ETHEREUM):
            authority = self.config["network"]["rpc_interfaces"][ETHEREUM]["endorsement"]["authority"]
            scheme = "http" if authority == "Unsecured" else "https"
            self.description = {"ethereum": {"url": f"{scheme}://{address}", "accounts": self.accounts}}

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

    def get(self, path: str, headers: dict | None = None) -> httpx.Response:
        with httpx.Client(verify=self.context(), timeout=10) as client:
            return client.get(f"{self.url}{path}", headers=headers)

    def context(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=self.service_cert_file)


def configs(keys: pathlib.Path, folder: pathlib.Path, count: int, ethereum: bool = False):
    """From what `coco dev` writes: a node that starts a service, and some that join it."""
    template = json.loads((keys / "node.json").read_text())
    if not ethereum:
        template["network"]["rpc_interfaces"].pop(ETHEREUM)
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


def trust(primary: Node, retire: str | None = None) -> str:
    """What members do about the node that waits."""
    waiting = lambda: primary.get("/node/network/nodes?status=Pending").json()["nodes"]
    until(waiting)
    (node,) = waiting()
    valid_from = datetime.datetime.now(datetime.timezone.utc).isoformat()
    actions = [
        {
            "name": "transition_node_to_trusted",
            "args": {"node_id": node["node_id"], "valid_from": valid_from},
        }
    ]
    if retire:
        actions.append({"name": "remove_node", "args": {"node_id": retire}})
    primary.propose(*actions)
    return node["node_id"]


def voters(node: Node) -> list[set]:
    details = node.get("/node/consensus").json()["details"]
    return [set(config["nodes"]) for config in details["configs"]]


def until_counts(primary: Node, node_id: str, count: int):
    until(lambda: any(node_id in nodes and len(nodes) == count for nodes in voters(primary)), 60)


def until(holds, seconds: float = 20):
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@contextlib.contextmanager
def open_nodes(folder: pathlib.Path, count: int = 3, ethereum: bool = False) -> Iterator[list[Node]]:
    """An open service of so many nodes, which all count; Ethereum's interface on each of them, if
    wanted."""
    keys = folder / "keys"
    with Service(keys) as template:
        accounts = template.description["ethereum"]["accounts"]
    started: list[Node] = []
    try:
        for number, (home, config) in enumerate(configs(keys, folder, count, ethereum)):
            if number:
                target = started[0].url.removeprefix("https://")
                config["command"]["join"] = {"target_rpc_address": target, "retry_timeout": "100ms"}
            node = Node(keys, home, config, accounts)
            started.append(node)
            node.start()

        def voters():
            details = started[0].get("/node/consensus").json()["details"]
            return [len(config["nodes"]) for config in details["configs"]]

        until(lambda: voters() == [count])
        open_service(started[0])
        # Each opens its frontends when it has the decision.
        for node in started:
            until(lambda: node.get("/node/ready/app").status_code == 204)
        yield started
    finally:
        for node in started:
            node.close_clients()
            if node.process:
                node.process.kill()
                node.process.wait()
                node.release()
