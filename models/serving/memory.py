"""A worker that remembers: it answers as those cases of its training data did that look most like
the one asked about, and whose questions are worded most like its own. Nothing of it is trained.

Each case speaks for its answer, the louder the more alike it is: a kernel estimate of the answers'
distribution (Nadaraya 1964, Watson 1964). An answer's probability is its share of what is said,
times the likeness of the most alike case that says so: about an image or in words like none that it
knows, it answers and does not believe it. Beside its answer it tells how like its own cases this
one is, by which a panel knows what it cannot know.

    memory.safetensors  basis, centres: how features become a look; looks: of every image;
                        gist_basis, gist_mean and gists: the same for what kind of picture it is
    cases.json          questions, answers, and of each case its id, image, question and answer
"""

import json
import math
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, normalize

from models.data.datasets import one_spelling
from models.data.example import DataError
from models.exported import MEMORY
from models.parts.vision import Tower, TowerConfig
from models.recipe import MemoryRecipe
from models.recipe.programme import RecipeError
from models.tensors import load_tensors
from models.training.inputs.examples import learned_by, set_of
from models.training.inputs.features import cached_features

CASES = "cases.json"
GRIDS = (1, 2)  # an image is looked at as a whole, and by its quarters
DIMS = 64  # of each part's features; more changed nothing on validation
# How soon a case falls silent as its look or its wording is another: chosen on SLAKE's validation
# (en, zh) and VQA-Med's. The likeness of a case of the same look or wording is 1.
LOOK, WORDING = 0.06, 0.07
LEAST = 1e-3  # likeness of an answer for which nothing alike speaks
SHOWN = 5
# Of a picture's gist: chosen on SLAKE's validation, half of VQA-Med's, and pictures that are none
# of medicine. Among so many neighbours a single odd one of the index does not decide.
GIST_DIMS = 128
NEIGHBOURS = 5

WORD = re.compile(r"[\u3400-\u9fff]|[^\W_]+")

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Remembered:
    """A case of the training data; its likeness to the one asked about is from 0 to 1."""

    id: str
    question: str
    answer: str
    likeness: float


@dataclass(frozen=True)
class Likeness:
    """How like the index a case is: its image to those that are most like it, its question to the
    one that is, each from 0 to 1; `manner` is the data set which asks most as it is asked."""

    image: float
    question: float
    manner: str


@dataclass(frozen=True)
class Recollection:
    """Answers by their probability, the likeliest first, which sum to 1 at most; and the cases that
    spoke loudest, for one of these or another."""

    answers: dict[str, float]
    cases: tuple[Remembered, ...]
    likeness: Likeness


