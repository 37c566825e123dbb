"""Governance with `ccf_cose_sign1`, `ccf_cose_sign1_prepare` and `ccf_cose_sign1_finish`."""

import base64
import json
import pathlib
import subprocess
import sys
import time

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, utils
from service import API

TOOLS = pathlib.Path(sys.executable).parent
NOTHING = {"actions": [{"name": "set_js_runtime_options", "args": {
    "max_heap_bytes": 104857600, "max_stack_bytes": 1048576, "max_execution_time_ms": 5000}}]}


def tool(name, *arguments) -> bytes:
    command = [TOOLS / name, *map(str, arguments)]
    return subprocess.run(command, check=True, capture_output=True).stdout


def cose_sign1(member, kind, content, tmp_path, proposal=None) -> bytes:
    file = tmp_path / "content.json"
    file.write_text(json.dumps(content) if content is not None else "")
    extra = ["--ccf-gov-msg-proposal-id", proposal] if proposal else []
    return tool(
        "ccf_cose_sign1", "--ccf-gov-msg-type", kind, "--ccf-gov-msg-created-at", iso_now(),
        "--signing-key", member.key_file, "--signing-cert", member.cert_file,
        "--content", file, *extra,
    )


def iso_now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime())


def post(service, path, body):
    return service.client().post(
        f"/gov/{path}?api-version={API}", content=body, headers={"content-type": "application/cose"}
    )


def open_proposal(service, tmp_path) -> str:
    reply = post(service, "members/proposals:create",
                 cose_sign1(service.members[0], "proposal", NOTHING, tmp_path))
    assert reply.status_code == 200, reply.text
    assert reply.json()["proposalState"] == "Open"
    return reply.json()["proposalId"]


def code(reply) -> tuple[int, str]:
    return reply.status_code, reply.json()["error"]["code"]


def test_a_proposal_by_ccfs_own_tools(notes, tmp_path):
    proposal = open_proposal(notes, tmp_path)
    ballot = {"ballot": "export function vote(proposal, proposerId) { return true; }"}
    states = []
    for member in notes.members[:2]:
        body = cose_sign1(member, "ballot", ballot, tmp_path, proposal)
        reply = post(notes, f"members/proposals/{proposal}/ballots/{member.id}:submit", body)
        assert reply.status_code == 200, reply.text
        states.append(reply.json()["proposalState"])
    assert states == ["Open", "Accepted"]
    client = notes.client()
    stored = client.get(f"/gov/members/proposals/{proposal}?api-version={API}").json()
    assert stored["finalVotes"] == {member.id: True for member in notes.members[:2]}
    actions = client.get(f"/gov/members/proposals/{proposal}/actions?api-version={API}").json()
    assert actions == NOTHING


def test_a_proposal_signed_elsewhere(notes, tmp_path):
    """The HSM flow: prepare, sign the digest outside, finish."""
    member = notes.members[1]
    file = tmp_path / "proposal.json"
    file.write_text(json.dumps(NOTHING))
    common = ["--ccf-gov-msg-type", "proposal", "--ccf-gov-msg-created-at", iso_now(),
              "--signing-cert", member.cert_file, "--content", file]
    prepared = json.loads(tool("ccf_cose_sign1_prepare", *common))
    key = serialization.load_pem_private_key(member.key_file.read_bytes(), None)
    hash_of = {-7: hashes.SHA256(), -35: hashes.SHA384()}[prepared["alg"]]
    size = {-7: 32, -35: 48}[prepared["alg"]]
    der = key.sign(base64.b64decode(prepared["value"]), ec.ECDSA(utils.Prehashed(hash_of)))
    r, s = utils.decode_dss_signature(der)
    raw = r.to_bytes(size, "big") + s.to_bytes(size, "big")
    signature = tmp_path / "signature.json"
    signature.write_text(json.dumps({"value": base64.urlsafe_b64encode(raw).decode()}))
    body = tool("ccf_cose_sign1_finish", *common, "--signature", signature)
    reply = post(notes, "members/proposals:create", body)
    assert reply.status_code == 200, reply.text


def test_replay(notes, tmp_path):
    body = cose_sign1(notes.members[0], "proposal", NOTHING, tmp_path)
    assert post(notes, "members/proposals:create", body).status_code == 200
    assert code(post(notes, "members/proposals:create", body)) == (400, "ProposalReplay")


def test_refusals(notes, tmp_path):
    member = notes.members[0]
    bad = {"actions": [{"name": "no_such_action", "args": {}}]}
    reply = notes.govern(member, "members/proposals:create", "proposal", bad)
    assert code(reply) == (400, "ProposalFailedToValidate")
    reply = notes.govern(member, "members/proposals:create", "proposal", b"not json")
    assert reply.status_code == 400
    reply = notes.govern(member, "members/proposals:create", "ballot", NOTHING)
    assert reply.status_code == 401
    reply = notes.govern(
        member, "members/proposals:create", "proposal", NOTHING, **{"ccf.gov.msg.created_at": 10**10}
    )
    assert code(reply) == (400, "InvalidCreatedAt")
    reply = notes.govern(notes.identity("user0"), "members/proposals:create", "proposal", NOTHING)
    assert code(reply) == (401, "InvalidAuthenticationInfo")
    assert code(post(notes, "members/proposals:create", b"garbage")) == (401, "InvalidAuthenticationInfo")


def test_api_versions(notes):
    client = notes.client()
    assert code(client.get("/gov/service/info")) == (400, "MissingApiVersionParameter")
    assert code(client.get("/gov/service/info?api-version=1999-01-01")) == (400, "UnsupportedApiVersionValue")
    for version in ("2024-07-01", "2023-06-01-preview"):
        info = client.get(f"/gov/service/info?api-version={version}").json()
        assert info["status"] == "Open"
        assert info["certificate"] == notes.service_cert_file.read_text()


