"""A worker that remembers behind HTTP: that of vLLM's endpoints which a gateway, a launcher and
Prometheus ask for, so that its seat is one like the others.

    python -m models.serving.memory_server --model FOLDER --served-model-name NAME --port PORT

An answer is one token, whose probability is the answer's; those of other answers stand beside it,
in `remembers` the cases that it goes by, and in `likeness` how like them this one is. No word of a
case is kept or logged; of the last images, what the tower made of them is.
"""

import argparse
import base64
import hashlib
import io
import math
import threading
from collections import OrderedDict
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import uvicorn
from fastapi import FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from PIL import Image
from prometheus_client import make_asgi_app
from pydantic import BaseModel, Field
from torch import Tensor

from models import complaint
from models.serving.memory import Memory, Recollection

KEPT = 64  # images that were asked about last, as the tower sees them: 33 kB each
END = "<end>"  # closes an answer, as the token does that ends a model's


class _ImageUrl(BaseModel):
    url: str


class _Part(BaseModel):
    type: Literal["text", "image_url"]
    text: str = ""
    image_url: _ImageUrl | None = None


class _Message(BaseModel):
    content: list[_Part]


class _StructuredOutputs(BaseModel):
    choice: list[str] = []


class Chat(BaseModel):
    """What of a chat request is heeded: a memory has no temperature, and is never cut short."""

    messages: list[_Message] = Field(min_length=1, max_length=1)
    structured_outputs: _StructuredOutputs = _StructuredOutputs()
    top_logprobs: int = Field(default=0, ge=0)
    cache_salt: str = ""
    stream: Literal[False] = False


def create_app(memory: Memory, name: str, folder: Path) -> FastAPI:
    """The server of `memory`, which it calls `name`, and which was loaded from `folder`."""
    app = FastAPI(openapi_url=None)
    app.mount("/metrics", make_asgi_app())
    # Torch takes every core for one image.
    one_at_a_time = threading.Lock()
    seen: OrderedDict[bytes, Tensor] = OrderedDict()

    def look_at(uri: str, salt: str) -> Tensor:
        """Once for several questions about one image. Who sends another salt cannot tell by the
        time whether it was seen."""
        key = hashlib.sha256(f"{salt}\n{uri}".encode()).digest()
        if key not in seen:
            seen[key] = memory.look_at(_opened(uri))
            if len(seen) > KEPT:
                seen.popitem(last=False)
        seen.move_to_end(key)
        return seen[key]

    @app.exception_handler(RequestValidationError)
    def refuse(request: Request, error: RequestValidationError) -> JSONResponse:
        # FastAPI's own reply would hold the case.
        return JSONResponse({"detail": complaint.first_of(error.errors())}, 422)

    @app.get("/health")
    def health() -> None:
        """It listens once it has loaded."""

    @app.get("/v1/models")
    def models() -> dict[str, Any]:
        listed = {"id": name, "object": "model", "root": str(folder)}
        return {"object": "list", "data": [listed]}

    @app.post("/v1/chat/completions")
    def complete(chat: Chat) -> dict[str, Any]:
        parts = chat.messages[0].content
        images = [part.image_url.url for part in parts if part.image_url]
        if len(images) != 1:
            raise HTTPException(400, f"Send one image: a memory looks at one, not {len(images)}.")
        asked = "\n".join(part.text for part in parts if part.type == "text")
        with one_at_a_time:
            image = look_at(images[0], chat.cache_salt)
            found = memory.recall(image, asked, chat.structured_outputs.choice)
        return {"object": "chat.completion", "model": name, "choices": [_choice(found, chat)]}

    return app


def _opened(uri: str) -> Image.Image:
    try:
        data = base64.b64decode(uri.partition(",")[2])
        return Image.open(io.BytesIO(data), formats=["JPEG", "PNG"]).convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise HTTPException(400, "Cannot read the image: send a PNG or JPEG as base64.") from error


def _choice(found: Recollection, chat: Chat) -> dict[str, Any]:
    answers = [
        {"token": answer, "logprob": math.log(probability)}
        for answer, probability in found.answers.items()
    ]
    said = {**answers[0], "top_logprobs": answers[: chat.top_logprobs]}
    end = {"token": END, "logprob": 0.0, "top_logprobs": []}
    return {
        "index": 0,
        "message": {"role": "assistant", "content": said["token"]},
        "logprobs": {"content": [said, end]},
        "finish_reason": "stop",
        "remembers": [asdict(case) for case in found.cases],
        "likeness": asdict(found.likeness),
    }


def main() -> None:
    options = argparse.ArgumentParser(prog="memory_server")
    options.add_argument("--model", type=Path, required=True)
    options.add_argument("--served-model-name", required=True)
    options.add_argument("--host", default="127.0.0.1")
    options.add_argument("--port", type=int, required=True)
    given = options.parse_args()
    try:
        memory = Memory(given.model)
    except (OSError, ValueError) as error:
        raise SystemExit(str(error)) from None
    app = create_app(memory, given.served_model_name, given.model)
    uvicorn.run(app, host=given.host, port=given.port, log_level="warning")


if __name__ == "__main__":
    main()
