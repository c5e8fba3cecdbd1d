"""`panda` without the modules, signals and functions that Windows lacks."""

import builtins
import os
import signal
import sys
import types

MODULES = {"fcntl", "grp", "pty", "pwd", "termios", "tty"}  # resource: psutil lacks the other way
NAMES = {
    *("O_CLOEXEC", "O_DIRECTORY", "O_NOFOLLOW", "O_NONBLOCK", "fchmod", "fork", "geteuid"),
    *("getpgrp", "getuid", "killpg", "mkfifo", "pread", "sched_getaffinity", "set_blocking"),
    *("statvfs", "sysconf", "tcgetpgrp"),
    *("SIGCONT", "SIGHUP", "SIGKILL", "SIGPIPE", "SIGQUIT", "SIGTTOU", "SIGWINCH"),
    *("pthread_sigmask", "setitimer"),
}
_import = builtins.__import__


class WithoutPosix(types.ModuleType):
    """A module that hides names from the modules of panda."""

    def __getattribute__(self, name):
        if name in NAMES and sys._getframe(1).f_globals.get("__name__", "").startswith("pandacli"):
            raise AttributeError(f"no {name} on Windows")
        return super().__getattribute__(name)


def import_without_posix(name, globals=None, *arguments, **named):  # noqa: A002
    if name in MODULES and (globals or {}).get("__name__", "").startswith("pandacli"):
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)
    return _import(name, globals, *arguments, **named)


if __name__ == "__main__":
    os.__class__ = signal.__class__ = WithoutPosix
    builtins.__import__ = import_without_posix
    from pandacli.cli import main

    main()
