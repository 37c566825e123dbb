"""ethers, viem and web3.js: each suite is a program of its own, and reads as a tutorial."""

import json
import os
import subprocess

import pytest
from chain import FOLDER

SUITES = ["ethers", "ethers_websocket", "viem", "web3js"]


@pytest.mark.parametrize("suite", SUITES)
def test_suite(either_chain, suite):
    # web3.js leaves timers behind, which would keep the process alive for minutes.
    command = ["node", "--test", "--test-force-exit", FOLDER / f"{suite}.test.mjs"]
    first = 2 * SUITES.index(suite)
    keys = ["0x" + bytes(account.key).hex() for account in either_chain.accounts[first:first + 2]]
    environment = os.environ | {
        "ETHEREUM_URL": either_chain.url,
        "ETHEREUM_KEYS": json.dumps(keys),
        # Node.js trusts the service as it would any authority.
        "NODE_EXTRA_CA_CERTS": str(either_chain.service.service_cert_file),
    }
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stdout + result.stderr
