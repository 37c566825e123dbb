"""Whoever connects and says nothing takes nothing that the nodes need."""

import contextlib
import socket

import httpx
from nodes import Node, open_nodes, until

# Far fewer than the connections that are opened.
DESCRIPTORS = 400
CONNECTIONS = 450


def idle(held: contextlib.ExitStack, address: str):
    host, port = address.rsplit(":", 1)
    for _ in range(CONNECTIONS):
        with contextlib.suppress(OSError):
            held.enter_context(socket.create_connection((host, int(port)), timeout=1))


def test_nodes_go_on_behind_idle_connections(tmp_path, monkeypatch):
    limit = f"--nofile={DESCRIPTORS}:{DESCRIPTORS}"
    monkeypatch.setattr(Node, "command", lambda _, *words: ["prlimit", limit, *words])
    with open_nodes(tmp_path) as nodes, contextlib.ExitStack() as held:
        client = held.enter_context(httpx.Client(verify=nodes[0].context(), timeout=10))

        def put(key: str):
            headers = {"x-coco-wait": "committed"}
            written = client.put(f"{nodes[0].url}/app/records/{key}", content="x" * 20_000, headers=headers)
            assert written.status_code == 204, written.text

        put("before")
        files = len(nodes[0].chunks())
        for node in nodes:
            # The other nodes' way in first: clients could take what it needs.
            idle(held, (node.home / "node_address").read_text().strip())
            idle(held, node.url.removeprefix("https://"))
        # Each new file of the ledger takes a descriptor.
        for number in range(30):
            put(str(number))
        assert len(nodes[0].chunks()) > files + 5
        held.close()
        for node in nodes:
            until(lambda: node.get("/node/state").json()["state"] == "PartOfNetwork")
            until(lambda: node.get("/app/records/29").text == "x" * 20_000)
            assert "cannot be written" not in (node.home / "node.log").read_text()
