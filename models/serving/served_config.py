"""`config.json` of a served worker: what export writes and the vLLM plugin reads."""

from typing import Any, ClassVar

from transformers import AutoConfig, PretrainedConfig

ARCHITECTURE = "ConsiliumForConditionalGeneration"


class ServedConfig(PretrainedConfig):
    """Attributes:
    tower: the settings of `models.parts.vision.TowerConfig`.
    connector: the recipe's `[connector]`.
    text_config: the language model's own config.
    patches_per_side, vision_dim: shapes of the tower.
    image_token_id: stands in the prompt where an image's embeddings go.
    bos: the token that a prompt starts with; empty where it starts with none.
    """

    model_type = "consilium"
    sub_configs: ClassVar = {"text_config": AutoConfig}

    def __init__(
        self,
        tower: dict[str, Any] | None = None,
        connector: dict[str, Any] | None = None,
        text_config: Any = None,
        patches_per_side: int = 0,
        vision_dim: int = 0,
        image_token_id: int = 0,
        bos: str = "",
        **kwargs: Any,
    ):
        self.tower, self.connector = tower or {}, connector or {}
        if isinstance(text_config, dict):
            text_config = AutoConfig.for_model(**text_config)
        self.text_config = text_config
        self.patches_per_side, self.vision_dim = patches_per_side, vision_dim
        self.image_token_id, self.bos = image_token_id, bos
        super().__init__(**kwargs)

    def get_text_config(self, *args: Any, **kwargs: Any) -> PretrainedConfig:
        return self.text_config
