"""Eight clients write while the primary is killed, again and again, and replaced by a new node."""

import itertools
import os
import statistics
import threading
import time

import httpx
from ledgers import check_ledgers, complete_chunk
from nodes import APP, Node, configs, open_nodes, trust, until, voters

FAILOVERS = int(os.environ.get("COCO_FAILOVERS", "5"))
CLIENTS = 8
SECONDS_OF_LOAD = 1.5

COUNTERS = {
    "metadata": {
        "endpoints": {
            "/counters/{key}": {
                verb: {
                    "js_module": "counters.js",
                    "js_function": verb,
                    "forwarding_required": "always" if mode == "readwrite" else "never",
                    "authn_policies": ["no_auth"],
                    "mode": mode,
                    "openapi": {},
                }
                for verb, mode in (("post", "readwrite"), ("get", "readonly"))
            }
        }
    },
    "modules": [
        {
            "name": "counters.js",
            "module": """
const counters = ccf.kv["counters"];
function value(key) {
  const found = counters.get(ccf.strToBuf(key));
  return found === undefined ? 0 : Number(ccf.bufToStr(found));
}
export function post(request) {
  const next = value(request.params.key) + 1;
  counters.set(ccf.strToBuf(request.params.key), ccf.strToBuf(String(next)));
  return { body: next };
}
export function get(request) {
  return { body: value(request.params.key) };
}
""",
        }
    ],
}


def add_counters(node: Node):
    """To the application that is there."""
    bundle = {
        "metadata": {"endpoints": APP["metadata"]["endpoints"] | COUNTERS["metadata"]["endpoints"]},
        "modules": APP["modules"] + COUNTERS["modules"],
    }
    node.propose({"name": "set_js_app", "args": {"bundle": bundle}})


class Network:
    """Who runs. Clients and the operator look here for somebody to talk to."""

    def __init__(self, nodes: list[Node], folder):
        self.running = list(nodes)
        # The service ends with all its nodes, also those that come later.
        self.started = nodes
        self.keys = nodes[0].folder
        self.folder = folder
        self.homes = itertools.count(len(nodes))

    def primary(self) -> tuple[str, Node]:
        """The node that says so of itself, and that a majority follows."""
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            for node in self.running:
                try:
                    if node.get("/node/primary").status_code == 200:
                        return node.get("/node/network/nodes/self").json()["node_id"], node
                except httpx.TransportError:
                    pass
            time.sleep(0.02)
        raise AssertionError("nobody leads")

    def replace(self, dead: str):
        """A new node joins, its members trust it and let the dead one go."""
        _, primary = self.primary()
        number = next(self.homes)
        *_, (home, config) = configs(self.keys, self.folder, number + 1)
        target = primary.url.removeprefix("https://")
        config["command"]["join"] = {"target_rpc_address": target, "retry_timeout": "50ms"}
        node = Node(self.keys, home, config)
        self.started.append(node)
        node.launch()
        new = trust(primary, retire=dead)
        # The change is over when there is but one configuration.
        counts = lambda nodes: new in nodes and dead not in nodes and len(nodes) == 3
        until(lambda: [counts(nodes) for nodes in voters(primary)] == [True], 60)
        node.ready()
        self.running.append(node)


class OutcomeUnknown(Exception):
    """A request that was sent and not answered."""


