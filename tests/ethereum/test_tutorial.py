"""What the README and the book tell a reader to type works as it stands there."""

import os
import re
import subprocess

import pytest
from chain import Chain

from service import BINARIES, ROOT

DOCUMENTS = ["README.md", "docs/src/ethereum.md"]
SECTION = re.compile(r"^## Ethereum in a minute\n(.*?)(?=^## |\Z)", re.M | re.S)
COMMANDS = re.compile(r"^```sh\n(.*?)^```", re.M | re.S)


def script(document: str, chain: Chain) -> str:
    """The commands of a document in order, but for what the suites have installed before."""
    text = (ROOT / document).read_text()
    if document == "README.md":
        text = SECTION.search(text).group(1)
    lines = "".join(COMMANDS.findall(text)).replace("http://127.0.0.1:8545", chain.url).splitlines()
    skipped = ("npm ci", "coco dev", "cargo run")
    return "\n".join(line for line in lines if not line.startswith(skipped))


@pytest.mark.parametrize("document", DOCUMENTS)
def test_the_commands_of_a_document(chain, document):
    path = f"{BINARIES}:{os.environ['PATH']}"
    result = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script(document, chain)],
        cwd=ROOT, env=os.environ | {"PATH": path}, capture_output=True, text=True, timeout=300,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert "paid so far: 25,5" in result.stdout
