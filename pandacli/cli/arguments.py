"""Checks of VIDEO and QUESTION on the command line, before anything slow happens."""

import os
from collections.abc import Sequence
from shlex import join

from pandacli.errors import UsageError
from pandacli.video.clip import VIDEO_SUFFIXES

EXAMPLE = 'panda ask clip.mp4 "what happens?"'


def check_video(command: str, video: str, others: Sequence[str] = ()) -> None:
    """Refuses what cannot be the VIDEO of a command.

    Args:
        command: Its name.
        video: What was given as VIDEO.
        others: The arguments after it.

    Raises:
        UsageError: It is empty, standard input, or a question before the video.
    """
    if not video:
        example = EXAMPLE if command == "ask" else f"panda {command} clip.mp4"
        raise UsageError("VIDEO is empty", "for example:", command=example)
    if os.path.exists(video):  # noqa: PTH110  (no name is too long for it)
        return
    if video == "-":
        raise UsageError(
            "a video cannot be read from standard input", "save it to a file, and name the file"
        )
    first = next((word for word in others if _is_video(word)), None)
    if first is not None and not _looks_like_video(video):
        questions = [video, *(word for word in others if not _is_video(word))]
        raise UsageError(
            "the video comes first, then the questions",
            command=join(["panda", command, first, *questions]),
        )


def check_questions(video: str, questions: Sequence[str]) -> None:
    """Refuses a video among the questions.

    Args:
        video: The video that is asked about.
        questions: What was given as questions.

    Raises:
        UsageError: One of them is a file, or has a name as only videos have.
    """
    found = next((word for word in questions if _is_video(word)), None)
    if found is None:
        return
    asked = [word for word in questions if not _is_video(word)] or ["What happens?"]
    raise UsageError(
        f"{found} is a {'directory' if os.path.isdir(found) else 'file'}, not a question"  # noqa: PTH112
        if os.path.exists(found)  # noqa: PTH110
        else f"{found} is the name of a video, not a question",
        "panda ask takes one video at a time:",
        command=join(["panda", "ask", video, *asked]),
    )


def _is_video(word: str) -> bool:
    return word != "-" and (os.path.exists(word) or _looks_like_video(word))  # noqa: PTH110


def _looks_like_video(word: str) -> bool:
    return word.lower().endswith(VIDEO_SUFFIXES) and not any(map(str.isspace, word))
