"""Plain help: quick to show, and grouped where a command has many options."""

from typing import Any

import typer.core


class PlainCommand(typer.core.TyperCommand):
    """A command whose help lists its options under the headings that they name."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:  # noqa: ARG002
        """Returns the words of the usage line after the command."""
        return [self.options_metavar or "", *arguments(self)]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Writes one definition list for each heading, in the order of the parameters."""
        sections: dict[str, list[tuple[str, str]]] = {}
        parameters: list[Any] = list(self.get_params(ctx))
        for parameter in parameters:
            heading = "Arguments" if is_argument(parameter) else parameter.rich_help_panel
            sections.setdefault(heading or "Other", []).append(_entry(parameter))
        # One width for all lists keeps the second column in line.
        width = max(len(term) for rows in sections.values() for term, _ in rows)
        for heading, rows in sections.items():
            with formatter.section(heading):
                formatter.write_dl([(term.ljust(width), text) for term, text in rows])


def is_argument(parameter: Any) -> bool:
    """Whether `parameter` is given by its place and not by a name."""
    return bool(parameter.param_type_name == "argument")


def arguments(command: Any) -> list[str]:
    """Returns the names of the arguments of `command`, as the user reads them."""
    return [parameter.metavar for parameter in command.params if is_argument(parameter)]


def _entry(parameter: Any) -> tuple[str, str]:
    """The line of a parameter. `--no-…` stays out: it only serves to overrule a default."""
    text = parameter.help or ""
    if is_argument(parameter):
        return parameter.metavar, text
    names = ", ".join(sorted(parameter.opts, key=len))
    return f"{names} {parameter.metavar}" if parameter.metavar else names, text
