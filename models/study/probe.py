"""How much a classifier of one size reads from image embeddings, whatever their width.

Every table of embeddings is reduced to the same number of principal components, whitened, and given
to the same logistic regression, or the same small MLP (probes: Alain and Bengio 2016; a control
with labels that mean nothing: Hewitt and Liang 2019). Nested cross-validation: outer folds score,
inner folds choose how much the classifier is held back, and no fold parts a group of images.
"""

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.neural_network import MLPClassifier, MLPRegressor

COMPONENTS = 32
FOLDS = 5
INNER_FOLDS = 3
HIDDEN = 32  # units of an MLP that reads; twice as many where it rebuilds

Floats = NDArray[np.floating[Any]]
Ints = NDArray[np.int64]
Words = NDArray[np.str_]


class ProbeError(Exception):
    """What cannot be probed; one sentence that says why and how to mend it."""


@dataclass(frozen=True)
class Kind:
    """Of a probe: what reads a label, what rebuilds features, and how strongly each may be held
    back by a ridge, the strongest first.
    """

    reader: Callable[[float], Any]
    ridges: tuple[float, ...]
    decoder: Callable[[float], Any]
    decoder_ridges: tuple[float, ...]


def _mlp(of: Any, hidden: int, ridge: float) -> Any:
    return of(
        hidden_layer_sizes=(hidden,), alpha=ridge, solver="lbfgs", max_iter=100, random_state=0
    )


KINDS = {
    "linear": Kind(
        lambda ridge: LogisticRegression(C=1 / ridge, max_iter=1000),
        (1000.0, 100.0, 10.0, 1.0),
        lambda ridge: Ridge(alpha=ridge),
        (1000.0, 100.0, 10.0, 1.0),
    ),
    # Loss and ridge weigh as much against each other as above; two layers bear less of it.
    "mlp": Kind(
        lambda ridge: _mlp(MLPClassifier, HIDDEN, ridge),
        (10.0, 1.0),
        lambda ridge: _mlp(MLPRegressor, 2 * HIDDEN, ridge),
        (1.0, 0.1),
    ),
}


