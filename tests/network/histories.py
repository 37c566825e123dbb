"""Clients that read and write registers through any node, and write down what they saw."""

from __future__ import annotations

import collections
import http.client
import itertools
import json
import random
import select
import ssl
import threading
import time
import urllib.parse

import linearizable
from linearizable import UNKNOWN, Operation
from nodes import Node

KEYS = 3
# A node gives up what it has forwarded after a second here; a client waits for that.
TIMEOUT_S = 3
PAUSE_S = 0.02

# Nothing was done, and nothing will be.
REFUSALS = {
    "PrimaryNotFound",
    "RequestAlreadyForwarded",
    "SessionConsistencyLost",
    "TooManyPendingTransactions",
    "TransactionInvalid",
}
# It may have been done, or may be.
UNCERTAINTIES = {"TransactionReplicationFailed"}


class Refused(Exception):
    """The request has had no effect and never will."""


class OutcomeUnknown(Exception):
    """Nobody can tell whether the request has had, or will have, an effect."""


class Session:
    """A connection to one node."""

    def __init__(self, node: Node, context: ssl.SSLContext):
        url = urllib.parse.urlparse(node.url)
        self.connection = http.client.HTTPSConnection(
            url.hostname, url.port, context=context, timeout=TIMEOUT_S
        )

    def request(self, method: str, path: str, body: str | None = None, **headers: str):
        """The status, the headers and the text of a reply; else what is known then."""
        if self.has_ended():
            self.connection.close()
        if not self.connection.sock:
            try:
                self.connection.connect()
            except OSError as error:
                self.connection.close()
                raise Refused(type(error).__name__) from error
        try:
            self.connection.request(method, path, body, headers)
            reply = self.connection.getresponse()
            text = reply.read().decode()
        except (OSError, http.client.HTTPException) as error:
            self.connection.close()
            raise OutcomeUnknown(type(error).__name__) from error
        if reply.status in (200, 204, 404):
            return reply.status, reply.headers, text
        if reply.status == 504:
            raise OutcomeUnknown("504")
        code = json.loads(text)["error"]["code"]
        if code in REFUSALS:
            raise Refused(code)
        assert code in UNCERTAINTIES, (reply.status, text)
        raise OutcomeUnknown(code)

    def has_ended(self) -> bool:
        """Whether the node has closed the connection since the last reply: nothing else is to be read
        there. A request that is not sent there is none with an unknown outcome."""
        sock = self.connection.sock
        return bool(sock and select.select([sock], [], [], 0)[0])

    def write(self, key: str, value: str) -> str:
        """Returns when it is committed, with the transaction's id."""
        wait = {"x-coco-wait": "committed"}
        status, headers, text = self.request("PUT", f"/app/records/{key}", value, **wait)
        assert status == 204, (status, text)
        return headers["x-ms-ccf-transaction-id"]

    def read(self, key: str) -> str | None:
        recent = {"x-coco-read": "linearizable"}
        status, _, text = self.request("GET", f"/app/records/{key}", **recent)
        # The application has no words for what is not there; the node has, for an unknown path.
        assert status == 200 or (status, text) == (404, ""), (status, text)
        return text if status == 200 else None

    def close(self):
        self.connection.close()


class Client(threading.Thread):
    def __init__(self, load: Load, number: int):
        super().__init__(daemon=True)
        self.load, self.number = load, number
        self.chance = random.Random(f"{load.name} {number}")
        self.count = itertools.count()
        self.sessions: dict[tuple[str, bool], Session] = {}
        self.failure: Exception | None = None

    def run(self):
        try:
            while not self.load.ends.is_set():
                self.step()
                time.sleep(self.chance.uniform(0, PAUSE_S))
        except Exception as failure:
            self.failure = failure
        finally:
            for session in self.sessions.values():
                session.close()

    def node(self) -> Node:
        """Every other client stays with its node, so that one that does not answer holds up few."""
        if self.number % 2:
            return self.chance.choice(self.load.running)
        return self.load.running[self.number // 2 % len(self.load.running)]

    def session(self, node: Node, reads_only: bool) -> Session:
        """What is read over a connection that has written is asked of the primary; over another one
        it is the node itself that answers."""
        name = (node.url, reads_only)
        if name not in self.sessions:
            self.sessions[name] = Session(node, self.load.context)
        return self.sessions[name]

    def step(self):
        key = f"{self.load.name}-{self.chance.randrange(KEYS)}"
        is_write = self.chance.random() < 0.5
        session = self.session(self.node(), reads_only=not is_write and self.chance.random() < 0.5)
        value = f"{self.number}.{next(self.count)}" if is_write else None
        called, returned = time.monotonic(), UNKNOWN
        try:
            if is_write:
                self.load.transactions.append(session.write(key, value))
            else:
                value = session.read(key)
            returned = time.monotonic()
        except Refused as refusal:
            self.load.refusals[str(refusal)] += 1
            return
        except OutcomeUnknown as unknown:
            self.load.unknown[str(unknown)] += 1
        self.load.history.append(Operation(self.number, key, is_write, value, called, returned))


class Load:
    """Some clients at work on registers of their own, and the history of it."""

    def __init__(self, name: str, running: list[Node], clients: int):
        self.name, self.running = name, running
        self.context = running[0].context()
        self.history: list[Operation] = []
        self.transactions: list[str] = []
        self.refusals = collections.Counter()
        self.unknown = collections.Counter()
        self.ends = threading.Event()
        self.clients = [Client(self, number) for number in range(clients)]

    def __enter__(self) -> Load:
        for client in self.clients:
            client.start()
        return self

    def __exit__(self, *_):
        self.ends.set()
        for client in self.clients:
            client.join(3 * TIMEOUT_S)

    def written(self, since: float) -> list[float]:
        """When writes were acknowledged that were begun after that time."""
        writes = [it for it in list(self.history) if it.is_write and it.called >= since]
        return sorted(it.returned for it in writes if it.returned != UNKNOWN)

    def check(self):
        """The clients' side of it: every register is one, and what was acknowledged is committed."""
        assert [client.failure for client in self.clients] == [None] * len(self.clients)
        assert not any(client.is_alive() for client in self.clients)
        self.read_all()
        linearizable.check(self.history)
        for node in self.running:
            check_committed(node, self.context, self.transactions)

    def read_all(self):
        """What is there at the end, as every node tells."""
        for node in self.running:
            session = Session(node, self.context)
            for number in range(KEYS):
                key, called = f"{self.name}-{number}", time.monotonic()
                value = session.read(key)
                returned, reader = time.monotonic(), len(self.clients)
                self.history.append(Operation(reader, key, False, value, called, returned))
            session.close()

    def __str__(self) -> str:
        writes = sum(operation.is_write for operation in self.history)
        refusals, unknown = dict(self.refusals), dict(self.unknown)
        return (
            f"{len(self.history) - writes} reads, {writes} writes, {len(self.transactions)} acknowledged; "
            f"unknown {unknown}, refused {refusals}"
        )


def check_committed(
    node: Node, context: ssl.SSLContext, transactions: list[str], seconds: float = 10
):
    """This node knows of every one of them that it is committed, or will in a moment."""
    session, deadline = Session(node, context), time.monotonic() + seconds
    for transaction in transactions:
        while True:
            _, _, text = session.request("GET", f"/app/tx?transaction_id={transaction}")
            status = json.loads(text)["status"]
            if status == "Committed":
                break
            assert status in ("Pending", "Unknown"), (transaction, status)
            assert time.monotonic() < deadline, (transaction, status)
            time.sleep(0.02)
    session.close()
