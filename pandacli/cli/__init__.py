"""The command `panda`: parse, call one function of a room below, render."""

from pandacli.cli.entry import main

__all__ = ["main"]
