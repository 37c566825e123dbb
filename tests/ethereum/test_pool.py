"""Transactions in any order, twice, from many connections at once: nothing is lost or stuck."""

import random
import threading
import time

import pytest
from chain import ETHER, Chain, RpcError, hash_of, raw
from eth_account import Account

CONNECTIONS = 16
EACH = 100
SHUFFLED = 64


def funded(chain: Chain, count: int) -> list:
    """New accounts with money."""
    bank = chain.accounts[0]
    accounts = [Account.create() for _ in range(count)]
    first = chain.nonce(bank.address, "pending")
    for number, account in enumerate(accounts):
        hash = chain.send(chain.sign(bank, nonce=first + number, to=account.address, value=ETHER))
    chain.receipt(hash)
    return accounts


def together(work, arguments) -> list:
    """Runs `work` once for each argument, all at the same time; their results."""
    results = [None] * len(arguments)
    start = threading.Barrier(len(arguments))

    def run(number, argument):
        start.wait()
        results[number] = work(argument)

    threads = [threading.Thread(target=run, args=pair) for pair in enumerate(arguments)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
        assert not thread.is_alive(), "a connection got no answer"
    return results


def wait_empty(chain: Chain, seconds: float = 20):
    """Waits until nothing waits for a block."""
    deadline = time.monotonic() + seconds
    while chain.rpc("txpool_status") != {"pending": "0x0", "queued": "0x0"}:
        assert time.monotonic() < deadline, chain.rpc("txpool_inspect")
        time.sleep(0.01)


def check_blocks(chain: Chain, hashes: set[str], first: int):
    """Every transaction is in exactly one block after `first`, and the blocks are a chain."""
    found = []
    previous = chain.rpc("eth_getBlockByNumber", hex(first), False)
    for number in range(first + 1, int(chain.rpc("eth_blockNumber"), 16) + 1):
        block = chain.rpc("eth_getBlockByNumber", hex(number), False)
        assert block["parentHash"] == previous["hash"]
        assert block["transactions"], "no block is empty"
        found += block["transactions"]
        previous = block
    assert len(found) == len(set(found)), "a transaction is in two blocks"
    assert hashes <= set(found), f"{len(hashes - set(found))} transactions are in no block"


def test_batches_from_many_connections(chain):
    senders = funded(chain, CONNECTIONS)
    first = int(chain.rpc("eth_blockNumber"), 16)
    recipient = Account.create().address

    def work(sender):
        signed = [chain.sign(sender, nonce=nonce, to=recipient) for nonce in range(EACH)]
        client = chain.connection()
        for part in (signed[:EACH // 2], signed[EACH // 2:]):
            sent = chain.batch("eth_sendRawTransaction", [[raw(one)] for one in part], client)
            assert sent == [hash_of(one) for one in part]
        return [hash_of(one) for one in signed]

    hashes = sum(together(work, senders), [])
    wait_empty(chain)
    assert chain.balance(recipient) == CONNECTIONS * EACH
    assert [chain.nonce(sender.address) for sender in senders] == [EACH] * CONNECTIONS
    check_blocks(chain, set(hashes), first)
    receipts = chain.batch("eth_getTransactionReceipt", [[hash] for hash in hashes])
    assert {receipt["status"] for receipt in receipts} == {"0x1"}


def test_one_sender_in_any_order_over_many_connections(chain):
    """Nonces arrive shuffled: those that are early wait for the others."""
    [sender] = funded(chain, 1)
    recipient = Account.create().address
    signed = [chain.sign(sender, nonce=nonce, to=recipient) for nonce in range(SHUFFLED)]
    random.Random(7).shuffle(signed)
    parts = [signed[number::8] for number in range(8)]

    def work(part):
        client = chain.connection()
        return [chain.send(one, client=client) for one in part]

    assert sorted(sum(together(work, parts), [])) == sorted(hash_of(one) for one in signed)
    wait_empty(chain)
    assert chain.nonce(sender.address) == SHUFFLED
    assert chain.balance(recipient) == SHUFFLED


def test_a_gap_holds_back_what_is_behind_it_only(chain):
    early, other = funded(chain, 2)
    waiting = [chain.sign(early, nonce=nonce) for nonce in (2, 3)]
    hashes = [chain.send(one) for one in waiting]
    chain.receipt(chain.send(chain.sign(other, nonce=0)))
    assert [chain.rpc("eth_getTransactionReceipt", hash) for hash in hashes] == [None, None]
    queued = chain.rpc("txpool_contentFrom", early.address)["queued"]
    assert [transaction["hash"] for transaction in queued.values()] == hashes
    assert chain.rpc("eth_getTransactionByHash", hashes[0])["blockNumber"] is None
    assert chain.nonce(early.address, "pending") == 0
    for nonce in (1, 0):
        chain.send(chain.sign(early, nonce=nonce))
    assert [chain.receipt(hash)["status"] for hash in hashes] == ["0x1", "0x1"]
    assert chain.nonce(early.address) == 4


def test_a_nonce_too_far_ahead_is_refused(chain):
    [sender] = funded(chain, 1)
    with pytest.raises(RpcError, match=r"nonce too high: address 0x\w{40}, tx: 5000 state: 0") as refused:
        chain.send(chain.sign(sender, nonce=5000))
    assert refused.value.code == -32000


def test_the_same_transaction_from_many_connections_is_executed_once(chain):
    [sender] = funded(chain, 1)
    recipient = Account.create().address
    signed = chain.sign(sender, nonce=0, to=recipient)

    def work(client):
        try:
            return chain.send(signed, client=client)
        except RpcError as error:
            assert error.code == -32000
            return error.message

    answers = together(work, [chain.connection() for _ in range(8)])
    assert answers.count(hash_of(signed)) == 1
    assert set(answers) <= {hash_of(signed), "already known"}
    assert chain.receipt(hash_of(signed))["status"] == "0x1"
    assert chain.balance(recipient) == 1
    with pytest.raises(RpcError, match="already known"):
        chain.send(signed)


def test_of_several_with_one_nonce_one_is_executed(chain):
    [sender] = funded(chain, 1)
    recipient = Account.create().address
    rivals = [chain.sign(sender, nonce=0, to=recipient, value=value) for value in range(1, 9)]

    def work(signed):
        try:
            return chain.send(signed, client=chain.connection())
        except RpcError as error:
            assert error.message == "nonce too low: next nonce 1, tx nonce 0"

    [winner] = [hash for hash in together(work, rivals) if hash]
    assert chain.receipt(winner)["status"] == "0x1"
    values = {hash_of(one): value for value, one in enumerate(rivals, 1)}
    assert chain.balance(recipient) == values[winner]


def test_where_gas_is_free_what_waits_is_replaced_by_any_price(chain):
    [sender] = funded(chain, 1)
    old = chain.send(chain.sign(sender, nonce=1, value=1))
    new = chain.send(chain.sign(sender, nonce=1, value=2, gasPrice=0))
    assert chain.rpc("eth_getTransactionByHash", old) is None
    chain.send(chain.sign(sender, nonce=0))
    assert chain.receipt(new)["status"] == "0x1"
    assert chain.rpc("eth_getTransactionReceipt", old) is None


def test_a_batch_with_bad_members_answers_each(chain):
    [sender] = funded(chain, 1)
    good = [chain.sign(sender, nonce=nonce) for nonce in range(2)]
    requests = [
        {"jsonrpc": "2.0", "id": "first", "method": "eth_sendRawTransaction", "params": [raw(good[0])]},
        {"jsonrpc": "2.0", "id": 2, "method": "eth_sendRawTransaction", "params": ["0xc0"]},
        {"jsonrpc": "2.0", "id": 3, "method": "eth_unheardOf"},
        {"id": 4, "method": "eth_chainId"},
        17,
        {"jsonrpc": "2.0", "method": "eth_chainId"},
        {"jsonrpc": "2.0", "id": None, "method": "eth_sendRawTransaction", "params": [raw(good[1])]},
    ]
    answers = chain.client.post("/", json=requests).json()
    outcomes = [(answer["id"], answer.get("error", {}).get("code")) for answer in answers]
    assert outcomes == [("first", None), (2, -32000), (3, -32601), (4, -32600), (None, -32600), (None, None)]
    assert [chain.receipt(hash_of(one))["status"] for one in good] == ["0x1", "0x1"]


NO_REQUESTS = {
    "half a request": (b"{", -32700),
    "nothing": (b"", -32700),
    "an empty batch": (b"[]", -32600),
    "a string": (b"\"eth_chainId\"", -32600),
    "brackets without end": (b"[" * 100_000, -32700),
    "JSON-RPC 1.0": (b'{"jsonrpc":"1.0","id":1,"method":"eth_chainId"}', -32600),
    "parameters that are a number": (b'{"jsonrpc":"2.0","id":1,"method":"eth_chainId","params":7}', -32602),
    "an address too short": (b'{"jsonrpc":"2.0","id":1,"method":"eth_getBalance","params":["0x1"]}', -32602),
}


@pytest.mark.parametrize("case", NO_REQUESTS)
def test_what_is_not_a_request_is_refused(chain, case):
    body, code = NO_REQUESTS[case]
    answer = chain.client.post("/", content=body, headers={"content-type": "application/json"}).json()
    assert answer["error"]["code"] == code, answer
