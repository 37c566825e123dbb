"""What Coco writes, judged by PyPI ccf and by `coco` itself."""

import base64
import hashlib
import json
import subprocess
import sys
import time

import ccf.ledger
import ccf.receipt
import pytest
from cryptography import x509
from service import BINARIES, EXAMPLES, NODE, Service


def load(path_or_text) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path_or_text.encode())


def write(service, count=200) -> list[str]:
    user = service.client("user0")
    ids = []
    for number in range(count):
        reply = user.put(f"/app/notes/{number % 17}", content=f"value {number}")
        ids.append(reply.headers["x-ms-ccf-transaction-id"])
    service.wait_committed(ids[-1])
    return ids


def receipt(service, transaction: str, kind="receipt"):
    client = service.client()
    for _ in range(50):
        reply = client.get(f"/node/{kind}", params={"transaction_id": transaction})
        if reply.status_code != 202:
            return reply
        time.sleep(0.1)
    raise AssertionError("still 202")


def leaf_of(components: dict) -> str:
    return hashlib.sha256(
        bytes.fromhex(components["write_set_digest"])
        + hashlib.sha256(components["commit_evidence"].encode()).digest()
        + bytes.fromhex(components["claims_digest"])
    ).hexdigest()


def test_json_receipts(notes):
    service_cert = load(notes.service_cert_file.read_text())
    for transaction in write(notes, 20)[::5]:
        reply = receipt(notes, transaction)
        assert reply.status_code == 200, reply.text
        body = reply.json()
        node_cert = load(body["cert"])
        assert body["leaf_components"]["commit_evidence"].startswith(f"ce:{transaction}:")
        root = ccf.receipt.root(leaf_of(body["leaf_components"]), body["proof"])
        ccf.receipt.verify(root, body["signature"], node_cert)
        ccf.receipt.check_endorsements(node_cert, service_cert, [])
        ccf.receipt.check_cert_chain(node_cert, service_cert, [])


def test_a_fresh_receipt_needs_no_polling(notes):
    user = notes.client("user0")
    reply = user.put(
        "/app/notes/x", content="y", headers={"x-coco-wait": "committed", "x-coco-receipt": "true"}
    )
    transaction = reply.headers["x-ms-ccf-transaction-id"]
    body = json.loads(base64.b64decode(reply.headers["x-coco-receipt"]))
    root = ccf.receipt.root(leaf_of(body["leaf_components"]), body["proof"])
    ccf.receipt.verify(root, body["signature"], load(body["cert"]))
    status = user.get("/node/tx", params={"transaction_id": transaction}).json()["status"]
    assert status == "Committed", "the reply came after commit"
    direct = user.get("/node/receipt", params={"transaction_id": transaction})
    assert direct.status_code == 200, "no 202 for a recent transaction"


def test_cose_receipts(notes):
    key = load(notes.service_cert_file.read_text()).public_key()
    transaction = write(notes, 10)[3]
    reply = receipt(notes, transaction, "receipt/cose")
    assert reply.status_code == 200, reply.text
    assert reply.headers["content-type"] == "application/cose"
    ccf.receipt.verify_cose(reply.content, key, bytes(32))
    with pytest.raises(Exception):
        ccf.receipt.verify_cose(reply.content, key, bytes([1] * 32))


def test_receipts_are_verified_by_the_command_line(notes, tmp_path):
    transaction = write(notes, 3)[1]
    for kind, name in (("receipt", "receipt.json"), ("receipt/cose", "receipt.cose")):
        file = tmp_path / name
        file.write_bytes(receipt(notes, transaction, kind).content)
        command = [BINARIES / "coco", "receipt", "verify", file, "--service-cert", notes.service_cert_file]
        assert subprocess.run(command).returncode == 0
        content = bytearray(file.read_bytes())
        spot = content.find(b"write_set_digest") + 20 if name.endswith("json") else len(content) // 2
        content[spot] = content[spot] ^ 1
        file.write_bytes(bytes(content))
        assert subprocess.run(command, capture_output=True).returncode != 0


def test_unknown_and_malformed_transactions(notes):
    client = notes.client()
    cases = {"nonsense": (400, "InvalidQueryParameterValue"), "2.999999": (404, "TransactionPendingOrUnknown")}
    for text, expected in cases.items():
        reply = client.get("/node/receipt", params={"transaction_id": text})
        assert (reply.status_code, reply.json()["error"]["code"]) == expected
    assert client.get("/node/receipt").status_code == 400


def validate_with_ccf(service, committed_only=True) -> int:
    """PyPI ccf at its full level; gives the number of transactions it accepted."""
    level = ccf.ledger.VerificationLevel.FULL
    ledger = ccf.ledger.Ledger(
        [str(service.ledger)], committed_only=committed_only, verification_level=level
    )
    validator = ccf.ledger.LedgerValidator(
        accept_deprecated_entry_types=False, verification_level=level
    )
    count = 0
    for chunk in ledger:
        for transaction in chunk:
            validator.add_transaction(transaction)
            count += 1
    assert validator.last_verified_seqno == count, "the ledger ends in a verified signature"
    return count


def test_the_ledger_is_valid(tmp_path):
    with Service(tmp_path / "audited", app=EXAMPLES / "notes") as service:
        ids = write(service, 500)
        service.propose({"name": "trigger_snapshot", "args": {}}, {"name": "trigger_ledger_chunk", "args": {}})
        ids += write(service, 50)
        last = int(ids[-1].split(".")[1])
    assert validate_with_ccf(service, committed_only=False) >= last

    committed = list(service.snapshots.glob("*.committed"))
    # Backups write none.
    assert committed or NODE, "the service opening and the proposal each asked for a snapshot"
    for path in committed:
        snapshot = ccf.ledger.Snapshot(str(path))
        assert snapshot.is_committed()
        tables = snapshot.get_public_domain().get_tables()
        assert "public:ccf.gov.service.info" in tables

    command = [BINARIES / "coco", "ledger", "verify", service.ledger, "--service-cert", service.service_cert_file]
    assert subprocess.run(command).returncode == 0

    script = ["-m", "ccf.read_ledger", str(service.ledger), "--uncommitted", "-q"]
    assert subprocess.run([sys.executable, *script], stdout=subprocess.DEVNULL).returncode == 0

    victim = sorted(service.ledger.iterdir(), key=lambda path: path.stat().st_size)[-1]
    content = bytearray(victim.read_bytes())
    content[len(content) // 2] ^= 0x10
    victim.chmod(0o644)
    victim.write_bytes(bytes(content))
    verdict = subprocess.run([*command, "--json"], capture_output=True, text=True)
    assert verdict.returncode != 0
    assert victim.name in verdict.stdout + verdict.stderr
