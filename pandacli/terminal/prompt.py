"""Where the user types: history, several lines, completion, and a line about the model below."""

import os
import re
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

from prompt_toolkit import PromptSession, print_formatted_text
from prompt_toolkit.completion import (
    CompleteEvent,
    Completer,
    Completion,
    PathCompleter,
)
from prompt_toolkit.document import Document
from prompt_toolkit.formatted_text import FormattedText
from prompt_toolkit.history import FileHistory, InMemoryHistory
from prompt_toolkit.input import Input
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.layout import Dimension, HSplit, Layout
from prompt_toolkit.output import Output
from prompt_toolkit.styles import Style

from pandacli.terminal.slash_commands import COMMANDS
from pandacli.terminal.text import sanitize, wrapped
from pandacli.video.clip import VIDEO_SUFFIXES

_FILE_COMMAND = re.compile(r"(/video|/load|/save|/frames\s+save)\s+")
_STYLE = Style.from_dict(
    {
        "bottom-toolbar": "noreverse fg:ansibrightblack",
        "prompt": "bold",
        "more": "fg:ansibrightblack",
    }
)
_REFRESH = 0.5  # seconds between two looks at what is being made ready


class Prompt:
    """The line at which questions are typed.

    Enter asks, Alt-Enter begins a new line. Ctrl-C clears the line, and is raised on an empty one.

    Args:
        toolbar: What stands below.
        history: The file of earlier questions; None where they are kept for this time only.
        settings: The names that `/set` knows.
        failure: Why no question can be answered, where that is so; it ends the reading.
        given: Where keys come from, instead of the terminal.
        shown: Where it is drawn, instead of the terminal.
    """

    def __init__(
        self,
        toolbar: Callable[[], str],
        history: Path | None,
        settings: Iterable[str],
        *,
        failure: Callable[[], BaseException | None] = lambda: None,
        given: Input | None = None,
        shown: Output | None = None,
    ) -> None:
        self._failure = failure
        self._session: PromptSession[str] = PromptSession(
            [("class:prompt", "> ")],
            multiline=True,
            prompt_continuation=[("class:more", "  ")],
            history=_Questions(str(history)) if history else InMemoryHistory(),
            completer=_Slashes(settings),
            complete_while_typing=True,
            enable_suspend=True,
            key_bindings=_keys(),
            bottom_toolbar=toolbar,
            refresh_interval=_REFRESH,
            style=_STYLE,
            reserve_space_for_menu=4,
            erase_when_done=True,  # what is taller than the screen would leave its toolbar there
            input=given,
            output=shown,
        )
        app = self._session.app
        app.layout = Layout(_BelowTheTop([app.layout.container]), self._session.default_buffer)

    def read(self) -> str:
        """What the user typed.

        What has been typed when `failure` has something is kept among the earlier questions.

        Raises:
            PandaError: What `failure` has.
            EOFError: Ctrl-D on an empty line.
            KeyboardInterrupt: Ctrl-C on an empty line.
        """
        text = self._session.prompt(pre_run=self._leave_if_failed)
        # where the locale is not UTF-8, but what is typed is
        text = text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
        self._show(text)
        return text

    def _show(self, text: str) -> None:
        """Leave what was typed on the screen; of much, its beginning."""
        size = self._session.output.get_size()
        most = max(1, size.rows // 2)
        encoding = sys.stdout.encoding or "utf-8"
        shown = sanitize(text.expandtabs(4)).encode(encoding, "backslashreplace").decode(encoding)
        lines = wrapped(shown, size.columns - 2).split("\n")
        left = len(lines) - most
        if left > 1:
            lines = [*lines[:most], f"[{left} more lines]"]
        parts = [("class:prompt", "> "), ("", "\n  ".join(lines))]
        print_formatted_text(
            FormattedText(parts),
            style=_STYLE,
            output=self._session.output,
            include_default_pygments_style=False,
        )

    def refresh(self) -> None:
        """Look at the toolbar and at `failure` anew; may be called from any thread."""
        self._session.app.invalidate()
        if (loop := self._session.app.loop) is not None:
            with suppress(RuntimeError):  # closed just now
                loop.call_soon_threadsafe(self._leave_if_failed)

    def _leave_if_failed(self) -> None:
        app, error = self._session.app, self._failure()
        if error is not None and app.is_running and not app.is_done:
            app.current_buffer.append_to_history()
            app.exit(exception=error)


class _BelowTheTop(HSplit):
    """Leaves the first line of the screen alone.

    Terminals keep a screen that is cleared from its first line on among the lines above it.
    """

    def preferred_height(self, width: int, max_available_height: int) -> Dimension:
        most = max(1, max_available_height - 1)
        wanted = super().preferred_height(width, most)
        return Dimension(min=min(wanted.min, most), max=most, preferred=min(wanted.preferred, most))


class _Questions(FileHistory):
    """A history file that takes any text, and whose loss is no error."""

    def store_string(self, string: str) -> None:
        try:
            Path(os.fsdecode(self.filename)).touch(mode=0o600)
            super().store_string(string.encode("utf-8", "replace").decode("utf-8"))
        except OSError:
            return

    def load_history_strings(self) -> Iterable[str]:
        try:
            return list(super().load_history_strings())
        except OSError:
            return []


class _Slashes(Completer):
    """Completes commands, what they take, and files."""

    def __init__(self, settings: Iterable[str]) -> None:
        self._settings = list(settings)
        self._files = PathCompleter(expanduser=True)
        self._videos = PathCompleter(expanduser=True, file_filter=_is_video)

    def get_completions(self, document: Document, event: CompleteEvent) -> Iterable[Completion]:
        text = document.text_before_cursor
        if not text.startswith("/") or "\n" in text:
            return
        if found := _FILE_COMMAND.match(text):
            files = self._videos if found[1] == "/video" else self._files
            rest = text[found.end() :]
            yield from files.get_completions(Document(rest, len(rest)), event)
        elif " " not in text:
            for command in COMMANDS.values():
                if command.name.startswith(text):
                    yield Completion(
                        command.name, -len(text), display_meta=command.does, display=command.usage
                    )
        else:
            name, _, rest = text.partition(" ")
            words = {"/set": self._settings, "/frames": ["save"]}.get(name, [])
            for word in words:
                if word.startswith(rest):
                    yield Completion(word, -len(rest))


def _is_video(name: str) -> bool:
    path = Path(name)
    return path.is_dir() or path.suffix.lower() in (*VIDEO_SUFFIXES, ".webp")


def _keys() -> KeyBindings:
    keys = KeyBindings()

    @keys.add("enter")
    def _(event: KeyPressEvent) -> None:
        event.current_buffer.validate_and_handle()

    @keys.add("escape", "enter")
    def _(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    @keys.add("c-c")
    def _(event: KeyPressEvent) -> None:
        if event.current_buffer.text:
            event.current_buffer.reset()
        else:
            event.app.exit(exception=KeyboardInterrupt)

    return keys
