"""Real nodes that serve Ethereum, for each test module its own.

With `COCO_ETHEREUM_AT=primary` or `backup` in the environment clients talk to that node of three,
otherwise to a node that is alone."""

import contextlib
import os

import pytest
from chain import Chain
from nodes import open_nodes

from service import Service

AT = os.environ.get("COCO_ETHEREUM_AT", "alone")


@contextlib.contextmanager
def served(folder, extra=()):
    """The node that clients talk to."""
    if AT == "alone":
        with Service(folder, extra=extra) as service:
            yield service
    else:
        with open_nodes(folder, ethereum=True, extra=extra) as nodes:
            yield nodes[{"primary": 0, "backup": 1}[AT]]


@pytest.fixture(scope="module")
def chain(workspace):
    """A chain with free gas, served as plain HTTP on the loopback interface."""
    with served(workspace / "ethereum") as service:
        yield Chain(service)


@pytest.fixture(scope="module", params=["http", "https"])
def either_chain(workspace, request):
    """The same, and once more over TLS, which ends in the enclave."""
    extra = ["--ethereum-tls"] if request.param == "https" else []
    with served(workspace / f"ethereum-{request.param}", extra=extra) as service:
        yield Chain(service)
