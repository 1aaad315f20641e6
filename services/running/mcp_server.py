"""The panel for agents of others, over the Model Context Protocol: one tool that asks it, and one
resource, who sits there."""

from importlib.metadata import version
from typing import Annotated, Any, Literal

from mcp.server import MCPServer
from mcp.server.mcpserver.exceptions import ResourceError, ToolError
from pydantic import BaseModel, Field

from consilium import AsyncClient, GatewayError
from consilium.verdict import Dissent, PredictionSet, Verdict
from gateway.contract import AskedWindow, Language, Modality
from gateway.verdict.remarks import is_unfamiliar

INSTRUCTIONS = (
    "A panel of fine-tuned models answers a question about one or more medical images. Tell your "
    "user the dissent, and before the answer whether the case is unfamiliar, or that this is not "
    "known. Research software, not "
    "a medical device: no answer is a diagnosis."
)
PANEL_URI = "consilium://panel"


class Picture(BaseModel):
    """PNG, JPEG, WebP, TIFF or DICOM, by its path or as base64."""

    path: str | None = Field(default=None, description="On the machine where this server runs.")
    base64: str | None = Field(default=None, description="What the file holds.")
    frame: int | None = Field(default=None, ge=1, description="Of a DICOM, from 1.")
    window: AskedWindow | None = Field(
        default=None, description="Of a CT: lung, bone, …; or [centre, width]."
    )
    view: str = Field(default="", description="What it is, such as frontal; the workers read it.")


class WorkerSaid(BaseModel):
    worker: str
    answer: str | None = Field(description="null: it said nothing that counts.")
    confidence: float | None = Field(description="Raw, not calibrated.")


class Opinion(BaseModel):
    """What the panel says. All figures are from 0 to 1; null is not known."""

    status: Literal["answered", "abstained"]
    answer: str | None = Field(description="null where the panel abstains.")
    best_guess: str | None = Field(description="Of a panel that abstains.")
    agreement: float | None = Field(description="The answer's weight among all that were given.")
    confidence: float | None = Field(description="The probability that the answer is right.")
    dissent: list[Dissent] = Field(description="Every other answer, who gave it, and its weight.")
    unfamiliar: bool | None = Field(
        description="The case is of another sort than those the panel was calibrated on: no "
        "confidence holds for it. null: nobody tells."
    )
    why_unfamiliar: str | None = Field(
        description="What is unfamiliar, or why that is not known: a confidence was then learned "
        "on cases that may be of another sort."
    )
    grounding: float | None = Field(description="How far the answer depends on the images.")
    prediction_set: PredictionSet | None = Field(description="Where `coverage` asks for it.")
    workers: list[WorkerSaid]


def server(client: AsyncClient, reads_paths: bool) -> MCPServer:
    """The server; without `reads_paths` images come as base64 alone: whoever asks from elsewhere
    has no business with this machine's files."""
    made = MCPServer(
        "consilium",
        instructions=INSTRUCTIONS,
        version=version("consilium"),
        log_level="WARNING",  # a line for each call is the gateway's to write
    )

    @made.tool()
    async def ask_panel(
        question: str,
        images: list[Picture],
        language: Annotated[Language | None, Field(description="null: the question's own.")] = None,
        context: Annotated[str | None, Field(description="Clinical context.")] = None,
        modality: Annotated[Modality | None, Field(description="If it is known.")] = None,
        choices: Annotated[list[str] | None, Field(description="The only answers allowed.")] = None,
        slices: Annotated[
            str | None,
            Field(
                description="The images are the files of one series: even, 40-120, or 12,40,88. "
                "null: each is a picture; of a zip or a NIfTI even."
            ),
        ] = None,
        workers: Annotated[
            list[str] | None, Field(description=f"Ask only these; {PANEL_URI} names all.")
        ] = None,
        rounds: Annotated[
            Literal[1, 2], Field(description="2: who differ read each other and may revise.")
        ] = 1,
        max_risk: Annotated[
            float | None, Field(description="Abstain where the answer is likelier to be wrong.")
        ] = None,
        coverage: Annotated[
            float | None,
            Field(description="Also a set that holds the right answer in such a part of cases."),
        ] = None,
    ) -> Opinion:
        """Ask a panel of models a question about one or more medical images."""
        try:
            verdict = await client.ask(
                [_given(picture, reads_paths) for picture in images],
                question,
                language=language,
                context=context,
                modality=modality,
                choices=choices,
                views=[picture.view for picture in images],
                slices=slices,
                workers=workers,
                rounds=rounds,
                max_risk=max_risk,
                coverage=coverage,
            )
        except GatewayError as error:
            raise ToolError(str(error)) from error
        except OSError as error:
            raise ToolError(f"No image can be read there ({error.strerror}).") from error
        return _opinion(verdict)

    @made.resource(PANEL_URI, name="panel", mime_type="application/json")
    async def panel() -> str:
        """Who sits on the panel, how well they are, and what a case may hold."""
        try:
            return (await client.panel()).model_dump_json()
        except GatewayError as error:
            raise ResourceError(str(error)) from error

    return made


def _given(picture: Picture, reads_paths: bool) -> dict[str, Any]:
    """As the client takes it; raises ToolError."""
    shown = {"frame": picture.frame, "window": picture.window}
    if picture.base64 and not picture.path:
        return {"base64": picture.base64, **shown}
    if picture.path and not picture.base64:
        if reads_paths:
            return {"data": picture.path, **shown}
        raise ToolError("No file of this server's machine is read: send the image as base64.")
    raise ToolError("Give each image as a path or as base64, one of the two.")


def _opinion(verdict: Verdict) -> Opinion:
    return Opinion(
        status="abstained" if verdict.answer is None else "answered",
        answer=verdict.answer,
        best_guess=verdict.best_guess,
        agreement=verdict.agreement,
        confidence=verdict.confidence,
        dissent=list(verdict.dissent),
        unfamiliar=is_unfamiliar(verdict),
        why_unfamiliar=verdict.familiarity.why if verdict.familiarity else None,
        grounding=verdict.grounding,
        prediction_set=verdict.prediction_set,
        workers=[
            WorkerSaid(worker=each.worker, answer=each.text, confidence=each.confidence)
            for each in verdict.answers
        ],
    )
