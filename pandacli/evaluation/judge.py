"""Scores from a judge model behind an OpenAI-compatible endpoint.

The protocol is that of Video-ChatGPT (arXiv 2306.05424), which the paper used: for short answers
the judge says whether question, right answer and prediction match ("yes" or "no") and gives a score
from 0 to 5; for long answers it gives a score from 0 to 5 for one aspect at a time. The wording of
the prompts is ours; `load_prompts` reads another.

Every reply is kept in a file of JSON lines before it counts, so that a run can be resumed after
anything; it is found again by the digest of the model, the messages and the sampling settings.
"""

import ast
import asyncio
import json
import os
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from filelock import FileLock, Timeout

from pandacli.errors import ModelError, PandaError, UsageError
from pandacli.file_io import read_bytes

if TYPE_CHECKING:
    from openai import AsyncOpenAI

MATCH = "match"
ASPECTS = ("correctness", "detail", "context", "temporal", "consistency")
TASKS = (MATCH, *ASPECTS)

HIGHEST = 5
"""The best score of a judge; the lowest is 0."""

_ATTEMPTS = 3  # for a reply that can be read
_RETRIES = 8  # of a request that fails: 429, 5xx, a connection, a time-out
_TIMEOUT = 120.0  # seconds
_AGAIN = "That could not be read. Reply with the JSON object only."

Prompts = Mapping[str, tuple[str, str]]
"""The system and user message of each task."""


def load_prompts(path: Path | None = None) -> Prompts:
    """Read the prompts of all tasks: ours, or a file of the form of `judge_prompts.toml`.

    Raises:
        UsageError: It cannot be read, or lacks what a prompt needs.
    """
    ours = Path(__file__).parents[1] / "assets" / "judge_prompts.toml"
    try:
        table = tomllib.loads(read_bytes(path or ours).decode())
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"cannot read the judge prompts in {path}: {reason}") from error
    shared = {name: value for name, value in table.items() if not isinstance(value, dict)}
    if unknown := table.keys() - {"system", "user", *TASKS}:
        message = f"{path} has {min(unknown)!r}, which is no judge prompt"
        raise UsageError(message, f"tables are {', '.join(TASKS)}")
    prompts = {}
    for task in TASKS:
        held = shared | table.get(task, {})
        system, user = held.get("system", ""), held.get("user")
        if not isinstance(system, str) or not isinstance(user, str):
            raise UsageError(f"{path} has no text 'user' for the task {task}")
        if "{prediction}" not in user:
            raise UsageError(f"the prompt of {task} in {path} does not have {{prediction}} in it")
        prompts[task] = system.strip(), user.strip()
    return prompts


@dataclass(frozen=True)
class Case:
    """What a judge is asked about.

    Attributes:
        task: `MATCH` or one of `ASPECTS`.
        question: The question.
        answer: The reference answer.
        prediction: The answer to be graded.
        question2: The second phrasing, for consistency.
        prediction2: The answer to it.
    """

    task: str
    question: str
    answer: str
    prediction: str
    question2: str = ""
    prediction2: str = ""


@dataclass(frozen=True)
class Verdict:
    """A reply that could be read.

    Attributes:
        score: From 0 to 5.
        match: Whether the prediction is right; None for an aspect.
    """

    score: int
    match: bool | None = None


@dataclass(frozen=True)
class JudgeSettings:
    """Which judge, and how it is asked.

    Attributes:
        model: Its name at the endpoint.
        url: The base URL of the endpoint; None for that of OpenAI.
        key: The API key; None for one from the environment.
        jobs: Requests at a time.
        temperature: 0 for the likeliest reply.
        seed: Sent where the endpoint knows one; None to send none.
        prompts: The system and user message of each task.
    """

    model: str
    url: str | None = None
    key: str | None = None
    jobs: int = 8
    temperature: float = 0.0
    seed: int | None = None
    prompts: Prompts = field(default_factory=load_prompts)

    def prompt_digest(self, tasks: Iterable[str]) -> str:
        """Twelve hex digits that identify the wording of these tasks."""
        text = json.dumps([self.prompts[task] for task in sorted(set(tasks))])
        return sha256(text.encode()).hexdigest()[:12]


