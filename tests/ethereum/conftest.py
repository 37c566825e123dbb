"""Real nodes that serve Ethereum, for each test module its own."""

import pytest
from chain import Chain

from service import Service


@pytest.fixture(scope="module")
def chain(workspace):
    """A chain with free gas, served as plain HTTP on the loopback interface."""
    with Service(workspace / "ethereum") as service:
        yield Chain(service)


@pytest.fixture(scope="module", params=["http", "https"])
def either_chain(workspace, request):
    """The same, and once more over TLS, which ends in the enclave."""
    extra = ["--ethereum-tls"] if request.param == "https" else []
    with Service(workspace / f"ethereum-{request.param}", extra=extra) as service:
        yield Chain(service)
