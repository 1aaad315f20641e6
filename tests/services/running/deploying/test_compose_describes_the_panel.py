"""docker-compose.yml is panel.toml in other words, and shuts everybody in but the gateway."""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from gateway.settings import Settings, load_settings
from services.running.beforehand.plan import Place
from services.running.deploying.compose import compose
from services.running.engine import SHARE_OF_GPU, EngineError, compiled_at, engines, local_urls

ROOT = Path(__file__).parents[4]


@pytest.fixture(scope="module")
def settings() -> Settings:
    return load_settings(ROOT / "panel.toml", {})


def test_the_committed_file_is_what_the_panel_gives(settings: Settings) -> None:
    """Whoever changes panel.toml runs `consilium compose` too."""
    assert (ROOT / "docker-compose.yml").read_text("utf-8") == compose(settings)


def test_it_is_a_compose_file() -> None:
    """By the published schema of the compose specification."""
    checker = shutil.which("check-jsonschema", path=str(Path(sys.executable).parent))
    assert checker, "check-jsonschema is not installed; run make test"
    command = [checker, "--builtin-schema", "vendor.compose-spec", str(ROOT / "docker-compose.yml")]

    done = subprocess.run(command, capture_output=True, text=True, timeout=120)

    assert done.returncode == 0, done.stdout + done.stderr


PROFILES = ("gpu", "one-gpu", "cpu")


@pytest.fixture(scope="module")
def services(settings: Settings) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(compose(settings))["services"]
    return found


def of_profile(services: dict[str, Any], profile: str) -> dict[str, Any]:
    return {name: each for name, each in services.items() if profile in each.get("profiles", ())}


def by_vllm(services: dict[str, Any], profile: str) -> dict[str, Any]:
    """Without who remembers."""
    found = of_profile(services, profile)
    return {name: each for name, each in found.items() if "worker-memory" not in name}


def test_only_what_asks_for_a_key_is_published_and_that_on_loopback(
    services: dict[str, Any],
) -> None:
    """vLLM's port has no key, and Redis has none either."""
    published = {name: each["ports"] for name, each in services.items() if "ports" in each}

    assert published == {
        "gateway": ["127.0.0.1:8000:8000"],
        "proxy": ["${CONSILIUM_BIND:-127.0.0.1}:8443:8443"],
        "archive": ["127.0.0.1:8042:8042"],
    }
    assert all("network_mode" not in each for each in services.values())


def test_everybody_is_confined(services: dict[str, Any]) -> None:
    """No root, no capability, nothing to write on but what is named."""
    for name, each in services.items():
        assert each["user"] not in {"root", "0"}, name
        assert each["read_only"] is True, name
        assert each["cap_drop"] == ["ALL"] and "cap_add" not in each, name
        assert each["security_opt"] == ["no-new-privileges:true"], name
        writable = {v for v in each.get("volumes", ()) if not v.endswith(":ro")}
        assert writable <= {
            "models:/cache",
            "prometheus:/prometheus",
            "grafana:/var/lib/grafana",
            "archive:/archive",
        }


def test_no_secret_stands_in_the_file(services: dict[str, Any]) -> None:
    """They are files that git does not know, and the environment names their paths."""
    document = yaml.safe_load((ROOT / "docker-compose.yml").read_text("utf-8"))
    used = {secret for each in services.values() for secret in each.get("secrets", ())}

    assert used == set(document["secrets"])
    for secret in document["secrets"].values():
        ignored = subprocess.run(["git", "check-ignore", "-q", secret["file"]], cwd=ROOT)
        assert ignored.returncode == 0, secret["file"]
    assert "CONSILIUM_SECRET" not in services["gateway"]["environment"]
    assert services["gateway"]["environment"]["CONSILIUM_SECRET_FILE"] == "/run/secrets/cache_key"


