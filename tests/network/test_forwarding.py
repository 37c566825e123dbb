"""Writes through every node of three, by every kind of caller, and with the primary killed under them."""

import base64
import datetime
import json
import threading
import time

import httpx
import jwt
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID
from test_three_nodes import Node, nodes, put_in_time, until  # noqa: F401

ISSUER = "https://issuer.example"
COMMITTED = {"x-coco-wait": "committed"}
CLIENTS = 8


def endpoint(function: str, mode: str, policies: list, forwarding: str) -> dict:
    return {
        "js_module": "app.js",
        "js_function": function,
        "forwarding_required": forwarding,
        "authn_policies": policies,
        "mode": mode,
        "openapi": {},
    }


APP = {
    "metadata": {
        "endpoints": {
            **{
                f"/as_{policy}/{{key}}": {"put": endpoint("put", "readwrite", [policy], "always")}
                for policy in ("user_cert", "jwt", "user_cose_sign1", "no_auth")
            },
            "/times/{key}": {
                "put": endpoint("count", "readwrite", ["no_auth"], "always"),
                "get": endpoint("get", "readonly", ["no_auth"], "sometimes"),
            },
            "/records/{key}": {
                "put": endpoint("put", "readwrite", ["no_auth"], "sometimes"),
                "get": endpoint("get", "readonly", ["no_auth"], "sometimes"),
            },
            "/fails": {"post": endpoint("fail", "readwrite", ["no_auth"], "always")},
        }
    },
    "modules": [
        {
            "name": "app.js",
            "module": """
const records = ccf.kv["records"];
const times = ccf.kv["times"];
export function put(request) {
  records.set(ccf.strToBuf(request.params.key), request.body.arrayBuffer());
  const caller = request.caller;
  const seen = { policy: caller.policy, query: request.query };
  if (caller.id) seen.id = caller.id;
  if (caller.jwt) seen.subject = caller.jwt.payload.sub;
  if (caller.cose) seen.content = ccf.bufToStr(caller.cose.content);
  return { body: seen };
}
export function count(request) {
  const key = ccf.strToBuf(request.params.key);
  const before = times.get(key);
  const now = (before === undefined ? 0 : ccf.bufToJsonCompatible(before)) + 1;
  times.set(key, ccf.jsonCompatibleToBuf(now));
  return { body: now };
}
export function get(request) {
  const key = ccf.strToBuf(request.params.key);
  const value = request.path.includes("/times/") ? times.get(key) : records.get(key);
  return value === undefined ? { statusCode: 404 } : { body: ccf.bufToStr(value) };
}
export function fail(request) {
  records.set(ccf.strToBuf("failed"), ccf.strToBuf("x"));
  return { statusCode: 418, headers: { "x-why": "teapot" }, body: { not: "written" } };
}
""",
        }
    ],
}


