"""What training minimises: the answers' cross-entropy, and the reconstruction regulariser."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.packing import IGNORED, Batch
from models.positions import FOURIER_DIM, fourier
from models.vlm import Vlm


def answer_logits(model: Vlm, batch: Batch, features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Logits at the answers' positions only: with 262,144 words the others would cost the most.

    `features` is [images, patches, vision_dim], the rows' images in order. Returns logits
    [n, vocabulary], labels [n], and token embeddings [images, image_tokens, text_dim].
    """
    image = model.image_embeddings(features)
    embeddings = model.text_embeddings(batch.ids)
    embeddings = embeddings.masked_scatter(batch.images[..., None], image.to(embeddings.dtype))
    blocked = torch.finfo(embeddings.dtype).min
    bias = torch.zeros_like(batch.mask, dtype=embeddings.dtype).masked_fill(~batch.mask, blocked)
    mask: Tensor | dict[str, Tensor] = bias
    if getattr(model.language.config, "layer_types", None):
        # No question is longer than a sliding window, so one mask serves both kinds of layer.
        mask = {kind: bias for kind in set(model.language.config.layer_types)}
    hidden = model.language.get_decoder()(
        inputs_embeds=embeddings,
        attention_mask=mask,
        position_ids=batch.positions,
        use_cache=False,
    ).last_hidden_state
    supervised = batch.labels != IGNORED
    logits = model.language.get_output_embeddings()(hidden[supervised])
    return logits, batch.labels[supervised], image


class Reconstructor(nn.Module):
    """Rebuilds every patch's features from the image's tokens, so that little is squeezed out.

    Each patch's position asks the tokens by one cross-attention; it is used in training only.
    """

    def __init__(self, text_dim: int, vision_dim: int, width: int = 256):
        super().__init__()
        self.query = nn.Linear(FOURIER_DIM, width)
        self.key_value = nn.Linear(text_dim, 2 * width)
        self.out = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, vision_dim))

    def forward(self, tokens: Tensor, positions: Tensor, features: Tensor) -> Tensor:
        """Mean of 1 - cosine over patches: 0 where all is kept, 1 where nothing is."""
        key, value = self.key_value(functional.layer_norm(tokens, tokens.shape[-1:])).chunk(2, -1)
        query = self.query(fourier(positions)).expand(len(tokens), -1, -1).to(key.dtype)
        rebuilt = self.out(functional.scaled_dot_product_attention(query, key, value))
        return (1 - functional.cosine_similarity(rebuilt.float(), features.float(), dim=-1)).mean()
