"""Keys of a token issuer, fetched from the issuer over HTTPS."""

import datetime
import http.server
import ipaddress
import json
import ssl
import threading
import time

import jwt
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID
from service import EXAMPLES, Service, alone

# Only the primary fetches keys, and counts how often.
pytestmark = alone

APP = {
    "metadata": {
        "endpoints": {
            "/whoami": {
                "get": {
                    "js_module": "app.js",
                    "js_function": "whoami",
                    "forwarding_required": "never",
                    "authn_policies": ["jwt"],
                    "mode": "readonly",
                    "openapi": {},
                }
            }
        }
    },
    "modules": [
        {
            "name": "app.js",
            "module": "export function whoami(request) { return { body: request.caller.jwt.payload }; }",
        }
    ],
}


def certificate(name: str, key, issuer=None, issuer_key=None) -> x509.Certificate:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.timezone.utc)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
    )
    if issuer:
        names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return builder.sign(issuer_key or key, hashes.SHA256())


def pem(thing) -> bytes:
    if isinstance(thing, x509.Certificate):
        return thing.public_bytes(serialization.Encoding.PEM)
    return thing.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


class Issuer:
    """An HTTPS server on loopback that answers what it is told to."""

    def __init__(self, folder):
        self.ca_key = ec.generate_private_key(ec.SECP256R1())
        self.ca = certificate("issuers' authority", self.ca_key)
        key = ec.generate_private_key(ec.SECP256R1())
        leaf = certificate("localhost", key, self.ca, self.ca_key)
        (folder / "issuer.pem").write_bytes(pem(leaf) + pem(key))
        self.answers: dict[str, tuple[int, bytes]] = {}
        self.asked: list[str] = []
        issuer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                issuer.asked.append(self.path)
                status, body = issuer.answers.get(self.path, (404, b""))
                self.send_response(status)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(folder / "issuer.pem")
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.url = f"https://localhost:{self.server.server_port}/tenant"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def serve(self, *keys, **metadata):
        """Serves these keys, by id."""
        base = self.url.removesuffix("/tenant")
        metadata = {"issuer": self.url, "jwks_uri": f"{base}/keys", **metadata}
        self.answers["/tenant/.well-known/openid-configuration"] = (200, json.dumps(metadata).encode())
        jwks = []
        for kid, key in keys:
            web_key = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(key.public_key()))
            jwks.append({"kty": "RSA", "kid": kid, "n": web_key["n"], "e": web_key["e"]})
        self.answers["/keys"] = (200, json.dumps({"keys": jwks}).encode())


@pytest.fixture(scope="module")
def service(workspace):
    with Service(workspace / "jwt", app=EXAMPLES / "notes") as service:
        service.propose({"name": "set_js_app", "args": {"bundle": APP}})
        yield service


@pytest.fixture()
def issuer(tmp_path):
    issuer = Issuer(tmp_path)
    yield issuer
    issuer.server.shutdown()
    issuer.server.server_close()


def register(service, issuer, ca=None):
    bundle = {"name": "issuers", "cert_bundle": pem(ca or issuer.ca).decode()}
    args = {"issuer": issuer.url, "auto_refresh": True, "ca_cert_bundle_name": "issuers"}
    before = metrics(service)
    service.propose(
        {"name": "set_ca_cert_bundle", "args": bundle}, {"name": "set_jwt_issuer", "args": args}
    )
    deadline = time.monotonic() + 20
    while True:
        now = metrics(service)
        if now["successes"] + now["failures"] > before["successes"] + before["failures"]:
            return now["successes"] > before["successes"]
        assert time.monotonic() < deadline, now
        time.sleep(0.05)


def metrics(service) -> dict:
    return service.client().get("/node/jwt_keys/refresh/metrics").json()


def whoami(service, issuer, kid, key, **claims):
    claims = {"iss": issuer.url, "sub": "somebody", "exp": int(time.time()) + 600, **claims}
    token = jwt.encode(claims, pem(key).decode(), algorithm="RS256", headers={"kid": kid})
    return service.client().get("/app/whoami", headers={"authorization": f"Bearer {token}"})


def new_key():
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def test_keys_are_fetched_and_followed(service, issuer):
    first, second = new_key(), new_key()
    issuer.serve(("first", first))
    assert whoami(service, issuer, "first", first).status_code == 401
    assert register(service, issuer)
    reply = whoami(service, issuer, "first", first)
    assert (reply.status_code, reply.json().get("sub")) == (200, "somebody"), reply.text
    # The key is for tokens of the issuer that its metadata name.
    assert whoami(service, issuer, "first", first, iss="https://elsewhere").status_code == 401
    keys = service.client().get("/gov/service/jwk?api-version=2024-07-01").json()["keys"]
    assert keys["first"][0]["issuer"] == keys["first"][0]["constraint"] == issuer.url

    issuer.serve(("second", second))
    assert register(service, issuer)
    assert whoami(service, issuer, "second", second).status_code == 200
    assert whoami(service, issuer, "first", first).status_code == 401
    assert issuer.asked[:2] == ["/tenant/.well-known/openid-configuration", "/keys"]


def test_an_issuer_that_fails_keeps_its_keys(service, issuer):
    key = new_key()
    issuer.serve(("kept", key))
    assert register(service, issuer)
    good = dict(issuer.answers)
    for path, answer in [
        ("/tenant/.well-known/openid-configuration", (500, b"{}")),
        ("/tenant/.well-known/openid-configuration", (200, b"no json")),
        ("/tenant/.well-known/openid-configuration", (200, b"{}")),
        ("/tenant/.well-known/openid-configuration", (200, b'{"jwks_uri": "http://localhost/keys"}')),
        ("/tenant/.well-known/openid-configuration", (302, b"")),
        ("/keys", (200, b'{"keys": []}')),
        ("/keys", (200, b'{"keys": [{"kid": "x", "kty": "oct", "k": "AAAA"}]}')),
        ("/keys", (200, b" " * (2 << 20))),
        ("/keys", (404, b"")),
    ]:
        issuer.answers = {**good, path: answer}
        assert not register(service, issuer), (path, answer[:40])
        assert whoami(service, issuer, "kept", key).status_code == 200
    # A key for tokens of somebody else is not this issuer's to give.
    issuer.serve(("kept", key), issuer="https://example.com")
    assert not register(service, issuer)


def test_a_server_under_another_authority_is_not_believed(service, issuer):
    key = new_key()
    issuer.serve(("stranger", key))
    other_key = ec.generate_private_key(ec.SECP256R1())
    assert not register(service, issuer, ca=certificate("another authority", other_key))
    assert issuer.asked == []
    assert whoami(service, issuer, "stranger", key).status_code == 401
