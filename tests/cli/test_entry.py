"""The entry point: standard streams, warnings and options of the interpreter."""

import os
import subprocess
import sys

import pytest

COMMAND = """
import os, sys, warnings
from pandacli.cli import entry

def command(_):
    '''What it does.'''
    {body}
    return 0

entry._dispatch = command
entry.main()
"""


@pytest.fixture
def main(environment):
    """`main(body, *options, VARIABLE="value")`: the command line, with a command of this body."""

    def run(body, *options, **variables):
        return subprocess.run(
            [sys.executable, *options, "-c", COMMAND.format(body=body)],
            env=environment | variables,
            capture_output=True,
            timeout=60,
            check=False,
        )

    return run


def test_writes_to_descriptor_1_go_to_stderr(main):
    done = main("os.write(1, b'noise\\n'); print('answer'); os.system('echo more noise')")
    assert done.stdout == b"answer\n"
    assert done.stderr == b"noise\nmore noise\n"


def test_stdout_keeps_its_encoding(main):
    done = main("print('\\u65e5', sys.__stdout__ is sys.stdout)", PYTHONIOENCODING="utf-16-le")
    assert done.stdout.decode("utf-16-le") == "日 True\n"


@pytest.mark.skipif(sys.platform == "win32", reason="closes descriptors as POSIX does")
@pytest.mark.parametrize("closed", [1, 2])
def test_closed_stdout_is_an_error_once_written_to(environment, closed):
    code = COMMAND.format(body="print('answer')")
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment,
        stdout=None if closed == 1 else subprocess.PIPE,
        stderr=None if closed == 2 else subprocess.PIPE,
        preexec_fn=lambda: os.close(closed),
        timeout=60,
        check=False,
    )
    if closed == 1:
        assert done.returncode == 2
        assert done.stderr.startswith(b"panda: standard output is closed\n")
    else:
        assert done.returncode == 0
        assert done.stdout == b"answer\n"


def test_closed_pipe_exits_with_141(environment):
    code = COMMAND.format(body="\n    while True: print('answer' * 1000)")
    process = subprocess.Popen(
        [sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    process.stdout.read(10)
    process.stdout.close()
    assert process.wait(60) == 141


@pytest.mark.parametrize("options", [(), ("-O",), ("-OO",)])
@pytest.mark.parametrize("variables", [{}, {"PYTHONOPTIMIZE": "2"}], ids=["", "variable"])
def test_docstrings_survive_optimised_python(main, options, variables):
    done = main("print(bool(command.__doc__))", *options, **variables)
    assert (done.stdout, done.returncode) == (b"True\n", 0)


@pytest.mark.parametrize("variable", ["error", "error::UserWarning", "default"])
def test_requested_warning_is_shown_and_never_an_error(main, variable):
    done = main("warnings.warn('old'); print('answer')", PYTHONWARNINGS=variable)
    assert (done.stdout, done.returncode) == (b"answer\n", 0)
    assert b"UserWarning: old" in done.stderr


def test_warnings_are_hidden_by_default(main):
    assert main("warnings.warn('old')").stderr == b""
