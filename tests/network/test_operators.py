"""An operator's day: three nodes by one command, a look at them, one more, one less, one lost."""

import json
import os
import pathlib
import signal
import subprocess
import time

import httpx
import pytest
from service import BINARIES, Service


class Network(Service):
    """`coco dev --nodes 3`, and the operator's commands about it."""

    def __init__(self, folder: pathlib.Path):
        super().__init__(folder, extra=["--nodes", "3"])

    @property
    def nodes(self) -> list[dict]:
        return self.description["nodes"]

    def run(self, *command: str) -> subprocess.CompletedProcess:
        words = [BINARIES / "coco", *command, "--dir", self.folder, "--json"]
        return subprocess.run([str(word) for word in words], capture_output=True, text=True)

    def coco(self, *command: str) -> dict:
        result = self.run(*command)
        assert result.returncode == 0, result.stderr
        return json.loads(result.stdout)

    def refused(self, *command: str) -> str:
        result = self.run(*command)
        assert result.returncode == 1 and not result.stdout, result.stdout
        return result.stderr

    def listed(self) -> dict[str, dict]:
        return {node["node_id"]: node for node in self.coco("node", "list")["nodes"]}

    def status(self) -> dict[str, dict]:
        return {node["node_id"]: node for node in self.coco("status")["nodes"]}

    def node_to_node(self, node_id: str) -> str:
        """Where other nodes call this one."""
        with self.client() as client:
            consensus = client.get("/node/consensus").json()
        (config,) = consensus["details"]["configs"]
        return config["nodes"][node_id]["address"]

    def primary(self) -> dict:
        ids = [node for node, it in self.listed().items() if it["role"] == "primary"]
        return next(node for node in self.nodes if [node["node_id"]] == ids)

    def put(self, url: str, key: str) -> str:
        """Writes at this node, which may send the client to the primary, until it is committed."""
        with self.client("user0") as client:
            client.follow_redirects = True
            headers = {"x-coco-wait": "committed"}
            written = client.put(f"{url}/app/records/{key}", content="value", headers=headers)
        assert written.status_code == 204, written.text
        return written.headers["x-ms-ccf-transaction-id"]

    def verify(self, node: dict):
        command = ["ledger", "verify", node["ledger"], "--service-cert", self.service_cert_file]
        words = [str(word) for word in [BINARIES / "coco", *command]]
        result = subprocess.run(words, capture_output=True, text=True)
        assert result.returncode == 0, result.stdout + result.stderr


class Fourth:
    """A node that an operator starts by hand, with a configuration like that of the others."""

    def __init__(self, network: Network, home: pathlib.Path):
        config = json.loads((network.folder / "node1" / "node.json").read_text())
        config["ledger"]["directory"] = str(home / "ledger")
        config["snapshots"]["directory"] = str(home / "snapshots")
        config["command"]["join"]["target_rpc_address"] = network.url.removeprefix("https://")
        config["node_data_json_file"] = str(home / "data.json")
        config["output_files"] |= {
            "node_certificate_file": str(home / "node_cert.pem"),
            "pid_file": str(home / "node.pid"),
            "rpc_addresses_file": str(home / "rpc_addresses.json"),
        }
        home.mkdir()
        (home / "data.json").write_text('{"rack": 7}')
        (home / "node.json").write_text(json.dumps(config))
        self.addresses = home / "rpc_addresses.json"
        self.log = open(home / "node.log", "ab")
        command = [BINARIES / "coco", "node", "start", "--config", home / "node.json"]
        self.process = subprocess.Popen(
            [str(word) for word in command], stdout=self.log, stderr=self.log
        )

    def __enter__(self) -> "Fourth":
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        self.log.close()

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(10)


