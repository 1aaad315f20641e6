"""docs/asking.md names every field, option, error and status, and its example is a real verdict."""

import json
import re
from pathlib import Path
from typing import get_args

import pytest

from gateway.contract import CaseRequest, ErrorKind, Options, Verdict
from gateway.refusals import Refused

PAGE = (Path(__file__).parents[3] / "docs" / "asking.md").read_text("utf-8")


@pytest.mark.parametrize("field", [*CaseRequest.model_fields, *Options.model_fields])
def test_every_field_of_a_case_is_explained(field):
    assert re.search(rf"`(options\.)?{field}`", PAGE) or field == "options"


def test_every_status_is_explained():
    assert all(f"| {error.status} |" in PAGE for error in Refused.__subclasses__())


def test_every_failure_that_is_given_is_explained():
    given = set(get_args(ErrorKind)) - {"not_needed"}  # no caller can ask for it
    assert all(f"`{kind}`" in PAGE for kind in given)


def test_the_example_is_a_verdict():
    [example] = re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)
    verdict = Verdict.model_validate(json.loads(example.replace(', "…"]', "]")))
    assert set(json.loads(example)) == set(Verdict.model_fields) and verdict.answer
