"""What is going to be made of a model that is not here yet, to be said before it is downloaded."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pandacli.engine.device import pick_device, pick_dtype
from pandacli.engine.plan import pick_plan
from pandacli.model.config import VideoPandaConfig
from pandacli.store.convert import copy_bytes

if TYPE_CHECKING:
    from pandacli.store.copies import Form


@dataclass(frozen=True)
class Forecast:
    """The quantised copy that a model will be run from.

    Args:
        form: How its weights will be stored.
        bytes: What it will take on the disk, nearly.
    """

    form: "Form"
    bytes: int


def forecast(quant: str, engine: str, device: str) -> Forecast | None:
    """The copy that `prepare` will make of a published model; None where it needs none.

    All models that are published have the sizes that `VideoPandaConfig` begins with.

    Raises:
        PandaError: As `prepare`, of what has nothing to do with the files.
    """
    config, place = VideoPandaConfig(), pick_device(device)
    form = pick_plan(quant, engine, config, place, pick_dtype(place)).form
    return Forecast(form, copy_bytes(config, form)) if form else None
