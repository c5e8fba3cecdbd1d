"""`panda ask`: answer questions about one clip."""

import sys
from contextlib import closing, nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pandacli.cli import options, startup
from pandacli.cli.entry import STARTED
from pandacli.errors import PandaError, UsageError
from pandacli.terminal.console import Screen, echo_off
from pandacli.terminal.report import (
    Stopwatch,
    answers_record,
    scores_record,
    scoring_rows,
    sparse_sampling_notice,
    stats_rows,
    truncation_notice,
)

if TYPE_CHECKING:
    from pandacli.inference import Answer
    from pandacli.inference.session import VideoSession
    from pandacli.inference.spec import Scores, ScoringStats

_QUESTIONS = "One or more; - reads one from standard input."
_MAX_QUESTION = 100_000  # characters; more than any model here can read


def ask(
    context: typer.Context,
    video: options.Video,
    questions: Annotated[list[str] | None, options.argument("QUESTION...", _QUESTIONS)] = None,
    question: options.Question = None,
    recursive: options.Recursive = False,
    every: options.Every = None,
    at: options.At = None,
    *,
    how: options.Answering,
    choice: options.Choice = None,
    choices: options.Choices = None,
    cache_size: options.CacheSize = options.CACHE_SIZE,
    full_hash: options.FullHash = False,
    json: options.Json = False,
    format: options.CaptionFormat = None,  # noqa: A002  (the name of the option)
    logprobs: options.Logprobs = False,
    stats: options.Stats = False,
    quiet: options.Quiet = False,
    _debug: options.Debug = False,
) -> None:
    """Ask one or more questions about a video.

    The answer streams to standard output, everything else goes to standard
    error. Each question is asked on its own. The answers to several questions
    take one line each when the output is not a terminal (line breaks in them
    become spaces); --json keeps them as they are.

    With -q all other words are videos, folders or patterns, and each answer
    is a line "clip: answer". With --every a film is cut into windows, and
    each answer is a line with its times. --json writes an object a line
    then. The exit code is 1 if some could not be answered. These answers
    do not use the cache.

    With --choice the likeliest of the given answers is the answer; --json has
    the probability of each. The log-probability of a choice is the sum of
    those of its tokens and of the end token. Write them as the model would:
    "Yes." is not "yes".
    """
    places = [video, *(questions or ())] if question else [video]
    words = question or questions or []
    startup.check_video("ask", video, () if question else words)
    if question:
        startup.check_places(places, question)
    else:
        startup.check_questions(video, words)
    given = read_choices(choice, choices)
    many = every is not None or (bool(question) and not startup.is_one_file(places))
    _check_effective(context, scored=bool(given), json=json, many=many)
    if recursive and not question:
        raise UsageError("--recursive is for folders", "give the question with -q")
    screen = Screen(quiet=quiet)
    screen.require_stdout()
    watch = Stopwatch(STARTED)
    with watch.paused():
        asked = _read_questions(words, screen)
    _check_windows(every, format, json=json, questions=len(asked))
    _check_times(at, every, how.frames)
    clip = how.clip(video, at or ())
    if how.offline:
        startup.go_offline()
    loading = startup.Loading(how.spec(), server=startup.server_of(context, how.server))
    generation = replace(how.generation(), logprobs=logprobs and json)
    if many:
        from pandacli.cli.ask_many import ask_many
        from pandacli.timeline.asking import Asked
        from pandacli.timeline.places import find_videos

        paths = find_videos(places, recursive) if question else [clip.path]
        ask_many(
            [replace(clip, path=path) for path in paths],
            Asked(asked, generation, given, how.frames, how.system),
            loading,
            screen,
            every=every,
            json=json,
            file_format=format,
            stats=stats,
        )
        return
    with echo_off():
        with watch.measure("frames"):
            how_cached = cache_size, full_hash, screen, loading
            prefixes = startup.cached_prefixes(clip, how.frames, *how_cached)
            sampled, seconds = None, 0.0
            if not loading.served and (prefixes is None or prefixes.is_empty):
                sampled, seconds = startup.read_clip(clip, how.frames, screen, loading=loading)
        with watch.paused():
            startup.offer_download(loading, screen)
        with watch.measure("model"):
            panda = startup.load_model(loading, screen)
        with screen.status("reading frames"), watch.measure("frames"):
            session = panda.open(
                sampled or clip,
                num_frames=how.frames,
                system=how.system,
                frames_seconds=seconds,
                cache=prefixes or False,
            )
        for sentence in () if sampled else session.frames.notices:
            screen.notice(sentence)
        if not at and (sparse := sparse_sampling_notice(session.frames, startup.LOOKS_CLOSER)):
            screen.notice(sparse)

        def report(answer: "Answer") -> None:
            if sentence := truncation_notice(answer, how.max_tokens, "raise --max-tokens"):
                screen.notice(sentence)
            if stats:
                screen.table(stats_rows(answer.stats, session.frames, watch))
            watch.end_answer()

        fields: dict[str, Any] = vars(generation)
        with startup.prefix_saved_afterwards(session, screen) if prefixes else nullcontext():
            if given:
                watch.start_answer()
                scored, found = _score(session, asked, given, screen)
                if json:
                    screen.json(scores_record(video, panda.name, session.frames, scored, found))
                else:
                    _show_scores(scored, screen)
                if stats:
                    screen.table(scoring_rows(found, session.frames, watch))
                return
            if json:
                watch.start_answer()
                with screen.status("thinking"):
                    answers = [session.ask(question, **fields) for question in asked]
                screen.json(answers_record(video, panda.name, session.frames, answers))
                for answer in answers:
                    report(answer)
                return
            for each in asked:
                if len(asked) > 1:
                    screen.heading(each)
                watch.start_answer()
                with closing(session.stream(each, **fields)) as pieces:
                    one_line = len(asked) > 1 and not screen.stdout_is_terminal
                    screen.stream(pieces, one_line=one_line)
                report(pieces.answer)


