"""BERTScore (Zhang et al. 2020), as MEDIQA-M3G reports it: the best F1 among the references.

Its model comes from a hub, so it runs only where one can be reached (or holds a copy in its cache)
and the package `bert-score` is installed. Spanish is scored with the English model there, and here.
"""

from collections.abc import Hashable, Sequence

from models.metrics.score import Score, mean

MODELS = {
    "en": "microsoft/deberta-xlarge-mnli",
    "es": "microsoft/deberta-xlarge-mnli",
    "zh": "bert-base-chinese",
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
    model = MODELS[language]
    try:
        from bert_score import BERTScorer

        scorer = BERTScorer(model_type=model)
    except ImportError as error:
        raise Unavailable("BERTScore is not run: pip install bert-score.") from error
    except OSError as error:
        raise Unavailable(
            f"BERTScore is not run: {model} cannot be loaded; it comes from a model hub."
        ) from error
    _, _, f1 = scorer.score(list(answers), [list(each) for each in references])
    return mean(f1.tolist(), clusters, seed)
