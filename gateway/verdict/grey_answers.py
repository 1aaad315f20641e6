"""What workers say over an even grey to questions that are often asked: what `consilium calibrate
--grey` wrote beside the competence file, so that they need not be asked."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from gateway.contract import Alternative, Answer, Language

# What it says, its raw confidence, and each alternative: how it begins, whether that is all of it,
# its probability.
Told = tuple[str, float | None, tuple[tuple[str, bool, float], ...]]


class GreyAnswersError(Exception):
    """A file of grey answers that cannot be used; one sentence says why."""


class _Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class GreySeat(_Frozen):
    """What panel.toml seated when its answers were taken, and the folder that was served then; null
    where that was not one alone."""

    model: str
    prompt: str
    weights: str | None = None


class GreyAnswers(_Frozen):
    """`answers` by language, question and worker."""

    workers: dict[str, GreySeat]
    answers: dict[Language, dict[str, dict[str, Told]]]

    def of_seats(self, seats: Mapping[str, tuple[str, str]]) -> "GreyAnswers":
        """Without the workers whose model and prompt are not those of `seats`, by name."""
        known = {
            name: each
            for name, each in self.workers.items()
            if seats.get(name) == (each.model, each.prompt)
        }
        return self.model_copy(update={"workers": known})

    def of(self, worker: str, language: Language, question: str) -> Answer | None:
        """What the worker says to a question alone, over one grey picture; None where that is not
        known."""
        told = self.answers.get(language, {}).get(question, {}).get(worker)
        if told is None or worker not in self.workers:
            return None
        text, confidence, others = told
        return Answer(
            worker=worker,
            text=text,
            confidence=confidence,
            alternatives=tuple(
                Alternative(begins=begins, whole=whole, probability=probability)
                for begins, whole, probability in others
            ),
            seconds=0,
        )


def beside(competence: Path) -> Path:
    """Where the grey answers of a competence file lie."""
    return competence.with_suffix(".grey.json")


def load_grey_answers(path: Path) -> GreyAnswers | None:
    """None where there are none.

    Raises:
        GreyAnswersError: they cannot be read.
    """
    try:
        return GreyAnswers.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise GreyAnswersError(f"{path} cannot be read ({error.strerror})") from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise GreyAnswersError(f"{path}: {first['msg']}") from error


def save_grey_answers(answers: GreyAnswers, path: Path) -> None:
    """The same content gives the same bytes, a line for each question."""
    content = answers.model_dump()
    told = content.pop("answers")
    lines = [
        f"{_json(language)}: {{\n"
        + ",\n".join(f"{_json(question)}: {_json(said)}" for question, said in sorted(each.items()))
        + "\n}"
        for language, each in sorted(told.items())
    ]
    text = f'{_json(content)[:-1]}, "answers": {{\n' + ",\n".join(lines) + "\n}}\n"
    path.write_text(text, "utf-8")
    path.chmod(0o644)  # the gateway in its container is another user


def _json(content: Any) -> str:
    return json.dumps(content, ensure_ascii=False, sort_keys=True)
