"""Getting a model ready: the steps that `panda pull` takes, and the first `panda ask` offers."""

import os

from pandacli.errors import UsageError
from pandacli.ui.console import Screen
from pandacli.ui.report import size


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
    from pandacli import store
    from pandacli.ui.progress import Bars

    known = store.MODELS.get(name)
    if drop_original and (known is None or known.repo is None or quant == "none"):
        reason = "nothing else would be left" if quant == "none" else f"{name} was not downloaded"
        raise UsageError(f"--drop-original: {reason}")
    if known and store.wants_download(known):
        with screen.stage(f"asking for {name}"):
            plan = store.plan_download(known)
        screen.notice(
            f"{name} is {size(plan.bytes)}, {size(plan.missing_bytes)} of it still to come;"
            f" {size(plan.free_bytes)} are free in {plan.folder}"
        )
        with Bars(screen) as bars:
            store.download(plan, bars)
    store.resolve(name)  # before torch is imported, which takes seconds
    with screen.stage("preparing"):
        from pandacli.engine.preparing import prepare
    with Bars(screen) as bars:
        copy = prepare(name, quant=quant, engine=engine, device=device, report=bars.converting)
    if drop_original and known and copy:
        store.remove_download(known)
    form = f"{size(copy.bytes)} in {copy.folder}" if copy else "not quantised"
    screen.notice(f"{name} is ready: {form}")


def offer_download(name: str, screen: Screen, *, quant: str, engine: str, device: str) -> None:
    """Where a person is there to ask and the model is not, offers to get it."""
    from pandacli import store

    known = store.MODELS.get(name)
    if known is None or store.is_ready(known) or store.is_offline() or not screen.can_ask:
        return
    whole = size(known.download_bytes)
    if screen.confirm(f"{name} is not on this machine; download {whole} from Hugging Face?"):
        get_ready(name, screen, quant=quant, engine=engine, device=device)