@dataclass(frozen=True)
class Task:
    """What is to be read: of each case the row of its image, its question and its label [cases].

    Where images are asked different questions, each question has weights of its own under one
    ridge, so a question alone can be answered no better than by its commonest label.
    """

    name: str
    images: Ints
    questions: Words
    labels: Words

    @property
    def components(self) -> int:
        """As many in every fold and for every embedding: no fold has fewer images."""
        return min(COMPONENTS, len(set(self.images)) // 3)

    def check(self, groups: Ints) -> None:
        """`groups` [images]: which look alike.

        Raises:
            ProbeError: a single label, or one that is not in as many groups as there are folds.
        """
        labels = sorted(set(self.labels.tolist()))
        if len(labels) < 2:
            raise ProbeError(
                f"{self.name}: the images have {len(labels)} label(s), and reading takes two: "
                "probe on data in which they differ."
            )
        for label in labels:
            there = len(set(groups[self.images[self.labels == label]].tolist()))
            if there < FOLDS:
                raise ProbeError(
                    f"{self.name}: {label!r} is shown by {there} group(s) of images, too few for "
                    f"{FOLDS} folds: add such images, or give them the label of a larger class."
                )


def coordinates(table: Floats) -> Floats:
    """A wide table [images, width] in as many columns as it has images, all distances kept: what
    principal components make of it is the same, and takes a hundredth of the time.
    """
    centred = table.astype(np.float64) - table.mean(axis=0)
    values, vectors = np.linalg.eigh(centred @ centred.T)
    there = values > values.max() * 1e-12
    return vectors[:, there] * np.sqrt(values[there])


def right(
    table: Floats,
    task: Task,
    groups: Ints,
    seeds: Sequence[int],
    shuffled: bool = False,
    kind: str = "linear",
) -> Floats:
    """Of each case, for how many of `seeds` the probe of that kind reads it right from outside its
    fold [cases].

    `table` is what `coordinates` made of the embeddings, [images, columns]. `shuffled` draws the
    labels anew, among the cases of each question: what is right then is right by chance.
    """
    probe = KINDS[kind]
    return np.mean([_right(table, task, groups, seed, shuffled, probe) for seed in seeds], axis=0)


def majority(task: Task, groups: Ints, seeds: Sequence[int]) -> Floats:
    """Of each case, for how many of `seeds` it has the label that is commonest for its question
    outside its fold [cases].
    """
    found = np.zeros((len(seeds), len(task.labels)))
    for row, seed in zip(found, seeds, strict=True):
        for train, test in _folds(task, groups, np.arange(len(row)), FOLDS, seed):
            for question in np.unique(task.questions[test]):
                known = task.labels[train[task.questions[train] == question]]
                labels, counts = np.unique(known, return_counts=True)
                asked = test[task.questions[test] == question]
                if len(labels):
                    row[asked] = task.labels[asked] == labels[counts.argmax()]
    return found.mean(axis=0)


def rebuilt(
    table: Floats, features: Floats, groups: Ints, seed: int, kind: str = "linear"
) -> Floats:
    """How alike each image's `features` [images, patches, width] are to what a decoder of that kind
    rebuilds from the same components of `table` on the other folds [images]: the mean cosine over
    patches, as the reconstruction regulariser counts it.
    """
    task, probe = _no_task(len(table)), KINDS[kind]
    found = np.zeros(len(table))
    for train, test in _folds(task, groups, task.images, FOLDS, seed):
        alike = np.zeros(len(probe.decoder_ridges))
        for fit, held_out in _folds(task, groups, train, INNER_FOLDS, seed):
            tried = _decode(table, features, task.components, fit, held_out, probe)
            alike += [each.sum() for each in tried]
        best = (probe.decoder_ridges[int(alike.argmax())],)
        chosen = replace(probe, decoder_ridges=best)
        (found[test],) = _decode(table, features, task.components, train, test, chosen)
    return found


def blind(features: Floats, groups: Ints, seed: int) -> Floats:
    """As `rebuilt`, from nothing: every image is taken for the mean of the other folds [images]."""
    task = _no_task(len(features))
    found = np.zeros(len(features))
    for train, test in _folds(task, groups, task.images, FOLDS, seed):
        found[test] = _alike(features[train].mean(axis=0, keepdims=True), features[test])
    return found


def _no_task(images: int) -> Task:
    nothing = np.full(images, "")
    return Task("reconstruction", np.arange(images), nothing, nothing)


def _right(
    table: Floats, task: Task, groups: Ints, seed: int, shuffled: bool, probe: Kind
) -> NDArray[np.bool_]:
    if shuffled:
        labels, random = task.labels.copy(), np.random.default_rng(seed)
        for question in np.unique(task.questions):
            asked = np.flatnonzero(task.questions == question)
            labels[asked] = labels[random.permutation(asked)]
        task = replace(task, labels=labels)
    found = np.zeros(len(task.labels), dtype=bool)
    for train, test in _folds(task, groups, np.arange(len(found)), FOLDS, seed):
        hits = np.zeros(len(probe.ridges))
        for fit, held_out in _folds(task, groups, train, INNER_FOLDS, seed):
            hits += [each.sum() for each in _read(table, task, fit, held_out, probe)]
        # Of equals the first: the one that is held back the most.
        chosen = replace(probe, ridges=(probe.ridges[int(hits.argmax())],))
        (found[test],) = _read(table, task, train, test, chosen)
    return found


def _folds(
    task: Task, groups: Ints, cases: Ints, count: int, seed: int
) -> Iterator[tuple[Ints, Ints]]:
    """Of `cases`, each fold's training and test part."""
    kind = np.char.add(task.questions[cases], task.labels[cases])
    folds = StratifiedGroupKFold(count, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        # An answer to one question may be rarer than there are folds; a label may not.
        warnings.filterwarnings("ignore", "The least populated class")
        for train, test in folds.split(cases, kind, groups[task.images[cases]]):
            yield cases[train], cases[test]


def _components(table: Floats, count: int, fit: Ints, rows: Ints) -> Floats:
    """Whitened principal components, found on the images `fit` alone, of the images `rows`."""
    fit = np.unique(fit)
    found = PCA(min(count, len(fit), table.shape[1]), whiten=True, svd_solver="full")
    return found.fit(table[fit]).transform(table[rows])


def _read(
    table: Floats, task: Task, fit: Ints, cases: Ints, probe: Kind
) -> Iterator[NDArray[np.bool_]]:
    """For each of its ridges, which of `cases` a probe fitted on the cases `fit` reads right."""
    both = np.concatenate([fit, cases])
    seen = _components(table, task.components, task.images[fit], task.images[both])
    asked = (task.questions[both, None] == np.unique(task.questions)[None]).astype(float)
    own = (asked[:, :, None] * seen[:, None]).reshape(len(both), -1)
    inputs = np.concatenate([asked, own], axis=1)
    for ridge in probe.ridges:
        reader = _fitted(probe.reader(ridge), inputs[: len(fit)], task.labels[fit])
        yield reader.predict(inputs[len(fit) :]) == task.labels[cases]


def _decode(
    table: Floats, features: Floats, count: int, fit: Ints, rows: Ints, probe: Kind
) -> Iterator[Floats]:
    """For each of its decoder's ridges, how alike `rows` are to what it rebuilds of them."""
    seen = _components(table, count, fit, np.concatenate([fit, rows])).astype(np.float32)
    known, wanted = features[fit].reshape(len(fit), -1), features[rows]
    # What is fitted lies in the span of what it is fitted on: so many columns say all of it.
    middle = known.mean(axis=0)
    apart = known - middle
    values, vectors = np.linalg.eigh(apart @ apart.T)
    there = values > values.max() * 1e-6
    size = np.sqrt(values[there])
    unit = np.sqrt(np.mean(size**2) / len(fit))  # so that a ridge weighs alike whatever the unit
    targets = vectors[:, there] * (size / unit)
    back = (vectors[:, there] * (unit / size)).T @ apart
    for ridge in probe.decoder_ridges:
        decoder = _fitted(probe.decoder(ridge), seen[: len(fit)], targets)
        made = decoder.predict(seen[len(fit) :]) @ back + middle
        yield _alike(made.reshape(wanted.shape), wanted)


def _fitted(probe: Any, inputs: Floats, targets: Any) -> Any:
    with warnings.catch_warnings():
        # An MLP is given so many steps and no more, whatever it reads.
        warnings.simplefilter("ignore", ConvergenceWarning)
        return probe.fit(inputs, targets)


def _alike(made: Floats, wanted: Floats) -> Floats:
    """The mean cosine over patches, [images]."""
    lengths = np.linalg.norm(made, axis=-1) * np.linalg.norm(wanted, axis=-1)
    return ((made * wanted).sum(axis=-1) / np.maximum(lengths, 1e-8)).mean(axis=-1)
