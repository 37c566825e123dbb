"""Ethereum on three nodes: clients at any of them, and `kill -9` of the primary under load."""

import json
import os
import subprocess
import threading
import time

import httpx
import pytest
from chain import ETHER, FOLDER, TOKEN, Chain, RpcError, hash_of, raw
from nodes import Node, configs, open_nodes, until

# Nobody executes transactions just now: the same may be sent again.
UNAVAILABLE = -32002
SECONDS_OF_LOAD = 1.5


@pytest.fixture(scope="module")
def nodes(tmp_path_factory):
    with open_nodes(tmp_path_factory.mktemp("nodes"), ethereum=True) as nodes:
        yield nodes


@pytest.mark.parametrize("number, suite", [(1, "ethers"), (2, "ethers_websocket")])
def test_clients_talk_to_a_backup(nodes, number, suite):
    chain = Chain(nodes[number])
    keys = ["0x" + bytes(account.key).hex() for account in chain.accounts[2 * number:2 * number + 2]]
    environment = os.environ | {"ETHEREUM_URL": chain.url, "ETHEREUM_KEYS": json.dumps(keys)}
    command = ["node", "--test", "--test-force-exit", FOLDER / f"{suite}.test.mjs"]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stdout + result.stderr


def test_every_node_shows_the_same(nodes):
    chains = [Chain(node) for node in nodes]
    for number, chain in enumerate(chains):
        # Read where it was sent, at once.
        account = chain.accounts[6 + number]
        hash = chain.send(chain.sign(account, nonce=0))
        assert chain.nonce(account.address, "pending") == 1
        assert chain.rpc("eth_getTransactionByHash", hash)["nonce"] == "0x0"
        assert chain.receipt(hash)["status"] == "0x1"
        assert chain.nonce(account.address) == 1
    same_blocks(chains)
    receipts = [chain.receipt(hash) for chain in chains]
    assert receipts[1:] == receipts[:-1]


def test_who_joins_through_a_backup_is_sent_where_ccf_is_spoken(nodes, tmp_path):
    with httpx.Client(verify=nodes[1].context()) as client:
        reply = client.head(f"{nodes[1].url}/node/primary")
    assert (reply.status_code, reply.headers["location"]) == (308, f"{nodes[0].url}/node/primary")
    *_, (home, config) = configs(nodes[0].folder, tmp_path, 2, ethereum=True)
    target = nodes[1].url.removeprefix("https://")
    config["command"]["join"] = {"target_rpc_address": target, "retry_timeout": "100ms"}
    joins = Node(nodes[0].folder, home, config)
    joins.launch()
    try:
        pending = lambda: nodes[0].get("/node/network/nodes?status=Pending").json()["nodes"]
        until(lambda: len(pending()) == 1)
    finally:
        joins.kill()


class Payer(threading.Thread):
    """Pays one unit of the token after the other through a node. What was sent is asked for until
    it has a receipt, also after the node could not answer for a while."""

    def __init__(self, chain: Chain, account, coin, recipient: str):
        super().__init__(daemon=True)
        self.chain = chain
        self.client = chain.connection()
        self.account = account
        self.transfer = {"to": coin.address, "data": coin.encode_abi("transfer", [recipient, 1])}
        self.nonce = chain.nonce(account.address)
        self.receipts: dict[str, dict] = {}
        self.stopping = False
        self.waited = 0.0
        self.failure: Exception | None = None

    def run(self):
        try:
            while not self.stopping:
                self.pay()
        except Exception as failure:
            self.failure = failure

    def pay(self):
        fields = self.transfer | {"nonce": self.nonce, "value": 0, "gas": 100_000}
        signed = self.chain.sign(self.account, **fields)
        began = time.monotonic()
        self.patiently("eth_sendRawTransaction", raw(signed))
        hash, receipt = hash_of(signed), None
        while receipt is None:
            receipt = self.patiently("eth_getTransactionReceipt", hash)
            assert time.monotonic() - began < 30, f"{hash} was sent and is lost"
        self.receipts[hash] = receipt
        self.nonce += 1
        self.waited = max(self.waited, time.monotonic() - began)

    def patiently(self, method: str, *params):
        while True:
            try:
                return self.chain.rpc(method, *params, client=self.client)
            except RpcError as error:
                if error.message == "already known":
                    return None
                assert error.code == UNAVAILABLE, error


