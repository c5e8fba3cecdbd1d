"""Train `tiny`: `python -m training.train`. Interrupt it at any time; the same command resumes.

The data is rendered on the fly. The run's folder holds the state to resume from (`state.pt`), the
averaged model (`model/`) and a plot of loss and accuracy (`progress.png`).
"""

import argparse
import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch.multiprocessing.spawn import start_processes
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader
from transformers.utils import logging as transformers_logging

from pandacli.modeling.configuration_videopanda import VideoPandaConfig
from pandacli.modeling.modeling_videopanda import VideoPandaForConditionalGeneration
from pandacli.modeling.tokenization_videopanda import VideoPandaTokenizer
from training.data import Batch, TrainingData
from training.losses import Losses, ModelWithHeads
from training.vocabulary import train_vocabulary

IMAGE_SIZE = 168
HIDDEN_SIZE = 192
VIDEO_HIDDEN_SIZE = 192

WARM_UP_STEPS = 100
EASY_STEPS = 400
"""Steps with plain scenes of one or two shapes only."""
NORM_STEPS = 300
"""BatchNorm statistics are frozen after this step: batches differ in aspect ratio, and the finished
model uses one set of statistics for all of them."""
IMAGE_PART = 0.45
"""First part of the training, in which three of four batches are single images: recognising shapes
takes longest to learn, and a batch of images shows eight times as many as one of clips."""
HEAD_SCALE = 4.0
"""Factor of the head's learning rate in fine-tuning, which teaches words rather than facts."""
COOL_DOWN = 0.45
"""Last part of the training, in which the learning rate decays to zero."""


@dataclass
class History:
    """One point of the plot every `--report` steps, averaged over them."""

    step: list[int] = field(default_factory=list)
    answer_loss: list[float] = field(default_factory=list)
    token_accuracy: list[float] = field(default_factory=list)
    seen_accuracy: list[float] = field(default_factory=list)
    motion_accuracy: list[float] = field(default_factory=list)
    mask_loss: list[float] = field(default_factory=list)


