"""From a model's name to weights in memory: the stored form that is wanted, made where it lacks."""

from typing import TYPE_CHECKING

import torch

from pandacli import store
from pandacli.engine.device import pick_device, pick_dtype
from pandacli.engine.loading import load_int8, load_model
from pandacli.engine.plan import Plan, pick_plan
from pandacli.model.checkpoint import read_config
from pandacli.store.convert import Report, convert, describe_source
from pandacli.store.copies import Copy, find_copy

if TYPE_CHECKING:
    from pandacli.model.modeling import VideoPandaForConditionalGeneration
    from pandacli.store.copies import Form


def prepare(
    model: str,
    *,
    quant: str = "auto",
    engine: str = "auto",
    device: str = "auto",
    report: Report | None = None,
) -> Copy | None:
    """Make the quantised copy that `Panda.load` would, with the same arguments.

    Returns:
        The copy; None where the model would be loaded from its checkpoint as it is.

    Raises:
        PandaError: As `Panda.load`.
    """
    resolved = store.resolve(model)
    place = pick_device(device)
    plan = pick_plan(quant, engine, read_config(resolved.folder), place, pick_dtype(place))
    return _copy(resolved, plan.form, report) if plan.form else None


def load_plan(
    resolved: store.ResolvedModel,
    plan: Plan,
    device: torch.device,
    dtype: torch.dtype,
    report: Report | None = None,
) -> "VideoPandaForConditionalGeneration":
    """Load a model as a plan says, from a copy that is made if there is none yet.

    Raises:
        ModelError: The model is damaged, or its copy cannot be written.
        DeviceError: The device has too little memory.
    """
    if plan.form is None:
        return load_model(resolved.folder, device, dtype)
    folder = _copy(resolved, plan.form, report).folder
    return load_int8(folder) if plan.engine == "torch" else load_model(folder, device, dtype)


def _copy(resolved: store.ResolvedModel, form: "Form", report: Report | None) -> Copy:
    source = describe_source(resolved)
    return find_copy(source.digest, form) or convert(source, form, report)
