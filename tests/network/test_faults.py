"""What can happen to networks, processes and disks, to 3 and to 5 nodes, under clients who watch.

Every fault has a history of its own, of clients who read and write through any node, and these hold:
every register is linearizable; whatever was acknowledged is committed on every node; clients are
served meanwhile, if a majority is well, and by every node soon afterwards. At the end all ledgers
are one. Real processes, real disks and a wire that is cut under them (`wire.py`).

    COCO_FAULTS=20 python -m pytest -s tests/network/test_faults.py

has every fault last for so many seconds, also all those of three nodes with five, and prints what
was seen.
"""

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator

import disks
import namespaces
import pytest
from disks import SlowDisk
from hosted import HostedNode, Network
from histories import Load
from ledgers import check_ledgers, complete_chunk, validate_committed
from namespaces import Wire, both_ways, ways
from nodes import until

LONG = "COCO_FAULTS" in os.environ
SECONDS = float(os.environ.get("COCO_FAULTS", "1.5"))
SEED = int(os.environ.get("COCO_FAULTS_SEED", "1"))
CLIENTS_PER_NODE = 2
# Before a fault, and after everybody serves again.
SECONDS_OF_CALM = 0.2
SECONDS_TO_SERVE = 15
# Longer than an election takes.
FLAP_SECONDS = 0.7
SLOW_DISK_US = 50_000
DISK_MB = 6 + int(SECONDS)


@pytest.fixture(scope="module")
def wire():
    if reason := namespaces.missing():
        pytest.skip(reason)
    with Wire(SEED) as wire:
        yield wire


@pytest.fixture(scope="module", params=[3, 5])
def network(request, wire, tmp_path_factory):
    with Network(tmp_path_factory.mktemp("faults"), wire).open(request.param) as network:
        yield network


def primary_cut_off(network: Network):
    primary = network.primary()
    return network.wire.ruled(cut=both_ways([primary.host], network.others(primary)))


def backup_cut_off(network: Network):
    backup = network.backups()[0]
    return network.wire.ruled(cut=both_ways([backup.host], network.others(backup)))


def primary_deaf(network: Network):
    """It sends and does not receive: its heartbeats go on."""
    primary = network.primary()
    return network.wire.ruled(cut=ways(network.others(primary), [primary.host]))


def primary_mute(network: Network):
    """It receives and does not send."""
    primary = network.primary()
    return network.wire.ruled(cut=ways([primary.host], network.others(primary)))


def backup_deaf(network: Network):
    """It hears of no primary, and asks for votes."""
    backup = network.backups()[0]
    return network.wire.ruled(cut=ways(network.others(backup), [backup.host]))


def primary_and_backup_apart(network: Network):
    """They do not see each other; all others see both."""
    primary, backup = network.primary(), network.backups()[0]
    return network.wire.ruled(cut=both_ways([primary.host], [backup.host]))


@contextlib.contextmanager
def flapping(network: Network) -> Iterator[None]:
    """Whoever leads is cut off, again and again, for a moment."""
    ends_at = time.monotonic() + SECONDS
    while time.monotonic() < ends_at:
        with primary_cut_off(network):
            time.sleep(FLAP_SECONDS)
        time.sleep(FLAP_SECONDS)
    yield


def minority_with_primary(network: Network):
    """Two of five, one of which leads, and the other three."""
    minority = [network.primary(), network.backups()[0]]
    few = [node.host for node in minority]
    return network.wire.ruled(cut=both_ways(few, network.others(*minority)))


def bridge(network: Network):
    """Two halves that see each other through one node only, which does not lead."""
    primary, (middle, companion, *_) = network.primary(), network.backups()
    half = [primary, companion]
    other_half = network.others(*half, middle)
    return network.wire.ruled(cut=both_ways([node.host for node in half], other_half))


def ring(network: Network):
    """Everybody sees two neighbours: each is in a majority, no two are in the same."""
    hosts, count = [node.host for node in network.running], len(network.running)
    apart = [
        (one, other)
        for place, one in enumerate(hosts)
        for distance, other in enumerate(hosts[place:] + hosts[:place])
        if distance not in (0, 1, count - 1)
    ]
    return network.wire.ruled(cut=apart)


def delay(network: Network):
    return network.wire.ruled(delay_ms=50, jitter_ms=20)


def loss(network: Network):
    return network.wire.ruled(loss=0.1)


def primary_paused(network: Network):
    return paused(network.primary())


def backup_paused(network: Network):
    return paused(network.backups()[0])


@contextlib.contextmanager
def paused(node: HostedNode) -> Iterator[None]:
    """It does not know afterwards that it was away."""
    node.process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        node.process.send_signal(signal.SIGCONT)


@contextlib.contextmanager
def primary_killed(network: Network) -> Iterator[None]:
    """`kill -9`, and the process is started again later."""
    primary = network.primary()
    network.running.remove(primary)
    primary.kill()
    yield
    network.restart(primary)


@contextlib.contextmanager
def primary_on_slow_disk(network: Network) -> Iterator[None]:
    if not SlowDisk.is_possible():
        pytest.skip("a slow disk takes `cc`")
    with disks.slow(network.primary().home, SLOW_DISK_US):
        yield


