"""Do transformers and vLLM say the same? Greedy, question by question, token by token.

Up to the first token that differs both have read the same, so greedy decoding in vLLM is what
teacher-forcing it with the tokens of transformers would give. There, the gap between vLLM's two
best log-probabilities says whether it was a near-tie (bfloat16 adds up in another order) or a bug.
"""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx
from PIL import Image

from models.data.example import Example
from models.data.pixels import open_rgb
from models.parts.vlm import Vlm
from models.parts.whole import Whole

# Nats between the two best tokens, where the two first differ: logits of 8 to 16, as a worker that
# chooses among whole answers has, stand 0.0625 apart in bfloat16, or are the same.
MAX_GAP = 0.07
MAX_DIFFERING = 0.1  # of the questions
# Of a language model that has learned nothing yet logits are 16 to 32: two steps of those.
MAX_GAP_UNLEARNED = 0.26
MAX_TOKENS = 32


class ParityError(Exception):
    """vLLM could not be asked, or did not answer as it should."""


@dataclass(frozen=True)
class Comparison:
    """`gap` is None where all tokens are the same."""

    example: Example
    transformers: str
    vllm: str
    gap: float | None


@dataclass(frozen=True)
class Parity:
    comparisons: tuple[Comparison, ...]

    @property
    def differing(self) -> list[Comparison]:
        return [c for c in self.comparisons if c.gap is not None]

    @property
    def holds(self) -> bool:
        few = len(self.differing) <= MAX_DIFFERING * len(self.comparisons)
        return few and all((c.gap or 0) < MAX_GAP for c in self.differing)

    @property
    def is_rounding(self) -> bool:
        """All that holds of a worker which has learned nothing: it babbles through near-ties, and
        may meet one in every answer."""
        return all((c.gap or 0) < MAX_GAP_UNLEARNED for c in self.differing)


def compare(
    model: Vlm | Whole, url: str, name: str, prompt: str, examples: Sequence[Example]
) -> Parity:
    """Asks `model` and the vLLM server at `url` (which serves it as `name`) the same questions.

    Raises:
        ParityError: vLLM refuses a question or cannot be reached.
    """
    found = []
    for example in examples:
        asked = prompt.format(question=example.question)
        ours = model.answer([open_rgb(path) for path in example.images], asked, MAX_TOKENS)
        theirs, gaps = _ask_vllm(url, name, asked, example.images)
        # Where one stops sooner, the other's next token stands against nothing: that differs too.
        pairs = zip([*ours, None], [*theirs, None], strict=False)
        at = next((i for i, (a, b) in enumerate(pairs) if a != b), None)
        gap = None if at is None else gaps[min(at, len(gaps) - 1)]
        found.append(
            Comparison(example, model.tokenizer.decode(ours), model.tokenizer.decode(theirs), gap)
        )
    return Parity(tuple(found))


def _as_url(image: Image.Image) -> str:
    file = io.BytesIO()
    image.save(file, "PNG")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


def _ask_vllm(
    url: str, name: str, asked: str, images: Sequence[Path]
) -> tuple[list[int], list[float]]:
    """The greedy answer's token ids, and at each the gap between the two best."""
    # As the reference sees them: what a file of more bits, or DICOM, is read as differs by reader.
    pictures = [
        {"type": "image_url", "image_url": {"url": _as_url(open_rgb(image))}} for image in images
    ]
    request = {
        "model": name,
        "messages": [{"role": "user", "content": [*pictures, {"type": "text", "text": asked}]}],
        "temperature": 0,
        "max_tokens": MAX_TOKENS,
        "logprobs": True,
        "top_logprobs": 2,
        "return_token_ids": True,
    }
    try:
        response = httpx.post(
            f"{url}/v1/chat/completions", json=request, timeout=120, trust_env=False
        )
        response.raise_for_status()
    except httpx.HTTPError as error:
        raise ParityError(f"vLLM at {url} did not answer ({type(error).__name__}).") from error
    choice = response.json()["choices"][0]
    best = [
        [top["logprob"] for top in token["top_logprobs"]] for token in choice["logprobs"]["content"]
    ]
    return choice["token_ids"], [two[0] - two[1] for two in best]
