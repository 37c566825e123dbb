"""Hosts: network namespaces with an address each, on one wire that can be cut, slow and lossy.

It takes root, `ip` and /dev/net/tun. Nothing else of the machine is touched: the addresses are of the
range that is kept for benchmarks (RFC 2544), and all that was made is removed, also what a process
that was killed has left.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator

import wire
from wire import CLIENTS

PREFIX = "coco"
Pair = tuple["Host", "Host"]


@dataclasses.dataclass(frozen=True)
class Host:
    """A namespace, and its address on the wire."""

    number: int
    namespace: str
    address: str

    def command(self, *words) -> list[str]:
        """Runs there, in the process that is started."""
        return ["ip", "netns", "exec", self.namespace, *(str(word) for word in words)]


class Wire:
    """A wire and the hosts on it; the tests themselves are on it, too, as clients."""

    def __init__(self, seed: int):
        remove_what_is_left()
        self.subnet = f"198.18.{os.getpid() % 256}"
        self.numbers = itertools.count(1)
        self.namespaces: list[str] = []
        self.switch = subprocess.Popen(
            [sys.executable, wire.__file__, str(seed)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Wire:
        try:
            self.plug(CLIENTS, namespace=None)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        self.switch.stdin.close()
        self.switch.wait(10)
        self.switch.stdout.close()
        for namespace in self.namespaces:
            ip("netns", "del", namespace)

    def host(self) -> Host:
        number = next(self.numbers)
        namespace = f"{PREFIX}-{os.getpid()}-{number}"
        ip("netns", "add", namespace)
        self.namespaces.append(namespace)
        ip("-n", namespace, "link", "set", "lo", "up")
        return Host(number, namespace, self.plug(number, namespace))

    def plug(self, number: int, namespace: str | None) -> str:
        device, address = f"{PREFIX}{os.getpid()}n{number}", f"{self.subnet}.{number}"
        self.order(plug=number, device=device)
        if namespace:
            ip("link", "set", device, "netns", namespace)
        within = ["-n", namespace] if namespace else []
        ip(*within, "link", "set", device, "mtu", str(wire.MTU), "up")
        ip(*within, "addr", "add", f"{address}/24", "dev", device)
        return address

    def order(self, **command) -> dict[str, int]:
        """Has an order carried out; what the wire has done so far."""
        print(json.dumps(command), file=self.switch.stdin, flush=True)
        return json.loads(self.switch.stdout.readline())

    def rule(self, cut: Iterable[Pair] = (), delay_ms=0, jitter_ms=0, loss=0) -> dict[str, int]:
        numbers = [(sender.number, receiver.number) for sender, receiver in cut]
        return self.order(cut=numbers, delay_ms=delay_ms, jitter_ms=jitter_ms, loss=loss)

    def heal(self) -> dict[str, int]:
        return self.rule()

    @contextlib.contextmanager
    def ruled(self, **rules) -> Iterator[None]:
        """With such rules, which must have met some packets by the end."""
        before = self.rule(**rules)
        try:
            yield
        finally:
            after = self.heal()
        met = {name for name in ("cut", "lost", "delayed") if after[name] > before[name]}
        assert met, "the fault has met no packet"


def ways(senders: Iterable[Host], receivers: Iterable[Host]) -> list[Pair]:
    """From each of the ones to each of the others, and not back."""
    return [(one, other) for one in senders for other in receivers if one != other]


def both_ways(some: Iterable[Host], others: Iterable[Host]) -> list[Pair]:
    some, others = list(some), list(others)
    return ways(some, others) + ways(others, some)


def ip(*words: str) -> str:
    done = subprocess.run(["ip", *words], capture_output=True, text=True)
    if done.returncode:
        raise OSError(f"ip {' '.join(words)}: {done.stderr}")
    return done.stdout


def remove_what_is_left():
    """Namespaces of tests that are gone, and the nodes in them."""
    for namespace in named():
        pid = namespace.split("-")[1]
        if not pathlib.Path(f"/proc/{pid}").exists():
            for node in ip("netns", "pids", namespace).split():
                os.kill(int(node), signal.SIGKILL)
            ip("netns", "del", namespace)


def named() -> list[str]:
    names = [line.split()[0] for line in ip("netns", "list").splitlines()]
    return [name for name in names if name.startswith(f"{PREFIX}-")]


def missing() -> str | None:
    """Why there can be no namespaces here."""
    if os.geteuid() != 0:
        return "network namespaces take root"
    if not shutil.which("ip"):
        return "network namespaces take `ip`, of the package iproute2"
    if not os.access("/dev/net/tun", os.R_OK | os.W_OK):
        return "the wire between namespaces takes /dev/net/tun"
    try:
        with Wire(seed=0) as probe:
            subprocess.run(probe.host().command("true"), check=True, capture_output=True)
    except (OSError, ValueError, subprocess.CalledProcessError) as error:
        return f"network namespaces are not permitted here: {error}"
    return None
