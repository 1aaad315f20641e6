"""Who is still sending when he is refused hears why, through a proxy too. Browsers, HEAD and a path
of a proxy's are met as HTTP asks."""

import http.client
import io
import re
import time
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from gateway.door import keys
from tests.conftest import free_port, picture, running_nginx

ROOT = Path(__file__).parents[3]
JSON = {"content-type": "application/json"}
MB = 1_000_000


def sent_whole(url: str, body: bytes, headers: dict[str, str]) -> tuple[int, str]:
    """As Python's own client does: it reads nothing before it has sent everything."""
    line = http.client.HTTPConnection(urlsplit(url).netloc, timeout=30)
    line.request("POST", "/vqa", io.BytesIO(body), headers | {"content-length": str(len(body))})
    response = line.getresponse()
    return response.status, response.read().decode()


@pytest.fixture
def keyed(vllm, gateway, tmp_path):
    """A gateway's address, and a key that may ask once a minute."""
    file = tmp_path / "keys.json"
    key = keys.add(file, "clinic", 1, False)
    return gateway([vllm()], environ={"CONSILIUM_KEYS": str(file)}), key


# Each several times: a line that breaks too early breaks now and then.
REFUSED = {
    "no key": (15 * MB, {"authorization": "Bearer none"}, 401, "not known here"),
    "too large": (60 * MB, {}, 413, "over 40 MB"),
    "another type": (15 * MB, {"content-type": "text/html"}, 415, "Send Content-Type"),
    "packed": (15 * MB, {"content-encoding": "gzip"}, 415, "uncompressed"),
}


@pytest.mark.parametrize(("size", "headers", "status", "says"), REFUSED.values(), ids=REFUSED)
def test_whoever_sends_on_reads_the_gateways_own_words(keyed, size, headers, status, says):
    """RFC 9112, section 9.6."""
    url, key = keyed
    own = JSON | {"authorization": f"Bearer {key}"} | headers
    for _ in range(4):
        found, text = sent_whole(url, bytes(size), own)
        assert found == status and says in text


@pytest.mark.parametrize("buffering", ["on", "off"])
def test_a_proxy_reads_them_too(keyed, nginx, buffering):
    url, key = keyed
    directives = f"proxy_request_buffering {buffering}; client_body_buffer_size 64m;"
    proxy = nginx([url], f"client_max_body_size 0; {directives}")
    for _ in range(4):
        assert sent_whole(proxy, bytes(15 * MB), JSON)[0] == 401
        own = JSON | {"authorization": f"Bearer {key}"}
        status, text = sent_whole(proxy, bytes(60 * MB), own)
        assert status == 413 and "over 40 MB" in text


def test_the_proxy_that_ships_lets_a_large_body_through(keyed, tmp_path):
    """deploy/nginx.conf, but for its certificate, where it listens and where the gateway is."""
    url, key = keyed
    address = f"127.0.0.1:{free_port()}"
    shipped = (ROOT / "deploy/nginx.conf").read_text().replace("/tmp/", f"{tmp_path}/")
    config = re.sub(r" *ssl_.*\n", "", shipped).replace("listen 8443 ssl;", f"listen {address};")
    config = config.replace("listen 127.0.0.1:8080;", f"listen 127.0.0.1:{free_port()};")
    assert config.count("http://gateway:8000") == 1
    with running_nginx(tmp_path, address, config.replace("http://gateway:8000", url)) as proxy:
        assert sent_whole(proxy, bytes(15 * MB), JSON)[0] == 401
        status, text = sent_whole(proxy, bytes(60 * MB), JSON | {"authorization": f"Bearer {key}"})
    assert status == 413 and "over 40 MB" in text


def test_a_body_without_a_length_is_dropped_too(keyed):
    def dribble():
        for _ in range(60):
            yield bytes(MB)

    response = httpx.post(f"{keyed[0]}/vqa", content=dribble(), headers=JSON, timeout=30)
    assert response.status_code == 401


def test_who_never_ends_is_left_after_a_while(vllm, gateway):
    """The answer is there at once; then the line is closed, whatever is still to come."""
    url = gateway([vllm()], load="body_s = 0.5")
    line = http.client.HTTPConnection(urlsplit(url).netloc, timeout=20)
    line.putrequest("POST", "/vqa")
    for name, value in {"content-type": "text/html", "content-length": str(90 * MB)}.items():
        line.putheader(name, value)
    line.endheaders()
    began = time.monotonic()
    response = line.getresponse()
    assert response.status == 415 and b"Send" in response.read()
    with pytest.raises(OSError):
        while time.monotonic() - began < 15:
            line.sock.sendall(bytes(1000)) if line.sock else line.send(bytes(1000))
            time.sleep(0.02)
        raise AssertionError("the line was never closed")


def test_on_a_line_that_stays_the_next_request_is_read(keyed):
    """A short body that was refused unread is not taken for what follows it."""
    url, key = keyed
    with httpx.Client() as one_line:
        for _ in range(3):
            assert one_line.post(f"{url}/vqa", json={"question": "?" * 5000}).status_code == 401
        headers = {"authorization": f"Bearer {key}"}
        assert one_line.get(f"{url}/panel", headers=headers).status_code == 200


