"""What a model's word on two answers is worth, where rules leave them apart.
python -m benchmarks.accuracy.entailment [--data FOLDER] [--panel panel.gpu.toml]
python -m benchmarks.accuracy.entailment --encoder FOLDER --bar 0.85

Pairs of doctors' answers of MEDIQA-M3G were read by a person (`read_pairs.toml`): do they say the
same? The summariser's server (`[summariser] url` of the panel file, or CONSILIUM_SUMMARISER_URL) is
asked as the gateway asks it, both ways, with that file's prompts; or, for comparison, a sentence
encoder in Hugging Face layout tells how like their mean embeddings are (cosine). Printed are how
often two are the same that are held for it (over the bar; precision), how many of the same are
found (recall), how well the value tells them apart (area under the curve; 0.5 is chance), and the
seconds for a pair. 95 % intervals over pairs. The last line is JSON.
"""

import argparse
import asyncio
import dataclasses
import json
import time
import tomllib
from collections.abc import Sequence
from pathlib import Path

from benchmarks import needs
from benchmarks.accuracy.free_text import encounters, shown
from gateway.asking.entailment import ask, prompt_for
from gateway.asking.model_server import Http, new_http_client
from gateway.case import Case
from gateway.contract import Language, Options
from gateway.settings import load_settings
from gateway.tables import SummariserSettings
from gateway.verdict.entailed import SURE
from models.metrics.score import mean

LANGUAGES: tuple[Language, ...] = ("en", "zh")  # as the pairs were read
READ = Path(__file__).with_name("read_pairs.toml")


@dataclasses.dataclass(frozen=True)
class Pair:
    """Two answers to a question, and whether a person finds that they say the same."""

    question: str
    texts: tuple[str, str]
    same: bool


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    needs.data_folder(arguments)
    arguments.add_argument("--panel", type=Path, default=Path("panel.gpu.toml"))
    arguments.add_argument("--encoder", type=Path)
    arguments.add_argument("--bar", type=float, default=SURE)
    given = arguments.parse_args()
    data = given.data
    seat = load_settings(given.panel).summariser
    if seat is None or not seat.entails:
        arguments.error(f"{given.panel} has no [summariser.entails]")
    if not given.encoder:
        needs.answering(seat.url, f"start the summariser of {given.panel}, consilium summariser")
    found = {}
    for language in LANGUAGES:
        pairs = read_pairs(data, language)
        began = time.perf_counter()
        if given.encoder:
            alike = cosines(pairs, given.encoder)
        elif language in seat.entails:
            alike = asyncio.run(asked(pairs, language, seat))
        else:
            continue
        seconds = (time.perf_counter() - began) / len(pairs)
        found[language] = measured(pairs, alike, given.bar, seconds, language)
    print(json.dumps(found))


def read_pairs(data: Path, language: Language) -> list[Pair]:
    """Those that were read, with their texts."""
    cases = {case.id: case for case in encounters(data, language, doctors=2)}
    pairs = []
    for kind, named in tomllib.loads(READ.read_text("utf-8"))[language].items():
        for encounter, *seats in map(str.split, named):
            case = cases[encounter]
            answers = (case.answer, *case.alternatives)
            one, other = (answers[int(seat)] for seat in seats)
            pairs.append(Pair(case.question, (one, other), kind == "same"))
    return pairs


def measured(
    pairs: Sequence[Pair], alike: Sequence[float], bar: float, seconds: float, language: Language
) -> dict[str, object]:
    """By how alike each pair is held; printed as well."""
    merged = [pair.same for pair, each in zip(pairs, alike, strict=True) if each > bar]
    same = [each for pair, each in zip(pairs, alike, strict=True) if pair.same]
    others = [each for pair, each in zip(pairs, alike, strict=True) if not pair.same]
    recall = mean([float(each > bar) for each in same], range(len(same)))
    precision = mean(list(map(float, merged)), range(len(merged))) if merged else None
    wins = [(one > other) + (one == other) / 2 for one in same for other in others]
    area = sum(wins) / len(wins)
    print(f"{language}: {len(same)} same, {len(others)} different; {len(merged)} held for the same")
    print(f"  precision {shown(precision) if precision else '–'}   recall {shown(recall)}")
    print(f"  area under the curve {area:.2f}   {seconds:.2f} s a pair")
    return {
        "same": len(same),
        "different": len(others),
        "merged": len(merged),
        "precision": precision and dataclasses.asdict(precision),
        "recall": dataclasses.asdict(recall),
        "area": area,
        "seconds": seconds,
    }


async def asked(pairs: Sequence[Pair], language: Language, seat: SummariserSettings) -> list[float]:
    http = new_http_client()
    try:
        return [await least(pair, language, seat, http) for pair in pairs]
    finally:
        await http.close()


async def least(pair: Pair, language: Language, seat: SummariserSettings, http: Http) -> float:
    """How likely the model is to say yes in the direction in which it is less likely to."""
    case = Case("", pair.question, (), language, None, None, Options())
    prompts = [
        prompt_for(seat, language, pair.question, texts) for texts in (pair.texts, pair.texts[::-1])
    ]
    said = await asyncio.gather(*(ask(case, prompt, seat, http) for prompt in prompts))
    return min(each.probability for each in said)


def cosines(pairs: Sequence[Pair], folder: Path) -> list[float]:
    import torch

    import models.cpu_torch  # noqa: F401  before transformers, which imports torchvision

    # isort: split
    from transformers import AutoModel, AutoTokenizer

    tokenizer, encoder = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder)

    def embedded(texts: list[str]) -> torch.Tensor:
        batch = tokenizer(texts, padding=True, truncation=True, return_tensors="pt")
        with torch.no_grad():
            tokens = encoder(**batch).last_hidden_state
        heard = batch["attention_mask"][..., None]
        mean_token: torch.Tensor = (tokens * heard).sum(1) / heard.sum(1)
        return mean_token

    ones, others = (embedded([pair.texts[at] for pair in pairs]) for at in (0, 1))
    return torch.nn.functional.cosine_similarity(ones, others).tolist()


if __name__ == "__main__":
    with needs.told():
        main()
