"""For all tests of imports: one that runs in this process."""

import pytest

from tests.builder.imports.serial_import import SerialImport


@pytest.fixture
def importing(monkeypatch: pytest.MonkeyPatch) -> SerialImport:
    return SerialImport(monkeypatch)
