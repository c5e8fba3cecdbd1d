"""The input prompt of `panda chat`: history, several lines, completion, and a toolbar below."""

import os
import re
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

from prompt_toolkit import PromptSession, print_formatted_text
from prompt_toolkit.completion import CompleteEvent, Completer, Completion, PathCompleter
from prompt_toolkit.document import Document
from prompt_toolkit.formatted_text import FormattedText
from prompt_toolkit.history import FileHistory, InMemoryHistory
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.layout import Dimension, HSplit, Layout
from prompt_toolkit.styles import Style

from pandacli.terminal.slash_commands import COMMANDS, Command
from pandacli.terminal.text import sanitize, wrap
from pandacli.video.clip import VIDEO_SUFFIXES

_GREY = "fg:ansibrightblack"
_STYLE = Style.from_dict({"bottom-toolbar": f"noreverse {_GREY}", "prompt": "bold", "more": _GREY})
_REFRESH = 0.5  # seconds between redraws of the toolbar


class Prompt:
    """Reads one question or slash command at a time, above the line that `toolbar` returns.

    `history` is the file of earlier questions; `failure` returns an error that ends a `read`.
    """

    def __init__(
        self,
        toolbar: Callable[[], str],
        history: Path | None,
        failure: Callable[[], BaseException | None] = lambda: None,
    ) -> None:
        self._failure = failure
        self._session: PromptSession[str] = PromptSession(
            [("class:prompt", "> ")],
            multiline=True,
            prompt_continuation=[("class:more", "  ")],
            history=_QuestionHistory(str(history)) if history else InMemoryHistory(),
            completer=_CommandCompleter(),
            complete_while_typing=True,
            enable_suspend=True,
            key_bindings=_keys(),
            bottom_toolbar=toolbar,
            refresh_interval=_REFRESH,
            style=_STYLE,
            reserve_space_for_menu=4,
            erase_when_done=True,  # text taller than the screen would leave its toolbar there
        )
        self._app = self._session.app
        below = _BelowFirstLine([self._app.layout.container])
        self._app.layout = Layout(below, self._session.default_buffer)

    def read(self) -> str:
        """Return what is typed; raises EOFError, KeyboardInterrupt, or the error of `failure`."""
        text = self._session.prompt(pre_run=self._exit_on_failure)
        # typed UTF-8 arrives as surrogates where the locale is not UTF-8
        text = text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
        self._show(text)
        return text

    def _show(self, text: str) -> None:
        """Leave the text on the screen; of a long one, its first lines."""
        size = self._session.output.get_size()
        limit = max(1, size.rows // 2)
        encoding = sys.stdout.encoding or "utf-8"
        shown = sanitize(text.expandtabs(4)).encode(encoding, "backslashreplace").decode(encoding)
        lines = wrap(shown, size.columns - 2).split("\n")
        if (hidden := len(lines) - limit) > 1:
            lines = [*lines[:limit], f"[{hidden} more lines]"]
        parts = FormattedText([("class:prompt", "> "), ("", "\n  ".join(lines))])
        print_formatted_text(parts, style=_STYLE, include_default_pygments_style=False)

    def refresh(self) -> None:
        """Redraw the toolbar and check `failure`; may be called from any thread."""
        self._app.invalidate()
        if (loop := self._app.loop) is not None:
            with suppress(RuntimeError):  # closed just now
                loop.call_soon_threadsafe(self._exit_on_failure)

    def _exit_on_failure(self) -> None:
        error = self._failure()
        if error is not None and self._app.is_running and not self._app.is_done:
            self._app.current_buffer.append_to_history()
            self._app.exit(exception=error)


class _BelowFirstLine(HSplit):
    """Leaves the first line free: clearing it would move the screen into the scrollback."""

    def preferred_height(self, width: int, max_available_height: int) -> Dimension:
        limit = max(1, max_available_height - 1)
        wanted = super().preferred_height(width, limit)
        least, preferred = min(wanted.min, limit), min(wanted.preferred, limit)
        return Dimension(min=least, max=limit, preferred=preferred)


class _QuestionHistory(FileHistory):
    """A private history file that takes any text and ignores I/O errors."""

    def store_string(self, string: str) -> None:
        with suppress(OSError):
            Path(os.fsdecode(self.filename)).touch(mode=0o600)
            super().store_string(string.encode("utf-8", "replace").decode("utf-8"))

    def load_history_strings(self) -> Iterable[str]:
        try:
            return list(super().load_history_strings())
        except OSError:
            return []


class _CommandCompleter(Completer):
    def get_completions(self, document: Document, event: CompleteEvent) -> Iterable[Completion]:
        text = document.text_before_cursor
        if not text.startswith("/") or "\n" in text:
            return
        name, *rest = re.split(r"\s+", text, maxsplit=1)
        for command in COMMANDS:
            if not rest and command.name.startswith(name):
                meta = {"display": command.usage, "display_meta": command.help}
                yield Completion(command.name, -len(name), **meta)
            elif rest and command.name == name:
                yield from self._arguments(command, rest[0], event)

    def _arguments(self, command: Command, text: str, event: CompleteEvent) -> Iterable[Completion]:
        if command.words:
            word, *last = re.split(r"\s+", text, maxsplit=1)
            if not last:
                return [Completion(w, -len(word)) for w in command.words if w.startswith(word)]
            if word not in command.words:
                return []
            text = last[0]
        if not command.files:
            return []

        def is_offered(name: str) -> bool:
            is_video = Path(name).suffix.lower() in (*VIDEO_SUFFIXES, ".webp")
            return is_video or command.files == "any" or Path(name).is_dir()

        paths = PathCompleter(expanduser=True, file_filter=is_offered)
        return paths.get_completions(Document(text, len(text)), event)


def _keys() -> KeyBindings:
    keys = KeyBindings()
    keys.add("enter")(lambda event: event.current_buffer.validate_and_handle())
    keys.add("escape", "enter")(lambda event: event.current_buffer.insert_text("\n"))

    @keys.add("c-c")
    def _(event: KeyPressEvent) -> None:
        if event.current_buffer.text:
            event.current_buffer.reset()
        else:
            event.app.exit(exception=KeyboardInterrupt)

    return keys
