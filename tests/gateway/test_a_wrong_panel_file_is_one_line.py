"""panel.toml is checked before anything starts: one line names the file, the key and the mend."""

from pathlib import Path

import pytest

from gateway.settings import SettingsError, load_settings

WORKER = """
[[worker]]
name = "thorax"
family = "smollm2"
model = "zoo:thorax"
prompt = "Question: {question} Answer:"
"""
SUMMARISER = """
[summariser]
model = "base:small"
languages = ["en", "es"]
prompt.en = "{question} {answers}"
prompt.es = "{question} {answers}"
"""
STORE = "[panel]\nquorum = 1\nstore = '{}'\n" + WORKER.replace("{", "{{").replace("}", "}}")


@pytest.fixture
def load(tmp_path: Path):
    def load(text: str, **environ: str):
        path = tmp_path / "panel.toml"
        path.write_text(text, "utf-8")
        return load_settings(path, environ)

    return load


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ["worker", "none is seated; add a [[worker]]"]),
        ("[panel\n", ["not TOML", "line 1"]),
        ("[panell]\n" + WORKER, ["unknown section [panell]"]),
        ("worker = 3", ["write each as [[worker]]"]),
        ("[worker]\nname = 'a'", ["write each as [[worker]]"]),
        ("panel = 3\n" + WORKER, ["write it as [panel]"]),
        ("[panel]\nquorum = 0\n" + WORKER, ["panel: quorum", "at least 1"]),
        ("[panel]\nquorum = 2\n" + WORKER, ["panel.quorum is 2 but 1 workers", "lower it"]),
        ("[panel]\nquorom = 1\n" + WORKER, ["panel: quorom", "not a known key"]),
        ("[panel]\nquorum = 1\nstore = 'mysql://'\n" + WORKER, ["panel: store", "redis://"]),
        (
            WORKER + SUMMARISER + 'entails.en = "{question} {one}"',
            ["summariser: entails: en", "must hold {one} and {other}"],
        ),
        (STORE.format("redis://h:port"), ["panel: store", "redis://HOST:PORT/DB"]),
        (STORE.format("redis://h:6379/0?foo=1"), ["panel: store", "redis://HOST:PORT/DB"]),
        (STORE.format("redis://h:6379/0?retry=3"), ["panel: store"]),
        (STORE.format("rediss://h?ssl_cert_reqs=maybe"), ["panel: store"]),
        ("[panel]\nquorum = 1\ndeadline_s = nan\n" + WORKER, ["panel: deadline_s"]),
        (WORKER.replace('model = "zoo:thorax"', ""), ["worker 1 (thorax): model", "add it"]),
        (WORKER + "replicas = [4, 1]", ["worker 1 (thorax): replicas", "such as [1, 4]"]),
        (WORKER + "replicas = true", ["worker 1 (thorax): replicas", "such as [1, 4]"]),
        ("[panel]\nquorum = true\n" + WORKER, ["panel: quorum", "must be a whole number"]),
        (
            "[panel]\nquorum = 1\ngrounding = 'off'\n" + WORKER,
            ["grounding", "true or false"],
        ),
        (WORKER + "max_images = '2'", ["worker 1 (thorax): max_images", "must be a whole number"]),
        (WORKER + "shadow = 'false'", ["worker 1 (thorax): shadow", "true or false"]),
        (WORKER + "[load]\nbody_s = true", ["load: body_s", "must be a number"]),
        (WORKER + "gpus = 2", ["worker 1 (thorax): gpus", "at most 1"]),
        (WORKER + 'colour = "red"', ["worker 1 (thorax): colour", "not a known key"]),
        (WORKER + 'languages = ["fr"]', ["worker 1 (thorax): languages", "'en', 'es' or 'zh'"]),
        (WORKER + "languages = []", ["worker 1 (thorax): languages", "at least 1"]),
        (WORKER + "external = true", ["external follows from url"]),
        (WORKER + 'url = "localhost:8101"', ["worker 1 (thorax): url", "http://127.0.0.1:8101"]),
        (WORKER + 'languages = "en"', ["worker 1 (thorax): languages", "must be a list of texts"]),
        (WORKER + 'engine = "x"', ["worker 1 (thorax): engine", "must be a table"]),
        (WORKER + "max_images = 0", ["worker 1 (thorax): max_images: must be at least 1"]),
        (WORKER + "memory_gb = inf", ["worker 1 (thorax): memory_gb", "a number that ends"]),
        ("[panel]\nquorum = 1\nk = 'some'\n" + WORKER, ["panel: k: must be a number from 1"]),
        ("[panel]\nquorum = 1\nk = true\n" + WORKER, ["panel: k: must be a number from 1"]),
        (WORKER + "[feedback]\nfolder = ''", ["feedback: folder: must not be empty"]),
        (WORKER.replace("thorax", "a" * 64), ["name", "at most 63"]),
        (WORKER.replace("thorax", "-"), ["worker 1 (-): name", "small letters"]),
        (WORKER + '[archive]\nurl = "pacs"', ["archive: url", "http:// or https://"]),
        (WORKER + 'url = "http://a:1/v1/chat/completions"', ["url", "without /v1"]),
        (WORKER + 'url = "http://a:1/v1"', ["worker 1 (thorax): url", "without /v1"]),
        (WORKER + 'url = "http://a:1/?k=v"', ["worker 1 (thorax): url", "without ?"]),
        (WORKER + 'url = "http://a:1/#k"', ["worker 1 (thorax): url", "without ?"]),
        (WORKER + 'url = "http://a\\t:1"', ["worker 1 (thorax): url", "blanks"]),
        (WORKER.replace("{question}", ""), ["worker 1 (thorax): prompt", "{question}"]),
        (WORKER.replace("{question}", "{question} {x}"), ["prompt", "no other field"]),
        (WORKER.replace("{question}", "{question!x}"), ["prompt", "as it is"]),
        (WORKER.replace("{question}", "{question:>9}"), ["prompt", "as it is"]),
        (WORKER.replace("{question}", "{question"), ["prompt", "is no template"]),
        (WORKER.replace("thorax", "The Thorax"), ["worker 1 (The Thorax): name"]),
        (WORKER * 2, ["two workers are called thorax; rename one"]),
        (WORKER * 2 + "shadow = true", ["two workers are called thorax; rename one"]),
        (WORKER + "shadow = true", ["worker", "none is seated; add a [[worker]]"]),
        (WORKER + '[[worker]]\nname = "b"\nshadow = true', ["worker 2 (b): family: is missing"]),
        ('[feedback]\nkeep = "all"\n' + WORKER, ["feedback: keep", "'marks' or 'cases'"]),
        (WORKER.replace('"thorax"', '"summariser"'), ["cannot be called summariser"]),
        (WORKER.replace('"thorax"', '"panel"'), ["cannot be called panel"]),
        (WORKER + SUMMARISER.replace("prompt.es", "prompt.zh"), ["prompt.es is missing"]),
        (WORKER + SUMMARISER.replace("{answers}", "", 1), ["summariser: prompt", "{answers}"]),
        (WORKER + "[limits]\nmax_images = 0", ["limits: max_images"]),
        (WORKER + '[http]\norigins = ["ward.example"]', ["http: origins", "https://ward.example"]),
        (WORKER + '[http]\norigins = "*"', ["http: origins: must be a list of texts"]),
        *(
            (WORKER + f'[http]\norigins = ["{origin}"]', ["http: origins: 0: must be as browsers"])
            for origin in (
                "https://a.example/",
                "https://a.example:*",
                "https://*.example",
                "https://A.example",
                "https://ä.example",
                "https://a.example:443",
                "http://a.example:80",
                "http://a.example:99999",
                "https://me@a.example",
                "https://a.example?x",
                "https://a b",
                "https://[::1",
                "https://",
                "file://a",
                "null",
            )
        ),
        (WORKER + '[http]\nroot_path = "consilium/"', ["http: root_path", "such as /consilium"]),
    ],
)
def test_what_is_wrong(load, text, words):
    with pytest.raises(SettingsError) as caught:
        load(text)
    line = str(caught.value)
    assert "\n" not in line and "panel.toml: " in line
    for word in words:
        assert word in line


