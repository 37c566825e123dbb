"""Nodes that come by a snapshot, and nodes that come back: real processes, judged by PyPI ccf.

    COCO_KEYS=1000000 python -m pytest -s tests/network/test_snapshots.py -k large

prints how long a node takes that joins a service with so many keys, and what that costs others.
With `COCO_BENCH=target/release/coco-bench` each key is written by a transaction of its own.
"""

import copy
import itertools
import json
import os
import pathlib
import shutil
import subprocess
import threading
import time

import httpx
import pytest
from service import BINARIES, Service
from ledgers import validate_after_snapshot
from nodes import APP, Node, configs, open_service, trust, until, until_counts, voters

KEYS = int(os.environ.get("COCO_KEYS", "20000"))
KEYS_AT_ONCE = 5_000
BENCH = os.environ.get("COCO_BENCH")
# Of old files, by the second node.
KEPT = {"max_snapshots": 1, "max_committed_ledger_chunks": 2}


class Process(Node):
    """A node that may be started again, and that members may have to trust first."""

    def launch(self):
        self.archive.mkdir(parents=True, exist_ok=True)
        super().launch()

    def keep_addresses(self):
        """The next process is found where this one was."""
        network = self.config["network"]
        node = (self.home / "node_address").read_text()
        network["node_to_node_interface"]["bind_address"] = node
        for name, address in json.loads(self.addresses.read_text()).items():
            network["rpc_interfaces"][name]["bind_address"] = address

    @property
    def archive(self) -> pathlib.Path:
        return self.home / "archive"

    def ignored(self) -> list[pathlib.Path]:
        return list(self.ledger.glob("*.ignored"))


def remove_chunks_to(node: Process, seqno: int) -> int:
    removed = 0
    for file in node.chunks().values():
        name = file.name.removesuffix(".committed")
        if "-" in name and int(name.split("-")[1]) <= seqno:
            file.unlink()
            removed += 1
    return removed


def write(node: Process, prefix: str, count: int):
    with httpx.Client(verify=node.context(), timeout=30, follow_redirects=True) as client:
        for number in range(count):
            written = client.put(f"{node.url}/app/records/{prefix}{number}", content=f"{number}" * 50)
            assert written.status_code == 204, written.text
    node.wait_committed(written.headers["x-ms-ccf-transaction-id"], 30)
    return written.headers["x-ms-ccf-transaction-id"]


def write_until_two_snapshots(node: Process):
    # The second is due so many transactions after the first one is written.
    until(lambda: write(node, "key", 100) and len(node.committed_snapshots()) > 1, 60)


def often(number: int, config: dict):
    config["snapshots"]["tx_count"] = 200
    if number == 1:
        config["snapshots"]["backup_fetch"] = {"enabled": True, "retry_interval": "100ms"}
        config["files_cleanup"] = KEPT | {"interval": "200ms"}


def as_usual(_: int, config: dict):
    del config["ledger"]["chunk_size"]


@pytest.fixture(params=[often])
def network(request, tmp_path):
    """An open service of three nodes that writes snapshots often, unless the test wants another,
    and the configuration of a fourth."""
    keys = tmp_path / "keys"
    with Service(keys):
        pass
    nodes = []
    try:
        for number, (home, config) in enumerate(configs(keys, tmp_path, 4)):
            config["ledger"]["read_only_directories"] = [str(home / "archive")]
            if number:
                target = nodes[0].url.removeprefix("https://")
                config["command"]["join"] = {"target_rpc_address": target, "retry_timeout": "100ms"}
            request.param(number, config)
            node = Process(keys, home, config)
            nodes.append(node)
            if number < 3:
                node.start()
        until(lambda: [len(nodes) for nodes in voters(nodes[0])] == [3])
        open_service(nodes[0])
        yield nodes
    finally:
        for node in nodes:
            if node.process:
                node.process.kill()
                node.process.wait()
                node.release()


