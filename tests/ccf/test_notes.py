"""The plain JS example: maps, history, limits and errors."""

import time


def test_a_map(notes):
    user = notes.client("user0")
    assert user.delete("/app/notes").status_code == 204
    for name in ("b", "a", "c"):
        assert user.put(f"/app/notes/{name}", content=f"note {name}").status_code == 204
    reply = user.get("/app/notes/a")
    assert reply.text == "note a"
    assert reply.headers["content-type"].startswith("text/plain")
    assert user.get("/app/notes").json() == ["a", "b", "c"], "iteration is in key order"
    assert user.delete("/app/notes/a").json() == {"existed": True}
    assert user.delete("/app/notes/a").json() == {"existed": False}
    assert user.get("/app/notes/a").status_code == 404


def test_the_past(notes):
    user = notes.client("user0")
    first = user.put("/app/notes/past", content="one").headers["x-ms-ccf-transaction-id"]
    user.put("/app/notes/past", content="two")
    notes.wait_committed(first)
    for _ in range(50):
        reply = user.get("/app/past/past", headers={"x-ms-ccf-transaction-id": first})
        if reply.status_code != 202:
            break
        time.sleep(0.1)
    assert reply.status_code == 200 and reply.text == "one"
    assert reply.headers["x-past-transaction"] == first


def test_history_needs_a_transaction_id(notes):
    user = notes.client("user0")
    assert user.get("/app/past/x").status_code == 400
    reply = user.get("/app/past/x", headers={"x-ms-ccf-transaction-id": "nonsense"})
    assert reply.status_code == 400
    assert reply.json()["error"]["code"] == "InvalidHeaderValue"


def test_public_maps_are_plain_on_the_ledger(notes):
    user = notes.client("user0")
    user.put("/app/public/shown", content="seen by everybody")
    secret = user.put("/app/notes/hidden", content="seen by nobody else")
    notes.wait_committed(secret.headers["x-ms-ccf-transaction-id"])
    assert notes.client().get("/app/public/shown").text == "seen by everybody"
    files = b"".join(file.read_bytes() for file in notes.ledger.iterdir())
    assert b"seen by everybody" in files
    assert b"seen by nobody else" not in files


def test_interpreters(notes):
    client = notes.client()
    reused = [client.post("/app/counter").json()["counter"] for _ in range(3)]
    assert reused == [1, 2, 3]
    fresh = [client.post("/app/counter/fresh").json()["counter"] for _ in range(3)]
    assert fresh == [1, 1, 1]


def test_exceptions(notes):
    reply = notes.client().post("/app/faults/throw")
    assert reply.status_code == 500
    assert reply.json()["error"]["code"] == "InternalError"
    assert reply.json()["error"]["message"] == "Exception thrown while executing."
    assert "on purpose" not in reply.text, "details stay in the node log by default"
    assert notes.client("user0").get("/app/notes/never").status_code == 404


def test_a_failing_status_writes_nothing(notes):
    reply = notes.client().post("/app/faults/status")
    assert (reply.status_code, reply.text) == (418, "teapot")
    assert notes.client("user0").get("/app/notes/failed").status_code == 404


def test_governance_is_read_only_to_applications(notes):
    reply = notes.client().post("/app/faults/governance")
    assert reply.status_code == 500


def test_limits(notes):
    limits = {"max_heap_bytes": 50 << 20, "max_stack_bytes": 1 << 20, "max_execution_time_ms": 300}
    limits |= {"log_exception_details": True, "return_exception_details": True}
    notes.propose({"name": "set_js_runtime_options", "args": limits})
    client = notes.client()
    started = time.monotonic()
    reply = client.post("/app/faults/loop")
    assert reply.status_code == 500
    assert "too long" in reply.text
    assert time.monotonic() - started < 10
    assert client.post("/app/faults/heap").status_code == 500
    reply = client.post("/app/faults/throw")
    detail = reply.json()["error"]["details"][0]
    assert detail["code"] == "JSException"
    assert "on purpose" in detail["message"]
    assert "notes.js" in detail["trace"]
    assert client.post("/app/counter/fresh").status_code == 200, "the node goes on"


def test_errors(notes):
    client = notes.client()
    reply = client.get("/app/nothing/here")
    assert (reply.status_code, reply.json()["error"]["code"]) == (404, "ResourceNotFound")
    reply = client.post("/app/notes")
    assert (reply.status_code, reply.json()["error"]["code"]) == (405, "UnsupportedHttpVerb")
    assert {verb.strip() for verb in reply.headers["allow"].split(",")} >= {"GET", "DELETE"}
    assert client.options("/app/notes").status_code == 204