def set_up(nodes: list[Node], through: Node):
    """The application, participants and a token issuer, whose key is returned; on all nodes."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "issuer")])
    now = datetime.datetime.now(datetime.timezone.utc)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=30))
        .sign(key, hashes.SHA256())
    )
    der = base64.b64encode(certificate.public_bytes(serialization.Encoding.DER)).decode()
    keys = {"keys": [{"kty": "RSA", "kid": "key-1", "x5c": [der], "issuer": ISSUER}]}
    users = [{"cert": through.identity(f"user{number}").cert} for number in range(2)]
    through.propose(
        {"name": "set_js_app", "args": {"bundle": APP}},
        {"name": "set_jwt_issuer", "args": {"issuer": ISSUER, "auto_refresh": False, "jwks": keys}},
        *({"name": "set_user", "args": user} for user in users),
    )
    # The application says so without a body, the node that knows no such path with one.
    until(lambda: all(node.get("/app/times/x").text == "" for node in nodes))
    return key


def bearer(key) -> dict:
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    claims = {"iss": ISSUER, "sub": "ada", "exp": int(time.time()) + 60}
    token = jwt.encode(claims, pem, algorithm="RS256", headers={"kid": "key-1"})
    return {"authorization": f"Bearer {token}"}


def test_a_write_through_any_node_is_its_callers(nodes):  # noqa: F811
    # Governance goes through a backup as well.
    key = set_up(nodes, through=nodes[2])
    assert [node.get("/node/primary").status_code for node in nodes] == [200, 404, 404]
    for number, node in enumerate(nodes):
        user = node.identity(f"user{number % 2}")
        with node.client(user.name) as known, node.client() as nobody:
            record = f"{number}?q={number}"
            seen = known.put(f"/app/as_user_cert/{record}", content=b"1", headers=COMMITTED)
            assert seen.status_code == 200, seen.text
            assert seen.json() == {"policy": "user_cert", "id": user.id, "query": f"q={number}"}
            node.wait_committed(seen.headers["x-ms-ccf-transaction-id"])

            seen = nobody.put(f"/app/as_jwt/{number}", content=b"2", headers=bearer(key))
            assert (seen.json()["policy"], seen.json()["subject"]) == ("jwt", "ada"), seen.text
            cose = {"content-type": "application/cose"}
            signed = user.sign(b"signed")
            seen = nobody.put(f"/app/as_user_cose_sign1/{number}", content=signed, headers=cose)
            assert seen.json()["policy"] == "user_cose_sign1", seen.text
            assert (seen.json()["id"], seen.json()["content"]) == (user.id, "signed")

            refused = nobody.put(f"/app/as_user_cert/{number}", content=b"3")
            assert refused.status_code == 401
            assert refused.json()["error"]["details"][0]["auth_policy"] == "user_cert"
            forged = {"authorization": bearer(key)["authorization"][:-8] + "AAAAAAAA"}
            assert nobody.put("/app/as_jwt/x", content=b"3", headers=forged).status_code == 401
            failed = nobody.post("/app/fails")
            assert (failed.status_code, failed.headers["x-why"]) == (418, "teapot")
            assert failed.json() == {"not": "written"}
            assert nobody.get("/app/records/failed").status_code == 404
            receipt = nobody.put(
                f"/app/records/{number}", content=b"4", headers={"x-coco-receipt": "true"}
            )
            assert "proof" in json.loads(base64.b64decode(receipt.headers["x-coco-receipt"]))
        with node.client(http2=True) as client:
            assert client.put("/app/records/h2", content=node.url).status_code == 200
            # The session reads what it has written, wherever that was.
            assert client.get("/app/records/h2").text == node.url
    for node in nodes:
        with node.client() as client:
            recent = client.get("/app/records/h2", headers={"x-coco-read": "linearizable"})
            assert recent.text == nodes[2].url


class Writer(threading.Thread):
    """Counts keys up, each once, through one node; remembers what it was told."""

    def __init__(self, node: Node, number: int):
        super().__init__(daemon=True)
        self.node = node
        self.number = number
        self.told: dict[str, int | None] = {}
        self.ends = threading.Event()

    def run(self):
        count = 0
        while not self.ends.is_set():
            with httpx.Client(base_url=self.node.url, verify=self.node.context(), timeout=15) as client:
                try:
                    while not self.ends.is_set():
                        key = f"{self.number}-{count}"
                        count += 1
                        self.told[key] = None
                        counted = client.put(f"/app/times/{key}", headers=COMMITTED)
                        self.told[key] = counted.status_code
                        if counted.status_code != 200:
                            time.sleep(0.02)
                        else:
                            assert counted.json() == 1
                except httpx.TransportError:
                    # A session whose past was lost is closed.
                    pass


def test_the_primary_dies_with_forwarded_requests_in_flight(nodes):  # noqa: F811
    set_up(nodes, through=nodes[0])
    writers = [Writer(nodes[1 + number % 2], number) for number in range(CLIENTS)]
    for writer in writers:
        writer.start()
    until(lambda: sum(len(writer.told) for writer in writers) > 20 * CLIENTS)
    nodes[0].kill()
    killed_at = time.monotonic()
    before = {writer: len(writer.told) for writer in writers}
    succeeded = lambda writer: list(writer.told.values())[before[writer] :].count(200)
    until(lambda: all(succeeded(writer) > 5 for writer in writers))
    print(f"every client has written again after {time.monotonic() - killed_at:.2f} s")
    for writer in writers:
        writer.ends.set()
    for writer in writers:
        writer.join(20)
        assert not writer.is_alive()
    told = {key: status for writer in writers for key, status in writer.told.items()}
    counts = {status: list(told.values()).count(status) for status in set(told.values())}
    print(f"replies by status: {counts}")
    assert set(told.values()) <= {200, 500, 503, 504, None}, counts
    nodes[1].put("last", "1")
    for node in nodes[1:]:
        with node.client() as client:
            for key, status in told.items():
                counted = client.get(f"/app/times/{key}", headers={"x-coco-read": "linearizable"})
                found = 0 if counted.status_code == 404 else int(counted.text)
                expected = {200: [1], 500: [0], 503: [0]}.get(status, [0, 1])
                assert found in expected, (key, status, found)
    for node in nodes[1:]:
        node.stop()
    for node in nodes:
        node.verify_ledger()
