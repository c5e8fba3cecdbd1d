"""From a model's name to weights in memory: the stored form that is wanted, made where it lacks."""

from typing import TYPE_CHECKING, cast

import torch

from pandacli import store
from pandacli.engine.device import memory_errors, pick_devices
from pandacli.engine.language_model import LanguageModel
from pandacli.engine.loading import load_copy, load_model
from pandacli.engine.plan import Plan, pick_plan
from pandacli.engine.quiet import quiet_libraries
from pandacli.engine.torch_llama import TorchLlama
from pandacli.errors import ModelError
from pandacli.model.checkpoint import read_config
from pandacli.store.convert import Report, convert, describe_source
from pandacli.store.copies import GGUF_FILE, QUANTS, Copy, copies_of, find_copy
from pandacli.store.current import make_current

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

    Copies of what a known model was before are deleted.

    Returns:
        The copy; None where the model would be loaded from its checkpoint as it is.

    Raises:
        PandaError: As `Panda.load`.
    """
    resolved = store.resolve(model)
    plan = plan_for(resolved, quant, engine, device)
    if plan.form is None:
        return None
    with memory_errors(plan.hint):
        copy = _copy(resolved, plan.form, report)
    return copy if resolved.kind == "copy" else make_current(copy, describe_source(resolved).commit)


def is_ready(
    model: str, *, quant: str = "auto", engine: str = "auto", device: str = "auto"
) -> bool:
    """Whether `Panda.load`, with the same arguments, finds all it takes on the disk.

    It does not where a race of engines that has not been run yet is to say what it takes.

    Raises:
        PandaError: As `Panda.load`.
    """
    resolved = store.resolve(model)
    plan = plan_for(resolved, quant, engine, device, measure=False)
    if plan.guessed:
        return False
    if plan.form is None or resolved.kind == "copy":
        return True
    return find_copy(describe_source(resolved).digest, plan.form) is not None


def plan_for(
    resolved: store.ResolvedModel, quant: str, engine: str, device: str, *, measure: bool = True
) -> Plan:
    """How a model is to be run: as `pick_plan`, by what is left of it where that is only copies.

    Raises:
        PandaError: As `pick_devices` and `pick_plan`.
        ModelError: Only copies with other bits are left.
    """
    devices = pick_devices(device)
    config = read_config(resolved.folder)
    if resolved.kind != "copy":
        return pick_plan(quant, engine, config, devices, measure=measure)
    copies = copies_of(resolved.name)
    if quant not in ("auto", *(copy.quant for copy in copies)):
        raise _dropped(resolved.name, quant)
    # bitsandbytes copies carry it, GGUF copies do not; the plan is for the unquantised sizes
    config.__dict__.pop("quantization_config", None)
    kept = frozenset(cast("Form", copy.form) for copy in copies)
    plan = pick_plan(quant, engine, config, devices, kept=kept, measure=measure)
    if plan.form not in kept:
        raise _dropped(resolved.name, plan.quant)
    return plan


def load_plan(
    resolved: store.ResolvedModel, plan: Plan, report: Report | None = None
) -> tuple["VideoPandaForConditionalGeneration", LanguageModel]:
    """Load a model as a plan says, from a copy that is made if there is none yet.

    Returns:
        The model, and what computes its Llama. Where that is llama.cpp, the model has no layers.

    Raises:
        ModelError: The model is damaged, or its copy cannot be written.
        DeviceError: The device has too little memory.
    """
    if plan.form:
        with memory_errors(plan.hint):
            folder = _copy(resolved, plan.form, report).folder
    else:
        folder = resolved.folder
    if plan.engine == "llama":
        from pandacli.engine.llama_cpp import LlamaCpp
        from pandacli.store.gguf_export import check_gguf

        model = load_copy(folder, plan.hint, layers=False)
        check_gguf(folder / GGUF_FILE, read_config(folder))
        context, threads = model.config.max_position_embeddings, torch.get_num_threads()
        return model, LlamaCpp(folder / GGUF_FILE, context=context, threads=threads)
    if plan.engine == "torch" and plan.form:
        model = load_copy(folder, plan.hint)
    else:
        model = load_model(folder, plan.placement, plan.dtype, plan.hint)
    # quantised layers are far coarser than half precision, and float32 would be twice the disk
    half_prefix = plan.quant != "none" and plan.dtype == torch.float32
    return model, TorchLlama(model, half_prefix=half_prefix)


def _copy(resolved: store.ResolvedModel, form: "Form", report: Report | None) -> Copy:
    if resolved.kind == "copy":
        for copy in copies_of(resolved.name):
            if copy.form == form:
                return copy
        raise _dropped(resolved.name, QUANTS[form])
    source = describe_source(resolved)
    if found := find_copy(source.digest, form):
        return found
    with quiet_libraries():
        made = convert(source, form, report)
    return make_current(made, source.commit)


def _dropped(name: str, quant: str) -> ModelError:
    return ModelError(
        f"of {name} other copies are here than this needs, and not the original",
        "get it with:",
        command=f"panda pull {name} --quant {quant}",
    )
