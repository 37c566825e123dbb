"""A service whose nodes have a host each, and what its operator does with them."""

from __future__ import annotations

import collections
import contextlib
import pathlib
import time
from collections.abc import Iterator

import httpx
from disks import SlowDisk, SmallDisk
from namespaces import Host, Wire
from nodes import Node, configs, open_service, trust, until, until_counts, voters
from service import Service

RPC_PORT, NODE_PORT = 8000, 8001
FORWARDING_TIMEOUT_MS = 1_000


class HostedNode(Node):
    """A node in a network namespace."""

    def __init__(self, keys: pathlib.Path, home: pathlib.Path, config: dict, host: Host):
        super().__init__(keys, home, config)
        self.host = host
        self.id = ""
        self.slow_disk: SlowDisk | None = None
        self.small_disk: SmallDisk | None = None
        network = config["network"]
        network["node_to_node_interface"]["bind_address"] = f"{host.address}:{NODE_PORT}"
        for interface in network["rpc_interfaces"].values():
            interface["bind_address"] = f"{host.address}:{RPC_PORT}"
            interface["forwarding_timeout_ms"] = FORWARDING_TIMEOUT_MS
        config["node_certificate"]["subject_alt_names"] = [f"iPAddress:{host.address}"]
        config["snapshots"]["tx_count"] = 500

    @property
    def ledger(self) -> pathlib.Path:
        return pathlib.Path(self.config["ledger"]["directory"])

    def command(self, *words: str) -> list[str]:
        if self.slow_disk:
            words = self.slow_disk.command(self.home, *words)
        return self.host.command(*words)

    def joins(self, target: Node):
        command = self.config["command"]
        command["type"] = "Join"
        address = target.url.removeprefix("https://")
        command["join"] = {"target_rpc_address": address, "retry_timeout": "50ms"}

    def ready(self):
        super().ready()
        self.id = self.get("/node/network/nodes/self").json()["node_id"]


class Network:
    """Those who run, and a wire between them."""

    def __init__(self, folder: pathlib.Path, wire: Wire):
        self.folder, self.wire = folder, wire
        self.keys = folder / "keys"
        self.running: list[HostedNode] = []
        self.started: list[HostedNode] = []
        self.slow_disk = SlowDisk(folder) if SlowDisk.is_possible() else None

    @contextlib.contextmanager
    def open(self, count: int, disk_mb: int = 0) -> Iterator[Network]:
        """An open service of so many nodes; with ledgers on disks of that size, if it is given."""
        with Service(self.keys):
            pass
        try:
            for number in range(count):
                node = self.node(disk_mb)
                if number:
                    node.joins(self.running[0])
                node.start()
                self.running.append(node)
            until(lambda: [len(nodes) for nodes in voters(self.running[0])] == [count])
            open_service(self.running[0])
            for node in self.running:
                until(lambda: node.get("/node/ready/app").status_code == 204)
            yield self
        finally:
            for node in self.started:
                node.close_clients()
                if node.process:
                    node.process.kill()
                    node.process.wait()
                    node.release()
                if node.small_disk:
                    node.small_disk.unmount()

    def node(self, disk_mb: int = 0) -> HostedNode:
        """A new one on a new host."""
        *_, (home, config) = configs(self.keys, self.folder, len(self.started) + 1)
        config["command"]["type"] = "Join" if self.started else "Start"
        node = HostedNode(self.keys, home, config, self.wire.host())
        node.slow_disk = self.slow_disk
        if disk_mb:
            node.small_disk = SmallDisk(home / "disk", disk_mb)
            config["ledger"]["directory"] = str(node.small_disk.folder / "ledger")
        self.started.append(node)
        return node

    def primary(self) -> HostedNode:
        """Whom a majority of those who run takes for it."""
        found: list[HostedNode] = []

        def is_agreed():
            named = collections.Counter()
            for node in self.running:
                with contextlib.suppress(httpx.TransportError):
                    named[node.get("/node/network").json().get("primary_id")] += 1
            found[:] = [node for node in self.running if named[node.id] > len(self.running) / 2]
            return found

        until(is_agreed)
        return found[0]

    def backups(self) -> list[HostedNode]:
        primary = self.primary()
        return [node for node in self.running if node is not primary]

    def others(self, *nodes: HostedNode) -> list[Host]:
        return [node.host for node in self.running if node not in nodes]

    def until_all_serve(self, name: str, seconds: float) -> float:
        """How long it takes until through every node something is committed, and read."""
        begun_at = time.monotonic()

        def serves(node: HostedNode) -> bool:
            try:
                if node.put(name, node.id).status_code != 204:
                    return False
                read = node.get(f"/app/records/{name}", {"x-coco-read": "linearizable"})
                return read.text == node.id
            except httpx.TransportError:
                return False

        for node in self.running:
            until(lambda: serves(node), seconds)
        return time.monotonic() - begun_at

    def restart(self, node: HostedNode):
        """The process begins again where its files are: another node, which replaces the former."""
        if node.process:
            node.stop()
        if node in self.running:
            self.running.remove(node)
        primary, former, count = self.primary(), node.id, len(self.running) + 1
        node.joins(primary)
        node.launch()
        until_counts(primary, trust(primary, retire=former), count)
        self.enter(node)

    def replace(self, node: HostedNode):
        """A new one comes, and then this one leaves."""
        new, primary, count = self.node(), self.primary(), len(self.running)
        new.joins(primary)
        new.launch()
        until_counts(primary, trust(primary), count + 1)
        self.enter(new)
        primary.propose({"name": "remove_node", "args": {"node_id": node.id}})
        self.running.remove(node)

        def removable():
            nodes = self.running[0].get("/node/network/removable_nodes").json()["nodes"]
            return node.id in [it["node_id"] for it in nodes]

        until(removable)
        node.stop()

    def enter(self, node: HostedNode):
        node.ready()
        until(lambda: node.get("/node/ready/app").status_code == 204)
        self.running.append(node)
