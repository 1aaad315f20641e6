"""BERTScore (Zhang et al. 2020), as MEDIQA-M3G reports it: the best F1 among the references.

The task's script asks the package for `lang="en"`, in Spanish too, and for a "ch" that it does not
know: those are RoBERTa and the multilingual BERT, and not what it would take for Chinese ("zh").
They come from a hub, so this runs only where one can be reached (or holds a copy in its cache) and
the package `bert-score` is installed. By another model, in a folder, texts can be compared with
each other, not with the task's figures.
"""

import json
from collections.abc import Hashable, Sequence
from pathlib import Path

from models.metrics.score import Score, mean

MODELS = {
    "en": "roberta-large",
    "es": "roberta-large",
    "zh": "bert-base-multilingual-cased",
}


class Unavailable(Exception):
    """BERTScore cannot run here; one sentence that says why, and what it takes."""


def score(
    answers: Sequence[str],
    references: Sequence[Sequence[str]],
    clusters: Sequence[Hashable],
    language: str,
    seed: int = 0,
) -> Score:
    """Mean over answers of the best F1 with any of its references.

    Raises:
        Unavailable: the package or its model cannot be had.
        ValueError: nothing to score.
    """
    return mean(each(answers, references, language), clusters, seed)


def each(
    answers: Sequence[str],
    references: Sequence[Sequence[str]],
    language: str,
    folder: Path | None = None,
) -> list[float]:
    """Of every answer the best F1 with any of its references; by the model in `folder`, in Hugging
    Face layout, at its last layer, in the place of the task's own.

    Raises:
        Unavailable: the package or its model cannot be had.
    """
    model = str(folder or MODELS[language])
    try:
        import models.cpu_torch  # noqa: F401, I001  before transformers, which imports torchvision
        from bert_score import BERTScorer

        config = json.loads((folder / "config.json").read_bytes()) if folder else {}
        scorer = BERTScorer(model_type=model, num_layers=config.get("num_hidden_layers"))
    except ImportError as error:
        raise Unavailable("BERTScore is not run: pip install bert-score.") from error
    except OSError as error:
        raise Unavailable(
            f"BERTScore is not run: {model} cannot be loaded; it comes from a model hub."
        ) from error
    _, _, f1 = scorer.score(list(answers), [list(several) for several in references])
    return [float(best) for best in f1]
