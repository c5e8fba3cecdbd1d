"""`panda models`, `info`, `pull` and `rm`: the models on this machine."""

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

from pandacli.cli import options
from pandacli.cli.startup import Loading, go_offline
from pandacli.errors import UsageError
from pandacli.terminal.console import Screen
from pandacli.units import size

if TYPE_CHECKING:
    from pandacli.checkpoints import KnownModel

REMOVABLE = ("4bit", "8bit", "none")  # values of `panda rm --quant`


def models(json: options.Json = False, _debug: options.Debug = False) -> None:
    """List installed and available models.

    A model that is here has a line for each form of it: as published, and in
    fewer bits. Piped, there are tabs between name, quantisation, size, licence
    and path.
    """
    from pandacli.checkpoints.inventory import inventory
    from pandacli.terminal.listings import model_record, show_models

    screen = Screen()
    found = inventory()
    if json:
        screen.json({"models": [model_record(model) for model in found]})
    else:
        show_models(found, screen)
    for model in found:
        if model.leftovers:
            left = f"{size(model.leftover_bytes)} of unfinished or damaged copies of {model.name}"
            screen.notice(f"{left} can be removed with:", f"panda rm {model.name}")


def info(
    model: options.ModelArgument, json: options.Json = False, _debug: options.Debug = False
) -> None:
    """Show one model: sizes, files, copies.

    Nothing is loaded. The digests are those of the files that panda pull has
    checked.
    """
    from pandacli.checkpoints.inventory import find_model
    from pandacli.checkpoints.resolve import describe_checkpoint
    from pandacli.terminal.listings import detailed_record, show_model

    screen = Screen()
    found = find_model(model)
    described = describe_checkpoint(found.checkpoint.folder) if found.checkpoint else None
    if json:
        screen.json(detailed_record(found, described))
    else:
        show_model(found, described, screen)


_DROPPED = "Delete the download once it is quantised."
_DROP_ORIGINAL = options.plain(options.FILES, "--drop-original/--keep-original", _DROPPED)


def pull(
    model: options.ModelArgument,
    quant: options.Quant = "auto",
    engine: options.Engine = "auto",
    device: options.Device = "auto",
    offline: options.Offline = False,
    drop_original: Annotated[bool, _DROP_ORIGINAL] = False,
    quiet: options.Quiet = False,
    _debug: options.Debug = False,
) -> None:
    """Download a model and quantise it, once.

    Resumes an interrupted download, and checks every file. Files go to the
    Hugging Face cache; its variables (HF_HOME, HF_TOKEN, HF_ENDPOINT) hold.
    Pulled again, a model is brought up to date.
    """
    if offline:
        go_offline()
    from pandacli.inference.spec import RunSpec

    spec = RunSpec(model, quant, engine, device)
    install(Loading(spec), Screen(quiet=quiet), drop_original=drop_original)


_REMOVED = "Only the 4bit or 8bit copy, or only the download (none)."


def rm(
    model: options.ModelArgument,
    quant: Annotated[str | None, options.plain("Removal", "--quant KIND", _REMOVED)] = None,
    yes: Annotated[bool, options.plain("Removal", "-y, --yes", "Do not ask.")] = False,
    quiet: options.Quiet = False,
    _debug: options.Debug = False,
) -> None:
    """Remove a model from this machine.

    Deletes its files in the Hugging Face cache, whichever program downloaded
    them, and its copies in fewer bits, finished or not. A checkpoint folder
    stays; only the copies that were made from it are deleted.
    """
    from pandacli.checkpoints.inventory import plan_removal, remove

    screen = Screen(quiet=quiet)
    # not PANDA_QUANT or the file: a default for answers must not choose what is deleted
    if quant is not None and quant not in REMOVABLE:
        raise UsageError(f"--quant: {quant!r} is not one of {', '.join(REMOVABLE)}")
    removal = plan_removal(model, quant)
    parts = ["the download"] if removal.download else []
    parts += [f"the {copy.quant} copy ({copy.form})" for copy in removal.artifacts]
    parts += [f"an unfinished or damaged copy ({left.form})" for left in removal.leftovers]
    what = f"{' and '.join(parts)} of {model}, {size(removal.bytes)}"
    if not yes:
        if not screen.is_interactive:
            raise UsageError(f"cannot ask whether to delete {what}", "add --yes to delete it")
        if not screen.confirm(f"delete {what}?"):
            screen.notice("nothing was deleted")
            return
    remove(removal)
    screen.notice(f"deleted {what}")


