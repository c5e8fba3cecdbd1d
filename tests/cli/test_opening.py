"""The slow steps before an answer overlap where they can."""

import subprocess
import sys

READS_UNTIL = """
import sys, time
import pandacli.video
from pandacli.cli.entry import run
from pandacli.errors import ClipError

def sample_frames(clip, num_frames):
    deadline = time.monotonic() + 60
    while {module!r} not in sys.modules and time.monotonic() < deadline:
        time.sleep(0.01)
    raise ClipError("in time" if time.monotonic() < deadline else "too late")

pandacli.video.sample_frames = sample_frames
code = run(list({arguments!r}))
sys.stderr.flush()
import os
os._exit(code)
"""


def reading_until(module, *arguments, environment):
    """What is said where reading the frames ends once a module is there."""
    script = READS_UNTIL.format(module=module, arguments=arguments)
    command = [sys.executable, "-c", script]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_torch_is_imported_while_frames_are_read(environment, clip):
    done = reading_until("torch", "ask", str(clip), "q", "-m", "tiny", environment=environment)
    assert done.stderr == "panda: in time\n"
    assert done.returncode == 3


def test_what_is_imported_meanwhile_knows_that_it_must_stay_offline(environment, clip):
    online = {name: value for name, value in environment.items() if name != "HF_HUB_OFFLINE"}
    script = (
        "import os, sys\n"
        "import pandacli.video\n"
        "from pandacli.cli.entry import run\n"
        "def sample_frames(clip, num_frames):\n"
        "    print(os.environ['HF_HUB_OFFLINE'], flush=True)\n"
        "    os._exit(0)\n"
        "pandacli.video.sample_frames = sample_frames\n"
        f"run(['ask', {str(clip)!r}, 'q', '-m', 'tiny', '--offline'])\n"
    )
    command = [sys.executable, "-c", script]
    assert subprocess.run(command, env=online, capture_output=True, check=True).stdout == b"1\n"
