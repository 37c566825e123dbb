"""What is wrong with a transaction is said in the words that geth's users expect (its
`core/txpool/validation.go` and `core/error.go`), and leaves nothing behind. The chain has a fixed
base fee, so that price and funds matter."""

import pytest
from chain import ETHER, NOBODY, Chain, RpcError, raw
from eth_account import Account

from service import Service

BASE_FEE = 1000
SECP256K1_ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141


@pytest.fixture(scope="module")
def chain(workspace):
    extra = ["--ethereum-base-fee", BASE_FEE]
    with Service(workspace / "priced", extra=extra) as service:
        yield Chain(service)


def refused(chain: Chain, transaction: str) -> str:
    """The message; the code is the one of every refusal by geth's pool."""
    with pytest.raises(RpcError) as refusal:
        chain.rpc("eth_sendRawTransaction", transaction)
    assert refusal.value.code == -32000
    return refusal.value.message


CASES = {
    "another chain": ({"chainId": 1}, "invalid sender: invalid chain id for signer: have 1 want {id}"),
    "no chain": ({"chainId": None}, "only replay-protected (EIP-155) transactions allowed over RPC"),
    "too little gas": ({"gas": 20_999}, "intrinsic gas too low: gas 20999, minimum needed 21000"),
    "too little gas for data": (
        {"gas": 30_000, "data": b"\1" * 1000},
        "intrinsic gas too low: gas 30000, minimum needed 37000",
    ),
    "too little gas for the floor of data": (
        {"gas": 50_000, "data": b"\1" * 1000},
        "insufficient gas for floor data gas cost: gas 50000, minimum needed 61000",
    ),
    "more gas than a transaction may": (
        {"gas": 2**24 + 1}, "transaction gas limit too high (cap: 16777216, tx: 16777217)"
    ),
    "a price below the base fee": (
        {"gasPrice": BASE_FEE - 1},
        "max fee per gas less than block base fee: address {sender}, maxFeePerGas: 999, baseFee: 1000",
    ),
    "a tip above the fee": (
        {"gasPrice": None, "maxFeePerGas": 2000, "maxPriorityFeePerGas": 2001},
        "max priority fee per gas higher than max fee per gas: address {sender}, "
        "maxPriorityFeePerGas: 2001, maxFeePerGas: 2000",
    ),
    "more value than there is": (
        {"value": 10**30}, "insufficient funds for gas * price + value: balance "
    ),
    "a nonce far ahead": ({"nonce": 5000}, "nonce too high: address {sender}, tx: 5000 state: {nonce}"),
    "more bytes than a transaction may have": (
        {"gas": 2**24, "data": bytes(131_072)}, "oversized data: transaction size "
    ),
    "more code than a contract may be made of": (
        {"to": b"", "gas": 5_000_000, "data": bytes(49_153)}, "max initcode size exceeded: code size 49153"
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_transaction_that_breaks_a_rule(chain, case):
    changes, message = CASES[case]
    sender = chain.accounts[1]
    nonce = chain.nonce(sender.address)
    before = chain.rpc("eth_blockNumber")
    expected = message.format(id=chain.id, sender=sender.address, nonce=nonce)
    signed = sign(chain, sender, {"nonce": nonce, "gasPrice": 2 * BASE_FEE} | changes)
    assert refused(chain, signed).lower().startswith(expected.lower())
    assert chain.nonce(sender.address, "pending") == chain.nonce(sender.address)
    assert chain.rpc("txpool_status") == {"pending": "0x0", "queued": "0x0"}
    assert chain.rpc("eth_blockNumber") == before


def sign(chain: Chain, sender, fields: dict) -> str:
    """A raw transaction with these fields, the usual ones where none are given, and no `None`."""
    fields = {"to": NOBODY, "value": 1, "gas": 21_000, "chainId": chain.id} | fields
    given = {name: value for name, value in fields.items() if value is not None}
    return raw(sender.sign_transaction(given))


@pytest.mark.parametrize("transaction, message", [
    ("0x", "typed transaction too short"),
    ("0x05c0", "transaction type not supported"),
    ("0xc0", "rlp: "),
    ("0xf86b", "rlp: "),
])
def test_bytes_that_are_no_transaction(chain, transaction, message):
    assert refused(chain, transaction).startswith(message)


@pytest.mark.parametrize("parameter", ["0xzz", "no hexadecimal digits", 7, None, {"to": NOBODY}])
def test_parameters_that_are_no_bytes(chain, parameter):
    with pytest.raises(RpcError) as refusal:
        chain.rpc("eth_sendRawTransaction", parameter)
    assert refusal.value.code == -32602


def test_signatures_of_nobody(chain):
    """A curve point that does not exist, and the twin of a good signature (EIP-2)."""
    # The same each time: a number that begins with a zero is shorter in RLP.
    sender = Account.from_key(b"\7" * 32)
    signed = chain.sign(sender, nonce=0, gasPrice=2 * BASE_FEE)
    body = bytes(signed.raw_transaction)
    r, s = signed.r.to_bytes(32, "big"), signed.s.to_bytes(32, "big")
    twin = (SECP256K1_ORDER - signed.s).to_bytes(32, "big")
    for spoiled in (body.replace(r, b"\xff" * 32), body.replace(s, b"\xff" * 32), body.replace(s, twin)):
        assert spoiled != body
        assert refused(chain, "0x" + spoiled.hex()).startswith("invalid sender")


def test_an_account_without_money(chain):
    poor = Account.create()
    message = refused(chain, raw(chain.sign(poor, nonce=0, gasPrice=BASE_FEE)))
    cost = 21_000 * BASE_FEE + 1
    assert message == (
        f"insufficient funds for gas * price + value: balance 0, tx cost {cost}, overshot {cost}"
    )


def test_a_nonce_that_was_used(chain):
    sender = chain.accounts[2]
    nonce = chain.nonce(sender.address)
    first = chain.sign(sender, nonce=nonce, gasPrice=BASE_FEE)
    assert chain.receipt(chain.send(first))["effectiveGasPrice"] == hex(BASE_FEE)
    other = chain.sign(sender, nonce=nonce, gasPrice=BASE_FEE, value=2)
    assert refused(chain, raw(other)) == f"nonce too low: next nonce {nonce + 1}, tx nonce {nonce}"
    assert refused(chain, raw(first)) == "already known"


def test_a_replacement_pays_a_tenth_more(chain):
    sender = chain.accounts[3]
    nonce = chain.nonce(sender.address)

    def waiting(price, value=1):
        return chain.sign(sender, nonce=nonce + 1, gasPrice=price, value=value)

    chain.send(waiting(2000))
    assert refused(chain, raw(waiting(2000))) == "already known"
    for price in (1500, 2000, 2199):
        assert refused(chain, raw(waiting(price, 2))) == "replacement transaction underpriced"
    replacement = chain.send(waiting(2200, 2))
    chain.send(chain.sign(sender, nonce=nonce, gasPrice=BASE_FEE))
    assert chain.receipt(replacement)["status"] == "0x1"
    assert chain.nonce(sender.address) == nonce + 2


def test_what_waits_is_refused_when_its_money_is_gone(chain):
    """A waiting transaction that cannot be paid any more is dropped; its sender is not stuck."""
    sender, bank = Account.create(), chain.accounts[4]
    fund = chain.sign(bank, nonce=chain.nonce(bank.address), to=sender.address, value=ETHER, gasPrice=BASE_FEE)
    chain.receipt(chain.send(fund))
    price = BASE_FEE
    lost = chain.send(chain.sign(sender, nonce=1, value=ETHER // 2, gasPrice=price))
    first = chain.sign(sender, nonce=0, value=ETHER - 2 * 21_000 * price, gasPrice=price)
    assert chain.receipt(chain.send(first))["status"] == "0x1"
    assert chain.rpc("eth_getTransactionByHash", lost) is None
    assert chain.receipt(chain.send(chain.sign(sender, nonce=1, gasPrice=price, value=0)))["status"] == "0x1"