def test_a_node_joins_from_a_snapshot_without_the_chunks_before_it(network):
    first, *others, joiner = network
    write_until_two_snapshots(first)
    seqno, _ = first.committed_snapshots()[-1]
    write(first, "later", 20)
    for node in [first, *others]:
        assert remove_chunks_to(node, seqno) > 0
    joiner.launch()
    node_id = trust(first)
    joiner.ready()
    until_counts(first, node_id, 4)
    last = write(joiner, "after", 5)
    state = joiner.get("/node/state").json()
    assert state["startup_seqno"] >= seqno, state
    until(lambda: joiner.get("/app/records/after4").text == "4" * 50)
    assert joiner.get("/app/records/key7").text == "7" * 50

    startup, (snapshot_seqno, snapshot) = state["startup_seqno"], joiner.committed_snapshots()[-1]
    assert snapshot_seqno == startup and min(joiner.chunks()) == startup + 1
    for node in network:
        node.stop()
    assert validate_after_snapshot(joiner, snapshot) >= int(last.split(".")[1])
    command = [BINARIES / "coco", "ledger", "verify", joiner.ledger, "--snapshot", snapshot]
    command += ["--service-cert", joiner.service_cert_file]
    verified = subprocess.run([str(word) for word in command], capture_output=True, text=True)
    assert verified.returncode == 0, verified.stdout + verified.stderr


def receipt(node: Process, transaction: str) -> httpx.Response:
    for _ in range(50):
        reply = node.get(f"/node/receipt?transaction_id={transaction}")
        if reply.status_code != 202:
            return reply
        time.sleep(0.1)
    raise AssertionError("still 202")


def test_the_past_comes_from_an_archive_also_to_nodes_without_it(network):
    first, *others, joiner = network
    early = write(first, "early", 5)
    write(first, "key", 300)
    until(lambda: first.committed_snapshots())
    # The operator keeps the past in one place, and nowhere else.
    for file in list(first.ledger.glob("*.committed")):
        shutil.move(file, first.archive / file.name)
    for node in others:
        assert remove_chunks_to(node, first.committed_snapshots()[-1][0]) > 0
    joiner.launch()
    node_id = trust(first)
    joiner.ready()
    until_counts(first, node_id, 4)
    assert min(joiner.chunks()) > 1
    for node in network:
        reply = receipt(node, early)
        assert reply.status_code == 200, reply.text
        assert reply.json()["leaf_components"]["commit_evidence"].startswith(f"ce:{early}:")


def test_a_backup_fetches_snapshots_and_removes_what_is_in_its_archive(network):
    first, tidy, *_ = network
    early = write(first, "early", 5)
    write(first, "key", 500)
    write_until_two_snapshots(first)
    newest = lambda node: [(seqno, file.read_bytes()) for seqno, file in node.committed_snapshots()[-1:]]
    until(lambda: newest(tidy) == newest(first))
    until(lambda: len(tidy.committed_snapshots()) == KEPT["max_snapshots"])

    def chunks() -> list[pathlib.Path]:
        files = [file for _, file in sorted(tidy.chunks().items())]
        return [file for file in files if file.name.endswith(".committed")]

    before = chunks()
    assert len(before) > KEPT["max_committed_ledger_chunks"] + 1
    time.sleep(1)
    assert before == chunks()[: len(before)], "nothing is in the archive yet"
    for file in before:
        shutil.copy(file, tidy.archive)
    (snapshot, _), = tidy.committed_snapshots()
    ends_before = lambda file: int(file.name.split("-")[1].split(".")[0]) < snapshot
    old = [file for file in before[: -KEPT["max_committed_ledger_chunks"]] if ends_before(file)]
    assert old
    until(lambda: not any(file.exists() for file in old))
    reply = receipt(tidy, early)
    assert reply.status_code == 200, reply.text
    write(tidy, "after", 5)


