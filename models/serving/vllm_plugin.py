"""The entry point of group `vllm.general_plugins`: tells transformers and vLLM of our model.

vLLM calls `register` in each of its processes, so nothing heavy is imported at the top.
"""


def register() -> None:
    """Makes `models.serving.vllm_model` loadable by its config.json; may be called again."""
    import models.cpu_torch  # noqa: F401  before transformers, which imports torchvision

    # isort: split
    from transformers import AutoConfig
    from vllm import ModelRegistry

    from models.serving.served_config import ARCHITECTURE, ServedConfig

    AutoConfig.register(ServedConfig.model_type, ServedConfig, exist_ok=True)
    ModelRegistry.register_model(ARCHITECTURE, f"models.serving.vllm_model:{ARCHITECTURE}")
