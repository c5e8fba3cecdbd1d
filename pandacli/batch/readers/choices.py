"""Multiple choice: the choices of an entry in the layouts of data sets, and which one is right.

Known are lists (`choices`; `candidates` of MVBench; `options` of Video-MME and the Perception Test)
and numbered fields (`a0` to `a4` of NExT-QA, `option 0` to `option 4` of EgoSchema, `A` to `D`).
"""

import ast
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from string import ascii_uppercase as _LETTERS
from typing import Any, NamedTuple

from pandacli.batch.readers.entries import kind
from pandacli.batch.records import RecordError
from pandacli.errors import UsageError
from pandacli.inference.spec import check_choices

_LISTS = ("choices", "candidates", "options", "option")
_NUMBERED = re.compile(r"(a|(?:option|choice|candidate)[ _]?)(\d+)", re.IGNORECASE)
_LETTERED = re.compile(
    r"((?:(?i:option|choice|candidate)[ _]?)?)([A-PR-Z])|((?i:option|choice)_)([a-z])"
)
_WORDS = re.compile("[A-Z]?[a-z]+|[A-Z]+")
_CHOICE_WORDS = {f"{word}{s}" for word in ("choice", "candidate", "option") for s in ("", "s")}
_TEXTS = ("text", "choice", "option")  # names of the text of a choice that is an object; STAR
_CORRECT = (
    *("answer_id", "answer_idx", "answer_index", "correct_choice", "correct_answer", "truth"),
    *("answer", "A", "gt", "label"),
)
_LABEL = re.compile(r"\s*\(?([A-Z])[.):]\s*")
_END = r"(?=\W*$|[\])}.:,*])"  # of a letter that is no word
_LETTER = re.compile(rf"\W*([A-Za-z]){_END}")
_SAID = re.compile(
    rf"\b(?i:answer|option|choice)(?i:\s+is)?\W*(?:([B-HJ-Zb-hj-z])\b|([AaIi]){_END})"
)
_SAID_A = re.compile(r"\b(?i:answer|option|choice)(?i:\s+is)?\W*([AI])\b")  # perhaps a word


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
        if answer in self.texts:
            return self.texts.index(answer)
        folded = [_folded(text) for text in self.texts]
        said = _folded(answer)
        if said in folded:
            return folded.index(said)
        letters = [
            _letter_index(found, folded) for found in (_LETTER.match(answer), _SAID.search(answer))
        ]
        if (index := next((n for n in letters if n is not None), None)) is not None:
            return index
        named = [
            n
            for n, text in enumerate(folded)
            if re.search(rf"(?<!\w){re.escape(text)}(?!\w)", said)
        ]
        # "red" is in "a dark red circle" beside "dark red", which is meant
        longest = [n for n in named if not any(m != n and folded[n] in folded[m] for m in named)]
        if not longest:
            return _letter_index(_SAID_A.search(answer), folded)
        return longest[0] if len(longest) == 1 else None


def letter(index: int) -> str:
    """The label of a choice: a letter, or its number from 1 behind the last letter."""
    return _LETTERS[index] if index < len(_LETTERS) else str(index + 1)


def with_letters(question: str, choices: Sequence[str]) -> str:
    """A question that asks for the letter of one of its choices, where it has some."""
    if not choices:
        return question
    listed = [f"({letter(number)}) {text}" for number, text in enumerate(choices)]
    return "\n".join([question, *listed, "Answer with the letter of the right option only."])


def unused_choices(fields: Mapping[str, Any]) -> list[str]:
    """The names of fields that look like choices and are not read as such."""
    named = _named(tuple(fields)).alike
    used, _ = _found(fields) if named else ([], [])
    return [
        name
        for name in named
        if name not in used and fields[name] and isinstance(fields[name], str | list | dict)
    ]


def find_choices(fields: Mapping[str, Any]) -> Choices | None:
    """The choices of an entry, also such as cannot be scored; None where none can be read."""
    try:
        return _read(fields)[1]
    except RecordError:
        return None


def read_choices(fields: Mapping[str, Any]) -> Choices | None:
    """The choices of an entry; None where it has none.

    Raises:
        RecordError: They are not two or more different texts.
    """
    name, choices = _read(fields)
    if choices is not None:
        try:
            check_choices(choices.texts, f"the field {name!r}")
        except UsageError as error:
            raise RecordError(error.message) from None
    return choices


def _read(fields: Mapping[str, Any]) -> tuple[str, Choices | None]:
    """The choices and the first field that they are in."""
    names, found = _found(fields)
    if not names:
        return "", None
    texts = tuple(_without_labels(found))
    by_index = bool(_named(tuple(fields)).series)
    return names[0], Choices(texts, _correct(fields, texts, names, by_index=by_index))


class _Named(NamedTuple):
    lists: tuple[str, ...]  # of choices
    series: tuple[tuple[str, ...], ...]  # a0, a1, ..., from 0 or 1 on, or A, B, ...; no gap
    alike: tuple[str, ...]  # all that look like choices


