"""The wire between network namespaces: a switch in user space that cuts, delays and loses packets.

Every host has a TUN device, and this process holds the other ends: what a host sends is read here
and written to the host that it is for, at once, later or never. It does what netem does, on kernels
without netem too; each direction of each pair is cut by itself, and chance has a seed.

Commands come as lines of JSON on the standard input, and each is answered by the counters. The
process ends with its input, and the devices with the process.
"""

import dataclasses
import fcntl
import heapq
import json
import os
import random
import select
import struct
import sys
import time

TUNSETIFF = 0x400454CA
IFF_TUN, IFF_NO_PI = 0x0001, 0x1000

# The host of the clients. Delay and loss are between the others; cuts are between any two.
CLIENTS = 254
# The last byte of the destination's address, which is the host's number.
RECEIVER = 19
MTU = 9000
PACKETS_AT_ONCE = 64


@dataclasses.dataclass
class Rules:
    """What becomes of a packet, and of no other kind of rule is there need."""

    # Pairs of sender and receiver.
    cut: set[tuple[int, int]] = dataclasses.field(default_factory=set)
    delay_ms: float = 0
    # So much more or less, evenly spread: packets overtake each other.
    jitter_ms: float = 0
    # Of each packet.
    loss: float = 0


class Switch:
    def __init__(self, seed: int):
        self.chance = random.Random(seed)
        self.rules = Rules()
        self.devices: dict[int, int] = {}
        self.hosts: dict[int, int] = {}
        # When, in which order, to which device, what.
        self.delayed: list[tuple[float, int, int, bytes]] = []
        self.counters = {"carried": 0, "cut": 0, "lost": 0, "delayed": 0}
        self.ready = select.epoll()
        self.ready.register(0, select.EPOLLIN)
        self.input = b""

    def run(self):
        while True:
            pause = self.delayed[0][0] - time.monotonic() if self.delayed else -1
            for device, _ in self.ready.poll(max(pause, 0) if self.delayed else None):
                if device != 0:
                    self.read(device)
                elif not self.obey():
                    return
            while self.delayed and self.delayed[0][0] <= time.monotonic():
                *_, device, packet = heapq.heappop(self.delayed)
                self.deliver(device, packet)

    def obey(self) -> bool:
        """False at the end of the input."""
        more = os.read(0, 65536)
        *lines, self.input = (self.input + more).split(b"\n")
        for line in lines:
            command = json.loads(line)
            if "plug" in command:
                self.plug(command["plug"], command["device"])
            else:
                command["cut"] = {tuple(pair) for pair in command["cut"]}
                self.rules = Rules(**command)
            print(json.dumps(self.counters), flush=True)
        return bool(more)

    def plug(self, host: int, name: str):
        device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
        fcntl.ioctl(device, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TUN | IFF_NO_PI))
        self.devices[host], self.hosts[device] = device, host
        self.ready.register(device, select.EPOLLIN)

    def read(self, device: int):
        for _ in range(PACKETS_AT_ONCE):
            try:
                packet = os.read(device, 65536)
            except OSError:
                # Nothing more; or the device is down.
                return
            if packet[0] >> 4 == 4:
                self.carry(self.hosts[device], packet[RECEIVER], packet)

    def carry(self, sender: int, receiver: int, packet: bytes):
        rules, device = self.rules, self.devices.get(receiver)
        if (sender, receiver) in rules.cut:
            self.counters["cut"] += 1
        elif device is None:
            self.counters["lost"] += 1
        elif CLIENTS in (sender, receiver):
            self.deliver(device, packet)
        elif rules.loss and self.chance.random() < rules.loss:
            self.counters["lost"] += 1
        elif rules.delay_ms:
            jitter_ms = self.chance.uniform(-rules.jitter_ms, rules.jitter_ms)
            self.counters["delayed"] += 1
            due = time.monotonic() + (rules.delay_ms + jitter_ms) / 1000
            heapq.heappush(self.delayed, (due, self.counters["delayed"], device, packet))
        else:
            self.deliver(device, packet)

    def deliver(self, device: int, packet: bytes):
        try:
            os.write(device, packet)
            self.counters["carried"] += 1
        except OSError:
            self.counters["lost"] += 1


if __name__ == "__main__":
    Switch(seed=int(sys.argv[1])).run()