@contextlib.contextmanager
def majority_on_slow_disks(network: Network) -> Iterator[None]:
    if not SlowDisk.is_possible():
        pytest.skip("a slow disk takes `cc`")
    with contextlib.ExitStack() as stack:
        for node in network.running[: len(network.running) // 2 + 1]:
            stack.enter_context(disks.slow(node.home, SLOW_DISK_US))
        yield


@contextlib.contextmanager
def rolling_restart(network: Network) -> Iterator[None]:
    roll(network, network.restart)
    yield


@contextlib.contextmanager
def rolling_replacement(network: Network) -> Iterator[None]:
    """In the end no node is left of those at the beginning."""
    roll(network, network.replace)
    yield


def roll(network: Network, change: Callable[[HostedNode], None]):
    """One node after the other, and again until the time is over."""
    ends_at = time.monotonic() + SECONDS
    while True:
        for node in list(network.running):
            change(node)
        if time.monotonic() > ends_at:
            return


ANY_NUMBER = [
    primary_cut_off,
    backup_cut_off,
    primary_deaf,
    primary_mute,
    primary_and_backup_apart,
    flapping,
    delay,
    loss,
    primary_paused,
    primary_killed,
    majority_on_slow_disks,
    rolling_restart,
    rolling_replacement,
]
# Of more nodes they say nothing new.
OF_THREE = [backup_deaf, backup_paused, primary_on_slow_disk]
OF_FIVE = [minority_with_primary, bridge, ring]
# They last as long as they take.
BY_STEPS = [flapping, rolling_restart, rolling_replacement]


@pytest.mark.parametrize("fault", OF_THREE + ANY_NUMBER + OF_FIVE, ids=lambda fault: fault.__name__)
def test_under(network, fault):
    count = len(network.running)
    if fault in OF_FIVE and count < 5 or fault in OF_THREE and count > 3:
        pytest.skip(f"not of {count} nodes")
    if count > 3 and not LONG and fault not in OF_FIVE:
        pytest.skip("of five nodes in the long form only")
    with Load(fault.__name__, network.running, CLIENTS_PER_NODE * count) as load:
        time.sleep(SECONDS_OF_CALM)
        begun_at = time.monotonic()
        with fault(network):
            time.sleep(0 if fault in BY_STEPS else SECONDS)
            until(lambda: load.written(begun_at), SECONDS_TO_SERVE)
            ended_at = time.monotonic()
        served_after = network.until_all_serve(f"after-{fault.__name__}", SECONDS_TO_SERVE)
        time.sleep(SECONDS_OF_CALM)
    report(fault.__name__, load, begun_at, ended_at, f"all serve {served_after:.1f} s later")
    load.check()


def report(name: str, load: Load, begun_at: float, ended_at: float, more: str):
    written = [at for at in load.written(begun_at) if at < ended_at]
    gaps = [later - earlier for earlier, later in zip([begun_at, *written], [*written, ended_at])]
    lasts = f"{ended_at - begun_at:.1f} s, {len(written)} writes, none for {max(gaps):.1f} s"
    print(f"\n{name}: {lasts}; {more}; {load}")


def test_what_the_wire_does_is_seen(network):
    """Reads that are allowed to be old are old at a node that is cut off, and those that are not
    are refused there: without this, the histories above would prove nothing."""
    primary, backup = network.primary(), network.backups()[0]
    assert primary.put("seen", "old").status_code == 204
    until(lambda: backup.get("/app/records/seen").text == "old")
    with network.wire.ruled(cut=both_ways([backup.host], network.others(backup))):
        assert primary.put("seen", "new").status_code == 204
        assert backup.get("/app/records/seen").text == "old"
        refused = backup.get("/app/records/seen", {"x-coco-read": "linearizable"})
        assert refused.status_code == 503, refused.text
    until(lambda: backup.get("/app/records/seen").text == "new")


def test_ledgers_are_one(network):
    """The last one for a service, which ends here."""
    end_with_one_ledger(network)


@pytest.mark.parametrize("role", ["primary", "backup"])
def test_on_a_full_disk(wire, tmp_path, role):
    """The node says why it ends, others go on without it, and it comes back when there is room."""
    with Network(tmp_path, wire).open(3, disk_mb=DISK_MB) as network:
        node = network.primary() if role == "primary" else network.backups()[0]
        name = f"{role}_on_full_disk"
        with Load(name, network.running, CLIENTS_PER_NODE * 3) as load:
            time.sleep(SECONDS_OF_CALM)
            begun_at = time.monotonic()
            with node.small_disk.full():
                log = node.home / "node.log"
                until(lambda: "No space left on device" in log.read_text())
                network.running.remove(node)
                others_serve_after = network.until_all_serve(f"meanwhile-{name}", SECONDS_TO_SERVE)
                time.sleep(SECONDS)
                ended_at = time.monotonic()
            network.restart(node)
            network.until_all_serve(f"after-{name}", SECONDS_TO_SERVE)
        report(name, load, begun_at, ended_at, f"others serve {others_serve_after:.1f} s later")
        load.check()
        end_with_one_ledger(network)


def end_with_one_ledger(network: Network):
    """With all that was ever acknowledged in committed files of every node."""
    network.until_all_serve("last", SECONDS_TO_SERVE)
    last = complete_chunk(network.primary(), network.running)
    # No node is given the time to tidy up.
    for node in network.running:
        node.kill()
    # Also those that were replaced: what they have goes back to the beginning.
    check_ledgers(network.started)
    former = [node for node in network.started if node not in network.running]
    validated = [validate_committed(node) for node in network.running + former[-1:]]
    assert min(validated[: len(network.running)]) >= last, validated
    print(f"\n{len(validated)} ledgers validated up to {validated}")
