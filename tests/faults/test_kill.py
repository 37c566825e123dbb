"""`kill -9` under load, again and again: nothing reported committed is lost."""

import os
import threading

import httpx
from service import EXAMPLES, Service

KILLS = int(os.environ.get("COCO_KILLS", "50"))
CLIENTS = 4
# Enough for some hundred writes between two kills.
SECONDS_OF_LOAD = 0.25


class Writer(threading.Thread):
    """Writes until the node dies; remembers what it was told is committed."""

    def __init__(self, service: Service, number: int, round_number: int):
        super().__init__(daemon=True)
        self.client = service.client("user0")
        self.prefix = f"{round_number}-{number}"
        self.committed: dict[str, str] = {}

    def run(self):
        count = 0
        try:
            while True:
                key = f"{self.prefix}-{count}"
                reply = self.client.put(
                    f"/app/notes/{key}", content=key, headers={"x-coco-wait": "committed"}
                )
                if reply.status_code == 204:
                    self.committed[key] = reply.headers["x-ms-ccf-transaction-id"]
                count += 1
        except (httpx.TransportError, RuntimeError, OSError):
            return


def test_kill_and_restart(tmp_path):
    service = Service(tmp_path / "killed", app=EXAMPLES / "notes")
    service.start()
    try:
        everything: dict[str, str] = {}
        for round_number in range(KILLS):
            writers = [Writer(service, number, round_number) for number in range(CLIENTS)]
            for writer in writers:
                writer.start()
            writers[0].join(SECONDS_OF_LOAD)
            service.process.kill()
            for writer in writers:
                writer.join(10)
                assert not writer.is_alive()
                everything |= writer.committed
            service.kill()
            service.verify_ledger()
            service.start(keep=True)
            check_last(service, writers)
        assert len(everything) > KILLS
        check_all(service, everything)
    finally:
        service.stop()
    service.verify_ledger()


def check_last(service: Service, writers):
    client = service.client("user0")
    for writer in writers:
        for key, transaction in list(writer.committed.items())[-3:]:
            assert client.get(f"/app/notes/{key}").text == key, key
            status = client.get("/node/tx", params={"transaction_id": transaction}).json()
            assert status["status"] == "Committed", (key, transaction, status)


def check_all(service: Service, everything: dict[str, str]):
    found = set(service.client("user0").get("/app/notes").json())
    missing = everything.keys() - found
    assert not missing, f"{len(missing)} of {len(everything)} lost: {sorted(missing)[:5]}"