@pytest.mark.parametrize("damage", ["none", "flip", "tail", "missing"])
def test_a_node_that_was_killed_comes_back_by_itself(network, damage):
    first, _, back, _ = network
    write(first, "key", 250)
    former = back.get("/node/network/nodes/self").json()["node_id"]
    back.keep_addresses()
    back.kill()
    write(first, "meanwhile", 150)
    before = {file.name: file.read_bytes() for file in back.ledger.iterdir()}
    chunks = back.chunks()
    victim, newest = chunks[sorted(chunks)[len(chunks) // 2]], chunks[max(chunks)]
    if damage == "flip":
        content = bytearray(victim.read_bytes())
        content[len(content) // 2] ^= 1
        victim.write_bytes(content)
    elif damage == "tail":
        newest.write_bytes(newest.read_bytes().rstrip(b"\0")[:-100])
    elif damage == "missing":
        victim.unlink()

    back.launch()
    node_id = trust(first, retire=former)
    assert node_id != former
    back.ready()
    until_counts(first, node_id, 3)
    write(back, "after", 5)
    until(lambda: back.get("/app/records/after4").text == "4" * 50)
    assert back.get("/app/records/key7").text == "7" * 50
    assert back.get("/app/records/meanwhile7").text == "7" * 50
    # What a crash has torn is cut off, if it was still being written; a file in which nothing whole is
    # left is set aside.
    is_torn = damage == "tail" and not newest.name.endswith(".committed")
    set_aside = {file.name for file in back.ignored()}
    if is_torn:
        assert set_aside <= {f"{newest.name}.ignored"}
    else:
        assert bool(set_aside) == (damage != "none"), set_aside
    if damage == "none":
        kept = [name for name in before if name.endswith(".committed")]
        assert kept and all((back.ledger / name).read_bytes() == before[name] for name in kept)
    for node in network[:3]:
        node.stop()
    back.verify_ledger()


def app_that_fills() -> dict:
    app = copy.deepcopy(APP)
    put = app["metadata"]["endpoints"]["/records/{key}"]["put"]
    app["metadata"]["endpoints"]["/fill/{from}"] = {"post": put | {"js_function": "fill"}}
    app["modules"][0]["module"] += f"""
export function fill(request) {{
  const from = Number(request.params.from);
  const value = ccf.strToBuf("x".repeat(64));
  for (let number = from; number < from + {KEYS_AT_ONCE}; number++) {{
    records.set(ccf.strToBuf("account-" + number), value);
  }}
  return {{ statusCode: 204 }};
}}
"""
    return app


def keep_writing(node: Node, stop: threading.Event, written: list):
    """Writes over and over, each time until it is committed; tells how many were by when."""
    if BENCH:
        command = [BENCH, "load", "--address", node.url.removeprefix("https://")]
        command += ["--service-cert", str(node.service_cert_file), "--path", "/app/records/{n}"]
        command += ["--header", "x-coco-wait: committed", "--body", "x" * 64, "--seconds", "300"]
        command += ["--connections", "8", "--every", "0.2"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as load:
            for line in load.stdout:
                written.append((time.monotonic(), json.loads(line)["requests"]))
                if stop.is_set():
                    load.terminate()
        return
    with httpx.Client(verify=node.context(), timeout=60) as client:
        headers = {"x-coco-wait": "committed"}
        for count in itertools.count():
            if stop.is_set():
                return
            written.append((time.monotonic(), count))
            url = f"{node.url}/app/records/{count % 10}"
            reply = client.put(url, content="x" * 64, headers=headers)
            assert reply.status_code == 204, reply.text


def fill(node: Node):
    if BENCH:
        command = [BENCH, "load", "--address", node.url.removeprefix("https://")]
        command += ["--service-cert", str(node.service_cert_file), "--path", "/app/records/{n16}"]
        command += ["--keys", str(KEYS), "--most", str(KEYS), "--body-bytes", "64"]
        subprocess.run([*command, "--pipeline", "500", "--seconds", "600"], check=True)
        return
    with httpx.Client(verify=node.context(), timeout=60) as client:
        for start in range(0, KEYS, KEYS_AT_ONCE):
            filled = client.post(f"{node.url}/app/fill/{start}")
            assert filled.status_code == 204, filled.text


@pytest.mark.parametrize("network", [as_usual], indirect=True)
def test_a_node_joins_a_large_state_under_load(network):
    first, *_, joiner = network
    first.propose({"name": "set_js_app", "args": {"bundle": app_that_fills()}})
    fill(first)
    last = first.put("last", "1")
    assert last.status_code == 204, last.text

    # How many writes were committed by when.
    stop, written = threading.Event(), []
    writer = threading.Thread(target=keep_writing, args=(first, stop, written))

    def rate(since: float, until: float) -> float:
        begin, before = max(told for told in written if told[0] <= since)
        end, after = min(told for told in written if told[0] >= until)
        return (after - before) / (end - begin)

    writer.start()
    try:
        time.sleep(6)
        joiner.launch()
        node_id = trust(first)
        trusted_at = time.monotonic()
        joiner.ready()
        until_counts(first, node_id, 4)
        counts_at = time.monotonic()
        time.sleep(2)
    finally:
        stop.set()
        writer.join()
    assert joiner.get("/node/state").json()["startup_seqno"] > 0
    moments = [trusted_at + step / 5 for step in range(int((counts_at - trusted_at) * 5) + 1)]
    worst = min(rate(at, at + 1) for at in moments)
    print(
        f"{KEYS} keys: counts {counts_at - trusted_at:.1f} s after it was trusted; "
        f"{rate(trusted_at - 4, trusted_at):.0f} committed writes/s before, "
        f"{rate(trusted_at, counts_at):.0f} meanwhile, {worst:.0f} in the worst second"
    )
    until(lambda: joiner.get("/app/records/0").text == "x" * 64)