class Client(threading.Thread):
    """Adds one to a counter of its own, and never goes on before it knows what became of that."""

    def __init__(self, network: Network, number: int, stop: threading.Event):
        super().__init__(daemon=True)
        self.network, self.key, self.stopped = network, f"client{number}", stop
        self.added = self.lost = self.void = 0
        self.committed_at: list[float] = []
        self.failure: Exception | None = None
        self.sessions: dict[str, httpx.Client] = {}

    def run(self):
        try:
            while not self.stopped.is_set():
                self.add()
        except Exception as failure:
            self.failure = failure

    def session(self, node: Node) -> httpx.Client:
        if node.url not in self.sessions:
            context = node.context()
            self.sessions[node.url] = httpx.Client(verify=context, timeout=5, follow_redirects=True)
        return self.sessions[node.url]

    def request(self, method: str, path: str) -> httpx.Response:
        """Of anybody who answers."""
        deadline = time.monotonic() + 20
        for node in itertools.cycle(list(self.network.running)):
            try:
                reply = self.session(node).request(method, node.url + path)
            except httpx.TransportError as error:
                if method == "POST":
                    raise OutcomeUnknown from error
            else:
                if reply.status_code == 200:
                    return reply
                if reply.status_code == 504 and method == "POST":
                    raise OutcomeUnknown
                # Without a primary; or the session's last write is lost, and the next one is another.
                refused = reply.status_code in (503, 504) or "SessionConsistencyLost" in reply.text
                assert refused, reply.text
            assert time.monotonic() < deadline, f"{method} {path}"
            time.sleep(0.01)

    def post(self, key: str) -> bool:
        """Whether it is committed."""
        transaction = self.request("POST", f"/app/counters/{key}").headers["x-ms-ccf-transaction-id"]
        while True:
            status = self.request("GET", f"/node/tx?transaction_id={transaction}").json()["status"]
            if status in ("Committed", "Invalid"):
                return status == "Committed"
            time.sleep(0.002)

    def add(self):
        try:
            is_committed = self.post(self.key)
        except OutcomeUnknown:
            self.lost += 1
            is_committed = self.find_out()
        if is_committed:
            self.committed_at.append(time.monotonic())
            self.added += 1
        else:
            self.void += 1

    def find_out(self) -> bool:
        """Once a later write is committed, what was sent before is on the ledger or never will be."""
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            try:
                if self.post(f"{self.key}-barrier"):
                    return self.value() == self.added + 1
            except OutcomeUnknown:
                time.sleep(0.01)
        raise AssertionError("nothing is committed any more")

    def value(self) -> int:
        _, primary = self.network.primary()
        return primary.get(f"/app/counters/{self.key}").json()


def test_nothing_committed_is_lost_and_nothing_happens_twice(tmp_path):
    with open_nodes(tmp_path) as nodes:
        add_counters(nodes[0])
        network, stop = Network(nodes, tmp_path), threading.Event()
        clients = [Client(network, number, stop) for number in range(CLIENTS)]
        try:
            for client in clients:
                client.start()
            gaps = [fail_over(network, clients) for _ in range(FAILOVERS)]
        finally:
            stop.set()
            for client in clients:
                client.join(30)
            # The service ends with all its nodes, also those that came later.
            nodes += [node for node in network.running if node not in nodes]
        assert [client.failure for client in clients] == [None] * CLIENTS
        lost, void = sum(client.lost for client in clients), sum(client.void for client in clients)
        total = sum(client.added for client in clients)
        print(
            f"{FAILOVERS} failovers, {total} writes, {lost} answers lost, {void} writes void; "
            f"gap median {statistics.median(gaps):.2f} s, worst {max(gaps):.2f} s"
        )
        for client in clients:
            assert client.value() == client.added, client.key
        _, primary = network.primary()
        complete_chunk(primary, network.running)
        check_ledgers(network.running)


def fail_over(network: Network, clients: list[Client]) -> float:
    """Kills the primary and replaces it; returns for how long nothing was committed."""
    time.sleep(SECONDS_OF_LOAD)
    dead, primary = network.primary()
    network.running.remove(primary)
    killed_at = time.monotonic()
    primary.kill()
    # What was committed just before is still being noticed.
    later = killed_at + 0.05
    until(lambda: any(client.committed_at and client.committed_at[-1] > later for client in clients))
    times = sorted(itertools.chain(*(list(client.committed_at) for client in clients)))
    after = next(number for number, at in enumerate(times) if at > later)
    network.replace(dead)
    return times[after] - times[after - 1]
