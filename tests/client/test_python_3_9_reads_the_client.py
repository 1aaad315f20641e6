"""The client promises Python 3.9, and every other test of it runs on a later one."""

from pathlib import Path

import pytest
import vermin

CLIENT = Path(__file__).parents[2] / "client/consilium"


def least_python(source: str) -> tuple[int, int]:
    """The first Python 3 that reads it. Annotations count: pydantic evaluates its models'."""
    config = vermin.Config()
    config.set_eval_annotations(True)
    config.enable_feature("union-types")
    config.add_backport("typing_extensions")
    least: tuple[int, int] = vermin.visit(source, config).minimum_versions()[1]
    return least


@pytest.mark.parametrize("file", sorted(CLIENT.glob("*.py")), ids=lambda file: file.name)
def test_each_file_is_of_python_3_9(file: Path) -> None:
    assert least_python(file.read_text("utf-8")) <= (3, 9)


@pytest.mark.parametrize(
    "later",
    [
        "class Seat(BaseModel):\n    url: str | None = None",
        "def ask(images: list[str | bytes]): ...",
        "Reply = int | str",
        "match reply:\n    case 1: ...",
        "zip(a, b, strict=True)",
        "from typing import Self",
        "@dataclass(slots=True)\nclass Reply: ...",
        "async def ask():\n    async with asyncio.timeout(1): ...",
    ],
)
def test_what_is_later_would_be_found(later: str) -> None:
    imports = "import asyncio\nfrom dataclasses import dataclass\n"
    assert least_python(imports + later) > (3, 9)
