"""A real `coco` process for each test module, and the identities to talk to it with."""

from __future__ import annotations

import pathlib

import pytest

from service import EXAMPLES, Service


@pytest.fixture(scope="module")
def workspace(tmp_path_factory) -> pathlib.Path:
    return tmp_path_factory.mktemp("service")


@pytest.fixture(scope="module")
def bank(workspace):
    """A running service with the TypeScript example loaded."""
    with Service(workspace / "bank", app=EXAMPLES / "bank" / "dist") as service:
        yield service


@pytest.fixture(scope="module")
def notes(workspace):
    """A running service with the plain JS example loaded."""
    with Service(workspace / "notes", app=EXAMPLES / "notes") as service:
        yield service