def install(wanted: Loading, screen: Screen, *, drop_original: bool = False) -> None:
    """Download a model if need be, and quantise it."""
    from pandacli import checkpoints
    from pandacli.checkpoints import inventory
    from pandacli.terminal.progress import Bars

    name = wanted.name
    known = checkpoints.MODELS.get(name)
    inventory.invalidate_digests(name)
    if drop_original:
        _check_droppable(known, wanted)
    if known and inventory.needs_hub(known):
        _download(known, wanted, screen)
    wanted.resolve()  # before torch is imported, which takes seconds
    with screen.status("preparing"):
        from pandacli.inference.planning.loader import make_artifact

        plan = wanted.plan()
    with Bars(screen) as bars:
        copy = make_artifact(plan, bars.converting)
    if drop_original and known and copy:
        inventory.remove_download(known)
    elif drop_original:
        screen.notice("the download is kept, because the model runs from it")
    if copy:
        screen.notice(f"{name} is ready: {size(copy.bytes)} in {copy.folder}")
    elif known and known.repo is None:
        screen.notice(f"{name} is already here ({size(inventory.find_model(name).bytes)})")
    else:
        screen.notice(f"{name} is ready, as it was published")


def _check_droppable(known: "KnownModel | None", wanted: Loading) -> None:
    from pandacli.checkpoints.resolve import find_checkpoint

    found = find_checkpoint(known) if known else None
    if found and found.kind == "home":
        raise UsageError(
            f"--drop-original: {found.folder} is not from panda, and stays",
            "delete it yourself after:",
            command=f"panda pull {wanted.name}",
        )
    if known is None or known.repo is None:
        raise UsageError(f"--drop-original: {wanted.name} was not downloaded")
    if wanted.spec.quant == "none":
        raise UsageError("--drop-original: nothing else would be left")


def _download(known: "KnownModel", wanted: Loading, screen: Screen) -> None:
    """Download a model, unless a copy of the current commit is all that is needed."""
    from pandacli.checkpoints.download import download, plan_download
    from pandacli.checkpoints.inventory import artifact_bytes_missing, standalone_artifacts
    from pandacli.terminal.listings import UNKNOWN_COMMIT
    from pandacli.terminal.progress import Bars

    with screen.status(f"asking for {known.name}"):
        plan = plan_download(known)
    with screen.status("preparing"):
        from pandacli.inference.planning.planner import forecast

        kept = standalone_artifacts(known, plan.commit)
        coming = forecast(wanted.spec, kept)
    if coming and any(copy.form == coming.form for copy in kept):
        screen.notice(f"{known.name} is already here, as it is published: nothing to download")
        return
    for_copy = ""
    if coming:
        missing = artifact_bytes_missing(known, plan.commit, coming.form, coming.bytes)
        plan = replace(plan, artifact_bytes=missing)
        for_copy = f", and {size(missing)} for a quantised copy" if missing else ""
    screen.notice(
        f"{known.name} is {size(plan.bytes)}, {size(plan.missing_bytes)} of it still to"
        f" come{for_copy}; {size(plan.free_bytes)} are free in {plan.folder}"
    )
    if not plan.is_known:
        screen.notice(f"commit {plan.commit[:12]} is {UNKNOWN_COMMIT[plan.has_known_weights]}")
    with Bars(screen) as bars:
        download(plan, bars)
