"""A restart is a recovery: a new service identity, which members must agree to."""

import json
import shutil
import ssl
import subprocess
import time

import ccf.receipt
import httpx
import pytest
from service import BINARIES, EXAMPLES, Service, alone

pytestmark = alone
from test_audit import leaf_of, load, receipt, validate_with_ccf, write


def identities(service) -> tuple[str, str]:
    """The certificates of the service before, and of this one."""
    client = service.client()
    previous = client.get("/node/service/previous_identity").json()["previous_service_identity"]
    return previous, client.get("/node/network").json()["service_certificate"]


def opening(previous: str, present: str) -> dict:
    args = {"previous_service_identity": previous, "next_service_identity": present}
    return {"name": "transition_service_to_open", "args": args}


class Restarted(Service):
    """`coco node start` on the folder of a `coco dev`: nobody agrees to anything by itself."""

    def start(self):
        config = json.loads((self.folder / "node.json").read_text())
        config["command"]["type"] = "Restart"
        file = self.folder / "restart.json"
        file.write_text(json.dumps(config))
        addresses = self.folder / "rpc_addresses.json"
        addresses.unlink(missing_ok=True)
        self.log = open(f"{self.folder}.log", "ab")
        self.process = subprocess.Popen(
            [str(self.binary), "node", "start", "--config", str(file)],
            stdout=subprocess.PIPE,
            stderr=self.log,
        )
        deadline = time.monotonic() + 20
        while not addresses.exists() or not addresses.read_text():
            assert self.process.poll() is None and time.monotonic() < deadline
            time.sleep(0.02)
        address = json.loads(addresses.read_text())["primary_rpc_interface"]
        self.url = f"https://{address}"


def test_a_restart_recovers_the_service_under_a_new_identity(tmp_path):
    service = Service(tmp_path / "recovered", app=EXAMPLES / "notes")
    service.start()
    try:
        first = service.service_cert_file.read_text()
        before = write(service, 40)
        for number in (1, 2):
            service.stop()
            service.start(keep=True)
            previous, present = identities(service)
            assert present == service.service_cert_file.read_text() != previous
            if number == 1:
                assert previous == first
            network = service.client().get("/node/network").json()
            assert (network["service_status"], network["recovery_count"]) == ("Open", number)
            write(service, 10)
        assert service.client("user0").get("/app/notes/3").text.startswith("value")

        # Who trusts the first identity only is not talked to by another.
        strangers = ssl.create_default_context(cadata=first)
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{service.url}/node/network", verify=strangers)

        # A receipt of the time before leads to the present identity: over the first one if a node
        # signed the root then, as the first of a chunk and once a second, and else by the node that
        # is asked now.
        answering = service.client().get("/node/state").json()["node_id"]
        signers = {}
        for transaction in ["2.1", *before[::4]]:
            body = receipt(service, transaction).json()
            signers[transaction] = body["node_id"]
            node, present = load(body["cert"]), load(service.service_cert_file.read_text())
            endorsements = [load(pem) for pem in body.get("service_endorsements", [])]
            keys = [endorsement.public_key() for endorsement in endorsements]
            assert keys == ([] if body["node_id"] == answering else [load(first).public_key()])
            root = ccf.receipt.root(leaf_of(body["leaf_components"]), body["proof"])
            ccf.receipt.verify(root, body["signature"], node)
            ccf.receipt.check_endorsements(node, present, endorsements)
            ccf.receipt.check_cert_chain(node, present, endorsements)
            file = tmp_path / "receipt.json"
            file.write_text(json.dumps(body))
            command = [BINARIES / "coco", "receipt", "verify", file, "--service-cert"]
            assert subprocess.run([*command, service.service_cert_file]).returncode == 0
        assert signers["2.1"] != answering and answering in signers.values()
        cose = receipt(service, before[7], "receipt/cose").content
        ccf.receipt.verify_cose(cose, load(first).public_key(), bytes(32))
    finally:
        service.stop()
    assert validate_with_ccf(service, committed_only=False) > 60
    command = [BINARIES / "coco", "ledger", "verify", service.ledger, "--service-cert"]
    assert subprocess.run([*command, service.service_cert_file]).returncode == 0


def test_nothing_is_served_until_members_agree(tmp_path):
    service = Service(tmp_path / "service", app=EXAMPLES / "notes")
    service.start()
    kept = write(service, 20)[-1]
    service.stop()
    old_disk = tmp_path / "old"
    shutil.copytree(service.folder, old_disk)

    restarted = Restarted(service.folder)
    restarted.start()
    try:
        client = restarted.client("user0")
        assert client.get("/node/network").json()["service_status"] == "Recovering"
        assert client.get("/node/state").json()["state"] == "PartOfPublicNetwork"
        assert client.get("/node/ready/gov").status_code == 204
        assert client.get("/node/ready/app").status_code == 503
        reply = client.get("/app/notes/1")
        assert (reply.status_code, reply.json()["error"]["code"]) == (404, "FrontendNotOpen")
        previous, present = identities(restarted)
        service_info = client.get("/gov/service/info?api-version=2024-07-01").json()
        assert service_info["status"] == "Recovering" and service_info["recoveryCount"] == 1

        # Members who name another identity open nothing.
        with pytest.raises((AssertionError, KeyError)):
            restarted.propose(opening(present, present))
        restarted.propose(opening(previous, present))
        deadline = time.monotonic() + 10
        while client.get("/node/ready/app").status_code != 204:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert client.get("/node/state").json()["state"] == "PartOfNetwork"
        assert client.get("/app/notes/1").status_code == 200
        assert client.get(f"/node/tx?transaction_id={kept}").json()["status"] == "Committed"
        write(restarted, 5)
    finally:
        restarted.stop()
    assert validate_with_ccf(restarted, committed_only=False) > 30

    # A host that brings back the old disk starts another service, which nobody trusts.
    config = (old_disk / "node.json").read_text().replace(str(service.folder), str(old_disk))
    (old_disk / "node.json").write_text(config)
    second = Restarted(old_disk)
    second.start()
    try:
        previous_again, other = identities(second)
        assert previous_again == previous and other not in (present, previous)
        assert second.client().get("/node/ready/app").status_code == 503
    finally:
        second.stop()
    # What it wrote is no part of any ledger.
    assert any(path.name.endswith(".recovery") for path in second.ledger.iterdir())
    names = {path.name for path in second.ledger.iterdir() if not path.name.endswith(".recovery")}
    assert names and validate_with_ccf(second, committed_only=True) > 0