def until(holds, seconds: float = 30):
    deadline = time.monotonic() + seconds
    while not (found := holds()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return found


@pytest.fixture
def network(tmp_path):
    with Network(tmp_path / "dev") as network:
        yield network


def test_three_nodes_by_one_command(network):
    listed = network.listed()
    assert set(listed) == {node["node_id"] for node in network.nodes}
    assert sorted(node["role"] for node in listed.values()) == ["backup", "backup", "primary"]
    for node in network.nodes:
        it = listed[node["node_id"]]
        assert (it["status"], f"https://{it['address']}") == ("Trusted", node["url"])
        assert it["certificate_valid_to"] > "2026"
        network.put(node["url"], node["name"])

    # Everybody learns that the last transaction is committed, and says so.
    until(lambda: all(node["lag"] == 0 for node in network.status().values()))
    status = network.coco("status")
    assert status["service"]["status"] == "Open"
    assert status["service"]["primary_id"] == network.primary()["node_id"]
    for node in status["nodes"]:
        assert node["reachable"] and node["answer"]["state"] == "PartOfNetwork"
        assert node["answer"]["role"] == node["role"]
        latency = node["commit_latency"]
        assert (latency is not None) == (node["role"] == "primary")
        assert latency is None or latency["batches"] > 0 and latency["mean_ms"] > 0

    with network.client() as client:
        for node in network.nodes:
            metrics = client.get(f"{node['url']}/node/metrics/prometheus").text
            leads = int(listed[node["node_id"]]["role"] == "primary")
            assert f'coco_info{{node_id="{node["node_id"]}"}} 1\n' in metrics
            assert f"coco_primary {leads}\n" in metrics
            assert 'coco_nodes{kind="voter"} 3\n' in metrics
            assert f"coco_replica_persisted_seqno{{" in metrics or not leads

    nodes = network.nodes
    network.stop()
    for node in nodes:
        network.verify(node)
    again = Service(network.folder, extra=["--keep"])
    with pytest.raises(RuntimeError, match="--keep goes on with the ledger of one node"):
        again.start()
    again.stop()


def test_a_node_comes_and_goes(network, tmp_path):
    with Fourth(network, tmp_path / "fourth") as fourth:
        known = set(network.listed())
        (fourth_id,) = until(lambda: set(network.listed()) - known)
        node = network.listed()[fourth_id]
        assert (node["status"], node["role"], node["node_data"]) == ("Pending", None, {"rack": 7})
        assert network.status()[fourth_id]["reachable"] is None

        # Through a backup, which names the primary: what is signed stays the same.
        backup = next(node for node in network.nodes if node != network.primary())
        trusted = network.coco("node", "trust", fourth_id[:10], "--url", backup["url"])
        assert trusted["proposal"]["proposalState"] == "Accepted"
        until(fourth.addresses.exists)
        until(lambda: network.status()[fourth_id]["lag"] == 0)
        assert network.listed()[fourth_id]["role"] == "backup"
        assert "trusted already" in network.refused("node", "trust", fourth_id)
        assert "coco node list" in network.refused("node", "trust", "0" * 64)

        retired = network.coco("node", "retire", fourth_id, "--wait", "--url", backup["url"])
        assert retired["may_be_stopped"]
        assert network.listed()[fourth_id]["removable"]
        assert "it may be stopped" in network.refused("node", "retire", fourth_id)
        assert "does not come back" in network.refused("node", "trust", fourth_id)
        assert fourth.stop() == 0
        network.put(backup["url"], "after")


def test_a_seat_is_approved_and_removed(network):
    cert = network.folder / "user0_cert.pem"
    first = network.nodes[0]["node_id"]
    at = network.node_to_node(first)
    approved = network.coco("node", "seat", "approve", at, "--operator", cert)
    assert approved["proposal"]["proposalState"] == "Accepted"
    network.coco("node", "seat", "approve", "node9.example:8081", "--operator", cert)
    seats = {seat["address"]: seat["node_ids"] for seat in network.coco("node", "seat", "list")["seats"]}
    assert seats == {at: [first], "node9.example:8081": []}
    refused = network.refused("node", "seat", "approve", "nowhere", "--operator", cert)
    assert "args.address must be an address" in refused

    removed = network.coco("node", "seat", "remove", at)
    assert removed["proposal"]["proposalState"] == "Accepted"
    assert [seat["address"] for seat in network.coco("node", "seat", "list")["seats"]] == ["node9.example:8081"]
    assert "coco node seat list" in network.refused("node", "seat", "remove", at)
    assert network.listed()[first]["status"] == "Trusted"


def test_a_node_that_waits_can_be_stopped_and_forgotten(network, tmp_path):
    with Fourth(network, tmp_path / "fourth") as fourth:
        known = set(network.listed())
        (waiting,) = until(lambda: set(network.listed()) - known)
        # It ends as it was told, though nobody trusts it.
        assert fourth.stop() == 1
        assert network.coco("node", "retire", waiting)["may_be_stopped"]
        assert set(network.listed()) == known
    # Whoever runs the nodes is gone without a word: they stop by themselves.
    network.kill()
    pids = [network.folder / node["name"] / "node.pid" for node in network.nodes]
    until(lambda: not any(pid.exists() for pid in pids))
    for node in network.nodes:
        network.verify(node)


def test_the_loss_of_the_primary_is_seen_and_survived(network):
    lost = network.primary()
    os.kill(lost["pid"], signal.SIGKILL)
    remaining = [node for node in network.nodes if node != lost]

    def successor():
        nodes = network.status().values()
        leading = [it for it in nodes if it["answer"] and it["answer"]["role"] == "primary"]
        return leading[0]["node_id"] if leading else None

    assert until(successor) in {node["node_id"] for node in remaining}
    report = network.status()[lost["node_id"]]
    assert (report["reachable"], report["answer"]) == (False, None)
    assert lost["url"] in report["error"]
    assert len(network.coco("member", "list")["members"]) == 3
    retired = network.coco("node", "retire", lost["node_id"], "--wait")
    assert retired["may_be_stopped"]
    for node in remaining:
        network.put(node["url"], node["name"])
    network.stop()
    for node in remaining:
        network.verify(node)
