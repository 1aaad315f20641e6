"""`consilium mcp`, as the protocol's own client sees it."""

import base64
import json
import os
import sys

import numpy as np
import pytest
from mcp import Client, StdioServerParameters

from consilium import AsyncClient
from services.running.mcp_server import PANEL_URI, server
from tests.conftest import listening, picture
from tests.dicoms import dicom_of
from tests.fake_gateway import VERDICT, problem

ODD = {"image": 0.001, "question": 0.9, "unfamiliar": True, "why": "the image is unlike"}
DISSENT = {"text": "No", "workers": ("w1",), "weight": 0.4}


async def test_the_tool_tells_how_far_to_trust_the_answer(fake):
    """Answer, agreement, confidence, dissent, and that the case is unfamiliar."""
    told = VERDICT.model_dump() | {"agreement": 0.6, "dissent": [DISSENT], "familiarity": ODD}
    told["prediction_set"] = {"coverage": 0.9, "answers": None, "why": "nobody knows"}
    gateway = fake((200, {}, json.dumps(told).encode()))
    asked = {
        "question": "Is it?",
        "images": [{"base64": "aGk", "frame": 2, "window": "lung", "view": "axial"}],
    }
    asked |= {"choices": ["Yes", "No"], "rounds": 2, "language": "en", "context": "fever"}
    asked |= {"workers": ["w0"], "coverage": 0.9, "slices": "even"}

    async with AsyncClient(gateway.url) as client, Client(server(client, False)) as agent:
        [tool] = (await agent.list_tools()).tools
        said = await agent.call_tool("ask_panel", asked)

    assert tool.name == "ask_panel" and set(tool.input_schema["required"]) == {"question", "images"}
    found = said.structured_content
    assert (found["answer"], found["agreement"], found["confidence"]) == ("Yes", 0.6, None)
    assert found["dissent"] == [{"text": "No", "workers": ["w1"], "weight": 0.4}]
    assert (found["unfamiliar"], found["why_unfamiliar"]) == (True, "the image is unlike")
    assert found["workers"] == [{"worker": "w0", "answer": "Yes", "confidence": 0.9}]
    assert json.loads(said.content[0].text) == found
    [sent] = gateway.requests
    assert sent["images"] == [{"data": "aGk", "frame": 2, "window": "lung"}]
    assert sent["views"] == ["axial"]
    assert (sent["slices"], sent["choices"]) == ("even", ["Yes", "No"])
    options = {name: value for name, value in sent["options"].items() if value is not None}
    assert options == {"rounds": 2, "workers": ["w0"], "coverage": 0.9}
    assert found["prediction_set"] == told["prediction_set"]


async def test_that_nobody_tells_whether_a_case_is_familiar_is_no_no(fake):
    """Of what was asked without the worker that could."""
    why = "nobody tells"
    told = VERDICT.model_dump() | {"familiarity": {"unfamiliar": False, "why": why}}
    gateway = fake((200, {}, json.dumps(told).encode()))
    asked = {"question": "Is it?", "images": [{"base64": "aGk"}]}

    async with AsyncClient(gateway.url) as client, Client(server(client, False)) as agent:
        found = (await agent.call_tool("ask_panel", asked)).structured_content

    assert (found["unfamiliar"], found["why_unfamiliar"]) == (None, why)


async def test_a_panel_that_abstains_says_so(fake):
    body = VERDICT.model_dump() | {"status": "abstained", "answer": None, "best_guess": "Yes"}
    gateway = fake((200, {}, json.dumps(body).encode()))
    asked = {"question": "Is it?", "images": [{"base64": "aGk"}], "max_risk": 0.1}

    async with AsyncClient(gateway.url) as client, Client(server(client, False)) as agent:
        found = (await agent.call_tool("ask_panel", asked)).structured_content

    assert (found["status"], found["answer"], found["best_guess"]) == ("abstained", None, "Yes")


@pytest.mark.parametrize(
    ("images", "says"),
    [
        ([{"base64": "aGk"}], "No such language."),
        ([{"path": "/nowhere/name.png"}], "No image can be read there (No such file"),
        ([{"path": "a.png", "base64": "aGk"}], "one of the two"),
        ([{}], "one of the two"),
        ([{"base64": "aGk", "window": "skin"}], "window"),
    ],
)
async def test_what_is_wrong_is_an_error_that_an_agent_can_mend(images, says, fake):
    """In words, and without the file's name."""
    gateway = fake(problem(422, "No such language."))
    async with AsyncClient(gateway.url) as client, Client(server(client, True)) as agent:
        said = await agent.call_tool("ask_panel", {"question": "Is it?", "images": images})
    assert said.is_error and says in said.content[0].text and "name.png" not in said.content[0].text


async def test_over_http_it_reads_no_files(vllm, gateway, tmp_path):
    """Whoever asks from elsewhere has no business with this machine's."""
    (tmp_path / "scan.png").write_bytes(picture())
    encoded = base64.urlsafe_b64encode(picture()).decode().rstrip("=")
    app = server(AsyncClient(gateway([vllm("yes")])), False).streamable_http_app()

    with listening(app) as url:
        async with Client(f"{url}/mcp") as agent:
            [panel] = (await agent.read_resource(PANEL_URI)).contents
            read, sent = [
                await agent.call_tool("ask_panel", {"question": "Is it?", "images": [image]})
                for image in ({"path": str(tmp_path / "scan.png")}, {"base64": encoded})
            ]

    assert [worker["name"] for worker in json.loads(panel.text)["workers"]] == ["w0"]
    assert read.is_error and "send the image as base64" in read.content[0].text
    assert sent.structured_content["answer"] == "yes"


async def test_over_stdio_it_reads_files_wherever_it_is_started(vllm, gateway, tmp_path):
    """In a folder with a gateway and models of its own, too."""
    for name in ("gateway", "models", "consilium"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise SystemExit('not ours')")
    (tmp_path / "scan.dcm").write_bytes(dicom_of(np.arange(32 * 32, dtype="i2").reshape(32, 32)))
    url = gateway([vllm("yes")])
    arguments = ["-P", "-m", "services.cli", "mcp", "--gateway", url]
    program = StdioServerParameters(
        command=sys.executable, args=arguments, cwd=tmp_path, env=dict(os.environ)
    )
    case = {"question": "Is it?", "images": [{"path": "scan.dcm", "window": [40, 400]}]}

    async with Client(program) as agent:
        said = await agent.call_tool("ask_panel", case)

    assert said.structured_content["answer"] == "yes"
