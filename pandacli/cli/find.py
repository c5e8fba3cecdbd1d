"""`panda find`: rank clips, or moments of films, by the probability of a yes."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from shlex import join
from typing import TYPE_CHECKING, Annotated

import typer

from pandacli.cli import options, signals, startup
from pandacli.errors import UsageError
from pandacli.terminal.console import Screen, echo_off
from pandacli.timeline.looking import as_question
from pandacli.timeline.places import find_videos

if TYPE_CHECKING:
    from pandacli.terminal.ranking import RankingDisplay
    from pandacli.timeline.find import Search

_WORDS = "Videos, folders or patterns; then what to look for."
_EXAMPLE = 'panda find clips "a red circle moves right"'


def find(
    words: Annotated[list[str], options.argument("PLACE... TEXT", _WORDS)],
    how: options.Looking,
    every: options.Every = None,
    recursive: options.Recursive = False,
    top: options.Top = 10,
    cache_size: options.CacheSize = options.CACHE_SIZE,
    full_hash: options.FullHash = False,
    json: options.JsonRanking = False,
    format: options.RankingFormat = None,  # noqa: A002  (the name of the option)
    graphics: options.Graphics = "auto",
    no_frames: options.NoFrames = False,
    quiet: options.Quiet = False,
    _debug: options.Debug = False,
) -> None:
    """Find the clips that show something.

    The clips are ranked by the probability that the answer is yes. With
    --every films are cut into windows, and those are ranked. A statement is
    asked as "Does the video show this: ...?". Each line of the output is a
    probability, a clip and, if it is not whole, its times; piped, there are
    tabs between them.

    Scores are kept (see panda cache): the same search computes only what is
    new, and resumes after Ctrl-C. The exit code is 1 if clips could not be
    read.
    """
    places, question = _split(words)
    if json and format:
        raise UsageError("--json and --format are two kinds of output", "give one of them")
    screen = Screen(quiet=quiet, graphics=graphics)
    screen.require_stdout()
    paths = find_videos(places, recursive)
    if how.offline:
        startup.go_offline()
    loading = startup.Loading(how.spec())
    with ExitStack() as opened:
        opened.enter_context(echo_off())
        startup.offer_download(loading, screen)
        with screen.status("preparing"):
            plan = loading.plan()
            from pandacli.terminal.ranking import RankingDisplay
            from pandacli.timeline.find import Search, Wanted
            from pandacli.timeline.scores import ScoreStore

            store = None
            if cache_size:
                store = opened.enter_context(ScoreStore(cache_size, notice=screen.notice))
            wanted = Wanted(question, every, how.start, how.end, how.frames, how.system)
            search = Search(paths, wanted, plan, store, whole=full_hash)
        unit = "windows" if every else "clips"
        display = RankingDisplay(screen, search, top, clips=len(paths), unit=unit)
        try:
            with _interruptible():
                _run(search, display, loading, screen)
        except KeyboardInterrupt:
            display.show(question, loading.name, json=json, as_csv=format == "csv")
            kept = "; the same command resumes" if store else ""
            screen.notice(f"interrupted after {search.scored} {unit}{kept}")
            raise
        display.show(question, loading.name, json=json, as_csv=format == "csv")
        if not (json or format or no_frames):
            display.draw()
        display.summary()
    if display.failed:
        raise typer.Exit(1)


def _run(
    search: "Search", display: "RankingDisplay", loading: startup.Loading, screen: Screen
) -> None:
    """Look up what is known, and score the rest; the model loads once something is missing."""
    begun = False
    with display.progress("looking up the clips"):
        for found in search.look_up():
            display.update(found)
            if not (begun or search.is_complete):
                begun = True
                loading.begin()
    if search.is_complete:
        return
    panda = startup.load_model(loading, screen)
    with display.progress("scoring"):
        display.begin()
        for each in search.score(panda):
            display.update(each)


@contextmanager
def _interruptible() -> Iterator[None]:
    """Let Ctrl-C stop the block however long its current step takes, as with a large model."""
    signals.be_patient(lambda: True)
    try:
        with signals.interrupts_do_not_end():
            yield
    finally:
        signals.be_patient(lambda: False)


def _split(words: Sequence[str]) -> tuple[list[str], str]:
    """Return the places, and the text as a question."""
    *places, text = words
    if not places:
        missing = "what to look for" if startup.names_video(text) else "the place to look in"
        raise UsageError(f"{missing} is missing", "for example:", command=_EXAMPLE)
    if startup.names_video(text):
        others = [word for word in places if not startup.names_video(word)]
        if len(others) == 1:
            rest = [word for word in words if word != others[0]]
            command = join(["panda", "find", *rest, others[0]])
            raise UsageError("what to look for comes last", command=command)
        hint = "what to look for comes last, for example:"
        raise UsageError(f"{text} is a place, not a text", hint, command=_EXAMPLE)
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise UsageError(f"the text is not UTF-8: {text}")
    return places, as_question(text)
