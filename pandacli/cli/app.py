"""The Typer application: commands imported on use, plain help, short usage errors."""

import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from shlex import join, quote
from typing import Annotated, Any

import typer
import typer.core
from typer.exceptions import TyperException

from pandacli.cli.config import FileDefaults, nearest, notice_misspelt_variables
from pandacli.cli.help import COMMANDS, OPTIONS, SUMMARY, VERSION, coloured, examples, overview
from pandacli.errors import UsageError

_EXTRA_ARGUMENTS = re.compile(r"unexpected extra argument\S* \((.*)\)", re.DOTALL)


class Group(typer.core.TyperGroup):
    """The command `panda`; suggests the nearest command for an unknown one."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.commands: Any = _LazyCommands()

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        word = args[0]
        if word.startswith("-") or word in self.commands:
            return super().resolve_command(ctx, args)
        if os.path.isfile(word):  # noqa: PTH113  (pathlib raises for a long question)
            command = f'panda ask {quote(word)} "what happens?"'
            raise UsageError(
                f"{word} is a file, not a command", "to ask about it:", command=command
            )
        near = nearest(word, self.commands)
        raise UsageError(
            f"{word} is not a command",
            f"did you mean panda {near}?" if near else "see panda --help",
        )

    def get_help(self, ctx: Any) -> str:  # noqa: ARG002
        return overview()  # without importing the commands


class _LazyCommands(Mapping[str, Any]):
    """The commands by name; looking one up imports its module."""

    def __getitem__(self, name: str) -> Any:
        from pandacli.cli.options import expand

        function = getattr(import_module(f"pandacli.cli.{COMMANDS[name].module}"), name)
        alone = typer.Typer(add_completion=False, rich_markup_mode=None)
        alone.command(name, cls=Command)(expand(function))
        return typer.main.get_command(alone)

    def __contains__(self, name: object) -> bool:
        return name in COMMANDS

    def __iter__(self) -> Iterator[str]:
        return iter(COMMANDS)

    def __len__(self) -> int:
        return len(COMMANDS)


class Command(typer.core.TyperCommand):
    """A command with defaults from the configuration file, and help in sections."""

    def make_context(self, *arguments: Any, **settings: Any) -> Any:
        defaults = FileDefaults(self.params)
        return super().make_context(*arguments, default_map=defaults, **settings)

    def invoke(self, ctx: Any) -> Any:
        if not ctx.params.get("quiet"):
            notice_misspelt_variables()
        return super().invoke(ctx)

    def get_help(self, ctx: Any) -> str:
        text = f"{super().get_help(ctx)}\n\n{examples(COMMANDS[str(self.name)].examples)}"
        return coloured(text, sys.stdout)

    def collect_usage_pieces(self, ctx: Any) -> list[str]:  # noqa: ARG002
        return [self.options_metavar or "", *_arguments(self)]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write a list for each panel of options, in the order of the parameters."""
        sections: dict[str, list[tuple[str, str]]] = {}
        parameters: list[Any] = list(self.get_params(ctx))
        for parameter in parameters:
            if _is_argument(parameter):
                heading, term = "Arguments", parameter.metavar
            else:
                heading = parameter.rich_help_panel or "Other"
                names = ", ".join(sorted(parameter.opts, key=len))  # without --no-...
                term = f"{names} {parameter.metavar or ''}".rstrip()
            sections.setdefault(heading, []).append((term, parameter.help or ""))
        # the same width in all sections keeps the second column in line
        width = max(len(term) for rows in sections.values() for term, _ in rows)
        for heading, rows in sections.items():
            with formatter.section(heading):
                formatter.write_dl([(term.ljust(width), text) for term, text in rows])


def _is_argument(parameter: Any) -> bool:
    return bool(parameter.param_type_name == "argument")


def _arguments(command: Any) -> list[str]:
    return [parameter.metavar for parameter in command.params if _is_argument(parameter)]


def usage_error(error: TyperException, program: Any, words: Sequence[str]) -> UsageError:
    """Return an error of Typer's parser, given the arguments of `panda`, as one of ours."""
    # the error itself does not always know its command
    name = next((word for word in words if word in program.commands), None)
    command = program if name is None else program.commands[name]
    called = "panda" if name is None else f"panda {name}"
    see = f"see {called} --help"
    usage = f"usage: {' '.join([called, *_arguments(command)])}"
    option = getattr(error, "option_name", None)
    parameter = getattr(error, "param", None)
    message = error.format_message().rstrip(".")
    if hasattr(error, "possibilities"):  # no such option
        context = getattr(error, "ctx", None)
        if name is not None and context is not None and context.parent is None:
            others = list(words)
            others.remove(name)
            command_line = join(["panda", name, *others])
            return UsageError("options come after the command", command=command_line)
        names = [name for p in command.params for name in (*p.opts, *p.secondary_opts)]
        near = nearest(option or "", names, 0.7)
        hint = f"did you mean {near}?" if near else see
        return UsageError(f"{called} has no option {option}", hint)
    if option is not None:
        metavar = next((p.metavar for p in command.params if option in p.opts), None)
        if metavar is None:
            return UsageError(f"{option} takes no value", see)
        article = "an" if metavar in ("N", "X", "I/N") else "a"
        return UsageError(f"{option} needs {article} {metavar}", see)
    if parameter is not None and hasattr(error, "param_type"):  # a missing argument
        return UsageError(f"{parameter.metavar.rstrip('.')} is missing", usage)
    if extra := _EXTRA_ARGUMENTS.search(message):
        return UsageError(f"too many arguments: {extra[1]}", usage)
    return UsageError(message[:1].lower() + message[1:], see)


app = typer.Typer(
    name="panda",
    add_completion=False,
    cls=Group,
    invoke_without_command=True,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["--help", "-h"], "max_content_width": 80},
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(VERSION)
        raise typer.Exit


def _help(wanted: bool) -> None:
    if wanted:
        typer.echo(coloured(overview(), sys.stdout))
        raise typer.Exit


def _eager(names: str, callback: Any) -> Any:
    declared = typer.Option(*names.split(", ")[::-1], callback=callback, is_eager=True)
    declared.help = OPTIONS[names]
    return declared


# Typer's own --help imports pydantic, a third of the time that help takes.
@app.callback(add_help_option=False, help=SUMMARY)
def panda(
    _show_version: Annotated[bool, _eager("-V, --version", _version)] = False,
    _show_help: Annotated[bool, _eager("-h, --help", _help)] = False,
) -> None:
    """Parse the options before the name of a command."""
