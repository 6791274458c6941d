"""What all tests against dnf share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.property import oracle


@pytest.fixture(scope="module")
def dnf(tmp_path_factory: pytest.TempPathFactory) -> Iterator[oracle.Dnf]:
    """A dnf that answers."""
    if not oracle.is_there():
        pytest.skip("dnf is not installed")
    process = oracle.Dnf(tmp_path_factory.mktemp("dnf") / "errors")
    yield process
    process.close()
