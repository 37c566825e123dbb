"""The ledgers of all nodes, judged when the nodes have stopped: by PyPI ccf and against each other."""

import json
import pathlib

import ccf.ledger
import ccf.merkletree
from nodes import Node, until

LEVEL = ccf.ledger.VerificationLevel.FULL
SINGLE = ccf.ledger.signatures.WELL_KNOWN_SINGLETON_TABLE_KEY


def complete_chunk(primary: Node, nodes: list[Node]) -> int:
    """Has all that was written put into committed files of every node; gives the last position."""
    written = primary.put("last", "1")
    last = int(written.headers["x-ms-ccf-transaction-id"].split(".")[1])
    primary.propose({"name": "trigger_ledger_chunk", "args": {}})
    ends = lambda node: [int(name.split("-")[1].split(".")[0]) for name in committed_files(node)]
    for node in nodes:
        until(lambda: max(ends(node), default=0) >= last)
    return last


def check_ledgers(nodes: list[Node]):
    """What two nodes have in a committed file of one name is the same, and all of it verifies."""
    for node in nodes:
        node.stop()
    ledgers = [committed_files(node) for node in nodes]
    for files in ledgers:
        assert any(files.keys() & others.keys() for others in ledgers if others is not files)
    known: dict[str, bytes] = {}
    for files in ledgers:
        for name, content in files.items():
            assert known.setdefault(name, content) == content, name
    for node in nodes:
        node.verify_ledger()


def committed_files(node: Node) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in node.ledger.glob("*.committed")}


def validate_committed(node: Node) -> int:
    """PyPI ccf at its full level, of all committed files; gives the last transaction it accepted."""
    first = min(node.chunks())
    if first == 1:
        return add_all(full_validator(), node, 0, committed_only=True)
    (snapshot,) = (file for seqno, file in node.committed_snapshots() if seqno + 1 == first)
    return validate_after_snapshot(node, snapshot, committed_only=True)


def full_validator() -> ccf.ledger.LedgerValidator:
    return ccf.ledger.LedgerValidator(accept_deprecated_entry_types=False, verification_level=LEVEL)


def validate_after_snapshot(
    node: Node, snapshot: pathlib.Path, committed_only: bool = False
) -> int:
    """PyPI ccf at its full level, from a snapshot on; gives the last transaction it accepted."""
    validator = full_validator()
    with ccf.ledger.Snapshot(str(snapshot)) as opened:
        domain = opened.get_public_domain()
        tables, seqno = domain.get_tables(), domain.get_seqno()
        leaf = domain._hash_at_snapshot
    for node_id, info in tables["public:ccf.gov.nodes.info"].items():
        info = json.loads(info)
        status = (info["status"], seqno, info.get("retired_committed", False))
        validator.node_activity_status[node_id.decode()] = status
    for node_id, cert in tables["public:ccf.gov.nodes.endorsed_certificates"].items():
        validator.node_certificates[node_id.decode()] = cert
    service = json.loads(tables["public:ccf.gov.service.info"][SINGLE])
    validator.service_status, validator.service_cert = service["status"], service["cert"]
    validator.merkle = ccf.merkletree.MerkleTree()
    validator.merkle.deserialise(tables["public:ccf.internal.tree"][SINGLE])
    validator.merkle.add_leaf(bytes.fromhex(leaf), False)
    return add_all(validator, node, seqno, committed_only)


def add_all(
    validator: ccf.ledger.LedgerValidator, node: Node, seqno: int, committed_only: bool
) -> int:
    """Gives it what the node has after a position."""
    ledger = ccf.ledger.Ledger(
        [str(node.ledger)],
        committed_only=committed_only,
        verification_level=LEVEL,
        contiguous_suffix=seqno > 0,
    )
    for chunk in ledger:
        for transaction in chunk:
            if transaction.gcm_header.seqno > seqno:
                validator.add_transaction(transaction)
    assert validator.transaction_count > 0
    return validator.last_verified_seqno