def read_choices(repeated: list[str] | None, joined: str | None) -> tuple[str, ...]:
    """Return the choices of --choice and --choices; none where neither is given."""
    texts = [*(repeated or ()), *(joined.split("|") if joined is not None else ())]
    if not texts:
        return ()
    from pandacli.inference.spec import check_choices

    if odd := next(filter(_is_not_utf8, texts), None):
        raise UsageError(f"the choice is not UTF-8 text: {odd}")
    return check_choices(texts)


def _check_windows(
    every: float | None, file_format: str | None, *, json: bool, questions: int
) -> None:
    """Refuse a format of windows where there are none, or that cannot hold all answers."""
    if file_format and every is None:
        raise UsageError("--format is for windows", "give --every as well")
    if file_format and json:
        raise UsageError("--format and --json are two forms of output", "leave one of them out")
    if file_format and questions > 1:
        raise UsageError("--format is for one question", "--json takes several")


def _check_times(at: tuple[float, ...] | None, every: float | None, frames: int) -> None:
    """Refuse times to look at that are too many, or given for windows."""
    if at and every is not None:
        raise UsageError("--at is for single times, --every for windows", "leave one of them out")
    if at and len(set(at)) > frames:
        hint = f"give up to {frames} times, or raise --frames"
        raise UsageError(f"--at: {len(set(at))} times are given for {frames} frames", hint)


def _check_effective(context: typer.Context, *, scored: bool, json: bool, many: bool) -> None:
    """Refuse options of the command line that would have no effect."""

    def among(*names: str) -> set[str]:
        return {
            name
            for name in names
            if context.params[name] is not False
            and getattr(context.get_parameter_source(name), "name", "") == "COMMANDLINE"
        }

    given = among("max_tokens", "temperature", "seed", "stop", "logprobs")
    if scored and "logprobs" in given:
        hint = "with --json each choice has its log-probability"
        raise UsageError("--logprobs is for answers that are generated", hint)
    if scored and given:
        option = min(given).replace("_", "-")
        hint = "leave it out, or ask without choices"
        raise UsageError(f"--{option} has no effect on choices, which are scored", hint)
    if "logprobs" in given and not json:
        raise UsageError("--logprobs is for JSON", "give --json as well")
    if many and (
        cache := [name for name in among("cache_size", "full_hash") if context.params[name]]
    ):
        option = cache[0].replace("_", "-")
        raise UsageError(f"--{option} has no effect: windows and many clips are not cached")


def _score(
    session: "VideoSession", questions: list[str], choices: tuple[str, ...], screen: Screen
) -> "tuple[list[Scores], ScoringStats]":
    from pandacli.inference.spec import ScoreRequest

    with screen.status("scoring"):
        scoring = session.score_all(ScoreRequest(question, choices) for question in questions)
        results = dict(scoring)
    scored = []
    for number in range(len(questions)):
        if isinstance(found := results[number], PandaError):
            raise found
        scored.append(found)
    return scored, scoring.stats


def _show_scores(scored: list["Scores"], screen: Screen) -> None:
    for scores in scored:
        if len(scored) > 1:
            screen.heading(scores.question)
        one_line = len(scored) > 1 and not screen.stdout_is_terminal
        screen.stream([scores.best.text], one_line=one_line)
        screen.choice_bars(scores)


def _read_questions(arguments: list[str], screen: Screen) -> list[str]:
    """Return the questions, with `-` replaced by the content of standard input."""
    if arguments.count("-") > 1:
        raise UsageError("standard input (-) can be read for one question only")
    questions = [_read_stdin(screen) if word == "-" else word for word in arguments]
    for question in questions:
        if not question.strip():
            raise UsageError("the question is empty", "for example:", command=startup.EXAMPLE)
        if _is_not_utf8(question):
            raise UsageError(f"the question is not UTF-8 text: {question}")
    return questions


def _is_not_utf8(text: str) -> bool:
    """Whether a text has bytes that Python could not decode."""
    return any("\ud800" <= character <= "\udfff" for character in text)


def _read_stdin(screen: Screen) -> str:
    if sys.stdin is None:
        raise UsageError("standard input is closed")
    if sys.stdin.isatty():
        screen.notice("type the question, end with Ctrl-D")
    most = 4 * _MAX_QUESTION  # bytes in UTF-8
    held = sys.stdin.buffer.read(most + 1)
    try:
        text = held.decode() if len(held) <= most else None
    except UnicodeDecodeError as error:
        raise UsageError("the question on standard input is not UTF-8 text") from error
    if text is None or len(text) > _MAX_QUESTION:
        raise UsageError(f"the question on standard input has over {_MAX_QUESTION} characters")
    return text.strip()
