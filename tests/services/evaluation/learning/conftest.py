"""A panel with a summariser, and a small language model that one may be trained on."""

from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.settings import Settings, load_settings
from tests import tiny

TEMPLATE = """{% for message in messages %}[{{ message['role'] }}]{{ message['content'] }}[end]\
{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}"""


@pytest.fixture
def with_summariser(panel_file: Callable[..., Path]) -> Callable[..., Settings]:
    """The three workers' panel with a summariser at a place, and on a model."""

    def seat(url: str, model: str = "mock") -> Settings:
        path = panel_file(["http://127.0.0.1:1"] * 3, summariser=url)
        text = path.read_text().replace('[summariser]\nmodel = "mock"', f"[summariser]\n{model=}")
        path.write_text(text.replace("model='", 'model = "').replace("'\nurl", '"\nurl'))
        return load_settings(path, environ={})

    return seat


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tiny.save_llama(tmp_path_factory.mktemp("base"))
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    return folder
