"""Concurrent transfers keep their sum and lose no update."""

import os
import random
import threading
import time

from service import EXAMPLES, Service

SECONDS = float(os.environ.get("COCO_CONFLICT_SECONDS", "60"))
CLIENTS = 8
ACCOUNTS = [f"account-{number}" for number in range(5)]
OPENING = 1_000


class Transferrer(threading.Thread):
    def __init__(self, service: Service, seed: int, until: float):
        super().__init__(daemon=True)
        self.client = service.client(f"user{seed % 2}")
        self.random = random.Random(seed)
        self.until = until
        self.moved: dict[str, int] = dict.fromkeys(ACCOUNTS, 0)
        self.accepted = 0
        self.failure: str | None = None

    def run(self):
        while time.monotonic() < self.until and self.failure is None:
            source, target = self.random.sample(ACCOUNTS, 2)
            amount = self.random.randint(1, 9)
            order = {"from": source, "to": target, "amount": amount}
            reply = self.client.post("/app/transfers", json=order)
            if reply.status_code == 200:
                self.accepted += 1
                self.moved[source] -= amount
                self.moved[target] += amount
            elif reply.status_code == 503:
                code = reply.json()["error"]["code"]
                if code != "TransactionCommitAttemptsExceedLimit":
                    self.failure = reply.text
            elif reply.status_code != 409:
                self.failure = reply.text


def test_transfers(tmp_path):
    with Service(tmp_path / "conflicts", app=EXAMPLES / "bank" / "dist") as service:
        client = service.client("user0")
        for account in ACCOUNTS:
            assert client.put(f"/app/accounts/{account}", json={"balance": OPENING}).status_code == 201
        until = time.monotonic() + SECONDS
        threads = [Transferrer(service, seed, until) for seed in range(CLIENTS)]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            total = client.get("/app/total").json()
            assert total == {"accounts": len(ACCOUNTS), "balance": OPENING * len(ACCOUNTS)}
            time.sleep(0.05)
        assert [thread.failure for thread in threads if thread.failure] == []
        accepted = sum(thread.accepted for thread in threads)
        assert accepted > 100
        for account in ACCOUNTS:
            expected = OPENING + sum(thread.moved[account] for thread in threads)
            balance = client.get(f"/app/accounts/{account}").json()["balance"]
            assert balance == expected, f"{account} lost an update"
        print(f"{accepted} transfers by {CLIENTS} clients in {SECONDS} s")
