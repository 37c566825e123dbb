"""Starting `coco`, and speaking to it with unmodified clients."""

from __future__ import annotations

import json
import os
import pathlib
import signal
import ssl
import subprocess
import time

import ccf.cose
import httpx
import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "examples"
BINARIES = pathlib.Path(os.environ.get("COCO_BIN", ROOT / "target" / "release"))
API = "2024-07-01"
# With a number in the environment clients talk to that node of three, otherwise to one that is alone.
NODE = os.environ.get("COCO_NODE")

alone = pytest.mark.skipif(NODE is not None, reason="of a node that is alone")


class Identity:
    """A key and a certificate in PEM files, as `coco dev` and keygenerator.sh write them."""

    def __init__(self, folder: pathlib.Path, name: str):
        self.name = name
        self.cert_file = folder / f"{name}_cert.pem"
        self.key_file = folder / f"{name}_privk.pem"

    @property
    def cert(self) -> str:
        return self.cert_file.read_text()

    @property
    def id(self) -> str:
        return ccf.cose.cert_fingerprint(self.cert).decode()

    def sign(self, payload: bytes, headers: dict | None = None) -> bytes:
        """A COSE_Sign1 made by PyPI ccf."""
        return ccf.cose.create_cose_sign1(
            payload, self.key_file.read_text(), self.cert, headers or {}
        )


class Service:
    """`coco dev` in a folder of its own."""

    def __init__(self, folder: pathlib.Path, app: pathlib.Path | None = None, binary="coco", extra=()):
        self.folder = pathlib.Path(folder)
        # The folder of the node that clients talk to.
        self.home = self.folder / f"node{NODE}" if NODE else self.folder
        self.app = app
        self.binary = BINARIES / binary
        self.extra = list(extra)
        self.process: subprocess.Popen | None = None
        self.url = ""
        self.clients: list[httpx.Client] = []

    def __enter__(self) -> "Service":
        self.start()
        return self

    def __exit__(self, *_):
        self.stop()

    def start(self, keep: bool = False) -> dict:
        """Starts the node and waits for the line that says it is open."""
        command = [self.binary, "dev", "--dir", self.folder, "--port", "0", "--json", *self.extra]
        command += ["--app", self.app] if self.app else []
        command += ["--keep"] if keep else []
        command += ["--nodes", "3"] if NODE else []
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        self.log = open(f"{self.folder}.log", "ab")
        self.process = subprocess.Popen(
            [str(word) for word in command], stdout=subprocess.PIPE, stderr=self.log, text=True
        )
        ready = self.process.stdout.readline()
        if not ready:
            raise RuntimeError(f"coco dev ended early: {pathlib.Path(self.log.name).read_text()}")
        self.description = json.loads(ready)
        if NODE:
            node = self.description["nodes"][int(NODE)]
            self.description["url"] = node["url"]
            self.description["ethereum"]["url"] = node["ethereum"]
        self.url = self.description["url"]
        return self.description

    def stop(self):
        """Asks the node to stop, and waits until it has."""
        self.close_clients()
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                raise
        self.release()

    def kill(self):
        """What a power cut does to a process."""
        self.close_clients()
        self.process.kill()
        self.process.wait()
        self.release()

    def release(self):
        if self.process:
            self.process.stdout.close()
            self.log.close()
            self.process = None

    def close_clients(self):
        for client in self.clients:
            client.close()
        self.clients.clear()

    def verify_ledger(self, *more):
        """The ledger as it is on disk: a torn tail is not a fault, anything else is."""
        command = [BINARIES / "coco", "ledger", "verify", self.ledger, "--service-cert", self.service_cert_file]
        command += more
        result = subprocess.run([str(word) for word in command], capture_output=True, text=True)
        assert result.returncode == 0, result.stdout + result.stderr

    def identity(self, name: str) -> Identity:
        return Identity(self.folder, name)

    @property
    def members(self) -> list[Identity]:
        return [self.identity(f"member{number}") for number in range(3)]

    @property
    def service_cert_file(self) -> pathlib.Path:
        return self.folder / "service_cert.pem"

    @property
    def ledger(self) -> pathlib.Path:
        return self.home / "ledger"

    @property
    def snapshots(self) -> pathlib.Path:
        return self.home / "snapshots"

    def client(self, name: str | None = None, http2: bool = False) -> httpx.Client:
        """An HTTPS client that trusts the service certificate only."""
        context = ssl.create_default_context(cafile=self.service_cert_file)
        if name:
            identity = self.identity(name)
            context.load_cert_chain(identity.cert_file, identity.key_file)
        client = httpx.Client(base_url=self.url, verify=context, http2=http2, timeout=30)
        self.clients.append(client)
        return client

    def govern(self, member: Identity, path: str, kind: str, body, proposal: str | None = None, **more):
        """A signed governance request."""
        payload = body if isinstance(body, bytes) else json.dumps(body).encode()
        headers = {"ccf.gov.msg.type": kind, "ccf.gov.msg.created_at": int(time.time())}
        if proposal:
            headers["ccf.gov.msg.proposal_id"] = proposal
        headers.update(more)
        return self.client().post(
            f"/gov/{path}?api-version={API}",
            content=member.sign(payload, headers),
            headers={"content-type": "application/cose"},
        )

    def propose(self, *actions: dict) -> dict:
        """Proposes and has every member vote for it until it is accepted."""
        first, *others = self.members
        reply = self.govern(first, "members/proposals:create", "proposal", {"actions": actions})
        assert reply.status_code == 200, reply.text
        proposal = reply.json()
        for member in [first, *others]:
            if proposal["proposalState"] != "Open":
                break
            proposal = self.vote(member, proposal["proposalId"]).json()
        assert proposal["proposalState"] == "Accepted", proposal
        return proposal

    def vote(self, member: Identity, proposal: str, agree: bool = True) -> httpx.Response:
        word = "true" if agree else "false"
        ballot = {"ballot": f"export function vote(proposal, proposerId) {{ return {word}; }}"}
        path = f"members/proposals/{proposal}/ballots/{member.id}:submit"
        return self.govern(member, path, "ballot", ballot, proposal)

    def wait_committed(self, transaction: str, seconds: float = 5):
        """Polls /node/tx as CCF's clients do."""
        client = self.client()
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            status = client.get("/node/tx", params={"transaction_id": transaction}).json()["status"]
            if status == "Committed":
                return
            assert status != "Invalid", transaction
            time.sleep(0.005)
        raise AssertionError(f"{transaction} was not committed within {seconds} s")
