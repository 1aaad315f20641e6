"""What several tests of this room share."""

from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.settings import Settings, load_settings


@pytest.fixture
def seated(tmp_path: Path) -> Callable[..., Settings]:
    """Seats w0, w1, … that say this."""

    def read(*seats: str) -> Settings:
        text = "[panel]\nquorum = 1\n"
        for number, own in enumerate(seats):
            text += f'[[worker]]\nname = "w{number}"\nfamily = "f"\nmodel = "an/id"\n'
            text += f'prompt = "{{question}}"\n{own}\n'
        (tmp_path / "panel.toml").write_text(text, "utf-8")
        return load_settings(tmp_path / "panel.toml", environ={})

    return read
