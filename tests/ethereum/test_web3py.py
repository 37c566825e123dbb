"""A token on Coco with web3.py 8, over HTTP, HTTPS and a WebSocket."""

import asyncio

import pytest
from chain import ETHER, TOKEN, Chain
from eth_account import Account
from eth_account.messages import encode_typed_data
from web3 import AsyncWeb3, WebSocketProvider
from web3.exceptions import ContractCustomError, TransactionNotFound
from web3.utils.subscriptions import LogsSubscription, NewHeadsSubscription


@pytest.fixture(scope="module")
def chain(either_chain: Chain) -> Chain:
    return either_chain


@pytest.fixture(scope="module")
def web3(chain):
    return chain.web3(chain.accounts[0])


@pytest.fixture(scope="module")
def coin(web3):
    """The token, deployed by the first account."""
    factory = web3.eth.contract(abi=TOKEN["abi"], bytecode=TOKEN["bytecode"])
    sent = factory.constructor("Consortium Coin", "CNS", 1000 * ETHER).transact()
    receipt = web3.eth.wait_for_transaction_receipt(sent, poll_latency=0.02)
    assert receipt["status"] == 1
    return web3.eth.contract(address=receipt["contractAddress"], abi=TOKEN["abi"])


def done(web3, sent):
    receipt = web3.eth.wait_for_transaction_receipt(sent, poll_latency=0.02)
    assert receipt["status"] == 1
    return receipt


def test_the_node_answers(web3, chain):
    assert web3.is_connected()
    assert web3.eth.chain_id == chain.id
    assert web3.eth.get_balance(chain.accounts[0].address) > ETHER


def test_a_transfer_moves_money_and_leaves_a_receipt(web3, coin):
    recipient = Account.create().address
    receipt = done(web3, coin.functions.transfer(recipient, 7).transact())
    [event] = coin.events.Transfer().process_receipt(receipt)
    assert event["args"]["to"] == recipient and event["args"]["value"] == 7
    assert coin.functions.balanceOf(recipient).call() == 7
    number = receipt["blockNumber"]
    assert coin.functions.balanceOf(recipient).call(block_identifier=number - 1) == 0
    block = web3.eth.get_block(number, full_transactions=True)
    assert receipt["transactionHash"] in [transaction["hash"] for transaction in block["transactions"]]
    assert len(block["extraData"]) <= 32


def test_plain_money_is_sent(web3):
    recipient = Account.create().address
    receipt = done(web3, web3.eth.send_transaction({"to": recipient, "value": 11}))
    assert receipt["gasUsed"] == 21_000
    assert web3.eth.get_balance(recipient) == 11


def test_events_are_found_and_filtered(web3, coin):
    recipient = Account.create().address
    transfers = coin.events.Transfer.create_filter(from_block="latest", argument_filters={"to": recipient})
    blocks = web3.eth.filter("latest")
    for value in (1, 2, 3):
        last = done(web3, coin.functions.transfer(recipient, value).transact())
    assert [event["args"]["value"] for event in transfers.get_new_entries()] == [1, 2, 3]
    assert last["blockHash"] in blocks.get_new_entries()
    past = coin.events.Transfer.get_logs(from_block=0, argument_filters={"to": recipient})
    assert [event["args"]["value"] for event in past] == [1, 2, 3]


def test_a_refusal_arrives_with_its_reason(web3, coin, chain):
    stranger = chain.accounts[1].address
    with pytest.raises(ContractCustomError) as refused:
        coin.functions.mint(stranger, 1).call({"from": stranger})
    reason = web3.keccak(text="OwnableUnauthorizedAccount(address)")[:4]
    assert bytes.fromhex(refused.value.data[2:]).startswith(reason)
    with pytest.raises(TransactionNotFound):
        web3.eth.get_transaction(b"\1" * 32)


def test_a_signature_allows_somebody_else_to_spend(web3, coin, chain):
    owner, spender = Account.create(), chain.accounts[0].address
    done(web3, coin.functions.mint(owner.address, 50).transact())
    deadline = web3.eth.get_block("latest")["timestamp"] + 3600
    domain = {"name": "Consortium Coin", "version": "1", "chainId": chain.id, "verifyingContract": coin.address}
    fields = {"owner": "address", "spender": "address", "value": "uint256", "nonce": "uint256", "deadline": "uint256"}
    types = {"Permit": [{"name": name, "type": kind} for name, kind in fields.items()]}
    permit = {"owner": owner.address, "spender": spender, "value": 20, "nonce": 0, "deadline": deadline}
    signed = owner.sign_message(encode_typed_data(domain, types, permit))
    r, s = (number.to_bytes(32, "big") for number in (signed.r, signed.s))
    done(web3, coin.functions.permit(owner.address, spender, 20, deadline, signed.v, r, s).transact())
    done(web3, coin.functions.transferFrom(owner.address, spender, 20).transact())
    assert coin.functions.balanceOf(owner.address).call() == 30


def test_fees_and_proofs(web3, coin):
    history = web3.eth.fee_history(4, "latest", [50])
    assert len(history["baseFeePerGas"]) == len(history["gasUsedRatio"]) + 1
    proof = web3.eth.get_proof(coin.address, [0])
    assert proof["codeHash"] == web3.keccak(web3.eth.get_code(coin.address))
    assert proof["storageProof"][0]["value"] == web3.eth.get_storage_at(coin.address, 0)


def test_a_websocket_pushes_events(web3, coin, chain):
    recipient = Account.create().address
    url = chain.url.replace("http", "ws", 1)
    options = {"ssl": chain.trust} if url.startswith("wss") else {}
    provider = WebSocketProvider(url, websocket_kwargs=options)
    asyncio.run(asyncio.wait_for(subscribe(provider, web3, coin, recipient), 60))


async def subscribe(provider: WebSocketProvider, web3, coin, recipient: str):
    values, heads = [], []

    async def on_log(context):
        values.append(coin.events.Transfer().process_log(context.result)["args"]["value"])
        if len(values) == 3 and len(heads) >= 3:
            await context.subscription.unsubscribe()

    async def on_head(context):
        heads.append(context.result["number"])

    async with AsyncWeb3(provider) as pushed:
        topic = "0x" + bytes(12).hex() + recipient[2:].lower()
        topics = [coin.events.Transfer().topic, None, topic]
        logs = LogsSubscription(address=coin.address, topics=topics, handler=on_log)
        await pushed.subscription_manager.subscribe([logs, NewHeadsSubscription(handler=on_head)])
        for value in (1, 2, 3):
            sent = coin.functions.transfer(recipient, value).transact()
            await asyncio.to_thread(done, web3, sent)
        listening = asyncio.create_task(pushed.subscription_manager.handle_subscriptions())
        while len(values) < 3 or len(heads) < 3:
            await asyncio.sleep(0.02)
        listening.cancel()
    assert values == [1, 2, 3]