def test_every_service_says_how_it_is_and_the_gateway_waits_for_all(
    services: dict[str, Any], settings: Settings
) -> None:
    """One vLLM server per worker, the summariser, Redis: none that fails keeps it from starting."""
    assert all(each["healthcheck"]["test"] for each in services.values())
    names = [*(f"worker-{worker.name}" for worker in settings.workers), "summariser"]
    servers = {f"{name}-{profile}" for name in names for profile in PROFILES}
    more = {"redis", "gateway", "prometheus", "grafana", "proxy", "archive"}
    assert set(services) == servers | more
    waits = services["gateway"]["depends_on"]
    expected = {"condition": "service_healthy", "required": False}
    assert waits == {name: expected for name in {*servers, "redis"}}


def test_a_gpu_for_each_or_one_for_all_or_none(services: dict[str, Any]) -> None:
    """By profile; on the one they start one after another, since each measures what is free. What
    remembers takes none."""
    devices = {
        name: each["deploy"]["resources"]["reservations"]["devices"][0]["device_ids"]
        for name, each in services.items()
        if "deploy" in each
    }
    one, cpu = by_vllm(services, "one-gpu"), by_vllm(services, "cpu")

    assert [devices.pop(name) for name in by_vllm(services, "gpu")] == [
        [str(number)] for number in range(5)
    ]
    assert devices == {name: ["0"] for name in one}
    waits = [list(each["depends_on"]) for each in one.values()]
    assert waits == [[], *([name] for name in one)][: len(one)]
    assert sum(float(each["command"][-1]) for each in one.values()) <= 0.9
    assert {each["command"][-1] for each in by_vllm(services, "gpu").values()} == {"0.9"}
    assert {each["build"]["args"]["BUILD"] for each in cpu.values()} == {"cpu"}


@pytest.mark.parametrize("profile", PROFILES)
def test_the_gateway_finds_every_server_whatever_the_profile(
    profile: str, services: dict[str, Any], settings: Settings
) -> None:
    """Where it looks, by settings.py, a server has that name and, by settings.py, that port."""
    panel = ROOT / "panel.toml"
    environment = services["gateway"]["environment"] | {"CONSILIUM_SECRET_FILE": ""}
    inside = load_settings(panel, environment)
    served = {}
    for each in of_profile(services, profile).values():
        for name, url in local_urls(load_settings(panel, each["environment"])).items():
            if name in each["command"]:
                port = urlsplit(url).port
                aliases = each["networks"]["default"]["aliases"]
                served[name] = {f"http://{alias}:{port}" for alias in aliases}

    assert inside.summariser is not None
    looked_for = {worker.name: worker.url for worker in inside.workers}
    looked_for["summariser"] = inside.summariser.url
    assert served.keys() == looked_for.keys()
    assert all(looked_for[name] in served[name] for name in served)
    assert inside.panel.store == "redis://redis:6379/0"


def test_prometheus_asks_the_gateway_and_every_engine(services: dict[str, Any]) -> None:
    """The engines by a name that all of them share, on a port that all of them have."""
    jobs = yaml.safe_load((ROOT / "deploy" / "prometheus.yml").read_text("utf-8"))["scrape_configs"]
    gateway, engines = jobs

    assert gateway["static_configs"] == [{"targets": ["gateway:8000"]}]
    (shared,) = engines["dns_sd_configs"]
    for profile in PROFILES:
        for each in of_profile(services, profile).values():
            assert shared["names"] == each["networks"]["default"]["aliases"][1:]
            assert f":{shared['port']}/health" in each["healthcheck"]["test"][-1]


def test_every_file_that_is_mounted_is_there(services: dict[str, Any]) -> None:
    """Docker would make a folder in its place, and say nothing."""
    for name, each in services.items():
        for volume in each.get("volumes", ()):
            here = volume.replace("${CONSILIUM_WEIGHTS:-./deploy/weights}", "./deploy/weights")
            if here.startswith("./"):
                assert (ROOT / here.split(":")[0]).exists(), name


