"""Nodes that die and come back in their seats: members vote once, for the seats, and never again."""

import json
import subprocess
import time

from nodes import Node, open_nodes, until, until_counts
from service import BINARIES


def coco(*words) -> dict:
    command = [str(word) for word in [BINARIES / "coco", *words, "--json"]]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def node_id(node: Node) -> str:
    return node.get("/node/network/nodes/self").json()["node_id"]


def listed(node: Node) -> dict[str, dict]:
    nodes = node.get("/node/network/nodes").json()["nodes"]
    return {it["node_id"]: it for it in nodes}


def seats(node: Node) -> dict[str, dict]:
    service = ["--url", node.url, "--service-cert", node.service_cert_file]
    return {seat["address"]: seat for seat in coco("node", "seat", "list", *service)["seats"]}


def proposals(node: Node) -> list:
    return node.get("/gov/members/proposals?api-version=2024-07-01").json()["value"]


def primary_is_known(node: Node) -> bool:
    return node.get("/node/network/nodes/primary").status_code == 200


def test_every_node_dies_once_and_comes_back_without_a_vote(tmp_path):
    coco("keys", "new", "ops", "--dir", tmp_path)
    coco("keys", "new", "stranger", "--dir", tmp_path)

    def signed_by(name: str) -> dict:
        return {
            "operator_certificate_file": str(tmp_path / f"{name}_cert.pem"),
            "operator_private_key_file": str(tmp_path / f"{name}_privk.pem"),
        }

    with open_nodes(tmp_path) as nodes:
        operator_cert = (tmp_path / "ops_cert.pem").read_text()
        addresses = [(node.home / "node_address").read_text().strip() for node in nodes]
        nodes[0].propose(
            *(
                {"name": "set_node_seat", "args": {"address": at, "operator_cert": operator_cert}}
                for at in addresses
            )
        )
        ids = [node_id(node) for node in nodes]
        assert {at: seat["node_ids"] for at, seat in seats(nodes[1]).items()} == {
            at: [it] for at, it in zip(addresses, ids)
        }
        decided = proposals(nodes[0])

        # The primary is the last to go.
        for number in (2, 1, 0):
            node, others = nodes[number], nodes[:number] + nodes[number + 1 :]
            assert node.put(f"before{number}", "value").status_code == 204
            node.kill()
            killed_at = time.monotonic()
            node.config["network"]["node_to_node_interface"]["bind_address"] = addresses[number]
            node.config["command"]["type"] = "Join"
            node.config["command"]["join"] = {
                "target_rpc_address": others[0].url.removeprefix("https://"),
                "retry_timeout": "100ms",
                "seat": signed_by("ops"),
            }
            node.start()
            former, ids[number] = ids[number], node_id(node)
            assert ids[number] != former
            until(lambda: primary_is_known(others[0]))
            primary = listed(others[0])
            (primary,) = [it for it in nodes if primary[node_id(it)]["primary"]]
            until_counts(primary, ids[number], 3)
            print(f"node {number} counts again after {time.monotonic() - killed_at:.2f} s")
            assert listed(node)[former]["status"] == "Retired"
            assert node.put(f"after{number}", "value").status_code == 204
            assert seats(node)[addresses[number]]["node_ids"] == [ids[number]]

        assert proposals(nodes[0]) == decided
        for node in nodes:
            for number in range(3):
                until(lambda: node.get(f"/app/records/after{number}").status_code == 200)

        # Somebody else's key opens no seat: the node waits for the members, and says why.
        stopped, at = nodes[2], addresses[2]
        stopped.kill()
        stopped.config["command"]["join"]["target_rpc_address"] = nodes[1].url.removeprefix("https://")
        stopped.config["command"]["join"]["seat"] = signed_by("stranger")
        stopped.launch()
        log = stopped.home / "node.log"
        until(lambda: "another operator has signed" in log.read_text())
        time.sleep(4)
        assert seats(nodes[0])[at]["node_ids"] == [ids[2]]
        assert [it["status"] for it in listed(nodes[0]).values()].count("Pending") == 1
        assert "PRIVATE KEY" not in log.read_text()
        stopped.kill()

        for node in nodes[:2]:
            node.stop()
        for node in nodes:
            node.verify_ledger()
