"""Is a panel file ready to be served? One line per seat, before anything is fetched or started."""

from collections.abc import Callable

from gateway.settings import Settings
from models.assets import AssetError, at_hand, weights_dir
from services.running.engine import EngineError, arguments_of, bases, every_seat, local_seats


def check(settings: Settings, report: Callable[[str], None]) -> bool:
    """Whether every seat can be served, as far as this machine can tell; `report` hears why."""
    here = local_seats(settings)
    good = True
    for name, seat in every_seat(settings).items():
        if name not in here:
            report(f"{name}: served at {seat.url}, which is not asked here")
            continue
        try:
            arguments_of(settings, name)
            missing = [base for base in bases(settings, name) if at_hand(base) is None]
        except (AssetError, EngineError) as error:
            good = False
            report(f"{name}: no: {error}")
            continue
        if missing and weights_dir():
            good = False
            report(
                f"{name}: no: {', '.join(missing)} not in {weights_dir()}; gather it where there "
                "is a network (consilium fetch --to DIR), or unset CONSILIUM_WEIGHTS"
            )
        elif missing:
            report(f"{name}: ok: {seat.model}; still to be fetched: {', '.join(missing)}")
        else:
            report(f"{name}: ok: {seat.model}, all of it on this machine")
    return good
