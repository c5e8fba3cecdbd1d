"""What is going to be made of a model that is not here yet, to be said before it is downloaded."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from pandacli.engine.device import pick_devices
from pandacli.engine.plan import pick_plan
from pandacli.model.config import VideoPandaConfig
from pandacli.store.convert import copy_bytes

if TYPE_CHECKING:
    from pandacli.store.copies import Copy, Form


@dataclass(frozen=True)
class Forecast:
    """The quantised copy that a model will be run from.

    Args:
        form: How its weights will be stored.
        bytes: What it will take on the disk, nearly.
    """

    form: "Form"
    bytes: int


def forecast(quant: str, engine: str, device: str, kept: "Iterable[Copy]" = ()) -> Forecast | None:
    """The copy that `prepare` will take, or make, of a published model; None where it needs none.

    All models that are published have the sizes that `VideoPandaConfig` begins with.

    Args:
        quant: As of `Panda.load`, and so are engine and device.
        engine: See there.
        device: See there.
        kept: The copies that are here, where the checkpoint itself is not; one of them is chosen if
            any will do.

    Raises:
        PandaError: As `prepare`, of what has nothing to do with the files.
    """
    config = VideoPandaConfig()
    forms = frozenset(cast("Form", copy.form) for copy in kept)
    form = pick_plan(quant, engine, config, pick_devices(device), kept=forms or None).form
    return Forecast(form, copy_bytes(config, form)) if form else None
