"""CCF's built-in endpoints, as its clients poll them."""

import re

import httpx
import pytest
from service import alone

TXID = re.compile(r"^\d+\.\d+$")


@alone
def test_state_of_the_node(notes):
    client = notes.client()
    state = client.get("/node/state").json()
    assert state["state"] == "PartOfNetwork"
    network = client.get("/node/network").json()
    assert network["service_status"] == "Open"
    assert network["primary_id"] == state["node_id"]
    assert network["service_certificate"] == notes.service_cert_file.read_text()
    nodes = client.get("/node/network/nodes").json()["nodes"]
    assert [(node["node_id"], node["status"], node["primary"]) for node in nodes] == [
        (state["node_id"], "Trusted", True)
    ]
    assert client.get(f"/node/network/nodes/{state['node_id']}").json()["status"] == "Trusted"
    reply = client.get("/node/network/nodes/" + "0" * 64)
    assert reply.status_code == 404 and reply.json()["error"]["message"] == "Node not found"


@pytest.mark.parametrize("path, keys", [
    ("/node/version", {"ccf_version", "quickjs_version", "unsafe"}),
    ("/node/metrics", {"sessions"}),
    ("/node/js_metrics", {"max_heap_size", "max_stack_size", "max_execution_time"}),
    ("/node/consensus", {"details"}),
    ("/node/service/configuration", {"recovery_threshold"}),
    ("/node/self_signed_certificate", {"self_signed_certificate"}),
    ("/node/attestations/self", {"node_id", "raw", "format"}),
    ("/node/quotes/self", {"node_id", "raw", "format"}),
    ("/node/config", set()),
    ("/node/network/removable_nodes", {"nodes"}),
])
def test_shapes(notes, path, keys):
    reply = notes.client().get(path)
    assert reply.status_code == 200, reply.text
    assert keys <= reply.json().keys()


@alone
def test_probes(notes):
    client = notes.client()
    assert client.get("/node/ready/app").status_code == 204
    assert client.get("/node/ready/gov").status_code == 204
    assert client.head("/node/primary").status_code == 200
    assert client.get("/node/backup").status_code == 404


@pytest.mark.parametrize("frontend", ["node", "app", "gov"])
def test_common_endpoints(notes, frontend):
    client = notes.client()
    last = client.get(f"/{frontend}/commit").json()["transaction_id"]
    assert TXID.match(last)
    status = client.get(f"/{frontend}/tx", params={"transaction_id": last}).json()
    assert status == {"transaction_id": last, "status": "Committed"}
    history = client.get(f"/{frontend}/commit", params={"view_history": "true"}).json()
    assert history["view_history"][-1] == "2.1"
    cases = [
        ("commit", {"view_history": "maybe"}),
        ("commit", {"view_history": "true", "view_history_since": "2"}),
        ("tx", {}),
        ("tx", {"transaction_id": "2"}),
    ]
    for path, query in cases:
        reply = client.get(f"/{frontend}/{path}", params=query)
        assert reply.status_code == 400
        assert reply.json()["error"]["code"] == "InvalidQueryParameterValue"
    reply = client.get(f"/{frontend}/commit", params={"view_history_since": "99"})
    assert reply.status_code == 404
    document = client.get(f"/{frontend}/api").json()
    assert document["openapi"].startswith("3.") and "/commit" in document["paths"]


def test_the_future_is_unknown(notes):
    view = notes.client().get("/node/network").json()["current_view"]
    for text, status in ((f"{view}.999999999", "Unknown"), (f"{view + 5}.999999999", "Unknown"),
                         (f"{view + 1}.1", "Invalid")):
        reply = notes.client().get("/node/tx", params={"transaction_id": text})
        assert reply.json()["status"] == status, text


def test_errors(notes):
    client = notes.client()
    reply = client.get("/node/no/such/path")
    assert (reply.status_code, reply.json()["error"]["code"]) == (404, "ResourceNotFound")
    reply = client.delete("/node/commit")
    assert (reply.status_code, reply.json()["error"]["code"]) == (405, "UnsupportedHttpVerb")
    assert "GET" in reply.headers["allow"]
    reply = client.put("/app/notes/big", content=b"x" * (17 << 20))
    assert (reply.status_code, reply.json()["error"]["code"]) == (413, "RequestBodyTooLarge")
    # The connection may be gone before a client has read the answer to an oversized header.
    try:
        reply = client.get("/node/commit", headers={"x-long": "y" * (64 << 10)})
        assert reply.status_code == 431
    except httpx.TransportError:
        pass
    assert client.get("/node/commit").status_code == 200
