"""A token on Coco with Foundry's `cast`, `forge create` and `forge script`, from npm."""

import json
import os
import subprocess

import pytest
from chain import ETHER, FOLDER, TOKEN, Chain
from eth_account import Account

# npm's own scripts around the programs lose their exit status.
PROGRAMS = {path.name: path for path in FOLDER.glob("node_modules/@foundry-rs/*-*/bin/*")}
TRANSFER = "Transfer(address indexed from, address indexed to, uint256 value)"


@pytest.fixture(scope="module")
def compiled(tmp_path_factory) -> dict[str, str]:
    """Where forge keeps what it compiles and sends."""
    folder = tmp_path_factory.mktemp("forge")
    parts = {"FOUNDRY_OUT": "out", "FOUNDRY_CACHE_PATH": "cache", "FOUNDRY_BROADCAST": "broadcast"}
    return {name: str(folder / part) for name, part in parts.items()}


@pytest.fixture(scope="module")
def chain(either_chain: Chain) -> Chain:
    return either_chain


@pytest.fixture(scope="module")
def foundry(chain, compiled):
    """Runs a program of Foundry against the node; returns what it prints."""
    key = "0x" + bytes(chain.accounts[0].key).hex()
    environment = os.environ | compiled | {
        "ETH_RPC_URL": chain.url,
        "SSL_CERT_FILE": str(chain.service.service_cert_file),
    }

    def run(program: str, action: str, *words, signed: bool = False) -> str:
        command = [PROGRAMS[program], action, *(["--private-key", key] if signed else [])]
        command += map(str, words)
        result = subprocess.run(
            command, cwd=FOLDER, env=environment, capture_output=True, text=True, timeout=120
        )
        assert result.returncode == 0, f"{program} {action}: {result.stdout}{result.stderr}"
        return result.stdout.strip()

    return run


@pytest.fixture(scope="module")
def coin(foundry) -> str:
    """The token's address, deployed by `forge create`."""
    arguments = ["Consortium Coin", "CNS", 1000 * ETHER]
    deployed = json.loads(foundry(
        "forge", "create", "contracts/Token.sol:Token", "--broadcast", "--json", signed=True,
        *["--constructor-args", *arguments],
    ))
    return deployed["deployedTo"]


def test_cast_asks_about_the_chain(foundry, chain):
    assert int(foundry("cast", "chain-id")) == chain.id
    assert int(foundry("cast", "balance", chain.accounts[0].address)) > ETHER
    assert int(foundry("cast", "gas-price")) >= 0
    assert json.loads(foundry("cast", "block", "0", "--json"))["number"] == "0x0"
    assert foundry("cast", "rpc", "net_version").strip('"') == str(chain.id)


def test_cast_deploys(foundry):
    receipt = json.loads(foundry(
        "cast", "send", "--json", signed=True, *["--create", TOKEN["bytecode"]],
        *["constructor(string,string,uint256)", "By cast", "CST", "5"],
    ))
    assert receipt["status"] == "0x1"
    name = foundry("cast", "call", receipt["contractAddress"], "name()(string)")
    assert name == '"By cast"'


def test_cast_transfers_reads_and_finds_events(foundry, coin):
    recipient = Account.create().address
    receipt = json.loads(foundry(
        "cast", "send", coin, "transfer(address,uint256)", recipient, "7", "--json", signed=True
    ))
    assert receipt["status"] == "0x1"
    assert foundry("cast", "call", coin, "balanceOf(address)(uint256)", recipient) == "7"
    sent = receipt["transactionHash"]
    assert json.loads(foundry("cast", "receipt", sent, "--json"))["blockHash"] == receipt["blockHash"]
    assert json.loads(foundry("cast", "tx", sent, "--json"))["hash"] == sent
    events = json.loads(foundry(
        "cast", "logs", "--json", "--from-block", "0", "--address", coin, TRANSFER, "", recipient
    ))
    assert [event["transactionHash"] for event in events] == [sent]


def test_cast_estimates_and_proves(foundry, coin, chain):
    someone, rich = Account.create().address, chain.accounts[0].address
    assert int(foundry("cast", "estimate", someone, "--value", "1", "--from", rich)) == 21_000
    proof = json.loads(foundry("cast", "proof", coin, "0"))
    assert proof["storageProof"][0]["value"] != "0x0"
    assert foundry("cast", "storage", coin, "0").startswith("0x")
    assert foundry("cast", "code", coin).startswith("0x60")
    assert foundry("cast", "nonce", someone) == "0"


def test_cast_executes_a_transaction_again(foundry, coin):
    """`cast run` fetches the state and executes in its own EVM: it must find what the node found."""
    recipient = Account.create().address
    words = [coin, "transfer(address,uint256)", recipient, "7", "--json"]
    receipt = json.loads(foundry("cast", "send", *words, signed=True))
    trace = foundry("cast", "run", receipt["transactionHash"], "--quick")
    assert "Transaction successfully executed" in trace
    assert str(int(receipt["gasUsed"], 16)) in trace


def test_a_refusal_arrives_with_its_reason(foundry, coin, chain):
    stranger = chain.accounts[1].address
    selector = foundry("cast", "sig", "OwnableUnauthorizedAccount(address)")
    with pytest.raises(AssertionError, match=f"execution reverted.*{selector}"):
        foundry("cast", "call", coin, "mint(address,uint256)", stranger, "1", "--from", stranger)


def test_forge_script_broadcasts_several_transactions(foundry, chain):
    holder = Account.create().address
    output = foundry(
        "forge", "script", "script/Deploy.s.sol", "--broadcast", "--rpc-url", chain.url,
        *["--sig", "run(address)", holder], signed=True,
    )
    assert "ONCHAIN EXECUTION COMPLETE & SUCCESSFUL" in output
    deployed = chain.rpc("eth_getLogs", {
        "fromBlock": "0x0",
        "topics": [None, None, "0x" + bytes(12).hex() + holder[2:].lower()],
    })
    assert [int(event["data"], 16) for event in deployed] == [500 * ETHER, 25 * ETHER]
    token = chain.web3().eth.contract(
        address=chain.web3().to_checksum_address(deployed[0]["address"]), abi=TOKEN["abi"]
    )
    assert token.functions.balanceOf(holder).call() == 525 * ETHER
