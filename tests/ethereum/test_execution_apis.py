"""The fixtures of ethereum/execution-apis over HTTP, against a node that has imported their chain.

Each request of a fixture is sent as it stands, and each answer compared as JSON. Messages of errors
are for people and are not compared, as hive does not. Fixtures marked `speconly` are examples: their
answers must have the same form. `docs/src/ethereum-methods.md` has the outcome by method; it is
written with COCO_WRITE_DOCS=1 and checked otherwise."""

import collections
import json
import os
import pathlib
import subprocess
import tarfile

import pytest
from chain import Chain

from service import BINARIES, ROOT, Service, alone

pytestmark = alone

VECTORS = pathlib.Path(os.environ.get("COCO_VECTORS", ROOT / ".." / "shared" / "vectors"))
ARCHIVE = VECTORS / "ethereum" / "execution-apis-tests.tar.xz"
TABLE = ROOT / "docs" / "src" / "ethereum-methods.md"

# What this node does not do, with the reason.
NOT_CARRIED = {
    "testing_": "they build blocks for the engine API, which no batch ledger has",
    "eth_sendRawTransaction/send-blob-tx": "the chain has no place for blobs",
}

# Sent last, since what is sent is executed: the other fixtures are about the imported head.
WRITERS = {"eth_sendRawTransaction"}

# Fields that a node may leave out of an answer that is given as an example.
OPTIONAL = {"deleteStrategy"}


@pytest.fixture(scope="module")
def fixtures(workspace) -> pathlib.Path:
    """The folder with the fixtures, one folder for each method."""
    if not ARCHIVE.exists():
        assert os.environ.get("CI") != "true", f"{ARCHIVE} is missing"
        pytest.skip(f"{ARCHIVE} is missing")
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(workspace / "fixtures", filter="data")
    return workspace / "fixtures" / "tests"


@pytest.fixture(scope="module")
def chain(fixtures, workspace):
    """A node that goes on from the 54 blocks of the fixtures' chain."""
    service = Service(workspace / "imported")
    command = [BINARIES / "coco", "import-chain", fixtures / "genesis.json", fixtures / "chain.rlp"]
    command += ["--dir", service.folder]
    imported = subprocess.run([str(word) for word in command], capture_output=True, text=True)
    assert imported.returncode == 0, imported.stdout + imported.stderr
    service.start(keep=True)
    try:
        yield Chain(service)
    finally:
        service.stop()


def test_the_head_is_the_fixtures(chain, fixtures):
    expected = json.loads((fixtures / "headfcu.json").read_text())["params"][0]["headBlockHash"]
    assert chain.rpc("eth_getBlockByNumber", "latest", False)["hash"] == expected


def test_every_fixture(chain, fixtures):
    failures, passed, total = [], collections.Counter(), collections.Counter()
    for file in sorted(fixtures.glob("*/*.io"), key=lambda file: (file.parent.name in WRITERS, file)):
        name = f"{file.parent.name}/{file.stem}"
        if any(name.startswith(prefix) for prefix in NOT_CARRIED):
            continue
        total[file.parent.name] += 1
        if differing := play(chain, file.read_text()):
            failures.append(f"{name}: {differing[:3]}")
        else:
            passed[file.parent.name] += 1
    assert not failures, f"{len(failures)} of {total.total()} fail:\n" + "\n".join(failures)
    table = document(passed, total)
    if os.environ.get("COCO_WRITE_DOCS"):
        TABLE.write_text(table)
    assert TABLE.read_text() == table


def play(chain: Chain, fixture: str) -> list[str]:
    """Sends the requests of a fixture; where the answers differ."""
    example = any(line.startswith("// speconly") for line in fixture.splitlines())
    answer, differing = None, []
    for line in fixture.splitlines():
        if line.startswith(">> "):
            headers = {"content-type": "application/json"}
            answer = chain.client.post("/", content=line[3:].encode(), headers=headers).json()
        elif line.startswith("<< "):
            expected = json.loads(line[3:])
            differing += unlike(expected, answer) if example else differences(expected, answer)
    return differing


def differences(expected, found, at: str = "") -> list[str]:
    """The places where two answers differ, but for the messages of errors."""
    if isinstance(expected, dict) and isinstance(found, dict):
        names = (expected.keys() | found.keys()) - ({"message"} if "code" in expected else set())
        return [
            difference for name in sorted(names)
            for difference in differences(expected.get(name, "absent"), found.get(name, "absent"), f"{at}.{name}")
        ]
    if isinstance(expected, list) and isinstance(found, list) and len(expected) == len(found):
        pairs = enumerate(zip(expected, found))
        return [d for number, (a, b) in pairs for d in differences(a, b, f"{at}[{number}]")]
    return [] if expected == found else [f"{at}: {str(found)[:80]} instead of {str(expected)[:80]}"]


def unlike(expected, found, at: str = "") -> list[str]:
    """The places where an answer has not the form of an example."""
    if is_number(expected) and is_number(found):
        return []
    if type(expected) is not type(found):
        return [f"{at}: {str(found)[:80]} is of another kind than {str(expected)[:80]}"]
    if isinstance(expected, dict):
        # What an example shows by address is not the same everywhere.
        absent = [
            f"{at}.{name} is absent" for name in sorted(expected.keys() - found.keys())
            if not name.startswith("0x") and name not in OPTIONAL
        ]
        shared = expected.keys() & found.keys()
        return absent + [u for name in sorted(shared) for u in unlike(expected[name], found[name], f"{at}.{name}")]
    if isinstance(expected, list):
        return [u for a, b in zip(expected, found) for u in unlike(a, b, f"{at}[]")]
    return []


def is_number(value) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def document(passed: collections.Counter, total: collections.Counter) -> str:
    lines = [f"| `{method}` | {passed[method]} of {count} |" for method, count in sorted(total.items())]
    reasons = [f"* `{name}`: {reason}." for name, reason in NOT_CARRIED.items()]
    return "\n".join([
        "# Methods of Ethereum, by the fixtures of execution-apis",
        "",
        "Written by `tests/ethereum/test_execution_apis.py`, which sends every request of "
        "ethereum/execution-apis to a node that has imported their chain and compares the answers.",
        "",
        f"{passed.total()} of {total.total()} fixtures pass. Not among them:",
        "",
        *reasons,
        "",
        "| method | fixtures that pass |",
        "|---|---:|",
        *lines,
        "",
    ])
