"""What wallets in browsers and careless programs do with the interface itself."""

import asyncio
import json

import pytest
import websockets
from chain import Chain

CALL = {"jsonrpc": "2.0", "id": 1, "method": "eth_chainId", "params": []}
JSON = {"content-type": "application/json"}


def test_a_page_of_any_origin_may_call(chain):
    origin = {"origin": "https://wallet.example"}
    asked = origin | {"access-control-request-method": "POST", "access-control-request-headers": "content-type"}
    preflight = chain.client.options("/", headers=asked)
    assert preflight.status_code == 204
    assert preflight.headers["access-control-allow-origin"] in ("*", origin["origin"])
    assert "POST" in preflight.headers["access-control-allow-methods"]
    assert "content-type" in preflight.headers["access-control-allow-headers"].lower()
    reply = chain.client.post("/", json=CALL, headers=origin)
    assert reply.headers["access-control-allow-origin"] in ("*", origin["origin"])


def test_a_notification_has_no_answer(chain):
    reply = chain.client.post("/", json={"jsonrpc": "2.0", "method": "eth_chainId"})
    assert (reply.status_code, reply.content) == (200, b"")


@pytest.mark.parametrize("verb, headers, size, status", [
    ("PUT", JSON, 100, 405),
    ("POST", {"content-type": "text/plain"}, 100, 415),
    ("POST", JSON, 6_000_000, 413),
])
def test_other_requests_are_refused(chain, verb, headers, size, status):
    body = json.dumps(CALL).ljust(size).encode()
    assert chain.connection().request(verb, "/", content=body, headers=headers).status_code == status


def test_a_websocket_answers_calls_and_carries_subscriptions(either_chain: Chain):
    asyncio.run(asyncio.wait_for(converse(either_chain), 60))


async def converse(chain: Chain):
    url = chain.url.replace("http", "ws", 1)
    options = {"ssl": chain.trust} if url.startswith("wss") else {}
    async with websockets.connect(url, **options) as socket:

        async def call(request) -> dict:
            await socket.send(request if isinstance(request, str) else json.dumps(request))
            return json.loads(await socket.recv())

        assert int((await call(CALL))["result"], 16) == chain.id
        assert [answer["id"] for answer in await call([CALL, CALL | {"id": 2}])] == [1, 2]
        assert (await call("{"))["error"]["code"] == -32700
        wanted = CALL | {"method": "eth_subscribe", "params": ["newHeads"]}
        subscription = (await call(wanted))["result"]
        assert (await call(wanted | {"params": ["rainfall"]}))["error"]["code"] in (-32601, -32602)
        bank = chain.accounts[-1]
        hash = chain.send(chain.sign(bank, nonce=chain.nonce(bank.address, "pending")))
        told = json.loads(await socket.recv())
        assert told["method"] == "eth_subscription"
        assert told["params"]["subscription"] == subscription
        block = chain.rpc("eth_getBlockByHash", told["params"]["result"]["hash"], False)
        assert block["transactions"] == [hash]
        assert (await call(CALL | {"method": "eth_unsubscribe", "params": [subscription]}))["result"] is True
        gone = await call(CALL | {"method": "eth_unsubscribe", "params": [subscription]})
        assert gone["error"]["code"] == -32000
