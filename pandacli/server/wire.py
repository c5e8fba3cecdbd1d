"""What a command and a server of `panda` send each other: JSON, and frames as raw pixels after it.

OpenAI's protocol carries neither statistics nor frames, tokens of a history, notices or exit codes.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from pandacli.errors import ClipError, DeviceError, ModelError, PandaError, UsageError
from pandacli.inference.spec import (
    Answer,
    Choice,
    GenerationOptions,
    Request,
    ScoreRequest,
    Scores,
    ScoringStats,
    Stats,
    TokenLogprob,
)

if TYPE_CHECKING:
    from pandacli.video import Frames

Fields = dict[str, Any]  # of a JSON object

_ERRORS = {each.exit_code: each for each in (UsageError, ClipError, ModelError, DeviceError)}
_MOST_FRAMES = 512  # of one clip


@dataclass(frozen=True)
class FrameFacts:
    """What is known of frames that are on the server."""

    indices: tuple[int, ...]
    times: tuple[float, ...]
    notices: tuple[str, ...]


def to_json(value: Any) -> bytes:
    """JSON in ASCII, so that file names that are no Unicode pass unchanged."""
    return json.dumps(value, separators=(",", ":")).encode()


def error_fields(error: PandaError) -> Fields:
    return {
        "message": error.message,
        "hint": error.hint,
        "command": error.command,
        "exit_code": error.exit_code,
    }


def read_error(fields: Fields) -> PandaError:
    kind = _ERRORS.get(fields["exit_code"], PandaError)
    return kind(fields["message"], fields["hint"], command=fields["command"])


def request_fields(request: Request | ScoreRequest) -> Fields:
    history = [
        [question, answer if isinstance(answer, str) else list(answer)]
        for question, answer in request.history
    ]
    fields: Fields = {"question": request.question, "history": history}
    if isinstance(request, ScoreRequest):
        return fields | {"choices": request.choices}
    return fields | {"options": request.options and asdict(request.options)}


def read_request(fields: Fields) -> Request | ScoreRequest:
    """A request; a TypeError or KeyError if it is none."""
    question, history = _text(fields["question"]), []
    for asked, answer in fields["history"]:
        known = answer if isinstance(answer, str) else tuple(map(_whole, answer))
        history.append((_text(asked), known))
    if "choices" in fields:
        return ScoreRequest(question, tuple(map(_text, fields["choices"])), history)
    options = fields["options"]
    return Request(question, history, options and read_options(options))


def read_options(fields: Fields) -> GenerationOptions:
    """The options of an answer; a TypeError if they are none, a UsageError if out of range."""
    given = fields | {"stop": tuple(map(_text, fields["stop"]))}
    options = GenerationOptions(**given)
    _whole(options.max_tokens)
    if options.seed is not None:
        _whole(options.seed)
    options.check()
    return options


def result_fields(result: str | Answer | Scores | PandaError) -> Fields:
    """A piece of text, an answer, scores or an error, each by a name of its own."""
    if isinstance(result, str):
        return {"text": result}
    if isinstance(result, PandaError):
        return {"error": error_fields(result)}
    return {"answer" if isinstance(result, Answer) else "scores": asdict(result)}


def read_result(fields: Fields) -> str | Answer | Scores | PandaError:
    if "text" in fields:
        return str(fields["text"])
    if "error" in fields:
        return read_error(fields["error"])
    if "scores" in fields:
        given = fields["scores"]
        choices = tuple(Choice(**choice) for choice in given["choices"])
        return Scores(given["question"], choices, given["coverage"])
    given = fields["answer"]
    return Answer(
        **given
        | {
            "stats": Stats(**given["stats"]),
            "ids": tuple(given["ids"]),
            "logprobs": tuple(TokenLogprob(*each) for each in given["logprobs"]),
        }
    )


def read_scoring(fields: Fields) -> ScoringStats:
    return ScoringStats(**fields)


def frame_fields(frames: "Frames") -> Fields:
    return {"indices": frames.indices, "times": frames.times, "notices": frames.notices}


def read_frame_facts(fields: Fields) -> FrameFacts:
    return FrameFacts(*(tuple(fields[name]) for name in ("indices", "times", "notices")))


def frames_id(frames: "Frames") -> str:
    """What names frames that were sent: a digest of their pixels."""
    import hashlib

    shape = "x".join(map(str, frames.pixels.shape))
    return hashlib.sha256(f"{shape}:".encode() + frames.pixels.tobytes()).hexdigest()


def pack(fields: Fields, clips: Iterable["Frames"]) -> bytes:
    """A line of JSON, and the pixels of the frames of clips."""
    clips, described = [*clips], []
    for frames in clips:
        info = replace(frames.info, timestamps=())  # of a film, there are hundreds of thousands
        shape = frames.pixels.shape
        described.append(frame_fields(frames) | {"shape": shape, "info": asdict(info)})
    head = to_json(fields | {"clips": described})
    return b"".join([head, b"\n", *(frames.pixels.tobytes() for frames in clips)])


def unpack(body: bytes, image_size: int) -> tuple[Fields, list["Frames"]]:
    """The fields and the clips of a message; a ValueError, TypeError or KeyError if it is none."""
    import numpy as np

    from pandacli.video import Frames, VideoInfo

    end = body.index(b"\n")
    fields = json.loads(body[:end])
    clips, start = [], end + 1
    for each in fields["clips"]:
        count, height, width, colours = map(_whole, each["shape"])
        fits = 0 < count <= _MOST_FRAMES and colours == 3
        if not (fits and 0 < height <= image_size and 0 < width <= image_size):
            raise ValueError("these are no frames for this model")
        size = count * height * width * colours
        pixels = np.frombuffer(body, np.uint8, size, start).reshape(each["shape"])
        start += size
        facts = read_frame_facts(each)
        if not len(facts.indices) == len(facts.times) == count:
            raise ValueError("each frame has a number and a time")
        info = VideoInfo(**each["info"] | {"timestamps": ()})
        clips.append(Frames(pixels, facts.indices, facts.times, info, facts.notices))
    return fields, clips


def texts(values: Sequence[Any]) -> list[str]:
    """A list of strings; a TypeError if it is none."""
    return [_text(value) for value in values]


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("a text is expected")
    return value


def _whole(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError("a whole number is expected")
    return value


def sub_fields(fields: Mapping[str, Any], name: str) -> Fields:
    """A field that is an object; a TypeError if it is none."""
    value = fields[name]
    if not isinstance(value, dict):
        raise TypeError(f"{name} is an object")
    return value