def test_seats_go_where_the_plan_puts_them(settings: Settings) -> None:
    """Two on a GPU start one after the other; who has one for himself waits for nobody."""
    places = {
        "mobilenet": Place((1,), 0.5),
        "chooser-efficientnet": Place((0,), 0.9),
        "polyglot": Place((1,), 0.4),
        "chooser": Place((2,), 0.8),
        "summariser": Place((2,), 0.1),
    }

    services = yaml.safe_load(compose(settings, places=places))["services"]

    found = by_vllm(services, "gpu").values()
    devices = [each["deploy"]["resources"]["reservations"]["devices"][0] for each in found]
    assert [device["device_ids"] for device in devices] == [["1"], ["0"], ["1"], ["2"], ["2"]]
    assert [each["command"][-2:] for each in found] == [
        ["--gpu-share", share] for share in ("0.5", "0.9", "0.4", "0.8", "0.1")
    ]
    before = [["worker-mobilenet-gpu"], [], ["worker-chooser-gpu"]]
    assert [list(each["depends_on"]) for each in found] == [[], [], *before]


def test_who_spreads_over_several_gpus_gets_as_many(tmp_path: Path) -> None:
    """The next ones, or where the plan puts him; on one he cannot be served."""
    spread = "engine = { tensor-parallel-size = 2, "
    settings = settings_with(tmp_path, ("engine = { ", spread))
    first, *others = engines(settings)
    places = {name: Place((0,), 0.1) for name in others} | {first: Place((0, 1), 0.1)}

    def devices(places: dict[str, Place] | None = None) -> dict[str, list[str]]:
        services = yaml.safe_load(compose(settings, places=places))["services"]
        assert f"worker-{first}-one-gpu" not in services
        # The others share all of it: who is not there takes nothing.
        commands = [each["command"] for each in by_vllm(services, "one-gpu").values()]
        shares = [float(each[each.index("--gpu-share") + 1]) for each in commands]
        assert sum(shares) == pytest.approx(SHARE_OF_GPU, abs=0.005)
        return {
            name: each["deploy"]["resources"]["reservations"]["devices"][0]["device_ids"]
            for name, each in by_vllm(services, "gpu").items()
        }

    assert list(devices().values())[:2] == [["0", "1"], ["2"]]
    assert devices(places)[f"worker-{first}-gpu"] == ["0", "1"]


def test_an_engine_finds_the_adapters_of_all_that_it_serves(tmp_path: Path) -> None:
    """In a container they lie where the panel file's words lead."""
    text = (ROOT / "panel.toml").read_text("utf-8")
    listed = 'lora-modules = ["mobilenet=adapters/a", "polyglot=adapters/b"]'
    panel = tmp_path / "panel.toml"
    panel.write_text(text.replace("max-model-len = 4096", listed, 1), "utf-8")
    settings = load_settings(panel, {}, with_competence=False)

    services = yaml.safe_load(compose(settings))["services"]

    assert services["worker-mobilenet-cpu"]["volumes"][1:3] == [
        "./adapters/a:/app/adapters/a:ro",
        "./adapters/b:/app/adapters/b:ro",
    ]


def test_another_panel_file_is_mounted_where_the_programs_look(tmp_path: Path) -> None:
    """With what it names by a path of its own: competence, and a worker that is a folder."""
    exported = tmp_path / "mine"
    exported.mkdir()
    text = (ROOT / "panel.toml").read_text("utf-8").replace("zoo:mobilenet", str(exported))
    panel = tmp_path / "other.toml"
    panel.write_text(text, "utf-8")
    settings = load_settings(panel, {}, with_competence=False)

    services = yaml.safe_load(compose(settings, "panels/other.toml"))["services"]

    assert services["gateway"]["volumes"][:2] == [
        "./panels/other.toml:/app/panel.toml:ro",
        "./panels/models/zoo/competence.json:/app/models/zoo/competence.json:ro",
    ]
    volumes = services["worker-mobilenet-gpu"]["volumes"]
    assert volumes[:2] == [
        "./panels/other.toml:/app/panel.toml:ro",
        f"{exported}:{exported}:ro",
    ]


def settings_with(tmp_path: Path, *pairs: tuple[str, str], more: str = "") -> Settings:
    """panel.toml with passages replaced, in a folder of its own."""
    text = (ROOT / "panel.toml").read_text("utf-8")
    for old, new in pairs:
        assert old in text
        text = text.replace(old, new, 1)
    (tmp_path / "panel.toml").write_text(text + more, "utf-8")
    return load_settings(tmp_path / "panel.toml", {}, with_competence=False)


