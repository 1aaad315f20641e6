"""How often would the commonest training answer to the same question be right, without an image?

    python -m benchmarks.accuracy.prior slake test en
    python -m benchmarks.accuracy.prior vqa_med_2019 validate en --fold 1 2

A question that training did not ask has the commonest answer of all. `--fold` takes a part of the
split, the second of two here, as `consilium evaluate --fold 1/2` does.
"""

import argparse
from collections import Counter, defaultdict
from collections.abc import Sequence

from benchmarks.needs import data_folder
from models.data.datasets import load
from models.data.example import DataError, Example
from models.metrics.exact_match import normalise
from models.metrics.score import Score, mean
from models.recipe.stage import Source
from models.training.inputs.examples import examples_of
from services.evaluation.score import is_right


def prior(train: Sequence[Example], asked: Sequence[Example]) -> Score:
    """The exact match of what questions alone tell, clustered by image."""
    every: Counter[str] = Counter()
    to: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for example in train:
        for counted in (every, to[normalise(example.question)]):
            counted[normalise(example.answer)] += 1

    def commonest(question: str) -> str:
        ((answer, _),) = (to.get(normalise(question)) or every).most_common(1)
        return answer

    right = [is_right(commonest(each.question), each) for each in asked]
    return mean(right, [each.group for each in asked])


def main() -> None:
    arguments = argparse.ArgumentParser(description="Score the commonest answer to each question.")
    arguments.add_argument("set")
    arguments.add_argument("split")
    arguments.add_argument("language")
    arguments.add_argument("--fold", type=int, nargs=2, metavar=("NUMBER", "FOLDS"))
    data_folder(arguments)
    told = arguments.parse_args()
    fold, folds = told.fold or (0, None)
    if folds is not None and not 0 <= fold < folds >= 2:
        arguments.error("--fold: give a number and how many there are, such as 0 2")
    source = Source(set=told.set, split=told.split, languages=(told.language,), folds=folds)
    train = load(told.set, told.data, "train", told.language)
    found = prior(train, examples_of([source], told.data, fold, held_out=True))
    low, value, high = (f"{100 * each:.1f}" for each in (found.low, found.value, found.high))
    print(f"{value} ({low} to {high}) of {found.cases} questions")


if __name__ == "__main__":
    try:
        main()
    except DataError as error:
        raise SystemExit(str(error)) from None