class Memory:
    """What a served folder holds.

    Raises:
        OSError, ValueError: a file is broken, or was made for the features of another tower.
    """

    def __init__(self, folder: Path):
        config = json.loads((folder / "config.json").read_text("utf-8"))
        self.tower = Tower(TowerConfig(**config["tower"]), load_weights=False)
        mend = f"delete {folder}, and make the memory anew with consilium remember"
        self.tower.load_state_dict(load_tensors(folder / "model.safetensors", mend))
        kept = {name: value.float() for name, value in load_tensors(folder / MEMORY, mend).items()}
        self.basis, self.centres = kept["basis"], kept["centres"]
        if len(self.basis) != self.tower.dim:
            raise ValueError(
                f"{folder} holds looks made of features {len(self.basis)} wide, and its tower's "
                f"are {self.tower.dim}: make it anew with consilium remember"
            )
        self.looks: Floats = kept["looks"].double().numpy()
        self.gist_basis, self.gist_mean = kept["gist_basis"], kept["gist_mean"]
        self.gists = kept["gists"]
        try:
            content = json.loads((folder / CASES).read_text("utf-8"))
        except ValueError as error:
            raise ValueError(f"{folder / CASES} is broken or cut short: {mend}.") from error
        self.questions, self.answers = content["questions"], content["answers"]
        self.ids = [id for id, *_ in content["cases"]]
        self.image, self.question, self.said = np.array([n for _, *n in content["cases"]]).T
        # Answers that differ in capitals and blanks are one, spelled as most of the cases do.
        commonest = np.argsort(-np.bincount(self.said, minlength=len(self.answers)), kind="stable")
        one: dict[str, int] = {}
        for number in commonest:
            one.setdefault(_plain(self.answers[number]), number)
        self.answer = np.array([one[_plain(each)] for each in self.answers])[self.said]
        self.wordings = Wordings(self.questions)

    def look_at(self, image: Image.Image) -> Tensor:
        """What of an image is compared: [parts, dim]. It takes nearly all the time of an answer."""
        with torch.no_grad():
            features = self.tower(self.tower.preprocess(image)[None])[0]
        return pooled(features, self.tower.side)

    def recall(self, seen: Tensor, asked: str, choices: Collection[str] = ()) -> Recollection:
        """What is remembered of such a case, its image `seen` by look_at. Of what is asked the last
        line counts: before it stands what is known of the patient. With `choices` only cases speak
        that say one of them; where none does, each is as likely."""
        spelled: dict[str, str] = {}
        for each in choices:
            spelled.setdefault(_plain(each), each.strip())
        parts = seen[None]
        own = looks_of(parts, self.basis, self.centres)
        look = (self.looks @ own[0].double().numpy())[self.image]
        wording = self.wordings.likeness(asked.strip().rpartition("\n")[2])[self.question]
        told = self._likeness(parts, look, wording)
        loud = np.exp((look - 1) / LOOK + (wording - 1) / WORDING)
        if spelled:
            loud *= np.array([_plain(each) in spelled for each in self.answers])[self.answer]
            if not loud.any():
                return Recollection(dict.fromkeys(spelled.values(), 1 / len(spelled)), (), told)
        likeness = np.sqrt(look.clip(0) * wording)
        said = np.bincount(self.answer, loud, len(self.answers))
        alike = np.full(len(self.answers), LEAST)
        np.maximum.at(alike, self.answer, likeness)
        probability = said / said.sum() * alike
        return Recollection(
            {
                spelled.get(_plain(self.answers[each]), _one_blank(self.answers[each])): float(
                    probability[each]
                )
                for each in np.argsort(-probability, kind="stable")
                if said[each]
            },
            tuple(self._case(n, likeness[n]) for n in np.argsort(-loud, kind="stable")[:SHOWN]),
            told,
        )

    def _likeness(self, parts: Tensor, look: Floats, wording: Floats) -> Likeness:
        gist = gists_of(parts, self.gist_basis, self.gist_mean)[0]
        alike = (self.gists @ gist).topk(min(NEIGHBOURS, len(self.gists))).values
        nearest = np.lexsort((look, wording))[-1]
        return Likeness(
            image=float(alike.mean().clamp(0, 1)),
            question=float(wording.max().clip(0, 1)),
            manner=set_of(self.ids[nearest]),
        )

    def _case(self, number: int, likeness: float) -> Remembered:
        question, answer = self.question[number], self.said[number]
        return Remembered(
            self.ids[number], self.questions[question], self.answers[answer], float(likeness)
        )


class Wordings:
    """How alike questions are: the cosine of what they have in common, words and pairs of words,
    each the heavier the rarer it is (tf-idf); Chinese by its characters."""

    def __init__(self, questions: Sequence[str]):
        held = [_parts(question) for question in questions]
        counts = Counter(part for parts in held for part in parts)
        self.weights = {part: math.log(1 + len(held) / n) for part, n in counts.items()}
        self.new = math.log(1 + len(held))  # of what no question holds
        self.lengths = np.array([self._length(parts) for parts in held])
        self.holders: dict[str, list[int]] = defaultdict(list)
        for number, parts in enumerate(held):
            for part in parts:
                self.holders[part].append(number)

    def likeness(self, question: str) -> Floats:
        """To each of the questions, from 0 to 1."""
        parts = _parts(question)
        common = np.zeros(len(self.lengths))
        for part in parts & self.weights.keys():
            common[self.holders[part]] += self.weights[part] ** 2
        return common / self.lengths / self._length(parts)

    def _length(self, parts: set[str]) -> float:
        return math.sqrt(sum(self.weights.get(part, self.new) ** 2 for part in parts)) or 1.0


