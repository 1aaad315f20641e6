"""Metrics, traces, the audit: enough to see what goes on, and never a word of a caller's."""

import base64
import http.server
import json
import logging
import signal
import threading
from datetime import UTC, datetime, timedelta

import httpx
import numpy as np
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from prometheus_client.parser import text_string_to_metric_families
from typer.testing import CliRunner

from gateway.door import keys
from gateway.watch.log import JsonLine
from services.cli.__main__ import app
from tests.conftest import picture
from tests.dicoms import dicom_of
from tests.gateway.test_it_changes_without_a_gap import until

IMAGE = base64.b64encode(picture()).decode()
SECRET_WORDS = "Zebedee Quux"


def asked(url: str, question: str = f"Is {SECRET_WORDS} healthy?", **more) -> httpx.Response:
    body = {"question": question, "images": [IMAGE], "context": SECRET_WORDS}
    return httpx.post(f"{url}/vqa", json=body, timeout=30, **more)


def scraped(url: str) -> dict[str, dict[tuple, float]]:
    """Every sample by its name and sorted labels, read as Prometheus reads them."""
    found: dict[str, dict[tuple, float]] = {}
    for family in text_string_to_metric_families(httpx.get(f"{url}/metrics").text):
        for sample in family.samples:
            labels = tuple(sorted(sample.labels.items()))
            found.setdefault(sample.name, {})[labels] = sample.value
    return found


def test_what_happens_is_counted(vllm, gateway):
    url = gateway([vllm("yes"), vllm("no", confidence=0.5), vllm(status=500, raw=b"")])
    asked(url)
    asked(url, "Something else?")
    asked(url, "Something else?")
    httpx.post(f"{url}/vqa", json={"question": "?"})

    found = scraped(url)
    worker = (("worker", "w0"),)
    assert found["consilium_worker_duration_seconds_count"][worker] == 2
    failed = (("kind", "unreachable"), ("worker", "w2"))
    assert found["consilium_worker_failures_total"][failed] == 3  # not cached, so asked again
    assert found["consilium_recalled_total"][(("what", "answer"),)] == 2
    verdicts = {labels: n for labels, n in found["consilium_verdicts_total"].items() if n}
    assert sum(verdicts.values()) == 3
    assert {dict(labels)["summary_by"] for labels in verdicts} == {"vote"}
    assert found["consilium_agreement_ratio_count"][()] == 3
    assert found["consilium_gateway_overhead_seconds_count"][()] == 3
    assert found["consilium_refused_total"][(("status", "422"),)] == 1
    answered = (("route", "/vqa"), ("status", "200"))
    assert found["consilium_request_duration_seconds_count"][answered] == 3
    assert found["consilium_cases_inside"][()] == 0
    (panel,) = found["consilium_panel_info"]
    assert dict(panel)["panel"] == httpx.get(f"{url}/panel").json()["panel"]


def test_what_counts_is_there_before_it_happens_and_of_who_is_seated_now(vllm, gateway, panel_file):
    """A rate that begins with the first failure does not show it."""
    workers = [vllm("yes"), vllm("no")]
    url = gateway(workers)
    kinds = {"timeout", "refused", "unreachable", "garbage", "empty"}

    def counted(name: str) -> dict[tuple, float]:
        assert set(scraped(url)[name].values()) == {0}
        return scraped(url)[name]

    failed = counted("consilium_worker_failures_total")
    assert {dict(labels)["worker"] for labels in failed} == {"w0", "w1"}
    assert {dict(labels)["kind"] for labels in failed} >= kinds
    assert len(counted("consilium_verdicts_total")) == 3 * 3 * 2
    assert {("status", "503"), ("status", "429")} <= {
        x for (x,) in counted("consilium_refused_total")
    }
    assert len(counted("consilium_recalled_total")) == 2

    panel_file([workers[1].url])
    assert httpx.post(f"{url}/panel/reload").status_code == 200
    failed = counted("consilium_worker_failures_total")
    assert {dict(labels)["worker"] for labels in failed} == {"w0"}
    assert len(scraped(url)["consilium_worker_duration_seconds_count"]) == 1


