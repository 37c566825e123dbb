"""Three nodes as processes on loopback: they join, replicate, and survive their primary."""

import time

import httpx
import pytest
from nodes import APP, Node, configs, open_nodes, open_service, until  # noqa: F401


@pytest.fixture
def nodes(tmp_path):
    """An open service of three nodes, which all count."""
    with open_nodes(tmp_path) as nodes:
        yield nodes


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