@lru_cache(8)  # most entries of a file have the same fields
def _named(fields: tuple[str, ...]) -> _Named:
    """The names of fields that may hold choices."""
    found: dict[str, dict[int, str]] = {}
    for name in fields:
        if m := _NUMBERED.fullmatch(name):
            found.setdefault(m[1].casefold(), {})[int(m[2])] = name
        elif m := _LETTERED.fullmatch(name):
            stem, one = (m[1], m[2]) if m[2] else (m[3], m[4].upper())
            found.setdefault(f"{stem.casefold()} letter", {})[_LETTERS.index(one)] = name
    series = []
    for stem, names in found.items():
        first = min(names)
        whole = sorted(names) == list(range(first, first + len(names)))
        if whole and len(names) > 1 and first <= (not stem.endswith("letter")):
            series.append(tuple(names[number] for number in sorted(names)))
    numbered = {name for names in found.values() for name in names.values()}
    return _Named(
        tuple(name for name in fields if name.casefold() in _LISTS),
        tuple(series),
        tuple(
            name
            for name in fields
            if (name in numbered or _CHOICE_WORDS & {*map(str.casefold, _WORDS.findall(name))})
            and name not in _CORRECT
        ),
    )


def _found(fields: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """The names of the fields of the choices, and the texts; both empty where there are none."""
    named = _named(tuple(fields))
    for name in named.lists:
        value = fields[name]
        if _is_list(value):
            return [name], _texts(value, name)
        if name == "choices" and value:
            raise RecordError("the field 'choices' is not a list of choices, nor like yes|no")
    for series in named.series:
        names = [*series]
        while names and fields[names[-1]] in (None, ""):  # a row of a table with fewer choices
            names.pop()
        if names:
            return names, [_text(fields[name], name) for name in names]
    return [], []


def _is_list(value: Any) -> bool:
    """Whether a value is a list or an object of choices, or the cell of a table with one."""
    is_cell = isinstance(value, str) and ("|" in value or value.lstrip()[:1] in ("[", "{"))
    return is_cell or isinstance(value, list | dict)


def _texts(value: Any, name: str) -> list[str]:
    """The texts of a list, of an object with a letter for each, or of a cell of a table."""
    if isinstance(value, str):
        parsed = _parsed_cell(value)
        value = parsed if isinstance(parsed, list | dict) else value.split("|")
    if isinstance(value, dict):
        value = list(value.values())
    if not isinstance(value, list):
        raise RecordError(f"the field {name!r} is {kind(value)}, not a list of choices")
    return [_text(each, name) for each in value]


def _text(value: Any, name: str) -> str:
    """The text of a choice in the field `name`."""
    if isinstance(value, dict):
        value = next((value[name] for name in _TEXTS if name in value), None)
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise RecordError(f"the field {name!r} has {kind(value)} among its choices")
    return str(value)


def _parsed_cell(text: str) -> Any:
    for parse in (json.loads, ast.literal_eval):  # pandas writes literals of Python
        try:
            return parse(text.strip())
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            continue
    return None


def _without_labels(texts: list[str]) -> list[str]:
    labels = [_LABEL.match(text) for text in texts]
    letters = "".join(found[1] for found in labels if found)
    if len(letters) < len(texts) or letters != _LETTERS[: len(texts)]:
        return texts
    return [text[found.end() :] for text, found in zip(texts, labels, strict=True) if found]


def _correct(
    fields: Mapping[str, Any], texts: tuple[str, ...], names: Sequence[str], *, by_index: bool
) -> int | None:
    """The index of the right choice.

    The right answer is an index (from 0), a letter or the text itself. A text that reads as a
    number is an index beside numbered fields, where data sets have nothing else, and where no
    choice is a number.
    """
    by_index = by_index or not any(text.strip().isdigit() for text in texts)
    for name in _CORRECT:
        value = fields.get(name)
        if name in names or isinstance(value, bool) or not isinstance(value, str | int):
            continue
        text = str(value).strip()
        is_index = isinstance(value, int) or by_index
        if is_index and text.isascii() and text.isdigit() and int(text) < len(texts):
            return int(text)
        stripped = [_folded(each) for each in texts]
        if isinstance(value, str) and (folded := _folded(_LABEL.sub("", text, 1))) in stripped:
            return stripped.index(folded)
        index = _letter_index(re.fullmatch(r"\(?([A-Za-z])[.):]?", text), texts)
        if index is not None:
            return index
    return None


def _letter_index(found: re.Match[str] | None, texts: Sequence[str]) -> int | None:
    """The index of the choice whose letter was found."""
    if found is None:
        return None
    one = next(filter(None, found.groups()))
    index = _LETTERS.index(one.upper())
    return index if index < len(texts) else None


def _folded(text: str) -> str:
    return re.sub(r"\s+", " ", text.casefold()).strip(" \t\n.!?\"'")
