"""docker-compose.yml is panel.toml in other words, and shuts everybody out but the gateway."""

import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from gateway.settings import Settings, load_settings
from services.compose import compose

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def settings() -> Settings:
    return load_settings(ROOT / "panel.toml", {})


def test_the_committed_file_is_what_the_panel_gives(settings: Settings) -> None:
    """Whoever changes panel.toml runs `consilium compose` too."""
    assert (ROOT / "docker-compose.yml").read_text("utf-8") == compose(settings)


def test_it_is_a_compose_file() -> None:
    """By the published schema of the compose specification."""
    checker = shutil.which("check-jsonschema", path=f"{ROOT / '.venv' / 'bin'}")
    assert checker, "check-jsonschema is not in .venv; run make test"
    command = [checker, "--builtin-schema", "vendor.compose-spec", str(ROOT / "docker-compose.yml")]

    done = subprocess.run(command, capture_output=True, text=True, timeout=120)

    assert done.returncode == 0, done.stdout + done.stderr


def test_nothing_but_the_gateway_is_published_and_that_on_loopback(settings: Settings) -> None:
    """vLLM's port has no key, and Redis has none either."""
    services = yaml.safe_load(compose(settings))["services"]

    published = {name: each["ports"] for name, each in services.items() if "ports" in each}

    assert published == {"gateway": ["127.0.0.1:8000:8000"]}
    assert all("network_mode" not in each for each in services.values())


def test_every_service_says_how_it_is_and_the_gateway_waits_for_all(settings: Settings) -> None:
    """One vLLM server per worker, the summariser, Redis: none that fails keeps it from starting."""
    services = yaml.safe_load(compose(settings))["services"]

    assert all(each["healthcheck"]["test"] for each in services.values())
    servers = {f"worker-{worker.name}" for worker in settings.workers} | {"summariser"}
    assert set(services) == servers | {"redis", "gateway"}
    waits = services["gateway"]["depends_on"]
    expected = {"condition": "service_healthy", "required": False}
    assert waits == {name: expected for name in {*servers, "redis"}}


def test_only_the_servers_get_a_gpu(settings: Settings) -> None:
    """Each shares the one GPU that it can see."""
    services = yaml.safe_load(compose(settings))["services"]

    with_gpu = {
        name
        for name, each in services.items()
        if "deploy" in each
        and each["deploy"]["resources"]["reservations"]["devices"][0]["capabilities"] == ["gpu"]
    }

    assert with_gpu == set(services) - {"gateway", "redis"}


def test_the_gateway_finds_every_server_by_its_containers_name(settings: Settings) -> None:
    """What the compose file tells it, settings.py understands, port by port."""
    services = yaml.safe_load(compose(settings))["services"]

    inside = load_settings(ROOT / "panel.toml", services["gateway"]["environment"])

    assert [worker.url for worker in inside.workers] == [
        f"http://worker-{worker.name}:{8101 + seat}" for seat, worker in enumerate(settings.workers)
    ]
    assert inside.summariser is not None
    assert inside.summariser.url == "http://summariser:8100"
    assert inside.panel.store == "redis://redis:6379/0"


def test_a_seat_that_is_served_elsewhere_gets_no_container(tmp_path: Path) -> None:
    """Its url stands in panel.toml, and the gateway reads that."""
    text = (ROOT / "panel.toml").read_text("utf-8")
    elsewhere = text.replace('name = "mobilenet"', 'name = "mobilenet"\nurl = "http://far:9000"')
    panel = tmp_path / "panel.toml"
    panel.write_text(elsewhere, "utf-8")

    services = yaml.safe_load(compose(load_settings(panel, {}, with_competence=False)))["services"]

    assert "worker-mobilenet" not in services
    assert "CONSILIUM_WORKER_MOBILENET_URL" not in services["gateway"]["environment"]


def test_both_images_carry_the_licences_of_what_they_hold() -> None:
    """The base that both build on copies them, and the build context has them."""
    copied = (ROOT / "Dockerfile").read_text("utf-8").split("FROM base AS gateway")[0]
    context = (ROOT / ".dockerignore").read_text("utf-8").split()

    for name in ("LICENSE", "NOTICE"):
        assert name in copied
        assert f"!{name}" in context
