"""The entry point of group `vllm.general_plugins`: tells transformers and vLLM of our model.

vLLM calls `register` in each of its processes, so nothing heavy is imported at the top.
"""

import os
from multiprocessing import get_context


def register() -> None:
    """Makes `models.serving.vllm_model` loadable by its config.json; may be called again.

    Where VLLM_WORKER_MULTIPROC_METHOD says fork (services/running/engine.py), the engine is forked
    from its server, and what both import is imported once.
    """
    import models.cpu_torch  # noqa: F401  before transformers, which imports torchvision

    # isort: split
    from transformers import AutoConfig
    from vllm import ModelRegistry

    from models.serving.served_config import ARCHITECTURE, ServedConfig

    AutoConfig.register(ServedConfig.model_type, ServedConfig, exist_ok=True)
    if os.environ.get("VLLM_WORKER_MULTIPROC_METHOD") == "fork":
        from vllm.v1.engine import utils

        from models.serving.vllm_model import ConsiliumForConditionalGeneration

        # vLLM's CPU platform would set "spawn" after this, for what it preloads to take hold.
        utils.get_mp_context = lambda: get_context("fork")
        # By its name, vLLM would start a process that imports everything, to look at it.
        ModelRegistry.register_model(ARCHITECTURE, ConsiliumForConditionalGeneration)
    else:
        ModelRegistry.register_model(ARCHITECTURE, f"models.serving.vllm_model:{ARCHITECTURE}")
