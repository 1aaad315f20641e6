"""Everything that a panel needs from a network, in a folder to be carried to a machine without one.

`$CONSILIUM_WEIGHTS` names it there (models.assets).
"""

from collections.abc import Callable
from pathlib import Path

from gateway.settings import Settings
from models.assets import gather, gather_libraries, write_sums
from models.exported import for_everyone
from services.running.engine import bases, local_seats


def fetch(settings: Settings, folder: Path, report: Callable[[str], None]) -> int:
    """Gathers every seat's base weights, and the libraries; returns the bytes in `folder`.

    What is there already is checked and left. Models that panel.toml names by a folder travel as
    they are: they are reported, not copied.

    Raises:
        EngineError: an exported worker that does not exist or cannot be read.
        AssetError: something that cannot be had, or is not what it should be.
    """
    references = {base for name in local_seats(settings) for base in bases(settings, name)}
    for reference in sorted(references):
        if Path(reference).is_dir():
            report(f"{reference} is a folder: carry it along")
        else:
            gather(reference, folder, report)
    gather_libraries(folder, report)
    write_sums(folder)
    for_everyone(folder)
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