@pytest.mark.parametrize(
    ("named", "here", "there"),
    [
        ("/abs/c.json", "/abs/c.json", "/abs/c.json"),
        ("../c.json", "./../c.json", "/c.json"),
        ("./a/../c.json", "./a/../c.json", "/app/c.json"),
        ("c.json", "./c.json", "/app/c.json"),
    ],
)
def test_competence_is_mounted_where_the_gateway_looks(
    named: str, here: str, there: str, tmp_path: Path
) -> None:
    """It reads a path as from the panel file's folder, which in its container is /app. The grey
    answers beside it, where there are some, too."""
    settings = settings_with(tmp_path, ("models/zoo/competence.json", named))
    (tmp_path / "c.grey.json").touch()

    gateway = yaml.safe_load(compose(settings))["services"]["gateway"]

    assert gateway["volumes"][1] == f"{here}:{there}:ro"
    grey = ["./c.grey.json:/app/c.grey.json:ro"] if named == "c.json" else []
    assert [volume for volume in gateway["volumes"] if "grey" in volume] == grey


def test_a_model_is_mounted_where_its_engine_looks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a path that leads out of the panel's folder, too."""
    (tmp_path / "here").mkdir()
    (tmp_path / "mine").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    settings = settings_with(tmp_path, ("zoo:mobilenet", "../mine"))

    volumes = yaml.safe_load(compose(settings))["services"]["worker-mobilenet-cpu"]["volumes"]

    assert volumes[1] == "./../mine:/mine:ro"


@pytest.mark.parametrize("what", ["audit", "feedback"])
@pytest.mark.parametrize("folder", ["{}", "./{}", "/app/{}"])
def test_what_is_kept_is_in_a_volume(folder: str, what: str, tmp_path: Path) -> None:
    settings = settings_with(tmp_path, more=f'\n[{what}]\nfolder = "{folder.format(what)}"\n')

    gateway = yaml.safe_load(compose(settings))["services"]["gateway"]

    assert f"{what}:/app/{what}" in gateway["volumes"]


@pytest.mark.parametrize("folder", ["/var/audit", "../audit", "logs"])
def test_an_audit_where_the_gateway_could_not_write_is_refused(folder: str, tmp_path: Path) -> None:
    """A new volume belongs to root, but for the one folder that the image has made for it."""
    settings = settings_with(tmp_path, more=f'\n[audit]\nfolder = "{folder}"\n')

    with pytest.raises(
        EngineError, match=r'audit.folder: in a container .* write folder = "audit"'
    ):
        compose(settings)


def test_engines_compile_in_their_volume(services: dict[str, Any]) -> None:
    """Docker mounts /tmp so that nothing in it may run."""
    for profile in PROFILES:
        for each in of_profile(services, profile).values():
            cache = Path(each["environment"]["CONSILIUM_CACHE"])
            assert f"models:{cache}" in each["volumes"]
            assert compiled_at(cache).items() <= each["environment"].items()
            assert all(Path(at).is_relative_to(cache) for at in compiled_at(cache).values())


def test_a_seat_that_is_served_elsewhere_gets_no_container(tmp_path: Path) -> None:
    """Its url stands in panel.toml, and the gateway reads that."""
    text = (ROOT / "panel.toml").read_text("utf-8")
    elsewhere = text.replace('name = "mobilenet"', 'name = "mobilenet"\nurl = "http://far:9000"')
    panel = tmp_path / "panel.toml"
    panel.write_text(elsewhere, "utf-8")

    services = yaml.safe_load(compose(load_settings(panel, {}, with_competence=False)))["services"]

    assert not any("mobilenet" in name for name in services)
    assert "CONSILIUM_WORKER_MOBILENET_URL" not in services["gateway"]["environment"]


def test_both_images_carry_the_licences_of_what_they_hold() -> None:
    """The base that both build on copies them, and the build context has them."""
    copied = (ROOT / "Dockerfile").read_text("utf-8").split("FROM base AS gateway")[0]
    context = (ROOT / ".dockerignore").read_text("utf-8").split()

    for name in ("LICENSE", "NOTICE"):
        assert name in copied
        assert f"!{name}" in context
