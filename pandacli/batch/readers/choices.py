"""Multiple choice: the choices of an entry in the layouts of data sets, and which one is right.

Known are lists (`choices`; `candidates` of MVBench; `options` of Video-MME and the Perception Test)
and numbered fields (`a0` to `a4` of NExT-QA, `option 0` to `option 4` of EgoSchema).
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, count
from string import ascii_uppercase as _LETTERS
from typing import Any

from pandacli.batch.readers.entries import kind
from pandacli.batch.records import RecordError
from pandacli.errors import UsageError
from pandacli.inference.spec import check_choices

LISTS = ("choices", "candidates", "options")
_NUMBERED = re.compile(r"(a|option[ _]?)(\d+)", re.IGNORECASE)
_CORRECT = ("answer_id", "answer_idx", "correct_choice", "correct_answer", "truth", "answer", "A")
_LABEL = re.compile(r"\s*\(?([A-Z])[.):]\s*")
_LETTER = re.compile(
    r"(?:(?:answer|option|choice)(?:\s+is)?\W*)?\(?([a-z])(?:[).:,]|\s*$)", re.IGNORECASE
)
_SAID = re.compile(r"\b(?:answer|option|choice)(?:\s+is)?\W*([a-z])\b", re.IGNORECASE)


@dataclass(frozen=True)
class Choices:
    """The choices of a question.

    Attributes:
        texts: At least two, all different; labels such as "A." are removed.
        correct: Index of the right one; None where the entry does not say.
    """

    texts: tuple[str, ...]
    correct: int | None = None

    def find(self, answer: str) -> int | None:
        """The index of the choice that an answer names; None where it names none, or several.

        By its whole text, its letter ("B", "(b) a dog", "The answer is B."), or a text in it.
        """
        folded = [_folded(text) for text in self.texts]
        said = _folded(answer)
        if said in folded:
            return folded.index(said)
        for found in (_LETTER.match(answer.strip()), _SAID.search(answer)):
            if found and (index := ord(found[1].upper()) - ord("A")) < len(folded):
                return index
        named = [
            n
            for n, text in enumerate(folded)
            if re.search(rf"(?<!\w){re.escape(text)}(?!\w)", said)
        ]
        # "red" is in "a dark red circle" beside "dark red", which is meant
        longest = [n for n in named if not any(m != n and folded[n] in folded[m] for m in named)]
        return longest[0] if len(longest) == 1 else None


def with_letters(question: str, choices: Sequence[str]) -> str:
    """A question that asks for the letter of one of its choices, where it has some."""
    if not choices:
        return question
    labels = chain(_LETTERS, map(str, count(len(_LETTERS) + 1)))
    listed = [f"({letter}) {text}" for letter, text in zip(labels, choices, strict=False)]
    return "\n".join([question, *listed, "Answer with the letter of the right option only."])


def unread_choices(fields: Mapping[str, Any]) -> list[str]:
    """The names of fields that look like choices, where an entry has none that can be read."""
    named = [name for name in fields if name.casefold() in LISTS or _NUMBERED.fullmatch(name)]
    try:
        return [] if not named or read_choices(fields) else named
    except RecordError:  # which is the error of its line
        return []


def find_choices(fields: Mapping[str, Any]) -> Choices | None:
    """The choices of an entry; None where it has none that can be read."""
    try:
        return read_choices(fields)
    except RecordError:
        return None


def read_choices(fields: Mapping[str, Any]) -> Choices | None:
    """The choices of an entry; None where it has none.

    Raises:
        RecordError: They are not two or more different texts.
    """
    numbered = _numbered(fields)
    name = next((name for name in fields if name.casefold() in LISTS), None)
    value = fields[name] if name is not None else None
    if name is not None and _is_list(value):
        texts = _texts(value, name)
    elif value and name == "choices":
        raise RecordError("the field 'choices' is not a list of choices, nor like yes|no")
    elif numbered:
        name, texts = numbered[0][0], [value for _, value in numbered]
    else:
        return None
    try:
        checked = check_choices(_without_labels(texts), f"the field {name!r}")
    except UsageError as error:
        raise RecordError(error.message) from None
    return Choices(checked, _correct(fields, checked, by_index=bool(numbered)))


def _is_list(value: Any) -> bool:
    """Whether a value is a list or an object of choices, or the cell of a table with one."""
    is_cell = isinstance(value, str) and ("|" in value or value.lstrip()[:1] in ("[", "{"))
    return is_cell or isinstance(value, list | dict)


def _numbered(fields: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Name and text of the fields `a0`, `a1`, ..., from 0 or 1 on and without a gap."""
    found = [(m[1].casefold(), int(m[2]), m[0]) for m in map(_NUMBERED.fullmatch, fields) if m]
    found.sort()
    numbers = [number for _, number, _ in found]
    held = len(found) >= 2 and len({stem for stem, _, _ in found}) == 1 and numbers[0] in (0, 1)
    if not held or numbers != list(range(numbers[0], numbers[0] + len(found))):
        return []
    pairs = [(name, fields[name]) for _, _, name in found]
    while pairs and pairs[-1][1] in (None, ""):  # a table whose questions have fewer choices
        pairs.pop()
    return [(name, value if isinstance(value, str) else str(value)) for name, value in pairs]


def _texts(value: Any, name: str) -> list[str]:
    """The texts of a list, of an object with a letter for each, or of a cell of a table."""
    if isinstance(value, str):
        try:
            parsed = json.loads(value)
        except ValueError:
            parsed = None
        value = parsed if isinstance(parsed, list | dict) else value.split("|")
    if isinstance(value, dict):
        value = list(value.values())
    if not isinstance(value, list):
        raise RecordError(f"the field {name!r} is {kind(value)}, not a list of choices")
    texts = [each.get("text") if isinstance(each, dict) else each for each in value]
    for each in texts:
        if isinstance(each, bool) or not isinstance(each, str | int | float):
            raise RecordError(f"the field {name!r} has {kind(each)} among its choices")
    return list(map(str, texts))


def _without_labels(texts: list[str]) -> list[str]:
    labels = [_LABEL.match(text) for text in texts]
    letters = "".join(found[1] for found in labels if found)
    if len(letters) < len(texts) or letters != _LETTERS[: len(texts)]:
        return texts
    return [text[found.end() :] for text, found in zip(texts, labels, strict=True) if found]


def _correct(fields: Mapping[str, Any], texts: tuple[str, ...], *, by_index: bool) -> int | None:
    """The index of the right choice.

    The right answer is an index (from 0), a letter or the text itself. A text that reads as a
    number is an index only beside numbered fields, where data sets have nothing else.
    """
    for name in _CORRECT:
        value = fields.get(name)
        if isinstance(value, bool) or not isinstance(value, str | int):
            continue
        text = str(value).strip()
        is_index = isinstance(value, int) or by_index
        if is_index and text.isascii() and text.isdigit() and int(text) < len(texts):
            return int(text)
        stripped = [_folded(each) for each in texts]
        if isinstance(value, str) and (folded := _folded(_LABEL.sub("", text, 1))) in stripped:
            return stripped.index(folded)
        letter = re.fullmatch(r"\(?([A-Za-z])[.):]?", text)
        if letter and (index := ord(letter[1].upper()) - ord("A")) < len(texts):
            return index
    return None


def _folded(text: str) -> str:
    return re.sub(r"\s+", " ", text.casefold()).strip(" \t\n.!?\"'")