def test_a_cached_or_shared_verdict_is_counted_and_adds_no_overhead(vllm, gateway):
    url = gateway([vllm("yes", delay_s=0.5)])
    threads = [threading.Thread(target=asked, args=(url,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    asked(url)
    found = scraped(url)
    assert found["consilium_shared_total"][()] == 3
    assert found["consilium_recalled_total"][(("what", "verdict"),)] == 1
    assert found["consilium_gateway_overhead_seconds_count"][()] == 1


def test_no_label_holds_what_a_caller_sent(vllm, gateway):
    url = gateway([vllm(SECRET_WORDS)])
    asked(url)
    for path in (f"/{SECRET_WORDS}", "/vqa/Zebedee", "/panel?Quux"):
        httpx.get(url + path, headers={"x-thing": "Zebedee"})
    httpx.request("ZEBEDEE", f"{url}/vqa")
    text = httpx.get(f"{url}/metrics").text
    assert "Zebedee" not in text and "Quux" not in text and "ZEBEDEE" not in text


def test_every_response_names_its_gateway_and_panel(vllm, gateway):
    url = gateway([vllm()])
    panel = httpx.get(f"{url}/panel").json()["panel"]
    for response in (
        asked(url),
        httpx.get(f"{url}/nowhere"),
        httpx.post(f"{url}/vqa"),
        httpx.get(f"{url}/health/live"),
    ):
        assert response.headers["consilium-panel"] == panel
        assert response.headers["consilium-version"]


def test_a_bug_is_counted_as_one_and_names_its_gateway(vllm, gateway, monkeypatch):
    def break_down(*_: object) -> None:
        raise ZeroDivisionError(SECRET_WORDS)

    monkeypatch.setattr("gateway.service.key_of", break_down)
    url = gateway([vllm()])
    response = asked(url)
    assert response.status_code == 500 and "Zebedee" not in response.text
    assert response.headers["consilium-panel"] and response.headers["consilium-version"]
    counted = (("route", "/vqa"), ("status", "500"))
    assert scraped(url)["consilium_request_duration_seconds_count"][counted] == 1


@pytest.fixture
def collector():
    """An OTLP collector: keeps what it is sent."""
    received: list[bytes] = []

    class Keep(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.append(self.rfile.read(int(self.headers["content-length"])))
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Keep)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", received
    server.shutdown()


def test_a_trace_goes_from_the_caller_through_to_the_workers(vllm, gateway_process, collector):
    endpoint, received = collector
    worker = vllm(SECRET_WORDS)
    environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, "OTEL_BSP_SCHEDULE_DELAY": "100"}
    gateway = gateway_process([worker], environ=environ, load="drain_s = 0.1")
    trace = "0af7651916cd43dd8448eb211c80319c"
    sent = f"00-{trace}-b7ad6b7169203331-01"
    carried = {"traceparent": sent, "tracestate": "patient=Zebedee", "baggage": "p=Zebedee"}
    assert asked(gateway.url, headers=carried).status_code == 200
    for malformed in ("00-xyz", "", "ff" * 40, f"00-{'0' * 32}-b7ad6b7169203331-01", "é" * 9):
        headers = {"traceparent": malformed.encode()}
        assert asked(gateway.url, f"{malformed}?", headers=headers).status_code == 200
    gateway.process.terminate()
    gateway.process.wait(timeout=30)

    assert worker.headers[0]["traceparent"].split("-")[1] == trace
    assert all(trace not in headers["traceparent"] for headers in worker.headers[1:])
    spans = [
        span
        for body in received
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]
    ours = {span.name: span for span in spans if span.trace_id.hex() == trace}
    assert {"/vqa", "ask", "summarise"} <= ours.keys()
    assert ours["ask"].parent_span_id == ours["/vqa"].span_id
    assert b"Zebedee" not in b"".join(received)
    assert not any("Zebedee" in str(headers) for headers in worker.headers)


def test_the_audit_says_who_asked_and_what_was_decided_and_no_word_of_it(
    vllm, gateway, tmp_path, panel_file
):
    file = tmp_path / "keys.json"
    key = keys.add(file, "clinic", None, False)
    old = tmp_path / "audit" / "audit-2020-01-01-there.jsonl"
    kept = tmp_path / "audit" / f"audit-{datetime.now(UTC).date() - timedelta(days=3)}-x.jsonl"
    old.parent.mkdir()
    no_day = tmp_path / "audit" / "audit-2026-99-99-x.jsonl"
    for path in (old, kept, no_day):
        path.write_text("{}\n")
    (tmp_path / "audit" / "audit-2020-01-02-folder.jsonl").mkdir()
    url = gateway(
        [vllm("yes"), vllm(SECRET_WORDS, confidence=0.5)],
        environ={"CONSILIUM_KEYS": str(file), "CONSILIUM_SECRET": "s"},
        audit='folder = "audit"\ndays = 7',
    )
    headers = {"authorization": f"Bearer {key}"}
    verdicts = [asked(url, headers=headers).json() for _ in range(2)]
    another = asked(url, "Another?", headers=headers).json()

    assert another["answer"] == verdicts[0]["answer"]
    assert not old.exists() and kept.exists()
    (today,) = old.parent.glob(f"audit-{datetime.now(UTC).date()}-*.jsonl")
    text = today.read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    assert [line["id"] for line in lines[:2]] == [verdict["id"] for verdict in verdicts]
    assert {line["tenant"] for line in lines} == {"clinic"}
    assert {line["key"] for line in lines} == {key.split("_")[1]}
    assert lines[0]["case"] == lines[1]["case"] != lines[2]["case"]
    # All three were answered alike, which is told of the same case alone.
    assert lines[0]["answer"] == lines[1]["answer"] != lines[2]["answer"]
    assert lines[1]["cached_from"] == lines[0]["id"] and lines[0]["panel"] == verdicts[0]["panel"]
    for word in ("Zebedee", "yes", "healthy", IMAGE[:40], key):
        assert word not in text

    image = tmp_path / "a.png"
    image.write_bytes(picture())
    with today.open("a") as file:
        file.write('{"half a li\n\0\0\n\n')
    sent = [str(image), "-q", f"Is {SECRET_WORDS} healthy?", "--context", SECRET_WORDS]
    secret = {"CONSILIUM_SECRET": "s"}

    def match(*more: str, **environ: str) -> tuple[int, list[str]]:
        command = ["audit", "match", *sent, *more, "--panel", str(tmp_path / "panel.toml")]
        done = CliRunner().invoke(app, command, env=environ)
        return done.exit_code, [json.loads(line)["id"] for line in done.stdout.splitlines()]

    ids = [verdict["id"] for verdict in verdicts]
    assert match(**secret) == (0, ids)
    assert match("--answer", verdicts[0]["answer"], **secret) == (0, ids)
    assert match("--answer", "another", **secret) == (1, [])
    assert match("--choices", "yes,no", **secret) == (1, [])
    assert match(CONSILIUM_SECRET="another") == (1, [])
    assert match() == (1, [])


def test_a_case_of_one_frame_in_one_window_is_matched_by_both(vllm, gateway, tmp_path):
    frames = np.arange(2 * 32 * 32, dtype=np.int16).reshape(2, 32, 32)
    scan = tmp_path / "a.dcm"
    scan.write_bytes(dicom_of(frames, NumberOfFrames=2))
    url = gateway([vllm()], environ={"CONSILIUM_SECRET": "s"}, audit='folder = "audit"')
    image = {"data": base64.b64encode(scan.read_bytes()).decode(), "frame": 2, "window": "bone"}
    assert httpx.post(f"{url}/vqa", json={"question": "q?", "images": [image]}).status_code == 200

    command = ["audit", "match", str(scan), "-q", "q?", "--panel", str(tmp_path / "panel.toml")]
    for more, status in (("--frame 2 --window bone", 0), ("--frame 1 --window bone", 1), ("", 1)):
        done = CliRunner().invoke(app, [*command, *more.split()], env={"CONSILIUM_SECRET": "s"})
        assert done.exit_code == status, more


def test_a_case_is_matched_by_its_choices_as_ask_takes_them(vllm, gateway, tmp_path):
    (tmp_path / "a.png").write_bytes(picture())
    url = gateway([vllm()], environ={"CONSILIUM_SECRET": "s"}, audit='folder = "audit"')
    image = base64.b64encode(picture()).decode()
    case = {"question": "q?", "images": [image], "choices": ["yes", "no"]}
    assert httpx.post(f"{url}/vqa", json=case).status_code == 200

    command = ["audit", "match", str(tmp_path / "a.png"), "-q", "q?"]
    command += ["--panel", str(tmp_path / "panel.toml")]
    for more, status in (("--choices yes,no", 0), ("--choices yes --choices no", 0), ("", 1)):
        done = CliRunner().invoke(app, [*command, *more.split()], env={"CONSILIUM_SECRET": "s"})
        assert done.exit_code == status, more


def test_a_full_disk_costs_the_audits_line_and_not_the_case(vllm, gateway, tmp_path, caplog):
    url = gateway([vllm()], audit='folder = "audit"')
    for path in (tmp_path / "audit").iterdir():
        path.unlink()
    (tmp_path / "audit").rmdir()
    assert asked(url).status_code == 200
    assert any("audit_not_written" in line for line in caplog.messages)


def logged(log: str) -> list[dict]:
    """Every line, held to the form that all have."""
    lines = [json.loads(line) for line in log.splitlines()]
    for line in lines:
        assert datetime.fromisoformat(line["time"]).utcoffset() == timedelta(0)
        assert line["level"] in ("info", "warning", "error") and line["event"]
    return lines


def test_every_line_of_the_log_says_when_how_grave_and_for_whom(
    vllm, gateway_process, panel_file, tmp_path
):
    """One JSON object a line, from the start to the end; a reload says what it changed, whoever
    asked for it, and no value."""
    file = tmp_path / "keys.json"
    key, admin = keys.add(file, "clinic", 2, False), keys.add(file, "operator", None, True)
    of_key, of_admin = (
        {"tenant": t, "key": k.split("_")[1]} for t, k in (("clinic", key), ("operator", admin))
    )
    gateway = gateway_process(
        [vllm("yes")], {"CONSILIUM_KEYS": str(file)}, audit='folder = "audit"'
    )
    known = {"authorization": f"Bearer {key}"}
    assert asked(gateway.url, headers=known).status_code == 200
    assert asked(gateway.url, "", headers=known).status_code == 422  # which does not count
    assert asked(gateway.url, headers=known).status_code == 200
    assert asked(gateway.url, headers=known).status_code == 429
    httpx.get(f"{gateway.url}/nowhere")

    panel_file([vllm("yes").url, vllm("no").url], panel="quorum = 2")
    by_admin = {"authorization": f"Bearer {admin}"}
    assert httpx.post(f"{gateway.url}/panel/reload", headers=by_admin).status_code == 200
    panel_file([vllm("yes").url])
    gateway.process.send_signal(signal.SIGHUP)
    until(lambda: gateway.log.count("panel_taken_up") == 2)
    panel_file([])
    assert httpx.post(f"{gateway.url}/panel/reload", headers=by_admin).status_code == 409

    lines = logged(gateway.log)
    assert [line["event"] for line in lines] == [
        "audit_without_secret",
        "case_answered",
        "case_refused",
        "case_answered",
        "case_refused",
        "panel_taken_up",
        "panel_taken_up",
        "panel_not_taken_up",
    ]
    assert all(line | of_key == line for line in lines[1:5])
    by_request, by_signal, refused = lines[5:]
    assert by_request | of_admin == by_request and refused | of_admin == refused
    assert by_request["added"] == ["w1"] and by_request["removed"] == []
    assert by_request["changed"] == ["worker w0.url", "panel.quorum"]
    assert by_request["needs_restart"] == ["audit"]
    assert by_signal["removed"] == ["w1"] and "tenant" not in by_signal
    assert "Zebedee" not in gateway.log and "http://" not in json.dumps(lines[5:7])


def test_an_exception_is_one_line_that_says_where_and_not_what():
    """Its words may quote a caller; so may those of what it came from."""

    def raised() -> BaseException:
        try:
            try:
                raise ValueError(SECRET_WORDS)
            except ValueError as error:
                raise ExceptionGroup(SECRET_WORDS, [error]) from error
        except ExceptionGroup as group:
            return group

    error = raised()
    record = logging.LogRecord(
        "uvicorn.error",
        logging.ERROR,
        __file__,
        1,
        "Exception in ASGI application\n" + SECRET_WORDS,
        None,
        (type(error), error, error.__traceback__),
    )
    [line] = logged(JsonLine().format(record))
    assert line["message"] == "Exception in ASGI application" and line["logger"] == "uvicorn.error"
    assert line["error"] == "ExceptionGroup" and "ValueError" in line["at"]
    assert line["at"][-1].endswith(" raised") and "Zebedee" not in json.dumps(line)
