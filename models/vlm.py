"""Tower + connector + language model, as the trainer and the parity check run them.

A prompt is laid out as `[bos] images' tokens, text`; the vLLM plugin lays it out the same way. The
language model is any causal model of transformers. Its embedding layer turns text into embeddings
(Gemma's scales them); image embeddings are put among those as they are.
"""

from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from models.positions import grid_positions
from models.vision import Tower


class Vlm(nn.Module):
    """`language` is a causal model of transformers, `tokenizer` its tokenizer, `bos` says whether
    a prompt starts with the tokenizer's bos token. `image_tokens` counts one image's tokens.
    """

    positions: Tensor
    language: Any

    def __init__(
        self, tower: Tower, connector: nn.Module, language: Any, tokenizer: Any, bos: bool
    ):
        super().__init__()
        self.tower, self.connector, self.language = tower, connector, language
        self.tokenizer = tokenizer
        self.register_buffer("positions", grid_positions(tower.side), persistent=False)
        self.image_tokens: int = connector.num_tokens(tower.patches)  # type: ignore[operator]
        self.bos: list[int] = [tokenizer.bos_token_id] if bos else []

    def image_embeddings(self, features: Tensor) -> Tensor:
        """Features [b, patches, vision_dim] → token embeddings [b, image_tokens, text_dim]"""
        return self.connector(features, self.positions)

    def text_embeddings(self, ids: Tensor) -> Tensor:
        """Token ids [b, n] → embeddings [b, n, text_dim]"""
        return self.language.get_input_embeddings()(ids)

    def text_ids(self, text: str) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False).input_ids

    @torch.no_grad()
    def answer(self, images: Sequence[Image.Image], prompt: str, max_tokens: int = 32) -> list[int]:
        """The greedy answer's token ids, the end-of-text token included if it came to that."""
        self.eval()
        dtype = self.language.dtype
        pixels = torch.stack([self.tower.preprocess(image) for image in images])
        features = self.tower(pixels).to(dtype)
        parts = [
            self.image_embeddings(features).to(dtype).flatten(0, 1)[None],
            self.text_embeddings(torch.tensor([self.text_ids(prompt)])),
        ]
        if self.bos:
            parts.insert(0, self.text_embeddings(torch.tensor([self.bos])))
        embeddings = torch.cat(parts, dim=1)
        ids = self.language.generate(
            inputs_embeds=embeddings,
            attention_mask=torch.ones(embeddings.shape[:2], dtype=torch.long),
            max_new_tokens=max_tokens,
            do_sample=False,
        )
        return ids[0].tolist()
