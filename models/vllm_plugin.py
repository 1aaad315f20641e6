"""The entry point of group `vllm.general_plugins`: tells transformers and vLLM of our model.

vLLM calls `register` in each of its processes, so nothing heavy is imported at the top.
"""


def register() -> None:
    """Makes `models.vllm_model` loadable by its config.json; may be called more than once."""
    import models.cpu_torch  # noqa: F401  before transformers, which imports torchvision

    # isort: split
    from transformers import AutoConfig
    from vllm import ModelRegistry

    from models.served_config import ARCHITECTURE, ServedConfig

    AutoConfig.register(ServedConfig.model_type, ServedConfig, exist_ok=True)
    ModelRegistry.register_model(ARCHITECTURE, f"models.vllm_model:{ARCHITECTURE}")
