"""The client's replies are the gateway's contract, each with its own copy: they may be of different
versions."""

import pytest
from pydantic import BaseModel

from consilium import case
from consilium import verdict as ours
from gateway import contract, refusals
from tests.fake_gateway import PANEL, VERDICT

REPLIES = [
    name
    for name, each in vars(ours).items()
    if isinstance(each, type) and issubclass(each, BaseModel) and not name.startswith("_")
    if name != "BaseModel"
]


@pytest.mark.parametrize("name", REPLIES)
def test_it_has_every_field_and_the_same_defaults(name: str) -> None:
    """Whoever adds one to the gateway adds it here."""
    home = refusals if name == "Problem" else contract
    there, here = getattr(home, name).model_fields, getattr(ours, name).model_fields
    assert {field: each.get_default() for field, each in here.items()} == {
        field: each.get_default() for field, each in there.items()
    }


def test_every_field_of_a_case_is_a_keyword() -> None:
    options, fields = set(contract.Options.model_fields), set(contract.CaseFields.model_fields)
    assert case.Options.__annotations__.keys() == options
    assert case.Fields.__annotations__.keys() - options == fields - {"question"}


@pytest.mark.parametrize("said", [PANEL, VERDICT])
def test_what_it_reads_it_writes_again_as_it_came(said: BaseModel) -> None:
    sent = said.model_dump_json()
    read = getattr(ours, type(said).__name__).model_validate_json(sent)
    assert read.model_dump_json() == sent


def test_a_field_of_a_newer_gateway_is_kept() -> None:
    newer = VERDICT.model_dump() | {"mood": "calm"}
    assert ours.Verdict.model_validate(newer).model_dump()["mood"] == "calm"
