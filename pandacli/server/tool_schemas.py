"""Descriptions and JSON schemas of the tools of `panda mcp`.

Schemas keep to what all clients support: no lists of types, `items` for each array.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from mcp import types

from pandacli.server.protocol import MOST_FRAMES
from pandacli.timeline.segments import SegmentOptions

_SEARCH = SegmentOptions()

_NUMBER, _TEXT = {"type": "number"}, {"type": "string"}
_TIME = {"anyOf": [_NUMBER, _TEXT]}
_FROM = {
    **_TIME,
    "description": 'Start of the part to look at: seconds, as 75.5, or "m:ss", as "1:15.5". '
    "Default: the beginning.",
}
_TO = {**_TIME, "description": "End of the part, written as from. Default: the end."}
_FRAMES = {
    "type": "integer",
    "default": 8,
    "minimum": 1,
    "maximum": MOST_FRAMES,
    "description": "How many frames to sample, evenly spread: 1, or a multiple of 4.",
}
_CHOICES = {
    "type": "array",
    "items": _TEXT,
    "minItems": 2,
    "description": "Possible answers, where they are known: each is scored, and the most likely "
    "one is the answer.",
}
_TURN = {
    "type": "object",
    "properties": {"question": _TEXT, "answer": _TEXT},
    "required": ["question", "answer"],
    "additionalProperties": False,
}
_HISTORY = {
    "type": "array",
    "items": _TURN,
    "description": "Earlier questions about the same part of this video and their answers, for "
    'a question that builds on them, as "and then?".',
}
_STATEMENT = {
    **_TEXT,
    "description": 'What to look for: a question to be answered with yes or no, as "Is there a '
    'dog?", or a statement, as "a dog runs".',
}
_THRESHOLD = {
    **_NUMBER,
    "default": _SEARCH.threshold,
    "description": "Probability of yes, between 0 and 1, at which a segment begins. A lower one "
    "finds more.",
}
_WINDOW = {
    **_NUMBER,
    "default": _SEARCH.window,
    "description": "Length in seconds of the windows that are looked at, one every half of it. "
    "Longer ones are faster, and miss what is short.",
}
_SEGMENT = {"start": _NUMBER, "end": _NUMBER, "probability": _NUMBER}


def _object(properties: Mapping[str, object], optional: Sequence[str] = ()) -> dict[str, Any]:
    required = [name for name in properties if name not in optional]
    return {"type": "object", "properties": {**properties}, "required": required}


def _list(items: Mapping[str, object]) -> dict[str, object]:
    return {"type": "array", "items": items}


_ANSWER = _object(
    {
        "answer": _TEXT,
        "choices": _list(_object({"text": _TEXT, "probability": _NUMBER})),
        "coverage": {
            **_NUMBER,
            "description": "Probability of all choices together; near 0 where none fits.",
        },
        "model": _TEXT,
        "frame_times": {**_list(_NUMBER), "description": "In seconds."},
    },
    optional=["choices", "coverage"],
)
_MOMENTS = _object(
    {
        "question": {**_TEXT, "description": "As the model was asked."},
        "segments": {
            **_list(_object(_SEGMENT)),
            "description": "In order, in seconds, with the highest probability of yes in each.",
        },
        "highest": {**_object(_SEGMENT), "description": "The window most like a yes."},
        "from": _NUMBER,
        "to": _NUMBER,
        "windows": {"type": "integer", "description": "How many were looked at."},
        "notices": _list(_TEXT),
        "model": _TEXT,
    },
    optional=["highest"],
)


def about(model: str) -> str:
    """A model in a few words."""
    if model == "tiny":
        return "tiny, a small model that knows coloured shapes which move, and nothing else"
    return f"{model}, a video language model"


def describe_tools(model: str, folders: str) -> list[types.Tool]:
    """The tools of a server with this model, which reads videos in these folders and below."""
    path = {
        **_TEXT,
        "description": "Path of a video file: absolute, or relative to one of the folders that "
        f"this server reads. They are: {folders}.",
    }
    question = {**_TEXT, "description": "The question, in plain words."}
    clip = {"from": _FROM, "to": _TO, "frames": _FRAMES}
    return [
        _tool(
            "ask_video",
            "Ask about a video",
            "Ask a question about a video file, or about the part of it between from and to. It "
            f"is answered by {about(model)}. It looks at 8 frames, spread evenly over that, and "
            "hears nothing; it answers in words or, with choices, with the most likely one. For "
            "something short in a long video, find the time with find_moment first, and ask about "
            "a part of 5 to 30 seconds.",
            {"path": path, "question": question, **clip, "choices": _CHOICES, "history": _HISTORY},
            ["path", "question"],
            _ANSWER,
        ),
        _tool(
            "look_at_frames",
            "Look at frames of a video",
            "See frames of a video file, or of the part of it between from and to, as pictures "
            "with their times, and facts about the file: length, size, frame rate, codec. They are "
            "the frames that ask_video looks at with the same arguments, so that an answer can be "
            "checked.",
            {"path": path, **clip},
            ["path"],
        ),
        _tool(
            "find_moment",
            "Find when something is to be seen",
            f"Find the times in a video file at which something is to be seen. {model} looks at "
            "each window of 2 seconds, and the segments in which its answer is yes are returned: "
            "start and end in seconds, and the probability. The time that this takes grows with "
            "the length of the film: give from and to where they are known, or a longer window.",
            {
                "path": path,
                "question": _STATEMENT,
                "from": _FROM,
                "to": _TO,
                "window": _WINDOW,
                "threshold": _THRESHOLD,
            },
            ["path", "question"],
            _MOMENTS,
        ),
    ]


def _tool(
    name: str,
    title: str,
    description: str,
    arguments: dict[str, object],
    required: list[str],
    output: dict[str, Any] | None = None,
) -> types.Tool:
    schema = {**_object(arguments), "required": required, "additionalProperties": False}
    hints = types.ToolAnnotations(
        read_only_hint=True, idempotent_hint=True, open_world_hint=False, destructive_hint=False
    )
    return types.Tool(
        name=name,
        title=title,
        description=description,
        input_schema=schema,
        output_schema=output,
        annotations=hints,
    )
