"""Proof that a transaction is on the ledger: checked offline by `coco` and by PyPI ccf."""

import hashlib
import json
import subprocess

import ccf.receipt
import pytest
from chain import Chain
from cryptography import x509

from service import BINARIES


@pytest.fixture(scope="module")
def proven(chain: Chain) -> tuple[str, dict]:
    """The hash of a transaction and its ledger receipt."""
    hash = chain.send(chain.sign(chain.accounts[0], nonce=0))
    chain.receipt(hash)
    answer = chain.rpc("coco_getReceipt", hash)
    assert answer["transactionHash"] == hash
    return hash, answer["receipt"]


def claims(hash: str) -> str:
    """What the ledger claims of an Ethereum transaction: the digest of its hash."""
    return hashlib.sha256(bytes.fromhex(hash[2:])).hexdigest()


def verify(chain: Chain, folder, receipt: dict, digest: str) -> subprocess.CompletedProcess:
    file = folder / "receipt.json"
    file.write_text(json.dumps(receipt))
    command = [BINARIES / "coco", "receipt", "verify", file]
    command += ["--service-cert", chain.service.service_cert_file, "--claims-digest", digest]
    return subprocess.run([str(word) for word in command], capture_output=True, text=True)


def test_coco_verifies(chain, proven, tmp_path):
    hash, receipt = proven
    result = verify(chain, tmp_path, receipt, claims(hash))
    assert result.returncode == 0, result.stderr
    assert "is on the ledger" in result.stdout
    other = verify(chain, tmp_path, receipt, claims("0x" + "11" * 32))
    assert other.returncode != 0


def test_ccf_verifies(chain, proven):
    hash, receipt = proven
    leaf = receipt["leaf_components"]
    assert leaf["claims_digest"] == claims(hash)
    evidence = hashlib.sha256(leaf["commit_evidence"].encode()).digest()
    parts = bytes.fromhex(leaf["write_set_digest"]) + evidence + bytes.fromhex(leaf["claims_digest"])
    root = ccf.receipt.root(hashlib.sha256(parts).hexdigest(), receipt["proof"])
    node = x509.load_pem_x509_certificate(receipt["cert"].encode())
    ccf.receipt.verify(root, receipt["signature"], node)
    service = x509.load_pem_x509_certificate(chain.service.service_cert_file.read_bytes())
    ccf.receipt.check_endorsements(node, service, [])


def test_what_is_unknown_has_no_receipt(chain):
    assert chain.rpc("coco_getReceipt", "0x" + "11" * 32) is None
