"""Load once, answer many: a Video-Panda that keeps what it has seen of a clip.

    panda          `Panda`, the Python face: load a model, open a clip, ask
    plan           in how many bits a model is run, by which engine, and where
    ways           the ways there are, and the stored form of each
    sizes          what a model takes in each, part by part
    placement      one device, or which part on which card
    quantize       bits, and when they are refused
    speed          which engine is faster on this CPU, measured once, by `one_layer`
    preparing      a model's name to weights in memory, by way of a quantised copy
    loading        files to a model, on its devices, in a precision
    device         which devices, which number format, and running out of memory
    frame_count    how many frames a model can look at
    loaded_clip    a clip with its prefix (system prompt and frames) computed once
    prefix         the KV cache that questions on a clip share
    kept_prefix    the same on the disk, from one process to the next, in a `prefix_file`
    backend what the engine asks of a Llama, whatever computes it
    torch_llama    the one in torch
    llama_cpp      the one in llama.cpp, over `llama_context`
    together       many questions on a clip at once, in the branches of its prefix:
                   `torch_branches`, on a `growing_cache`, or `llama_branches`
    generate       sample a token, read it, sample the next
    streaming      ids to text, piece by piece
    answer         what comes out
    checkup        what `panda doctor` finds: `machine`, `software`, `storage`, `environment`

Importing this package is cheap: torch is imported when a model is loaded.
"""

from typing import TYPE_CHECKING, Any

from pandacli.inference.answer import Answer, AnswerStream, Stats
from pandacli.inference.options import check_frame_count
from pandacli.inference.panda import Panda

if TYPE_CHECKING:
    from pandacli.inference.session import VideoSession

__all__ = ["Answer", "AnswerStream", "Panda", "Stats", "VideoSession", "check_frame_count"]


def __getattr__(name: str) -> Any:
    if name == "VideoSession":
        from pandacli.inference.session import VideoSession

        return VideoSession
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