def read_reply(text: str, task: str) -> Verdict | None:
    """The verdict in a reply; None where it cannot be read.

    A dictionary of JSON or Python is looked for anywhere in it, then `pred: yes, score: 4` in
    plain text.
    """
    found: dict[str, Any] = {}
    for candidate in re.findall(r"\{[^{}]*\}", text):
        for parse in (json.loads, ast.literal_eval):
            try:
                value = parse(candidate)
            except (ValueError, SyntaxError, RecursionError, MemoryError, TypeError):
                continue
            if isinstance(value, dict) and "score" in value:
                found = value
    if not found:
        pairs = re.findall(r"\b(pred|score)\b\W{1,6}(yes|no|\d+(?:\.\d+)?)\b", text.casefold())
        found = dict(pairs)
    try:
        score = int(float(found["score"]))
    except (KeyError, TypeError, ValueError, OverflowError):
        return None
    if not 0 <= score <= HIGHEST:
        return None
    if task != MATCH:
        return Verdict(score)
    said = str(found.get("pred", "")).casefold()
    if "yes" not in said and "no" not in said:
        return None
    return Verdict(score, "yes" in said)


class Replies:
    """The replies of judges in a file of JSON lines; a context manager that holds its lock.

    Args:
        path: The file; it is created.

    Attributes:
        models: Models that the endpoint reported, with fingerprints where it has them.

    Raises:
        UsageError: Another run writes it, or it is another kind of file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.models: dict[str, None] = {}
        self._lines: dict[str, list[str]] = {}
        self._lock = FileLock(path.with_name(path.name + ".lock"), timeout=0)

    def __enter__(self) -> Self:
        try:
            self._lock.acquire()
        except Timeout as error:
            raise UsageError(f"{self.path} is being written by another run of panda") from error
        except OSError as error:
            raise self._failed(error) from error
        try:
            self._open()
        except BaseException:
            self._lock.release()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._file.close()
        Path(self._lock.lock_file).unlink(missing_ok=True)
        self._lock.release()

    def of(self, digest: str) -> list[str]:
        """The replies to a request, in order."""
        return self._lines.get(digest, [])

    def add(self, digest: str, task: str, reply: str, model: str) -> None:
        """Write a reply; it is on the disk when this returns.

        Raises:
            PandaError: It cannot be written.
        """
        self._remember(line := {"digest": digest, "task": task, "reply": reply, "model": model})
        try:
            self._file.write(json.dumps(line) + "\n")
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise self._failed(error) from error

    def _open(self) -> None:
        whole = 0
        try:
            content = self.path.read_bytes() if self.path.exists() else b""
            for raw in content.splitlines(keepends=True):
                line = _parsed(raw)
                if line is None and raw.endswith(b"\n"):
                    raise UsageError(
                        f"{self.path} is not a file of judge replies",
                        "name another: --judge-replies",
                    )
                if line is None or not raw.endswith(b"\n"):  # torn by a kill
                    break
                self._remember(line)
                whole += len(raw)
            self._file = self.path.open("a", encoding="utf-8")
            self._file.truncate(whole)
        except OSError as error:
            raise self._failed(error) from error

    def _remember(self, line: dict[str, str]) -> None:
        self._lines.setdefault(line["digest"], []).append(line["reply"])
        self.models.setdefault(line["model"])

    def _failed(self, error: OSError) -> PandaError:
        return PandaError(f"cannot write the judge's replies to {self.path}: {error.strerror}")


def _parsed(raw: bytes) -> dict[str, str] | None:
    try:
        line = json.loads(raw)
    except ValueError:
        return None
    names = ("digest", "task", "reply", "model")
    held = isinstance(line, dict) and all(isinstance(line.get(name), str) for name in names)
    return line if held else None


class Judge:
    """Asks a model for verdicts, several at a time.

    Args:
        settings: Which model, and how.
        replies: Where its replies are kept.

    Raises:
        UsageError: The package `openai` is not installed, or there is no key.
    """

    def __init__(self, settings: JudgeSettings, replies: Replies) -> None:
        try:
            import openai
        except ImportError as error:
            raise UsageError(
                "a judge needs the package openai", command="pip install 'pandacli[eval]'"
            ) from error
        self._openai = openai
        self._settings, self._replies = settings, replies
        self.key = settings.key or os.environ.get("OPENAI_API_KEY") or ""
        if not self.key:
            if settings.url is None:
                raise UsageError("there is no key for the judge", "set OPENAI_API_KEY")
            self.key = "none"  # a local endpoint that asks for no key
        self._answered = False

    def verdicts(
        self, cases: Iterable[Case], done: Callable[[], None] = lambda: None
    ) -> dict[Case, Verdict | str]:
        """The verdict on each case, or why there is none.

        Args:
            cases: The cases; those with kept replies are not asked again.
            done: Called after each case.

        Raises:
            ModelError: The endpoint cannot be reached, or refuses the key or the model.
            PandaError: The file of replies cannot be written.
        """
        verdicts: dict[Case, Verdict | str] = {}

        async def work(client: "AsyncOpenAI", queue: Iterable[Case]) -> None:
            for case in queue:
                verdicts[case] = await self._judge(client, case)
                done()

        async def run() -> None:
            options = {"api_key": self.key, "base_url": self._settings.url}
            async with (
                self._openai.AsyncOpenAI(
                    **options, timeout=_TIMEOUT, max_retries=_RETRIES
                ) as client,
                asyncio.TaskGroup() as group,
            ):
                queue = iter(dict.fromkeys(cases))
                for _ in range(self._settings.jobs):
                    group.create_task(work(client, queue))

        try:
            asyncio.run(run())
        except BaseExceptionGroup as group:
            raise group.exceptions[0] from None
        return verdicts

    async def _judge(self, client: "AsyncOpenAI", case: Case) -> Verdict | str:
        messages = self._messages(case)
        settings = self._settings
        key = [settings.model, messages, settings.temperature, settings.seed]
        digest = sha256(json.dumps(key).encode()).hexdigest()[:16]
        replies = list(self._replies.of(digest))
        while True:
            for reply in replies:
                if verdict := read_reply(reply, case.task):
                    return verdict
            if len(replies) >= _ATTEMPTS:
                return f"no readable reply in {_ATTEMPTS} attempts: {replies[-1][:60]!r}"
            asked = list(messages)
            for reply in replies:
                asked += [_message("assistant", reply), _message("user", _AGAIN)]
            try:
                reply, model = await self._ask(client, asked)
            except self._openai.OpenAIError as error:
                return self._failure(error)
            self._answered = True
            self._replies.add(digest, case.task, reply, model)
            replies.append(reply)

    def _messages(self, case: Case) -> list[dict[str, str]]:
        system, user = self._settings.prompts[case.task]
        fields = {name: value for name, value in vars(case).items() if name != "task"}
        pattern = re.compile("{(" + "|".join(fields) + ")}")
        system, user = (
            pattern.sub(lambda found: fields[found[1]], text) for text in (system, user)
        )
        return [*([_message("system", system)] if system else []), _message("user", user)]

    async def _ask(self, client: "AsyncOpenAI", messages: list[dict[str, str]]) -> tuple[str, str]:
        settings = self._settings
        options: dict[str, Any] = {"messages": messages, "temperature": settings.temperature}
        if settings.seed is not None:
            options["seed"] = settings.seed
        completion = await client.chat.completions.create(model=settings.model, **options)
        choices = completion.choices or []
        reply = (choices[0].message.content if choices else None) or ""
        fingerprint = completion.system_fingerprint
        return reply, f"{completion.model} ({fingerprint})" if fingerprint else completion.model

    def _failure(self, error: Exception) -> str:
        """Why a request failed for good.

        Raises:
            ModelError: All others would fail in the same way.
        """
        openai, where = self._openai, self._settings.url or "api.openai.com"
        if isinstance(error, openai.AuthenticationError | openai.PermissionDeniedError):
            raise ModelError(f"{where} refuses the key", "set OPENAI_API_KEY") from error
        if isinstance(error, openai.NotFoundError):
            raise ModelError(
                f"{where} has no model {self._settings.model!r}", "see --judge and --judge-url"
            ) from error
        if isinstance(error, openai.APIConnectionError) and not self._answered:
            raise ModelError(f"no judge answers at {where}", "see --judge-url") from error
        if isinstance(error, openai.APIStatusError):
            return f"the judge failed with status {error.status_code}"
        return f"the judge failed: {type(error).__name__}"


def _message(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}
