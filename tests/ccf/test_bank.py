"""The TypeScript example over mTLS, JWT and COSE."""

import base64
import datetime
import hashlib
import json
import time

import ccf.receipt
import jwt
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

ISSUER = "https://issuer.example"


def pem(key) -> str:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    ).decode()


@pytest.fixture(scope="module")
def issuer(bank):
    """A token issuer that the members have accepted."""
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
    der = certificate.public_bytes(serialization.Encoding.DER)
    keys = {"keys": [{"kty": "RSA", "kid": "key-1", "x5c": [base64.b64encode(der).decode()], "issuer": ISSUER}]}
    bank.propose(
        {"name": "set_jwt_issuer", "args": {"issuer": ISSUER, "auto_refresh": False, "jwks": keys}}
    )
    return key


def token(key, kid="key-1", **claims) -> dict:
    content = {"iss": ISSUER, "sub": "somebody", "exp": int(time.time()) + 60} | claims
    text = jwt.encode(content, pem(key), algorithm="RS256", headers={"kid": kid})
    return {"authorization": f"Bearer {text}"}


@pytest.fixture(scope="module")
def accounts(bank):
    user = bank.client("user0")
    for owner, balance in [("alice", 100), ("bob", 50)]:
        reply = user.put(f"/app/accounts/{owner}", json={"balance": balance})
        assert reply.status_code == 201, reply.text
    return user


def test_mutual_tls(bank, accounts):
    reply = accounts.get("/app/accounts/alice")
    assert reply.json()["owner"] == "alice"
    assert reply.headers["x-ms-ccf-transaction-id"]
    assert accounts.get("/accounts/alice").status_code == 200, "the /app prefix is optional"
    assert accounts.get("/app/accounts/nobody").status_code == 404
    assert accounts.put("/app/accounts/alice", json={"balance": 1}).status_code == 409


def test_no_certificate_is_refused(bank, accounts):
    reply = bank.client().get("/app/accounts/alice")
    assert reply.status_code == 401
    error = reply.json()["error"]
    assert error["code"] == "InvalidAuthenticationInfo"
    assert [detail["auth_policy"] for detail in error["details"]] == ["user_cert"]


def test_http2(bank, accounts):
    reply = bank.client("user0", http2=True).get("/app/accounts/bob")
    assert reply.http_version == "HTTP/2"
    assert reply.json()["owner"] == "bob"


def test_transfer_by_tls_and_by_signature(bank, accounts):
    order = {"from": "alice", "to": "bob", "amount": 10}
    assert accounts.post("/app/transfers", json=order).status_code == 200
    user = bank.identity("user0")
    signed = user.sign(json.dumps(order).encode())
    reply = bank.client().post(
        "/app/transfers/signed", content=signed, headers={"content-type": "application/cose"}
    )
    assert reply.status_code == 200, reply.text
    assert accounts.get("/app/accounts/alice").json()["balance"] == 80
    assert accounts.get("/app/accounts/bob").json()["balance"] == 70
    assert accounts.get("/app/total").json() == {"accounts": 2, "balance": 150}
    member = bank.client("member0")
    assert member.get("/app/total").json() == {"accounts": 2, "balance": 150}


def test_a_forged_signature_is_refused(bank):
    signed = bytearray(bank.identity("user0").sign(b'{"from":"alice","to":"bob","amount":1}'))
    signed[-1] ^= 1
    reply = bank.client().post(
        "/app/transfers/signed", content=bytes(signed), headers={"content-type": "application/cose"}
    )
    assert reply.status_code == 401
    assert reply.json()["error"]["code"] == "InvalidAuthenticationInfo"


def test_callers(bank, issuer):
    user = bank.identity("user1")
    caller = bank.client("user1").get("/app/whoami").json()
    assert caller["policy"] == "user_cert" and caller["id"] == user.id
    assert caller["cert"].strip() == user.cert.strip()
    assert bank.client("member1").get("/app/whoami").json()["policy"] == "member_cert"
    assert bank.client().get("/app/whoami").json() == {"policy": "no_auth"}
    assert bank.client("member1").get("/app/whoami/any").json()["policy"] == "any_cert"
    bearer = bank.client().get("/app/whoami", headers=token(issuer)).json()
    assert bearer["policy"] == "jwt"
    assert bearer["jwt"]["keyIssuer"] == ISSUER
    assert bearer["jwt"]["payload"]["sub"] == "somebody"


