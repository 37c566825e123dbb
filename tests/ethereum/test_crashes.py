"""`kill -9` under a load of transactions, again and again: none that has a receipt is lost, the
blocks stay a chain and hold what their headers say, and the ledger verifies.

Hashes and roots are computed here by code that is not the node's: PyPI rlp, trie and eth-hash."""

import os
import threading

import httpx
import rlp
from chain import Chain, hash_of
from eth_account import Account
from eth_utils import keccak
from trie import HexaryTrie

from service import Service, alone

pytestmark = alone

KILLS = int(os.environ.get("COCO_KILLS", "50"))
SENDERS = 4
# Enough for some hundred transactions between two kills.
SECONDS_OF_LOAD = 0.25

# Where a header has what is checked here (Ethereum's yellow paper, section 4.4).
PARENT_HASH, TRANSACTIONS_ROOT, RECEIPTS_ROOT, NUMBER = 0, 4, 5, 8


class Sender(threading.Thread):
    """Sends one transaction after the other until the node dies; keeps the receipts it was given."""

    def __init__(self, chain: Chain, account, recipient: str):
        super().__init__(daemon=True)
        self.chain = chain
        self.client = chain.connection()
        self.account = account
        self.recipient = recipient
        self.nonce = chain.nonce(account.address)
        self.receipts: dict[str, dict] = {}

    def run(self):
        try:
            while True:
                signed = self.chain.sign(self.account, nonce=self.nonce, to=self.recipient)
                hash = self.chain.send(signed, client=self.client)
                assert hash == hash_of(signed)
                receipt = None
                while receipt is None:
                    receipt = self.chain.rpc("eth_getTransactionReceipt", hash, client=self.client)
                self.receipts[hash] = receipt
                self.nonce += 1
        except (httpx.TransportError, RuntimeError, OSError):
            return


def test_kill_and_restart(tmp_path):
    service = Service(tmp_path / "killed")
    service.start()
    try:
        chain = Chain(service)
        recipients = [Account.create().address for _ in range(SENDERS)]
        everything: dict[str, dict] = {}
        for _ in range(KILLS):
            senders = [
                Sender(chain, chain.accounts[number], recipient)
                for number, recipient in enumerate(recipients)
            ]
            for sender in senders:
                sender.start()
            senders[0].join(SECONDS_OF_LOAD)
            service.process.kill()
            for sender in senders:
                sender.join(10)
                assert not sender.is_alive()
                everything |= sender.receipts
            service.kill()
            service.verify_ledger()
            service.start(keep=True)
            chain = Chain(service)
            for sender in senders:
                last = dict(list(sender.receipts.items())[-3:])
                check_receipts(chain, last)
        assert len(everything) > KILLS
        check_receipts(chain, everything)
        check_blocks(chain, everything)
        check_balances(chain, recipients)
    finally:
        service.stop()
    service.verify_ledger()


def check_receipts(chain: Chain, receipts: dict[str, dict]):
    """The node still gives the same receipts."""
    found = chain.batch("eth_getTransactionReceipt", [[hash] for hash in receipts])
    lost = [hash for hash, receipt in zip(receipts, found) if receipt is None]
    assert not lost, f"{len(lost)} of {len(receipts)} lost: {lost[:5]}"
    assert found == list(receipts.values())


def check_blocks(chain: Chain, receipts: dict[str, dict]):
    """From the first block to the last: headers hash to their names and name their parents, and
    the roots are those of the transactions and receipts that the blocks have."""
    head = int(chain.rpc("eth_blockNumber"), 16)
    numbers = [[hex(number)] for number in range(head + 1)]
    raw_headers = chain.batch("debug_getRawHeader", numbers)
    raw_receipts = chain.batch("debug_getRawReceipts", numbers)
    blocks = chain.batch("eth_getBlockByNumber", [[*number, False] for number in numbers])
    included = []
    for number, (raw_header, block) in enumerate(zip(raw_headers, blocks)):
        header = rlp.decode(unhex(raw_header))
        assert unhex(block["hash"]) == keccak(unhex(raw_header))
        assert int.from_bytes(header[NUMBER], "big") == number
        assert header[PARENT_HASH] == (unhex(blocks[number - 1]["hash"]) if number else bytes(32))
        hashes = block["transactions"]
        raw = chain.batch("debug_getRawTransaction", [[hash] for hash in hashes])
        assert [keccak(unhex(transaction)) for transaction in raw] == [unhex(hash) for hash in hashes]
        assert root(raw) == header[TRANSACTIONS_ROOT]
        assert root(raw_receipts[number]) == header[RECEIPTS_ROOT]
        included += hashes
    assert len(included) == len(set(included)), "a transaction is in two blocks"
    assert receipts.keys() <= set(included)
    for hash, receipt in receipts.items():
        assert hash in blocks[int(receipt["blockNumber"], 16)]["transactions"]


def check_balances(chain: Chain, recipients: list[str]):
    """What the senders lost the recipients have, proven by the last header's state root."""
    head = chain.rpc("eth_getBlockByNumber", "latest", False)
    for account, recipient in zip(chain.accounts, recipients):
        sent = chain.nonce(account.address, head["number"])
        proof = chain.rpc("eth_getProof", recipient, [], head["number"])
        nodes = [rlp.decode(unhex(node)) for node in proof["accountProof"]]
        leaf = HexaryTrie.get_from_proof(unhex(head["stateRoot"]), keccak(unhex(recipient)), nodes)
        nonce, balance, *_ = rlp.decode(leaf)
        assert (nonce, int.from_bytes(balance, "big")) == (b"", sent)


def root(values: list[str]) -> bytes:
    """The root of the trie of a list, as Ethereum keeps transactions and receipts."""
    trie = HexaryTrie({})
    for index, value in enumerate(values):
        trie[rlp.encode(index)] = unhex(value)
    return trie.root_hash


def unhex(text: str) -> bytes:
    return bytes.fromhex(text.removeprefix("0x"))
