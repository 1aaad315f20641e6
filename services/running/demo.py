"""What a person sees: the verdict as a table, and the demo that asks for one."""

from collections.abc import Callable
from pathlib import Path

from pydicom.data import get_testdata_file
from rich.console import Console
from rich.table import Column, Table

from consilium import Verdict, ask
from consilium.verdict import OfImage
from gateway.settings import Settings
from gateway.verdict.remarks import of_familiarity, of_grounding
from models.assets import cache_dir
from services.running.stack import gateway_url, running, whole_panel

DISCLAIMER = "Research software, not a medical device. Not for diagnosis."
REMEMBERED = 3  # cases that a person is shown of those that an answer goes by
# Of pydicom's wheel: real slices of a CT and of an MR, without anything that names a person.
CASES = (
    ("CT_small.dcm", "What modality is used to take this image?"),
    ("MR_small.dcm", "What modality is used to take this image?"),
    ("MR_small.dcm", "¿Qué modalidad se usó para obtener esta imagen?"),
    ("CT_small.dcm", "这张图片的成像方式是什么？"),
)


def run(settings: Settings, panel_file: Path, gateway_port: int, console: Console) -> None:
    """Bring the panel up, ask it each of CASES, show what it said, take it down."""
    logs, url = cache_dir() / "logs", gateway_url(gateway_port)
    launches = whole_panel(settings, panel_file, gateway_port, logs, console.print)
    with running(launches, logs, console.print):
        for name, question in CASES:
            image = Path(str(get_testdata_file(name, download=False)))
            console.print(f"\nPOST {url}/vqa  {name}: {question}\n")
            show(ask([image], question, url=url), console.print)
        console.print("\nstopping everything")


def show(verdict: Verdict, put: Callable[[object], None]) -> None:
    if said := of_familiarity(verdict):
        put(said)
    named = Column("worker", no_wrap=True)  # whole, where there is little room: answers wrap
    table = Table(named, "answer", "confidence (raw)", "weight", "seconds")
    for answer in verdict.answers:
        table.add_row(
            answer.worker if answer.round == 1 else f"{answer.worker}, round {answer.round}",
            answer.text if answer.error is None else f"{answer.error.kind}: {answer.error.detail}",
            _figure(answer.confidence),
            _figure(answer.weight),
            _figure(answer.seconds),
        )
    put(table)
    for answer in verdict.answers:
        if answer.by_image:
            put(f"{answer.worker} of each image: {', '.join(map(_of_image, answer.by_image))}")
        for case in answer.remembers[:REMEMBERED]:
            put(
                f"{answer.worker} remembers {case.id}, {case.likeness:.2f} alike: "
                f"{case.question} {case.answer}"
            )
    if verdict.status == "abstained":
        put(f"Abstained; the best guess is: {verdict.best_guess}")
    else:
        put(f"Verdict: {verdict.answer}")
    why = f" ({verdict.summary.why})" if verdict.summary.why else ""
    put(
        f"Agreement {_figure(verdict.agreement)}, confidence {_figure(verdict.confidence)}, "
        f"worded by {verdict.summary.by}{why}, {verdict.seconds:.2f} s"
        f"{', from the cache' if verdict.cached else ''}"
    )
    if verdict.grounding is not None:
        put(" ".join(filter(None, [f"Grounding {verdict.grounding:.2f}.", of_grounding(verdict)])))
    if found := verdict.prediction_set:
        put(
            f"No set of answers is claimed: {found.why}"
            if found.answers is None
            else f"One of these is right in {found.coverage:.0%} of such cases: "
            + "; ".join(f"{each.text} ({each.share:.2f})" for each in found.answers)
        )
    for other in verdict.dissent:
        put(f"Dissent: {other.text} ({', '.join(other.workers)}, weight {other.weight:.2f})")
    if not verdict.dissent:
        put("Dissent: none")
    if verdict.stored:
        put(
            f"Not stored in the archive: {verdict.stored.error}"
            if verdict.stored.error
            else f"Stored in the archive as {verdict.stored.instance}"
        )
    put(DISCLAIMER)


def _of_image(said: OfImage) -> str:
    return f"{said.image}: {said.text} ({_figure(said.confidence)})"


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"
