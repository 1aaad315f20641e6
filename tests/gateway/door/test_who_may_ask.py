"""Keys and tenants: who has no key asks nobody, and nobody is told what another tenant was."""

import base64
import json
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from consilium import GatewayRefused, ask
from gateway.door import keys
from gateway.door.keys import KeysError
from gateway.refusals import Unauthorized
from tests.conftest import picture

CASE = {"question": "Is it healthy?", "images": [base64.b64encode(picture()).decode()]}


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "keys.json"


@pytest.fixture
def keyed(gateway, file):
    """A gateway that wants the keys of `file`."""
    return lambda workers, **kwargs: gateway(
        workers, environ={"CONSILIUM_KEYS": str(file), "CONSILIUM_SECRET": "s"}, **kwargs
    )


def test_a_key_opens_and_nothing_else_does(vllm, keyed, file):
    worker = vllm()
    key = keys.add(file, "clinic", None, admin=False)
    url = keyed([worker])
    for headers in (
        {},
        {"x-api-key": key},
        {"authorization": key},
        {"authorization": f"Basic {key}"},
        {"authorization": "Bearer"},
        bearer(key[:-1]),
        {"authorization": b"Bearer " + key[:-1].encode() + b"\xe9"},
        bearer("consilium_00000000_" + "A" * 43),
        bearer(key.replace(key[10:18], "0" * 8)),
    ):
        response = httpx.post(f"{url}/vqa", json=CASE, headers=headers)
        assert response.status_code == 401, headers
        assert response.headers["www-authenticate"] == "Bearer"
        assert response.json()["type"] == "urn:consilium:unauthorized"
    assert not worker.requests
    assert "wrong header" in httpx.get(f"{url}/panel", headers={"x-api-key": key}).text
    for path in ("/panel", "/metrics", "/v1/models"):
        assert httpx.get(url + path).status_code == 401
        assert httpx.get(url + path, headers=bearer(key)).status_code == 200
    assert httpx.get(f"{url}/health/live").status_code == 200

    assert httpx.post(f"{url}/vqa", json=CASE, headers=bearer(key)).json()["answer"] == "yes"
    assert len(worker.requests) == 1


def test_the_client_sends_its_key(vllm, keyed, file, monkeypatch):
    key = keys.add(file, "clinic", None, admin=False)
    url = keyed([vllm()])
    with pytest.raises(GatewayRefused, match="Authorization: Bearer"):
        ask([picture()], "Is it healthy?", url=url)
    assert ask([picture()], "Is it healthy?", url=url, key=key).answer == "yes"
    monkeypatch.setenv("CONSILIUM_KEY", key)
    assert ask([picture()], "Is it healthy?", url=url).answer == "yes"


def test_a_revoked_key_is_refused_at_once(vllm, keyed, file):
    key = keys.add(file, "clinic", None, admin=False)
    other = keys.add(file, "clinic", None, admin=False)
    url = keyed([vllm()])
    assert httpx.get(f"{url}/panel", headers=bearer(key)).status_code == 200

    keys.revoke(file, key.split("_")[1])

    assert httpx.get(f"{url}/panel", headers=bearer(key)).status_code == 401
    assert httpx.get(f"{url}/panel", headers=bearer(other)).status_code == 200
    later = keys.add(file, "clinic", None, admin=False)
    assert httpx.get(f"{url}/panel", headers=bearer(later)).status_code == 200


def test_a_keys_file_that_breaks_leaves_the_keys_as_they_were(vllm, keyed, file, caplog):
    key = keys.add(file, "clinic", None, admin=False)
    url = keyed([vllm()])
    file.write_text('{"keys": [{"id": "secret"}]}')
    assert httpx.get(f"{url}/panel", headers=bearer(key)).status_code == 200
    assert httpx.get(f"{url}/panel", headers=bearer("x")).status_code == 401
    assert sum("keys_not_taken_up" in line for line in caplog.messages) == 1
    with pytest.raises(KeysError, match="is no keys file"):
        keyed([vllm()])


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"admin": 1}, r"keys\.1\.admin"),
        ({"admin": "yes"}, r"keys\.1\.admin"),
        ({"per_minute": "30"}, r"keys\.1\.per_minute"),
        ({"per_minute": True}, r"keys\.1\.per_minute"),
        ({"created": 5}, r"keys\.1\.created"),
        ({"note": "x"}, r"keys\.1\.note"),
        ({}, "two keys have one id"),
        ({"revoked": "2026-01-01T00:00:00Z"}, "two keys have one id"),
    ],
)
def test_a_key_that_is_not_as_it_was_made_is_not_guessed_at(file, wrong, says):
    """It might ask more than it may, or again though it was revoked."""
    keys.add(file, "clinic", None, admin=False)
    [key] = json.loads(file.read_text())["keys"]
    file.write_text(json.dumps({"keys": [key, key | wrong]}))
    with pytest.raises(KeysError, match=says):
        keys.read(file)
    with pytest.raises(KeysError, match=says):
        keys.revoke(file, key["id"])