def test_kill_9_of_the_primary_under_load(nodes):
    chains = [Chain(node) for node in nodes]
    coin = token(chains[0])
    recipient = "0x00000000000000000000000000000000000c0c01"
    payers = [
        Payer(chains[number % 3], account, coin, recipient)
        for number, account in enumerate(chains[0].accounts[:6])
    ]
    fund(chains[0], coin, [payer.account.address for payer in payers])
    for payer in payers:
        payer.nonce = chains[0].nonce(payer.account.address)
        payer.start()
    time.sleep(SECONDS_OF_LOAD)
    [primary] = [node for node in nodes if node.get("/node/primary").status_code == 200]
    left = [(node, chain) for node, chain in zip(nodes, chains) if node is not primary]
    primary.process.kill()
    time.sleep(SECONDS_OF_LOAD)
    after = left[0][1].rpc("eth_blockNumber")
    time.sleep(SECONDS_OF_LOAD)
    for payer in payers:
        payer.stopping = True
    for payer in payers:
        payer.join(60)
        assert not payer.is_alive()
    survivors = [payer for payer in payers if payer.chain.service is not primary]
    for payer in payers:
        allowed = () if payer in survivors else httpx.TransportError
        assert payer.failure is None or isinstance(payer.failure, allowed), payer.failure
    assert all(int(chain.rpc("eth_blockNumber"), 16) > int(after, 16) for _, chain in left)
    print(f"longest payment {max(payer.waited for payer in survivors):.2f} s")

    receipts = {}
    for payer in payers:
        receipts |= payer.receipts
    assert len(receipts) > 20
    same_blocks([chain for _, chain in left])
    for _, chain in left:
        found = chain.batch("eth_getTransactionReceipt", [[hash] for hash in receipts])
        assert found == list(receipts.values()), "a receipt was lost, or is another one"
    for payer in survivors:
        assert {receipt["status"] for receipt in payer.receipts.values()} == {"0x1"}
        assert left[0][1].nonce(payer.account.address) == payer.nonce, "each was executed once"
    primary.kill()
    paid = left[0][1].web3().eth.contract(address=coin.address, abi=TOKEN["abi"])
    assert paid.functions.balanceOf(left[0][1].web3().to_checksum_address(recipient)).call() >= len(receipts)
    for node, _ in left:
        node.stop()
    for node in nodes:
        node.verify_ledger()


def token(chain: Chain):
    """The token, deployed by the first account."""
    web3 = chain.web3(chain.accounts[0])
    factory = web3.eth.contract(abi=TOKEN["abi"], bytecode=TOKEN["bytecode"])
    sent = factory.constructor("Consortium Coin", "CNS", 1000 * ETHER).transact()
    receipt = web3.eth.wait_for_transaction_receipt(sent, poll_latency=0.02)
    return web3.eth.contract(address=receipt["contractAddress"], abi=TOKEN["abi"])


def fund(chain: Chain, coin, addresses: list[str]):
    for address in addresses:
        sent = coin.functions.transfer(address, ETHER).transact()
        assert coin.w3.eth.wait_for_transaction_receipt(sent, poll_latency=0.02)["status"] == 1


def same_blocks(chains: list[Chain]):
    """The nodes have the same blocks, which are a chain."""
    head = max(int(chain.rpc("eth_blockNumber"), 16) for chain in chains)
    for chain in chains:
        until(lambda: int(chain.rpc("eth_blockNumber"), 16) >= head)
    numbers = [[hex(number), False] for number in range(head + 1)]
    blocks = [chain.batch("eth_getBlockByNumber", numbers) for chain in chains]
    for others in blocks[1:]:
        assert others == blocks[0]
    for parent, block in zip(blocks[0], blocks[0][1:]):
        assert block["parentHash"] == parent["hash"]
