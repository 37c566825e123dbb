"""Memory of a node that stays, while others are killed and replaced under load.

    COCO_SOAK=30 python -m pytest -s tests/network/test_soak.py

takes so many minutes, and prints what was seen in each.
"""

import os
import statistics
import threading
import time

import pytest
from ledgers import check_ledgers, complete_chunk
from nodes import open_nodes
from test_failover import CLIENTS, Client, Network, add_counters, fail_over

MINUTES = float(os.environ.get("COCO_SOAK", "0"))
SECONDS_BETWEEN_KILLS = 20
# What a quarter of an hour may add, of what there is after the warm-up.
TOLERANCE = 1.15


def resident_mb(pid: int) -> float:
    with open(f"/proc/{pid}/status") as status:
        line = next(line for line in status if line.startswith("VmRSS:"))
    return int(line.split()[1]) / 1000


@pytest.mark.skipif(not MINUTES, reason="takes minutes: COCO_SOAK says how many")
def test_memory_is_flat(tmp_path):
    with open_nodes(tmp_path) as nodes:
        add_counters(nodes[0])
        network, stop = Network(nodes, tmp_path), threading.Event()
        stays = nodes[1]
        clients = [Client(network, number, stop) for number in range(CLIENTS)]
        memory: list[float] = []
        kills = minute = 0
        try:
            for client in clients:
                client.start()
            started = killed_at = time.monotonic()
            while (elapsed := time.monotonic() - started) < 60 * MINUTES:
                time.sleep(1)
                assert [client.failure for client in clients] == [None] * CLIENTS
                memory.append(resident_mb(stays.process.pid))
                if elapsed // 60 > minute:
                    minute = elapsed // 60
                    added = sum(client.added for client in clients)
                    print(f"{minute:.0f} min: {memory[-1]:.0f} MB, {added} writes, {kills} kills", flush=True)
                if time.monotonic() - killed_at > SECONDS_BETWEEN_KILLS:
                    kill_another(network, stays, clients)
                    killed_at, kills = time.monotonic(), kills + 1
        finally:
            stop.set()
            for client in clients:
                client.join(30)
        quarter = len(memory) // 4
        second, last = (statistics.median(part) for part in (memory[quarter : 2 * quarter], memory[-quarter:]))
        added = sum(client.added for client in clients)
        print(
            f"{MINUTES:.0f} minutes, {kills} nodes killed and replaced, {added} writes; the node that stays: "
            f"{memory[0]:.0f} MB at first, {second:.0f} MB after the warm-up, {last:.0f} MB at the end, "
            f"{max(memory):.0f} MB at most"
        )
        for client in clients:
            assert client.value() == client.added, client.key
        assert last < TOLERANCE * second
        _, primary = network.primary()
        complete_chunk(primary, network.running)
        check_ledgers(network.running)


def kill_another(network: Network, stays, clients: list[Client]):
    """The primary, unless it is the node that stays: then a backup."""
    _, primary = network.primary()
    if primary is not stays:
        fail_over(network, clients)
        return
    victim = next(node for node in network.running if node is not stays)
    node_id = victim.get("/node/network/nodes/self").json()["node_id"]
    network.running.remove(victim)
    victim.kill()
    network.replace(node_id)
