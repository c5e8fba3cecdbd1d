"""Scores from a judge model behind an OpenAI-compatible endpoint.

The protocol is that of Video-ChatGPT (arXiv 2306.05424), which the paper used: for short answers
the judge says whether question, right answer and prediction match ("yes" or "no") and gives a score
from 0 to 5; for long answers it gives a score from 0 to 5 for one aspect at a time. The wording of
the prompts is ours; `load_prompts` reads another.
"""

import asyncio
import json
import os
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from operator import attrgetter
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit

from pandacli.errors import ModelError, UsageError
from pandacli.evaluation.replies import TASKS, Replies, Reply, Verdict, read_reply
from pandacli.file_io import read_bytes

if TYPE_CHECKING:
    from openai import AsyncOpenAI

_ATTEMPTS = 3  # for a reply that can be read
_RETRIES = 8  # of a request that fails: 429, 5xx, a connection, a time-out
_FIRST_RETRIES = 2  # while there was no answer yet: the address may be wrong
_GIVE_UP = 10  # failures in a row, each after its retries
_SHOWN = 200  # characters of what an endpoint says
_TIMEOUT = 300.0  # seconds; local models are slow, and have a queue
_CREDENTIALS = re.compile(r"(?i)\b(bearer|basic)\s+\S+")  # of a header that an endpoint repeats
_AGAIN = "That could not be read. Reply with the JSON object only."

Prompts = Mapping[str, tuple[str, str]]
"""The system and user message of each task."""


def load_prompts(path: Path | None = None) -> Prompts:
    """Read the prompts of all tasks: ours, or a file of the form of `judge_prompts.toml`.

    Tasks of which a file says nothing keep our wording.

    Raises:
        UsageError: It cannot be read, or lacks what a prompt needs.
    """
    ours = Path(__file__).parents[1] / "assets" / "judge_prompts.toml"
    try:
        table = tomllib.loads(read_bytes(path or ours).decode())
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(
            f"cannot read the judge prompts in {path}: {reason}",
            "it is TOML: see docs/evaluation.md",
        ) from error
    tables = {name: value for name, value in table.items() if isinstance(value, dict)}
    shared = {name: value for name, value in table.items() if name not in tables}
    if unknown := (shared.keys() - {"system", "user"}) | (tables.keys() - set(TASKS)):
        raise UsageError(
            f"{path} has {min(unknown)!r}, which is no table of a judge prompt",
            f"tables are {', '.join(f'[{task}]' for task in TASKS)}",
        )
    prompts = dict(load_prompts()) if path else {}
    for task in TASKS:
        if not shared and task not in tables:
            continue
        held = shared | tables.get(task, {})
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
class JudgeSettings:
    """Which judge, and how it is asked.

    Attributes:
        model: Its name at the endpoint.
        url: The base URL of the endpoint; None for that of OPENAI_BASE_URL, or OpenAI.
        jobs: Requests at a time.
        temperature: 0 for the likeliest reply.
        seed: Sent where the endpoint knows one; None to send none.
        prompts: The system and user message of each task.
    """

    model: str
    url: str | None = None
    jobs: int = 8
    temperature: float = 0.0
    seed: int | None = None
    prompts: Prompts = field(default_factory=load_prompts)

    @property
    def endpoint(self) -> str | None:
        """The base URL: that of the settings, or of the variable that the package openai reads."""
        return self.url or os.environ.get("OPENAI_BASE_URL") or None

    @property
    def shown_url(self) -> str:
        """The base URL without what may be a secret in it."""
        parts = urlsplit(self.endpoint or "https://api.openai.com/v1")
        host = parts.netloc.rpartition("@")[2]
        return urlunsplit((parts.scheme, host, parts.path, "", ""))

    def prompt_digest(self, tasks: Iterable[str]) -> str:
        """Twelve hex digits that identify the wording of these tasks."""
        text = json.dumps([self.prompts[task] for task in sorted(set(tasks))])
        return sha256(text.encode()).hexdigest()[:12]


def require_endpoint(settings: JudgeSettings) -> tuple[ModuleType, str]:
    """The package that talks to a judge, and the key.

    Raises:
        UsageError: The package is not installed, or there is no usable key.
    """
    try:
        import openai
    except ImportError as error:
        raise UsageError(
            "a judge needs the package openai", command="pip install 'pandacli[eval]'"
        ) from error
    key = os.environ.get("OPENAI_API_KEY", "").strip()
    if not key and settings.endpoint is None:
        raise UsageError("there is no key for the judge", "set OPENAI_API_KEY")
    if not (key.isascii() and key.isprintable()):
        raise UsageError("the key in OPENAI_API_KEY cannot be one", "it is one line of ASCII")
    return openai, key or "none"  # a local endpoint may ask for no key