def test_what_has_not_the_form_of_a_case_is_not_counted(keyed):
    """A front end asks for a title, for tags and what to ask next: without an image."""
    url, key = keyed
    headers = {"authorization": f"Bearer {key}"}
    title = {"model": "consilium", "messages": [{"role": "user", "content": "A title, please."}]}
    for path, body in (("/v1/chat/completions", title), ("/vqa", {"question": "q?"})) * 3:
        response = httpx.post(url + path, json=body, headers=headers)
        assert response.status_code == 422, response.text
    files = [("images", ("a.png", picture()))]
    asked = [
        httpx.post(f"{url}/vqa", data={"question": "q?"}, files=files, headers=headers).status_code
        for _ in range(3)
    ]
    # Across the turn of a minute a sliding window forgets a little.
    assert asked[0] == 200 and 429 in asked
    assert httpx.post(f"{url}/vqa", json={"question": "q?"}, headers=headers).status_code == 429


@pytest.mark.parametrize(
    "path", ["/health/live", "/health/ready", "/panel", "/metrics", "/v1/models", "/docs"]
)
def test_head_is_get_without_its_body(vllm, gateway, path):
    url = gateway([vllm()])
    head, get = httpx.head(url + path), httpx.get(url + path)
    assert head.status_code == get.status_code == 200 and not head.content
    assert head.headers["content-type"] == get.headers["content-type"]
    assert httpx.head(f"{url}/vqa").status_code == 405


def test_a_page_of_another_origin_may_ask_where_it_is_named(vllm, gateway, tmp_path):
    """A browser asks first whether it may, and carries no key then."""
    file = tmp_path / "keys.json"
    key = keys.add(file, "clinic", None, False)
    ward = "https://ward.example"
    url = gateway([vllm()], environ={"CONSILIUM_KEYS": str(file)}, http=f'origins = ["{ward}"]')

    def may(origin: str) -> httpx.Response:
        headers = {
            "origin": origin,
            "access-control-request-method": "POST",
            "access-control-request-headers": "authorization,content-type,x-stainless-os",
        }
        return httpx.options(f"{url}/v1/chat/completions", headers=headers)

    allowed = may(ward)
    assert allowed.status_code == 200 and allowed.headers["access-control-allow-origin"] == ward
    assert "x-stainless-os" in allowed.headers["access-control-allow-headers"]
    assert "access-control-allow-origin" not in may("https://other.example").headers
    for headers in ({}, {"authorization": f"Bearer {key}"}):  # a refusal is read as well
        found = httpx.get(f"{url}/panel", headers={"origin": ward} | headers)
        assert found.headers["access-control-allow-origin"] == ward
        assert "retry-after" in found.headers["access-control-expose-headers"]
    silent = httpx.get(f"{gateway([vllm()])}/panel", headers={"origin": ward})
    assert "access-control-allow-origin" not in silent.headers


def test_it_may_stand_under_a_path_of_a_proxys(vllm, gateway):
    """Whether the proxy takes the path away or not; the page's own schema is found under it."""
    root = gateway([vllm()], http='root_path = "/consilium"')
    for url in (root, f"{root}/consilium"):
        assert httpx.get(f"{url}/health/ready").status_code == 200
        assert httpx.get(f"{url}/openapi.json").json()["servers"] == [{"url": "/consilium"}]
        assert "error" in httpx.get(f"{url}/v1/models/gpt-4o").json()
        check_documentation(url)
    slashless = httpx.get(f"{root}/consilium?from=ward")
    assert slashless.headers["location"] == "/consilium/?from=ward"


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("/vqa/", "leave the last / away"),
        ("/consilium/panel/", "leave the last / away"),
        ("/v1/responses", "there are /v1/chat/completions and /v1/models"),
        ("/vqas", "Not Found. See /docs."),
        ("/vqas/", "Not Found. See /docs."),
    ],
)
def test_an_address_that_is_nearly_right_says_what_is_there(vllm, gateway, path, says):
    url = gateway([vllm()], http='root_path = "/consilium"')
    found = httpx.post(f"{url}{path}", json={})
    assert found.status_code == 404 and says in found.text


def test_the_documentation_takes_nothing_from_another_host(vllm, gateway):
    """It is the same without a network."""
    check_documentation(gateway([vllm()]))


def check_documentation(url: str) -> None:
    page = httpx.get(f"{url}/docs")
    assert (
        "://" not in page.text and "default-src 'none'" in page.headers["content-security-policy"]
    )
    addresses = re.findall(r'(?:src|href|url:)[=\s]*"([^"]+)"', page.text)
    needed = [address for address in addresses if not address.startswith("data:")]
    assert needed == ["docs/swagger-ui.css", "docs/swagger-ui-bundle.js", "openapi.json"]
    for address in needed:  # relative to where the page was found
        assert len(httpx.get(f"{url}/{address}").raise_for_status().content) > 1000
