"""Multiple choice: the choices of an entry in the layouts of data sets, and which one is right.

Known are lists (`choices`; `candidates` of MVBench; `options` of Video-MME and the Perception Test)
and numbered fields (`a0` to `a4` of NExT-QA, `option 0` to `option 4` of EgoSchema, `A` to `D`).
"""

import ast
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from string import ascii_uppercase as _LETTERS
from typing import Any

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
    named = [name for name in fields if _looks_like_choices(name) and _has_text(fields[name])]
    if not named:
        return []
    used, _ = _found(fields)
    return [name for name in named if name not in used]


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
    names, texts = _found(fields)
    if not names:
        return None
    try:
        checked = check_choices(_without_labels(texts), f"the field {names[0]!r}")
    except UsageError as error:
        raise RecordError(error.message) from None
    return Choices(checked, _correct(fields, checked, names, by_index=bool(_numbered(fields))))


def _found(fields: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """The names of the fields of the choices, and the texts; both empty where there are none."""
    for name, value in fields.items():
        if name.casefold() in _LISTS and _is_list(value):
            return [name], _texts(value, name)
        if name == "choices" and value:
            raise RecordError("the field 'choices' is not a list of choices, nor like yes|no")
    numbered = _numbered(fields)
    return [name for name, _ in numbered], [text for _, text in numbered]


def _looks_like_choices(name: str) -> bool:
    words = set(map(str.casefold, _WORDS.findall(name)))
    known = _NUMBERED.fullmatch(name) or _LETTERED.fullmatch(name) or words & _CHOICE_WORDS
    return bool(known) and name not in _CORRECT


def _has_text(value: Any) -> bool:
    return isinstance(value, str | list | dict) and bool(value)


def _is_list(value: Any) -> bool:
    """Whether a value is a list or an object of choices, or the cell of a table with one."""
    is_cell = isinstance(value, str) and ("|" in value or value.lstrip()[:1] in ("[", "{"))
    return is_cell or isinstance(value, list | dict)


def _numbered(fields: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Name and text of the fields `a0`, `a1`, ..., from 0 or 1 on, or `A`, `B`, ...; no gap."""
    found = []
    for name in fields:
        if m := _NUMBERED.fullmatch(name):
            found.append((m[1].casefold(), int(m[2]), name))
        elif m := _LETTERED.fullmatch(name):
            stem, one = (m[1], m[2]) if m[2] else (m[3], m[4].upper())
            found.append((f"{stem.casefold()} letter", _LETTERS.index(one), name))
    for stem in dict.fromkeys(stem for stem, _, _ in found):
        held = sorted((number, name) for other, number, name in found if other == stem)
        first = held[0][0]
        whole = [number for number, _ in held] == list(range(first, first + len(held)))
        if len(held) < 2 or first > (0 if stem.endswith("letter") else 1) or not whole:
            continue
        pairs = [(name, fields[name]) for _, name in held]
        while pairs and pairs[-1][1] in (None, ""):  # a table whose questions have fewer choices
            pairs.pop()
        return [(name, value if isinstance(value, str) else str(value)) for name, value in pairs]
    return []


def _texts(value: Any, name: str) -> list[str]:
    """The texts of a list, of an object with a letter for each, or of a cell of a table."""
    if isinstance(value, str):
        parsed = _parsed_cell(value)
        value = parsed if isinstance(parsed, list | dict) else value.split("|")
    if isinstance(value, dict):
        value = list(value.values())
    if not isinstance(value, list):
        raise RecordError(f"the field {name!r} is {kind(value)}, not a list of choices")
    texts = [_text_in(each) if isinstance(each, dict) else each for each in value]
    for each in texts:
        if isinstance(each, bool) or not isinstance(each, str | int | float):
            raise RecordError(f"the field {name!r} has {kind(each)} among its choices")
    return list(map(str, texts))


def _parsed_cell(text: str) -> Any:
    for parse in (json.loads, ast.literal_eval):  # pandas writes literals of Python
        try:
            return parse(text.strip())
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            continue
    return None


def _text_in(choice: dict[str, Any]) -> Any:
    return next((choice[name] for name in _TEXTS if name in choice), None)


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
    number is an index only beside numbered fields, where data sets have nothing else.
    """
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