def learn(recipe: MemoryRecipe, data: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """What is kept of a recipe's cases, as MEMORY and CASES hold it.

    Raises:
        RecipeError: there is no such tower.
        DataError: a source cannot be read, or a case has several images.
    """
    try:
        tower = Tower(TowerConfig(**recipe.tower.model_dump()))
    except ValueError as error:
        raise RecipeError(f"recipe {recipe.name}: tower: {error}.") from error
    examples = one_spelling(learned_by(recipe, data))
    if several := next((each.id for each in examples if len(each.images) > 1), None):
        raise DataError(f"{several} has several images: only cases of one image are remembered.")
    features = cached_features(tower, (example.images[0] for example in examples))
    images = list(features)
    parts = torch.stack([pooled(features[image], tower.side) for image in images])
    centres = parts.mean(0)
    # Principal components, the same for every part.
    flat = (parts - centres).flatten(0, 1)
    basis = principal(flat, DIMS).half()
    tensors = {
        "basis": basis,
        "centres": centres,
        "looks": looks_of(parts, basis.float(), centres).half(),
        **learned_gists(parts),
    }
    number = {image: n for n, image in enumerate(images)}
    questions = {q: n for n, q in enumerate(dict.fromkeys(each.question for each in examples))}
    answers = {a: n for n, a in enumerate(dict.fromkeys(each.answer for each in examples))}
    cases = [
        [each.id, number[each.images[0]], questions[each.question], answers[each.answer]]
        for each in examples
    ]
    return tensors, {"questions": list(questions), "answers": list(answers), "cases": cases}


def principal(rows: Tensor, most: int) -> Tensor:
    """[n, dim] → [dim, most], or as few as there are: the directions in which most of them lies. By
    singular values: of one or two images LAPACK finds no eigenvectors of the rows' products."""
    triangle = torch.linalg.qr(rows, mode="r").R  # as much of them as has those directions
    return torch.linalg.svd(triangle, full_matrices=False).Vh[:most].T.contiguous()


def pooled(features: Tensor, side: int) -> Tensor:
    """Patches [side², dim] → the means of an image's parts, [parts, dim]: see GRIDS."""
    grid = features.float().T.unflatten(1, (side, side))
    return torch.cat([adaptive_avg_pool2d(grid, count).flatten(1).T for count in GRIDS])


def looks_of(parts: Tensor, basis: Tensor, centres: Tensor) -> Tensor:
    """[n, parts, dim] → [n, parts · DIMS] of length 1, in which every grid has the same say."""
    seen = ((parts - centres) @ basis).split([count**2 for count in GRIDS], dim=1)
    return normalize(torch.cat([normalize(each.flatten(1), dim=1) for each in seen], 1), dim=1)


def learned_gists(parts: Tensor) -> dict[str, Tensor]:
    """Basis, mean and gists of the images whose parts are [n, parts, dim]."""
    mean = _roots(parts).mean(0)
    whole = normalize(_roots(parts) - mean / 2, dim=1)
    # Of the whole and not around its mean: what an image does not share with the others is lost,
    # and so it is less like any of them.
    basis = principal(whole, GIST_DIMS).half()
    gists = gists_of(parts, basis.float(), mean)
    return {"gist_basis": basis, "gist_mean": mean, "gists": gists.half()}


def gists_of(parts: Tensor, basis: Tensor, mean: Tensor) -> Tensor:
    """[n, parts, dim] → [n, GIST_DIMS]: of length 1, were nothing of the image lost. A look tells
    an image from its like; this, one that is like the others from one of another kind. It is the
    square roots of the features, so that no few of them rule; less only half of their mean:
    around the whole of it, an even picture, which lies there, would have no direction."""
    return normalize(_roots(parts) - mean / 2, dim=1) @ basis


def _roots(parts: Tensor) -> Tensor:
    whole = parts[:, 0].float()
    return whole.sign() * whole.abs().sqrt()


def _parts(text: str) -> set[str]:
    words = WORD.findall(text.casefold())
    return {*words, *(f"{a} {b}" for a, b in zip(["^", *words], [*words, "$"], strict=True))}


def _plain(answer: str) -> str:
    return _one_blank(answer.casefold())


def _one_blank(text: str) -> str:
    return " ".join(text.split())