class Judge:
    """Asks a model for verdicts, several at a time.

    Args:
        settings: Which model, and how.
        replies: Where its replies are kept.

    Attributes:
        models: What the endpoint reported as the model of the replies that count, with fingerprints
            where it has them.

    Raises:
        UsageError: The package `openai` is not installed, or there is no key.
    """

    def __init__(self, settings: JudgeSettings, replies: Replies) -> None:
        self._openai, self._key = require_endpoint(settings)
        self._settings, self._replies = settings, replies
        self.models: dict[str, None] = {}
        self._answered = False
        self._failures = 0  # since the last answer

    def verdicts(
        self, cases: Iterable[Case], done: Callable[[], None] = lambda: None
    ) -> dict[Case, Verdict | str]:
        """The verdict on each case, or why there is none.

        Args:
            cases: The cases; those with kept replies are not asked again.
            done: Called after each case.

        Raises:
            ModelError: The endpoint cannot be reached, refuses the key or the model, or keeps
                failing.
            UsageError: The file of replies cannot be written.
        """
        verdicts: dict[Case, Verdict | str] = {}

        async def work(client: "AsyncOpenAI", queue: Iterable[Case]) -> None:
            for case in queue:
                verdicts[case] = await self._judge(client, case)
                done()

        async def run() -> None:
            # a signal's exception is raised in any task; it is raised from here, too
            asyncio.get_running_loop().set_exception_handler(lambda _loop, _context: None)
            options = {"api_key": self._key, "base_url": self._settings.endpoint}
            async with (
                self._openai.AsyncOpenAI(**options, timeout=_TIMEOUT, max_retries=0) as client,
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
                if verdict := read_reply(reply.reply, case.task):
                    self.models.setdefault(reply.model)
                    return verdict
            if len(replies) >= _ATTEMPTS:
                said = replies[-1].reply[:60]
                return f"no readable reply in {_ATTEMPTS} attempts: {said!r}"
            asked = list(messages)
            for reply in filter(attrgetter("reply"), replies):
                asked += [_message("assistant", reply.reply), _message("user", _AGAIN)]
            try:
                reply = await self._ask(client, asked)
            except (self._openai.OpenAIError, ValueError) as error:
                return self._failure(error)
            self._answered, self._failures = True, 0
            self._replies.add(digest, case.task, reply)
            replies.append(reply)

    def _messages(self, case: Case) -> list[dict[str, str]]:
        system, user = self._settings.prompts[case.task]
        fields = {
            name: text.encode(errors="replace").decode()  # unpaired surrogates cannot be sent
            for name, text in vars(case).items()
            if name != "task"
        }
        pattern = re.compile("{(" + "|".join(fields) + ")}")
        system, user = (
            pattern.sub(lambda found: fields[found[1]], text) for text in (system, user)
        )
        return [*([_message("system", system)] if system else []), _message("user", user)]

    async def _ask(self, client: "AsyncOpenAI", messages: list[dict[str, str]]) -> Reply:
        """A reply; 429, 5xx and broken connections are tried again, a first connection less long.

        Raises:
            openai.OpenAIError: There is none.
            ValueError: What came is no completion.
        """
        settings, openai = self._settings, self._openai
        options: dict[str, Any] = {"messages": messages, "temperature": settings.temperature}
        if settings.seed is not None:
            options["seed"] = settings.seed
        for retries in (_RETRIES,) if self._answered else (_FIRST_RETRIES, _RETRIES):
            create = client.with_options(max_retries=retries).chat.completions.create
            try:
                return _reply(await create(model=settings.model, **options))
            except (openai.RateLimitError, openai.InternalServerError):
                if retries == _RETRIES:
                    raise
            except openai.APIConnectionError:
                if retries == _RETRIES or not self._answered:
                    raise
        raise AssertionError("the last attempt returns or raises")

    def _failure(self, error: Exception) -> str:
        """Why a request failed for good.

        Raises:
            ModelError: All others would fail in the same way.
        """
        openai, where = self._openai, self._settings.shown_url
        if isinstance(error, openai.AuthenticationError | openai.PermissionDeniedError):
            raise ModelError(f"{where} refuses the key", "set OPENAI_API_KEY") from error
        if isinstance(error, openai.NotFoundError):
            raise ModelError(
                f"{where} has no model {self._settings.model!r}",
                "see --judge and --judge-url, which mostly ends in /v1",
            ) from error
        if isinstance(error, openai.APIConnectionError) and not self._answered:
            raise ModelError(f"no judge answers at {where}", "see --judge-url") from error
        reason = "no chat completion" if isinstance(error, ValueError) else type(error).__name__
        if isinstance(error, openai.APIStatusError):
            body = error.body if isinstance(error.body, dict) else {}
            said = str(body.get("message") or "no reason is given").replace(self._key, "***")
            said = _CREDENTIALS.sub(r"\1 ***", said)
            reason = f"status {error.status_code}: {' '.join(said.split())[:_SHOWN]}"
        self._failures += 1
        if self._failures >= _GIVE_UP:
            raise ModelError(
                f"{where} failed {_GIVE_UP} times in a row, last with {reason}",
                "replies are kept: the same command resumes",
            ) from error
        return f"the judge failed with {reason}"


def _reply(completion: Any) -> Reply:
    """The reply in a completion, any field of which may be missing; ValueError without choices."""
    choices = getattr(completion, "choices", None)
    if not choices or not isinstance(choices, list):
        raise ValueError
    content = getattr(getattr(choices[0], "message", None), "content", None)
    names = (getattr(completion, name, None) for name in ("model", "system_fingerprint"))
    model, fingerprint = (str(name or "") for name in names)
    model += f" ({fingerprint})" if fingerprint else ""
    return Reply(content if isinstance(content, str) else "", model)


def _message(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}