def main() -> None:
    """Parse the command line and train."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", type=Path, default=Path("runs/tiny"), help="folder of the run")
    parser.add_argument("--init", type=Path, help="model to fine-tune: its STAB is frozen")
    parser.add_argument("--teacher", type=Path, help="model whose usual answers --init learns")
    parser.add_argument("--steps", type=int, default=6600, help="length of the whole training")
    parser.add_argument("--batch-size", type=int, default=12, help="clips a step and process")
    parser.add_argument("--dialogues", type=int, default=12, help="dialogues a clip")
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--report", type=int, default=50, help="steps between points of the plot")
    parser.add_argument("--save", type=int, default=200, help="steps between checkpoints")
    parser.add_argument("--workers", type=int, default=1, help="processes that render clips")
    parser.add_argument(
        "--compile", action="store_true", help="compile the layers; needs a C++ compiler"
    )
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument(
        "--processes",
        type=int,
        default=1 if torch.cuda.is_available() else os.cpu_count(),
        help="data-parallel processes; on a CPU faster than threads",
    )
    options = parser.parse_args()
    load_vocabulary(options)
    rendezvous = options.run / "rendezvous"
    rendezvous.unlink(missing_ok=True)
    arguments = (options, rendezvous.absolute().as_uri())
    start_processes(train, arguments, options.processes, start_method="spawn")


def train(rank: int, options: argparse.Namespace, rendezvous: str) -> None:
    """Train to the end, resuming from the run's folder.

    Args:
        rank: Number of this process. Each renders its own share of every batch, all average their
            gradients, and the first one reports and saves.
        options: The command line.
        rendezvous: URI of a file through which the processes find each other.
    """
    torch.distributed.init_process_group(
        "gloo", init_method=rendezvous, rank=rank, world_size=options.processes
    )
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // options.processes))
    torch.manual_seed(options.seed)
    transformers_logging.disable_progress_bar()
    tokenizer = load_vocabulary(options)
    base, teacher = new_model(len(tokenizer)), None
    if options.init:
        base.load_state_dict(load_model(options.init).state_dict())
        base.model.video_tower.requires_grad_(requires_grad=False)
        base.model.video_projector.requires_grad_(requires_grad=False)
    if options.teacher:
        teacher = load_model(options.teacher).to(options.device).eval()
        teacher.set_attn_implementation("branching")
    model = ModelWithHeads(base, tokenizer).to(options.device)
    decay = min(0.995, 1 - 20 / options.steps)  # averages a small part of a short training
    average = AveragedModel(base, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)
    head_scale = HEAD_SCALE if options.init else 1.0
    optimizers = build_optimizers(model, options.learning_rate, head_scale)
    history, step = History(), 0
    state_file = options.run / "state.pt"
    if state_file.exists():
        state = torch.load(state_file, weights_only=True)
        model.load_state_dict(state["model"])
        average.load_state_dict(state["average"])
        for optimizer, saved in zip(optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        history, step = History(**state["history"]), state["step"]

    if options.compile:
        for layer in base.model.layers:
            layer.compile(dynamic=True)
    batches = Batches(tokenizer, options, rank)
    window: list[Losses] = []
    columns = (
        TextColumn("{task.fields[status]}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, disable=rank > 0) as progress:
        bar = progress.add_task("training", total=options.steps, completed=step, status="")
        while step < options.steps:
            for optimizer in optimizers:
                for group in optimizer.param_groups:
                    rate = options.learning_rate * group["scale"]
                    group["lr"] = rate * schedule(step / options.steps, step)
            losses = take_step(
                model,
                batches.next(step),
                optimizers,
                0.0 if options.init else auxiliary_weight_at(step / options.steps),
                teacher=teacher,
                frozen_norm=bool(options.init) or step >= NORM_STEPS,
            )
            average.update_parameters(base)
            window.append(losses)
            step += 1
            if step % options.report == 0 and rank == 0:
                extend(history, step, window)
                window.clear()
                status = (
                    f"loss {history.answer_loss[-1]:.3f}"
                    f"  tokens {history.token_accuracy[-1]:.1%}"
                    f"  seen {history.seen_accuracy[-1]:.1%}"
                    f"  motion {history.motion_accuracy[-1]:.1%}"
                    f"  mask {history.mask_loss[-1]:.3f}"
                )
                progress.update(bar, status=status)
                if not progress.console.is_terminal:
                    progress.console.print(f"step {step}  {status}", highlight=False)
            progress.update(bar, completed=step)
            if rank == 0 and (step % options.save == 0 or step == options.steps):
                save(options.run, model, average, optimizers, history, step, tokenizer)


def load_vocabulary(options: argparse.Namespace) -> VideoPandaTokenizer:
    """The tokenizer of the initial model or of the run, trained if it does not exist."""
    options.run.mkdir(parents=True, exist_ok=True)
    file: Path = (options.init or options.run) / "tokenizer.model"
    if not file.exists():
        train_vocabulary(options.run, options.seed)
    return VideoPandaTokenizer(file, legacy=True)


def load_model(folder: Path) -> VideoPandaForConditionalGeneration:
    """A model in single precision."""
    model: VideoPandaForConditionalGeneration
    model = VideoPandaForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
    return model


def new_model(vocabulary_size: int) -> VideoPandaForConditionalGeneration:
    """An untrained `tiny`."""
    config = VideoPandaConfig(
        image_size=IMAGE_SIZE,
        patch_size=14,
        video_hidden_size=VIDEO_HIDDEN_SIZE,
        video_num_heads=8,
        hidden_size=HIDDEN_SIZE,
        intermediate_size=512,
        num_hidden_layers=7,
        num_attention_heads=4,
        vocab_size=vocabulary_size,
        max_position_embeddings=2048,
        initializer_range=0.04,
    )
    return VideoPandaForConditionalGeneration(config)


def build_optimizers(
    model: ModelWithHeads, learning_rate: float, head_scale: float
) -> list[torch.optim.Optimizer]:
    """Muon for the matrices between layers, AdamW for everything else.

    `head_scale` multiplies the learning rate of the language head.
    """
    matrices: list[torch.nn.Parameter] = []
    others: list[torch.nn.Parameter] = []
    head = [*model.model.lm_head.parameters()]
    outer = ("embed_tokens", "lm_head", "appearance", "presence", "mask", "place", "motion")
    for name, parameter in model.named_parameters():
        inner = parameter.ndim == 2 and not any(part in name for part in outer)
        if "lm_head" not in name:
            (matrices if inner else others).append(parameter)
    return [
        torch.optim.Muon(
            [{"params": matrices, "scale": 1.0}],
            lr=learning_rate,
            weight_decay=0.02,
            adjust_lr_fn="match_rms_adamw",
        ),
        torch.optim.AdamW(
            [{"params": others, "scale": 1.0}, {"params": head, "scale": head_scale}],
            lr=learning_rate,
            weight_decay=0.01,
            betas=(0.9, 0.98),
        ),
    ]


def schedule(progress: float, step: int) -> float:
    """Factor of the learning rate: warm-up, plateau, linear decay."""
    return min(1.0, (step + 1) / WARM_UP_STEPS, max(0.0, (1 - progress) / COOL_DOWN))


def auxiliary_weight_at(progress: float) -> float:
    """Weight of the auxiliary losses, lower towards the end."""
    return 1.0 if progress < 0.8 else 0.3


def take_step(
    model: ModelWithHeads,
    batch: Batch,
    optimizers: list[torch.optim.Optimizer],
    auxiliary_weight: float,
    *,
    teacher: VideoPandaForConditionalGeneration | None,
    frozen_norm: bool,
) -> Losses:
    """One step of all optimizers on one batch."""
    model.train()
    if frozen_norm:
        model.model.model.video_tower.lmhra1.eval()
    device = model.prefix_ids.device
    with torch.autocast(device.type, torch.bfloat16):
        losses: Losses = model(batch.to(device), auxiliary_weight, teacher)
    losses.total.backward()
    losses.total = losses.total.detach()  # the history must not keep the graph alive
    average_gradients(model)
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    for optimizer in optimizers:
        optimizer.step()
        optimizer.zero_grad()
    return losses


def average_gradients(model: ModelWithHeads) -> None:
    """Give all processes the mean of their gradients."""
    count = torch.distributed.get_world_size()
    if count == 1:
        return
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    torch.distributed.all_reduce(flat)
    flat /= count
    for gradient, mean in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(mean.view_as(gradient))


class Batches:
    """The batch of each step; a resumed run draws different ones."""

    def __init__(
        self, tokenizer: VideoPandaTokenizer, options: argparse.Namespace, rank: int
    ) -> None:
        self.tokenizer = tokenizer
        self.options = options
        self.rank = rank
        self.stage: tuple[bool, float] | None = None

    def next(self, step: int) -> Batch:
        """The batch of a step."""
        easy = step < EASY_STEPS and not self.options.init
        early = step < IMAGE_PART * self.options.steps
        image_share = 0.0 if self.options.init else 0.75 if early else 0.2
        if (easy, image_share) != self.stage:
            self.stage = (easy, image_share)
            dataset = TrainingData(
                self.tokenizer,
                image_size=IMAGE_SIZE,
                batch_size=self.options.batch_size,
                dialogues=self.options.dialogues,
                seed=self.options.seed + 1000 * (step + 1) + self.rank,
                image_share=image_share,
                easy=easy,
            )
            self.loader = iter(
                DataLoader(
                    dataset,
                    batch_size=None,
                    num_workers=self.options.workers,
                    multiprocessing_context="spawn",  # fork would copy our memory
                )
            )
        batch: Batch = next(self.loader)
        return batch


def extend(history: History, step: int, window: list[Losses]) -> None:
    """Add the averages of a window of steps."""

    def mean(values: list[torch.Tensor]) -> float:
        return float(torch.stack([value.detach() for value in values]).mean())

    clips = [losses for losses in window if losses.asked]
    history.step.append(step)
    history.answer_loss.append(mean([losses.answer for losses in clips]))
    history.token_accuracy.append(mean([losses.token_accuracy for losses in clips]))
    history.seen_accuracy.append(mean([losses.seen_accuracy for losses in clips]))
    history.motion_accuracy.append(mean([losses.motion_accuracy for losses in clips]))
    history.mask_loss.append(mean([losses.mask for losses in window]))


def save(
    run: Path,
    model: ModelWithHeads,
    average: AveragedModel,
    optimizers: list[torch.optim.Optimizer],
    history: History,
    step: int,
    tokenizer: VideoPandaTokenizer,
) -> None:
    """Write the state to resume from, the averaged model so far and the plot."""
    state: dict[str, Any] = {
        "model": model.state_dict(),
        "average": average.state_dict(),
        "optimizers": [optimizer.state_dict() for optimizer in optimizers],
        "history": asdict(history),
        "step": step,
    }
    torch.save(state, run / "state.new")
    (run / "state.new").replace(run / "state.pt")
    export(average.module, tokenizer, run / "model")
    (run / "history.json").write_text(json.dumps(asdict(history)))
    plot(history, run / "progress.png")


def export(model: torch.nn.Module, tokenizer: VideoPandaTokenizer, folder: Path) -> None:
    """Save the model in half precision, as `from_pretrained` and `panda --model` load it."""
    assert isinstance(model, VideoPandaForConditionalGeneration)
    half = VideoPandaForConditionalGeneration(model.config)
    half.load_state_dict(model.state_dict())
    half.half().save_pretrained(folder)  # type: ignore[no-untyped-call]
    tokenizer.save_pretrained(folder)


def plot(history: History, file: Path) -> None:
    """Loss and accuracy over the steps, as a PNG."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(10, 4), layout="constrained")
    left.plot(history.step, history.answer_loss)
    left.set(xlabel="step", ylabel="loss of the answers", yscale="log")
    right.plot(history.step, history.token_accuracy, label="tokens of answers")
    right.plot(
        history.step, history.seen_accuracy, label="colour and shape, probed at the middle layer"
    )
    right.plot(history.step, history.motion_accuracy, label="motion, probed at the last layer")
    right.set(xlabel="step", ylabel="accuracy", ylim=(0, 1))
    right.legend(loc="lower right")
    figure.savefig(file, dpi=100)
    pyplot.close(figure)


if __name__ == "__main__":
    main()