def test_a_missing_file(tmp_path):
    with pytest.raises(SettingsError, match="name the panel file with CONSILIUM_"):
        load_settings(environ={"CONSILIUM_PANEL": str(tmp_path / "none.toml")})


def test_a_url_comes_from_the_environment_the_file_or_the_seat(load):
    text = "[panel]\nquorum = 1\n" + WORKER
    text += WORKER.replace('"thorax"', '"ct-head"') + 'url = "http://elsewhere:1/"\n' + SUMMARISER
    here = load(text)
    assert [worker.url for worker in here.workers] == [
        "http://127.0.0.1:8101",
        "http://elsewhere:1",
    ]
    assert [worker.external for worker in here.workers] == [False, True]
    assert here.summariser and here.summariser.url == "http://127.0.0.1:8100"
    there = load(
        text,
        CONSILIUM_WORKER_THORAX_URL="http://thorax:8101",
        CONSILIUM_WORKER_CT_HEAD_URL="http://head:8101",
        CONSILIUM_SUMMARISER_URL="http://summariser:8100",
        CONSILIUM_STORE="redis://redis:6379/0",
    )
    assert [worker.url for worker in there.workers] == ["http://thorax:8101", "http://head:8101"]
    assert there.summariser and there.summariser.url == "http://summariser:8100"
    assert there.panel.store == "redis://redis:6379/0"


