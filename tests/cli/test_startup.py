"""The slow steps before an answer overlap where they can."""

import subprocess
import sys

# Reading the frames fails once the background work has ended, and names its result.
READS_LONG = """
import os, sys
import pandacli.video
from pandacli.cli import startup
from pandacli.cli.entry import run
from pandacli.errors import ClipError

begun = []

class Watched(startup.Background):
    def __init__(self, work):
        super().__init__(work)
        begun.append(self)

def sample_frames(clip, num_frames):
    raise ClipError(f"meanwhile: {{type(begun[0].result()).__name__}}")

startup.Background = Watched
pandacli.video.sample_frames = sample_frames
code = run(list({arguments!r}))
sys.stderr.flush()
os._exit(code)
"""


def reading_long(*arguments, environment):
    """Run `panda` where reading the frames takes longer than the work in the background."""
    command = [sys.executable, "-c", READS_LONG.format(arguments=arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_weights_are_loaded_while_frames_are_read(environment, clip):
    done = reading_long("ask", str(clip), "q", "-m", "tiny", environment=environment)
    assert done.stderr == "panda: meanwhile: Panda\n"
    assert done.returncode == 3


def test_model_is_not_quantised_before_frames_are_read(environment, home, clip):
    words = ("ask", str(clip), "q", "-m", "tiny", "--quant", "8bit", "--engine", "torch")
    done = reading_long(*words, environment=environment)
    assert done.stderr == "panda: meanwhile: NoneType\n"
    assert not [path for path in (home / "models").rglob("*") if path.suffix == ".safetensors"]


def test_offline_holds_for_background_imports(environment, clip):
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
