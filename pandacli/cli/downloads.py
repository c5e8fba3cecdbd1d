"""Getting a model ready: the steps that `panda pull` takes, and the first `panda ask` offers."""

import os
from dataclasses import replace
from typing import TYPE_CHECKING

from pandacli.errors import UsageError
from pandacli.terminal.console import Screen
from pandacli.terminal.report import size

if TYPE_CHECKING:
    from pandacli.checkpoints import KnownModel


def go_offline() -> None:
    """Keeps this process, and all that is imported from here on, off the network."""
    os.environ["HF_HUB_OFFLINE"] = "1"


def get_ready(
    name: str,
    screen: Screen,
    *,
    quant: str,
    engine: str,
    device: str,
    drop_original: bool = False,
) -> None:
    """Downloads a model if need be, and quantises it.

    Args:
        name: A known name, or a checkpoint folder.
        screen: Where to say how it goes.
        quant: What to quantise to: auto, 4bit, 8bit or none.
        engine: What is to compute it.
        device: What it is to run on.
        drop_original: Whether to delete the download once there is a quantised copy.

    Raises:
        ModelError: It cannot be downloaded, or is damaged.
        UsageError: The original cannot be dropped.
    """
    from pandacli import checkpoints
    from pandacli.terminal.progress import Bars

    known = checkpoints.MODELS.get(name)
    checkpoints.invalidate_digests(name)
    if drop_original:
        _check_droppable(name, quant)
    if known and checkpoints.needs_hub(known):
        _bring(known, screen, quant=quant, engine=engine, device=device)
    checkpoints.resolve(name)  # before torch is imported, which takes seconds
    with screen.status("preparing"):
        from pandacli.inference.planning.loader import prepare
    with Bars(screen) as bars:
        copy = prepare(name, quant=quant, engine=engine, device=device, report=bars.converting)
    if drop_original and known and copy:
        checkpoints.remove_download(known)
    elif drop_original:
        screen.notice("the download is kept: it is run as it is, and nothing else would be left")
    if copy:
        screen.notice(f"{name} is ready: {size(copy.bytes)} in {copy.folder}")
    elif known and known.repo is None:
        screen.notice(f"{name} is already here ({size(checkpoints.find_model(name).bytes)})")
    else:
        screen.notice(f"{name} is ready, as it was published")


def _check_droppable(name: str, quant: str) -> None:
    from pandacli import checkpoints

    known = checkpoints.MODELS.get(name)
    found = checkpoints.find_checkpoint(known) if known else None
    if found and found.kind == "home":
        raise UsageError(
            f"--drop-original: {found.folder} is not from panda, and stays",
            "delete it yourself after:",
            command=f"panda pull {name}",
        )
    if known is None or known.repo is None:
        raise UsageError(f"--drop-original: {name} was not downloaded")
    if quant == "none":
        raise UsageError("--drop-original: nothing else would be left")


def _bring(known: "KnownModel", screen: Screen, *, quant: str, engine: str, device: str) -> None:
    """Downloads a model, unless a copy that was made of what is published is all it takes."""
    from pandacli import checkpoints
    from pandacli.terminal.listings import UNKNOWN_COMMIT
    from pandacli.terminal.progress import Bars

    with screen.status(f"asking for {known.name}"):
        plan = checkpoints.plan_download(known)
    with screen.status("preparing"):
        from pandacli.inference.planning.planner import forecast

        kept = checkpoints.standalone_artifacts(known, plan.commit)
        coming = forecast(quant, engine, device, kept)
    if coming and any(copy.form == coming.form for copy in kept):
        screen.notice(f"{known.name} is already here, as it is published: nothing to download")
        return
    copied = ""
    if coming:
        to_come = checkpoints.artifact_bytes_missing(known, plan.commit, coming.form, coming.bytes)
        plan = replace(plan, artifact_bytes=to_come)
        copied = f", and {size(to_come)} for a quantised copy" if to_come else ""
    screen.notice(
        f"{known.name} is {size(plan.bytes)}, {size(plan.missing_bytes)} of it still to"
        f" come{copied}; {size(plan.free_bytes)} are free in {plan.folder}"
    )
    if not plan.is_known:
        screen.notice(f"commit {plan.commit[:12]} is {UNKNOWN_COMMIT[plan.has_known_weights]}")
    with Bars(screen) as bars:
        checkpoints.download(plan, bars)


def offer_download(name: str, screen: Screen, *, quant: str, engine: str, device: str) -> None:
    """Where a person is there to ask and the model is not, offers to get it."""
    from pandacli import checkpoints

    known = checkpoints.MODELS.get(name)
    if (
        known is None
        or checkpoints.is_available(known)
        or checkpoints.is_offline()
        or not screen.is_interactive
    ):
        return
    whole = size(known.download_bytes)
    if screen.confirm(f"{name} is not on this machine; download {whole} from Hugging Face?"):
        get_ready(name, screen, quant=quant, engine=engine, device=device)
