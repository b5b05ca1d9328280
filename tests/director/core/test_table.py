"""The table's keys: text and back."""

from __future__ import annotations

import pytest
from hypothesis import given

from director.core.table import VirtualKey
from tests.director.ipvs.strategies import keys

pytestmark = pytest.mark.unit


@given(keys())
def test_a_key_is_read_back_from_its_text(key: VirtualKey) -> None:
    assert VirtualKey.parse(str(key)) == key


@pytest.mark.parametrize("text", ["", "tcp", "tcp 192.0.2.1", "esp 192.0.2.1:80", "fwmark x", "tcp [::1:80"])
def test_what_is_no_key_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        VirtualKey.parse(text)
