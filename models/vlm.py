"""Tower + connector + language model, as the trainer and the parity check run them.

A prompt is laid out as `[bos] image tokens, text`; the vLLM plugin lays it out the same way. The
language model is any causal model of transformers. Its embedding layer turns text into embeddings
(Gemma's scales them); image embeddings are put among those as they are.
"""

from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

import models.cpu_torch  # noqa: F401, I001  before transformers, which imports torchvision
from transformers import AutoModelForCausalLM, AutoTokenizer

from models import connectors
from models.positions import grid_positions
from models.vision import Tower


class Vlm(nn.Module):
    """Attributes: `tower`, `connector`, `language`, `tokenizer`, `image_tokens` (per image)."""

    positions: Tensor

    def __init__(
        self,
        tower: Tower,
        connector: dict[str, Any],
        language: Path,
        bos: bool,
    ):
        super().__init__()
        self.tower = tower
        self.tokenizer = AutoTokenizer.from_pretrained(language)
        # On CPUs the fused kernels are the slower ones once a mask is given.
        attention = "sdpa" if torch.cuda.is_available() else "eager"
        self.language = AutoModelForCausalLM.from_pretrained(
            language, dtype=torch.bfloat16, attn_implementation=attention
        )
        text_dim = self.language.get_input_embeddings().weight.shape[1]
        self.connector = connectors.build(connector, tower.dim, text_dim)
        self.register_buffer("positions", grid_positions(tower.side), persistent=False)
        self.image_tokens: int = self.connector.num_tokens(tower.patches)
        self.bos: list[int] = [self.tokenizer.bos_token_id] if bos else []

    def image_embeddings(self, features: Tensor) -> Tensor:
        """Features [b, patches, vision_dim] → token embeddings [b, image_tokens, text_dim]"""
        return self.connector(features, self.positions)

    def text_embeddings(self, ids: Tensor) -> Tensor:
        return self.language.get_input_embeddings()(ids)

    def text_ids(self, text: str) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False).input_ids

    @torch.no_grad()
    def answer(self, image: Image.Image, prompt: str, max_tokens: int = 32) -> list[int]:
        """The greedy answer's token ids, the end-of-text token included if it came to that."""
        pixels = self.tower.preprocess(image)[None]
        image_part = self.image_embeddings(self.tower(pixels)).to(self.language.dtype)
        text = self.text_embeddings(torch.tensor([self.text_ids(prompt)]))
        parts = [image_part, text]
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