@pytest.mark.parametrize("claims, kid", [
    ({"exp": 1}, "key-1"),
    ({"nbf": 2**33}, "key-1"),
    ({}, "unknown"),
    ({"iss": "https://other.example"}, "key-1"),
])
def test_bad_tokens(bank, issuer, claims, kid):
    reply = bank.client().get("/app/whoami/jwt", headers=token(issuer, kid, **claims))
    assert reply.status_code == 401
    assert reply.json()["error"]["code"] == "InvalidAuthenticationInfo"
    assert "invalid_token" in reply.headers["www-authenticate"]


def test_a_token_by_another_key(bank, issuer):
    stranger = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    assert bank.client().get("/app/whoami/jwt", headers=token(stranger)).status_code == 401


def test_all_of(bank, accounts, issuer):
    accounts.put("/app/accounts/carol", json={"balance": 0})
    assert accounts.delete("/app/accounts/carol").status_code == 401
    assert bank.client().delete("/app/accounts/carol", headers=token(issuer)).status_code == 401
    assert accounts.delete("/app/accounts/carol", headers=token(issuer)).status_code == 204
    assert accounts.get("/app/accounts/carol").status_code == 404


def test_claims_and_history(bank, accounts):
    order = {"from": "bob", "to": "alice", "amount": 3}
    reply = accounts.post("/app/transfers", json=order)
    transaction = reply.headers["x-ms-ccf-transaction-id"]
    claim = reply.json()["claim"]
    bank.wait_committed(transaction)
    for _ in range(50):
        proof = accounts.get(
            "/app/transfers/proof", headers={"x-ms-ccf-transaction-id": transaction}
        )
        if proof.status_code != 202:
            break
        time.sleep(0.1)
    assert proof.status_code == 200, proof.text
    body = proof.json()
    assert body["transfer"] == order
    assert body["transactionId"] == transaction
    receipt = body["receipt"]
    leaf = receipt["leaf_components"]
    assert leaf["claims_digest"] == hashlib.sha256(claim.encode()).hexdigest()
    digest = hashlib.sha256(
        bytes.fromhex(leaf["write_set_digest"])
        + hashlib.sha256(leaf["commit_evidence"].encode()).digest()
        + bytes.fromhex(leaf["claims_digest"])
    ).hexdigest()
    certificate = x509.load_pem_x509_certificate(receipt["cert"].encode())
    ccf.receipt.verify(ccf.receipt.root(digest, receipt["proof"]), receipt["signature"], certificate)


def test_ranges_of_history(bank, accounts):
    seqnos = []
    for amount in (1, 2, 3):
        reply = accounts.post("/app/transfers", json={"from": "bob", "to": "alice", "amount": amount})
        seqnos.append(int(reply.headers["x-ms-ccf-transaction-id"].split(".")[1]))
        transaction = reply.headers["x-ms-ccf-transaction-id"]
    bank.wait_committed(transaction)
    for _ in range(50):
        reply = accounts.get(f"/app/statement?from={seqnos[0]}&to={seqnos[-1]}")
        if reply.status_code != 202:
            break
        time.sleep(0.1)
    assert reply.status_code == 200, reply.text
    assert [entry["transfer"]["amount"] for entry in reply.json()["transfers"]] == [1, 2, 3]


def test_consensus_from_js(bank):
    body = bank.client().get("/app/commit-status").json()
    assert body["status"] == "Committed"
    assert body["view"] == body["last"]["view"]


def test_cryptography(bank):
    results = bank.client().get("/app/cryptography").json()
    assert results and all(results.values()), results


def test_async_handlers_are_awaited(bank):
    assert bank.client().post("/app/later", content="hello").json() == {"text": "hello"}


def test_openapi(bank):
    document = bank.client().get("/app/api").json()
    assert document["openapi"].startswith("3.")
    assert "put" in document["paths"]["/accounts/{owner}"]
    summary = document["paths"]["/accounts/{owner}"]["put"]["summary"]
    assert summary == "Open an account"