def test_no_key_is_at_rest_and_the_file_is_its_owners(file):
    key = keys.add(file, "clinic", 5, admin=True)
    assert key not in file.read_text() and key.split("_", 2)[2] not in file.read_text()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: keys.add(file, "clinic", None, False), range(24)))
    assert len(keys.read(file)) == 25
    # What the operator made of it stays: the gateway may be another user.
    file.chmod(0o640)
    keys.add(file, "clinic", None, False)
    assert stat.S_IMODE(file.stat().st_mode) == 0o640


def test_the_command_line_makes_lists_and_revokes(file):
    def consilium(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "services.cli", "key", *arguments, "--keys", str(file)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    refused = consilium("list")
    assert refused.returncode == 1 and "consilium key add" in refused.stderr
    key = consilium("add", "--tenant", "clinic", "--per-minute", "5").stdout.strip()
    assert keys.KEY.fullmatch(key)
    identity = key.split("_")[1]
    listed = consilium("list").stdout
    assert identity in listed and "clinic" in listed and key not in listed
    assert consilium("revoke", identity).returncode == 0
    assert keys.read(file)[0].revoked
    assert "holds no key" in consilium("revoke", "ffffffff").stderr
    assert "is no name" in consilium("add", "--tenant", "A B").stderr


def test_tenants_share_nothing_that_was_answered(vllm, keyed, file):
    worker = vllm()
    ours, ours_too = (keys.add(file, "clinic", None, admin=False) for _ in range(2))
    theirs = keys.add(file, "hospital", None, admin=False)
    url = keyed([worker])

    def asked(key: str) -> dict:
        return httpx.post(f"{url}/vqa", json=CASE, headers=bearer(key)).json()

    first = asked(ours)
    other = asked(theirs)
    assert not other["cached"] and other["cached_from"] is None and len(worker.requests) == 2
    again = asked(ours_too)
    assert again["cached"] and again["cached_from"] == first["id"] and len(worker.requests) == 2
    # Nor does a model server's own cache tell one of them from the other by its speed.
    salts = [request["cache_salt"] for request in worker.requests]
    assert salts[0] != salts[1] and "clinic" not in json.dumps(worker.requests)


def test_tenants_wait_for_no_answer_of_each_others(vllm, keyed, file):
    """The same case at the same moment is asked for each of them."""
    worker = vllm(delay_s=0.5)
    both = [bearer(keys.add(file, tenant, None, admin=False)) for tenant in ("clinic", "hospital")]
    url = keyed([worker])
    with ThreadPoolExecutor(4) as pool:
        asked = pool.map(lambda key: httpx.post(f"{url}/vqa", json=CASE, headers=key), both * 2)
        ids = {response.json()["cached_from"] or response.json()["id"] for response in asked}
    assert len(ids) == len(worker.requests) == 2


def test_ids_open_nothing(vllm, keyed, file):
    ours = keys.add(file, "clinic", None, admin=False)
    theirs = keys.add(file, "hospital", None, admin=False)
    url = keyed([vllm()])
    found = httpx.post(f"{url}/vqa", json=CASE, headers=bearer(ours)).json()["id"]
    for path in (
        f"/vqa/{found}",
        f"/v1/chat/completions/chatcmpl-{found}",
        f"/vqa?id={found}",
        f"/feedback/{found}",
        f"/audit/{found}",
        "/audit",
    ):
        response = httpx.get(url + path, headers=bearer(theirs))
        assert response.status_code in (404, 405) and found not in response.text


@pytest.mark.parametrize("wrong", ["its secret", "its id", "its form"])
def test_a_wrong_key_is_compared_as_a_right_one_is(file, monkeypatch, wrong):
    """Once, whole and in constant time: by its milliseconds nobody learns which part was right."""
    key = keys.add(file, "clinic", None, admin=False)
    sent = {
        "its secret": key[:-1] + ("A" if key[-1] != "A" else "B"),
        "its id": key.replace(key[10:18], "0" * 8),
        "its form": "x",
    }[wrong]
    compared = []

    def compare(one: str, other: str) -> bool:
        compared.append((len(one), len(other)))
        return one == other

    monkeypatch.setattr(keys.hmac, "compare_digest", compare)
    known = keys.Keys(file)
    assert known.holder(f"Bearer {key}").tenant == "clinic"
    with pytest.raises(Unauthorized):
        known.holder(f"Bearer {sent}")
    assert compared == [(64, 64), (64, 64)]


def test_only_an_admin_changes_the_panel(vllm, keyed, file):
    key = keys.add(file, "clinic", None, admin=False)
    admin = keys.add(file, "operator", None, admin=True)
    url = keyed([vllm()])
    refused = httpx.post(f"{url}/panel/reload", headers=bearer(key))
    assert refused.status_code == 403 and "admin" in refused.json()["detail"]
    assert httpx.post(f"{url}/panel/reload", headers=bearer(admin)).status_code == 200


def test_a_flood_of_wrong_keys_asks_no_worker_and_fills_no_log(vllm, keyed, file, caplog):
    worker = vllm()
    keys.add(file, "clinic", None, admin=False)
    url = keyed([worker])
    with httpx.Client(headers=bearer("wrong")) as http:
        statuses = {http.post(f"{url}/vqa", json=CASE).status_code for _ in range(300)}
    assert statuses == {401} and not worker.requests
    assert not [line for line in caplog.messages if "case_refused" in line]