def test_votes(notes, tmp_path):
    proposal = open_proposal(notes, tmp_path)
    first, second, third = notes.members
    assert notes.vote(second, proposal, agree=False).json()["proposalState"] == "Open"
    assert notes.vote(second, proposal, agree=False).status_code == 200, "the same ballot again"
    assert code(notes.vote(second, proposal, agree=True)) == (400, "VoteAlreadyExists")
    path = f"members/proposals/{proposal}/ballots/{first.id}:submit"
    ballot = {"ballot": "export function vote() { return true; }"}
    reply = notes.govern(third, path, "ballot", ballot, proposal)
    assert code(reply) == (400, "InvalidAuthenticationInfo")
    assert notes.vote(third, proposal, agree=False).json()["proposalState"] == "Rejected"
    assert code(notes.vote(first, proposal)) == (400, "ProposalNotOpen")
    assert code(notes.vote(first, "0" * 64)) == (404, "ProposalNotFound")


def test_withdrawal(notes, tmp_path):
    proposal = open_proposal(notes, tmp_path)
    path = f"members/proposals/{proposal}:withdraw"
    reply = notes.govern(notes.members[1], path, "withdrawal", b"", proposal)
    assert code(reply) == (403, "AuthorizationFailed")
    reply = notes.govern(notes.members[0], path, "withdrawal", b"", proposal)
    assert reply.json()["proposalState"] == "Withdrawn"
    unknown = "f" * 64
    reply = notes.govern(
        notes.members[0], f"members/proposals/{unknown}:withdraw", "withdrawal", b"", unknown
    )
    assert reply.status_code == 204


def test_a_ballot_may_look_at_the_proposal(notes, tmp_path):
    proposal = open_proposal(notes, tmp_path)
    script = """
      export function vote(rawProposal, proposerId) {
        const { actions } = JSON.parse(rawProposal);
        return actions.length === 1 && actions[0].name === "set_js_runtime_options"
          && proposerId === "%s";
      }""" % notes.members[0].id
    for member in notes.members[1:]:
        path = f"members/proposals/{proposal}/ballots/{member.id}:submit"
        reply = notes.govern(member, path, "ballot", {"ballot": script}, proposal)
    assert reply.json()["proposalState"] == "Accepted"


def test_acknowledging_again(notes):
    member = notes.members[2]
    reply = notes.govern(member, f"members/state-digests/{member.id}:update", "state_digest", b"")
    digest = reply.json()
    assert digest["memberId"] == member.id
    wrong = {"stateDigest": "00" * 32}
    reply = notes.govern(member, f"members/state-digests/{member.id}:ack", "ack", wrong)
    assert code(reply) == (400, "StateDigestMismatch")
    reply = notes.govern(member, f"members/state-digests/{member.id}:ack", "ack", digest)
    assert reply.status_code == 204


def test_reading_the_service(notes):
    client = notes.client()

    def read(path):
        return client.get(f"/gov/{path}?api-version={API}")

    members = read("service/members").json()["value"]
    assert {member["memberId"] for member in members} == {member.id for member in notes.members}
    assert {member["status"] for member in members} == {"Active"}
    users = read("service/users").json()["value"]
    assert {user["userId"] for user in users} == {notes.identity(f"user{n}").id for n in range(2)}
    nodes = read("service/nodes").json()["value"]
    assert {node["status"] for node in nodes} == {"Trusted"}
    constitution = read("service/constitution")
    assert constitution.headers["content-type"].startswith("text/javascript")
    assert "export function resolve" in constitution.text
    endpoints = read("service/javascript-app").json()["endpoints"]
    assert endpoints["/notes/{id}"]["PUT"]["jsFunction"] == "write"
    modules = read("service/javascript-modules").json()["value"]
    assert {module["moduleName"] for module in modules} == {"/notes.js", "/text.js"}
    source = read("service/javascript-modules/%2Fnotes.js")
    assert "export function write" in source.text
    assert code(read("service/members/" + "0" * 64))[0] == 404
    assert code(read("service/members/xyz")) == (400, "InvalidResourceName")


@pytest.mark.parametrize("action, args", [
    ("set_user", {"cert": "nonsense"}),
    ("set_user", {}),
    ("set_member", {"cert": 7}),
    ("set_js_app", {"bundle": {"metadata": {}}}),
    ("set_js_app", {"bundle": {"metadata": {"endpoints": {"/x": {"get": {
        "js_module": "missing.js", "js_function": "f", "forwarding_required": "always",
        "authn_policies": ["no_such_policy"], "mode": "readwrite", "openapi": {}}}}}, "modules": []}}),
    ("remove_user", {"user_id": 1}),
    ("set_recovery_threshold", {"recovery_threshold": 0}),
    ("set_recovery_threshold", {"recovery_threshold": 255}),
    ("set_jwt_issuer", {"issuer": "x", "auto_refresh": True}),
    ("set_ca_cert_bundle", {"name": "x", "cert_bundle": "nonsense"}),
    ("set_constitution", {"constitution": "not javascript {{"}),
])
def test_bad_arguments(notes, action, args):
    proposal = {"actions": [{"name": action, "args": args}]}
    reply = notes.govern(notes.members[0], "members/proposals:create", "proposal", proposal)
    assert code(reply) == (400, "ProposalFailedToValidate"), reply.text
    assert action in reply.text


def test_the_command_line(notes):
    from service import BINARIES

    listed = subprocess.run(
        [BINARIES / "coco", "member", "list", "--url", notes.url,
         "--service-cert", notes.service_cert_file, "--json"],
        check=True, capture_output=True, text=True,
    )
    assert isinstance(json.loads(listed.stdout), (list, dict))
