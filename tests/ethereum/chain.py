"""Speaking Ethereum's JSON-RPC to a running node, with and without a client library."""

from __future__ import annotations

import itertools
import json
import pathlib
import ssl
import time

import httpx
from eth_account import Account
from eth_account.datastructures import SignedTransaction
from eth_account.signers.local import LocalAccount
from web3 import HTTPProvider, Web3
from web3.middleware import SignAndSendRawMiddlewareBuilder

from service import Service

FOLDER = pathlib.Path(__file__).resolve().parent
TOKEN = json.loads((FOLDER / "dist" / "Token.json").read_text())
ETHER = 10**18
NOBODY = "0x00000000000000000000000000000000000c0c00"


class RpcError(Exception):
    """The `error` object of a reply."""

    def __init__(self, error: dict):
        super().__init__(error["message"])
        self.code = error["code"]
        self.message = error["message"]
        self.data = error.get("data")


class Chain:
    """The Ethereum interface of a node started by `coco dev`."""

    def __init__(self, service: Service):
        self.service = service
        served = service.description["ethereum"]
        self.url = served["url"]
        self.accounts = [Account.from_key(account["private_key"]) for account in served["accounts"]]
        self.trust = ssl.create_default_context(cafile=service.service_cert_file)
        self.client = self.connection()
        self.ids = itertools.count(1)
        self.id = int(self.rpc("eth_chainId"), 16)

    def connection(self) -> httpx.Client:
        """A keep-alive connection of its own, closed with the service."""
        client = httpx.Client(base_url=self.url, verify=self.trust, timeout=60)
        self.service.clients.append(client)
        return client

    def rpc(self, method: str, *params, client: httpx.Client | None = None):
        """One call, without any library in between."""
        request = {"jsonrpc": "2.0", "id": next(self.ids), "method": method, "params": params}
        return result((client or self.client).post("/", json=request).json())

    def batch(self, method: str, calls: list[list], client: httpx.Client | None = None) -> list:
        """The results of many calls of one method in order, a hundred in one request."""
        results = []
        for start in range(0, len(calls), 100):
            requests = [
                {"jsonrpc": "2.0", "id": number, "method": method, "params": params}
                for number, params in enumerate(calls[start:start + 100])
            ]
            answers = (client or self.client).post("/", json=requests).json()
            assert len(answers) == len(requests), answers
            results += map(result, sorted(answers, key=lambda answer: answer["id"]))
        return results

    def web3(self, signer: LocalAccount | None = None) -> Web3:
        """web3.py that signs with an account's key."""
        options = {"verify": str(self.service.service_cert_file)}
        web3 = Web3(HTTPProvider(self.url, request_kwargs=options))
        if signer:
            web3.middleware_onion.inject(SignAndSendRawMiddlewareBuilder.build(signer), layer=0)
            web3.eth.default_account = signer.address
        return web3

    def sign(self, sender: LocalAccount, **fields) -> SignedTransaction:
        """A transfer of one wei to nobody in particular, but for the fields given."""
        usual = {"to": NOBODY, "value": 1, "gas": 21_000, "gasPrice": 10, "chainId": self.id}
        return sender.sign_transaction(usual | fields)

    def send(self, signed: SignedTransaction, client: httpx.Client | None = None) -> str:
        """Sends a transaction; its hash."""
        return self.rpc("eth_sendRawTransaction", raw(signed), client=client)

    def receipt(self, hash: str, seconds: float = 20) -> dict:
        """The receipt of a transaction that has been sent."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if receipt := self.rpc("eth_getTransactionReceipt", hash):
                return receipt
            time.sleep(0.01)
        raise AssertionError(f"no receipt of {hash} within {seconds} s")

    def balance(self, address: str, block="latest") -> int:
        return int(self.rpc("eth_getBalance", address, block), 16)

    def nonce(self, address: str, block="latest") -> int:
        return int(self.rpc("eth_getTransactionCount", address, block), 16)


def result(answer: dict):
    if "error" in answer:
        raise RpcError(answer["error"])
    return answer["result"]


def raw(signed: SignedTransaction) -> str:
    return "0x" + bytes(signed.raw_transaction).hex()


def hash_of(signed: SignedTransaction) -> str:
    return "0x" + bytes(signed.hash).hex()