def test_a_wrong_url_in_the_environment_is_refused_too(load):
    with pytest.raises(SettingsError, match=r"worker 1 \(thorax\): url"):
        load("[panel]\nquorum = 1\n" + WORKER, CONSILIUM_WORKER_THORAX_URL="thorax")


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:99999",
        "http://127.0.0.1:0",
        "http://127.0.0.1:port",
        "http://127.0.0.1:-1",
        "http://",
        "http://:8101",
        "http://256.0.0.1:8101",
        "http://1.2.3:8101",
        "http://a..b:8101",
        "http://-a:8101",
        "http://a b:8101",
        "http://[::1:8101",
    ],
)
def test_an_address_that_nobody_can_have_is_refused(load, url):
    """Now, not when the first case finds nobody there."""
    with pytest.raises(SettingsError, match=r"thorax\): url: .*such as http://127.0.0.1:8101"):
        load(WORKER + f'url = "{url}"')


def test_of_a_password_in_an_address_that_is_none_nothing_is_told(load):
    """One with a slash makes the host's end of what stands before it."""
    url = "http://user:" + "s3/cr@gpu:8101"
    with pytest.raises(SettingsError, match=r"thorax\): url: is no address") as told:
        load(WORKER + f'url = "{url}"')
    assert "s3" not in str(told.value)


@pytest.mark.parametrize(
    "host", ["localhost", "10.0.0.9", "[::1]", "gpu-2.ward.example.", "worker_2", "münchen"]
)
def test_an_address_that_somebody_may_have_is_taken(load, host):
    assert load("[panel]\nquorum = 1\n" + WORKER + f'url = "https://{host}:65535/a"').workers


@pytest.mark.parametrize(
    "origin",
    ["*", "http://localhost:3000", "https://[::1]:80", "http://a:443", "https://xn--tda.example"],
)
def test_an_origin_that_a_browser_may_send_is_taken(load, origin):
    text = f'[panel]\nquorum = 1\n{WORKER}[http]\norigins = ["{origin}"]'
    assert load(text).http.origins == (origin,)


def test_the_hash_names_what_can_change_a_verdict(load):
    """Prompts, models and the quorum can; ports, limits and the cache cannot."""
    text = "[panel]\nquorum = 1\n" + WORKER
    base = load(text).panel_hash
    assert load(text + "[limits]\nmax_images = 2").panel_hash == base
    assert load(text, CONSILIUM_WORKER_THORAX_URL="http://thorax:1").panel_hash == base
    placed = text.replace("[[worker]]\n", "[[worker]]\nreplicas = [1, 4]\ngpus = 0.5\n")
    assert load(placed).panel_hash == base
    assert load(text.replace("Question:", "Q:")).panel_hash != base
    assert load(text + SUMMARISER).panel_hash != base


def test_the_secret_is_never_shown(load):
    settings = load("[panel]\nquorum = 1\n" + WORKER, CONSILIUM_SECRET="hush")
    assert "hush" not in repr(settings) and "hush" not in settings.model_dump_json()
    assert load("[panel]\nquorum = 1\n" + WORKER).secret != load(
        "[panel]\nquorum = 1\n" + WORKER
    ).secret  # fmt: skip


def test_the_panel_that_ships_is_sound():
    settings = load_settings(Path(__file__).parents[2] / "panel.toml", environ={})
    assert settings.summariser and len(settings.workers) >= settings.panel.quorum
