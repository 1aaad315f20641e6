"""Tower and connector of `models/`, and one of vLLM's own language models, as one vLLM model.

Written against vLLM 0.32; these interfaces move between versions, so the pin is exact.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers import BatchFeature
from vllm.config import VllmConfig
from vllm.model_executor.models.interfaces import SupportsLoRA, SupportsMultiModal, SupportsPP
from vllm.model_executor.models.utils import (
    AutoWeightsLoader,
    init_vllm_registered_model,
    maybe_prefix,
)
from vllm.multimodal import MULTIMODAL_REGISTRY
from vllm.multimodal.inputs import MultiModalFieldConfig
from vllm.multimodal.parse import ImageProcessorItems, MultiModalDataItems
from vllm.multimodal.processing import (
    BaseDummyInputsBuilder,
    BaseMultiModalProcessor,
    BaseProcessingInfo,
    ProcessorInputs,
    PromptReplacement,
)

from models import connectors
from models.data.example import DataError
from models.parts.vision import Tower, TowerConfig, preprocess, require_one_size
from models.positions import grid_positions, stack_positions
from models.serving.served_config import ServedConfig

CONNECTOR = "connector."  # how its weights are named in the served folder


class ProcessingInfo(BaseProcessingInfo):
    def get_hf_config(self) -> ServedConfig:
        return self.ctx.get_hf_config(ServedConfig)

    def get_supported_mm_limits(self) -> Mapping[str, int | None]:
        return {"image": None}

    def get_mm_max_tokens_per_item(
        self, seq_len: int, mm_counts: Mapping[str, int]
    ) -> Mapping[str, int]:
        return {"image": self.image_tokens(self.most_images)}

    @cached_property
    def connector(self) -> Any:
        """Its shapes alone: the weights are in another process."""
        config = self.get_hf_config()
        with torch.device("meta"):
            return connectors.build(
                config.connector, config.vision_dim, config.text_config.hidden_size
            )

    @property
    def stacks(self) -> bool:
        return getattr(self.connector, "stacks", False)

    @property
    def most_images(self) -> int:
        """Of one item: a stack is one, however many images it has."""
        return self.allowed_mm_limits["image"] if self.stacks else 1

    def image_tokens(self, images: int) -> int:
        return self.connector.num_tokens(self.get_hf_config().patches_per_side ** 2, images)


class DummyInputs(BaseDummyInputsBuilder[ProcessingInfo]):
    def get_dummy_text(self, mm_counts: Mapping[str, int]) -> str:
        token = self.info.get_tokenizer().decode([self.info.get_hf_config().image_token_id])
        return token * mm_counts.get("image", 0) * self.info.most_images

    def get_dummy_mm_data(
        self, seq_len: int, mm_counts: Mapping[str, int], mm_options: Any
    ) -> dict[str, Any]:
        size = self.info.get_hf_config().tower["image_size"]
        count = mm_counts.get("image", 0) * self.info.most_images
        return {"image": self._get_dummy_images(width=size, height=size, num_images=count)}


class Processor(BaseMultiModalProcessor[ProcessingInfo]):
    """Images → pixels, and each image's one token in the prompt → as many as it has embeddings.

    For a connector that takes stacks, a prompt's images are one item: a tuple, in their order.
    """

    def apply(self, inputs: ProcessorInputs, timing_ctx: Any) -> Any:
        if self.info.stacks and (images := inputs.mm_data_items.get("image")):
            stack = ImageProcessorItems([tuple(images.data)])
            items = MultiModalDataItems(inputs.mm_data_items | {"image": stack})
            # Its images' own names would not tell their order: the pixels do.
            inputs = replace(inputs, mm_data_items=items, mm_uuid_items=None)
        return super().apply(inputs, timing_ctx)

    def _call_hf_processor(
        self, hf_data: Mapping[str, Any], hf_kwargs: Mapping[str, object]
    ) -> BatchFeature:
        return BatchFeature({"pixel_values": [self._pixels(item) for item in hf_data["images"]]})

    def _pixels(self, item: Any) -> Tensor:
        """Of an image [3, size, size], of a stack [images, 3, size, size]."""
        if isinstance(item, tuple):
            images: list[Any] = [getattr(each, "media", each) for each in item]
            try:
                require_one_size(images)
            except DataError as error:
                raise ValueError(str(error)) from error  # vLLM makes a 400 of this one alone
            return torch.stack([self._pixels(image) for image in images])
        tower = self.info.get_hf_config().tower
        return preprocess(item, tower["name"], tower["image_size"])

    def _get_mm_fields_config(
        self, hf_inputs: BatchFeature, hf_processor_mm_kwargs: Mapping[str, object]
    ) -> Mapping[str, MultiModalFieldConfig]:
        return {"pixel_values": MultiModalFieldConfig.batched("image")}

    def _get_prompt_updates(
        self, mm_items: Any, hf_processor_mm_kwargs: Mapping[str, object], out_mm_kwargs: Any
    ) -> Sequence[PromptReplacement]:
        token = self.info.get_hf_config().image_token_id

        def images(item: int) -> int:
            return len(mm_items["image"].get(item)) if self.info.stacks else 1

        return [
            PromptReplacement(
                "image",
                lambda item: [token] * images(item),
                lambda item: [token] * self.info.image_tokens(images(item)),
            )
        ]


@MULTIMODAL_REGISTRY.register_processor(Processor, info=ProcessingInfo, dummy_inputs=DummyInputs)
class ConsiliumForConditionalGeneration(nn.Module, SupportsMultiModal, SupportsLoRA, SupportsPP):
    packed_modules_mapping: ClassVar = {
        "qkv_proj": ["q_proj", "k_proj", "v_proj"],
        "gate_up_proj": ["gate_proj", "up_proj"],
    }

    language_model: Any
    grid: Tensor

    @classmethod
    def get_placeholder_str(cls, modality: str, i: int) -> str | None:
        return None  # the chat template writes the image's token

    def __init__(self, *, vllm_config: VllmConfig, prefix: str = ""):
        super().__init__()
        config: ServedConfig = vllm_config.model_config.hf_config
        self.config = config
        image_token = [config.image_token_id]
        self.configure_mm_token_handling(  # type: ignore[operator]
            config.text_config.vocab_size, image_token
        )
        with self._mark_tower_model(vllm_config, "image"):  # type: ignore[operator]
            # In float32, as in training: see models.parts.vision.
            self.tower = Tower(TowerConfig(**config.tower), load_weights=False).float()
            self.connector = connectors.build(
                config.connector, config.vision_dim, config.text_config.hidden_size
            )
        self.register_buffer("grid", grid_positions(config.patches_per_side), persistent=False)
        with self._mark_language_model(vllm_config):  # type: ignore[operator]
            self.language_model = init_vllm_registered_model(
                vllm_config=vllm_config,
                hf_config=config.text_config,
                prefix=maybe_prefix(prefix, "language_model"),
            )
        self.make_empty_intermediate_tensors = self.language_model.make_empty_intermediate_tensors

    def embed_multimodal(self, **kwargs: object) -> Tensor | list[Tensor]:
        """Pixels [images, 3, size, size] → embeddings [images, tokens, text_dim]; of stacks, pixels
        [images, 3, size, size] each → embeddings [tokens, text_dim] each.
        """
        pixels: Any = kwargs.get("pixel_values")
        if pixels is None:
            return []
        dtype = next(self.connector.parameters()).dtype
        if not getattr(self.connector, "stacks", False):
            return self.connector(self.tower(pixels).to(dtype), self.grid)
        return [
            self.connector(
                self.tower(stack).to(dtype)[None], stack_positions(self.grid, len(stack))
            )[0]
            for stack in pixels
        ]

    def forward(
        self,
        input_ids: Tensor | None,
        positions: Tensor,
        intermediate_tensors: Any = None,
        inputs_embeds: Tensor | None = None,
        **kwargs: object,
    ) -> Any:
        if intermediate_tensors is not None:
            inputs_embeds = None
        return self.language_model.model(
            input_ids, positions, intermediate_tensors, inputs_embeds=inputs_embeds
        )

    def compute_logits(self, hidden_states: Tensor) -> Tensor | None:
        return self.language_model.compute_logits(hidden_states)

    def load_weights(self, weights: Iterable[tuple[str, Tensor]]) -> set[str]:
        """The connector loads as plain torch does: vLLM's loader refuses buffers."""
        connector: dict[str, Tensor] = {}

        def others() -> Iterator[tuple[str, Tensor]]:
            for name, value in weights:
                if name.startswith(CONNECTOR):
                    connector[name.removeprefix(CONNECTOR)] = value
                else:
                    yield name, value

        loaded = AutoWeightsLoader(self).load_weights(others())
        self.connector.load_state_dict(connector)
        return loaded | {CONNECTOR + name for name in connector}
