"""Statements as questions: what a yes-or-no likelihood is computed for."""

from pandacli.errors import UsageError

_QUESTION_MARKS = ("?", "\uff1f", "\u061f", "\u037e")  # also full-width, Arabic and Greek
_FULL_STOPS = ".\u3002\u0964"  # also Chinese and Hindi


def as_question(text: str) -> str:
    """Return a question as it is, and a statement as `Does the video show this: {statement}?`.

    A text that ends with a question mark is a question. UsageError for an empty text, or one
    that is not UTF-8.
    """
    stripped = text.strip()
    if not stripped:
        raise UsageError("the question is empty")
    if any("\ud800" <= character <= "\udfff" for character in stripped):
        raise UsageError(f"the question is not UTF-8 text: {stripped}")
    if stripped.endswith(_QUESTION_MARKS):
        return stripped
    statement = stripped.rstrip(_FULL_STOPS).rstrip()
    return f"Does the video show this: {statement or stripped}?"
