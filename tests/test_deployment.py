"""The container image and the systemd units; the image is built by Docker where that runs."""

import base64
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import closing, contextmanager, suppress
from http.client import HTTPConnection
from pathlib import Path
from urllib.request import urlopen

import pytest

from pandacli.cli import serve
from pandacli.cli.parser import load_command
from pandacli.errors import ModelError, UsageError
from tests.dockerfile import DockerImage, FolderImage, context, health_check, read_stages

ROOT = Path(__file__).parents[1]
DOCKERFILE = ROOT / "Dockerfile"
CLIP = ROOT / "pandacli/assets/demo.mp4"
KEY = "secret"


def last_stage():
    return {step.instruction: step for step in read_stages(DOCKERFILE)[1][-1]}


def test_server_does_not_run_as_root():
    steps = read_stages(DOCKERFILE)[1][-1]
    users = [step.text for step in steps if step.instruction == "USER"]
    made = next(step.words for step in steps if step.text.startswith("useradd"))
    # a number, which Kubernetes can check
    assert users == [made[made.index("--uid") + 1]]
    assert int(users[0]) > 0


def test_models_are_in_the_volume():
    stage = last_stage()
    volume = stage["VOLUME"].text
    places = dict(word.split("=", 1) for word in stage["ENV"].words)
    assert all(places[name].startswith(f"{volume}/") for name in ("PANDA_HOME", "HF_HOME"))


def test_context_has_what_the_steps_copy_and_what_the_wheel_needs():
    files = {str(path) for path in context(ROOT)}
    copied = [s.words[0] for s in read_stages(DOCKERFILE)[1][0] if s.instruction == "COPY"]
    assert {name for name in copied if name != "."} <= files
    assert {"pyproject.toml", "README.md", "LICENSE", "completions/panda.bash"} <= files
    assert not [name for name in files if re.search(r"^(tests|\.git|\.venv)|__pycache__", name)]


def test_compose_file_keeps_the_server_apart_from_the_machine():
    yaml = pytest.importorskip("yaml")
    text = (ROOT / "compose.yaml").read_text("utf-8")
    service = yaml.safe_load(text)["services"]["panda"]
    assert service["read_only"]
    assert service["cap_drop"] == ["ALL"]
    assert all(port.startswith("127.0.0.1:") for port in service["ports"])
    assert service["environment"]["PANDA_API_KEY"].startswith("${PANDA_API_KEY:?")
    media = next(v for v in service["volumes"] if isinstance(v, dict))
    assert media["read_only"]
    assert media["target"] == last_stage()["CMD"].words[-1]
    assert f"models:{last_stage()['VOLUME'].text}" in service["volumes"]
    assert int(service["stop_grace_period"].rstrip("s")) > serve.DRAIN_SECONDS


@pytest.mark.parametrize(("status", "code"), [(200, 0), (503, 1), (None, 1)])
def test_health_check_fails_unless_the_server_answers(status, code):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        command = [word.replace("7263", str(port)) for word in health_check(DOCKERFILE)]
        command[0] = sys.executable
        environment = os.environ | {"http_proxy": "http://127.0.0.1:9"}  # asked by nothing
        if status is None:
            server.close()
        check = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
        if status:
            connection = server.accept()[0]
            with connection:
                assert connection.recv(1000).startswith(b"GET /health ")
                connection.sendall(f"HTTP/1.1 {status} X\r\nContent-Length: 0\r\n\r\n".encode())
        assert check.wait(30) == code


UNITS = {kind: ROOT / f"docs/systemd/{kind}/panda.service" for kind in ("user", "system")}
needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="needs systemd-analyze"
)


def analyze(unit, folder, *words):
    """What systemd says about a unit, whose program need not be installed here."""
    there = re.sub(r"^ExecStart=\S+", "ExecStart=/bin/true", unit.read_text("utf-8"), flags=re.M)
    copy = folder / "panda.service"
    copy.write_text(there)
    environment = os.environ | {"XDG_RUNTIME_DIR": str(folder)}
    command = ["systemd-analyze", *words, str(copy)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@needs_systemd
@pytest.mark.parametrize("kind", UNITS)
def test_systemd_accepts_the_unit(tmp_path, kind):
    done = analyze(UNITS[kind], tmp_path, "verify", f"--{kind}")
    about = [line for line in done.stderr.splitlines() if "panda.service" in line]  # not others
    assert (done.returncode, about) == (0, [])


@needs_systemd
def test_exposure_of_the_system_unit_is_low(tmp_path):
    done = analyze(UNITS["system"], tmp_path, "security", "--offline=yes", "--threshold=20")
    assert done.returncode == 0, done.stdout  # the threshold is 2.0 of 10


@pytest.mark.parametrize("unit", UNITS.values(), ids=UNITS)
def test_unit_lets_answers_end_and_takes_exit_codes_for_what_they_are(unit):
    lines = unit.read_text("utf-8").splitlines()
    settings = dict(line.split("=", 1) for line in lines if re.match(r"\w+=", line))
    assert settings["KillMode"] == "mixed"  # SIGTERM to readers of frames would fail their requests
    assert int(settings["TimeoutStopSec"]) > serve.DRAIN_SECONDS
    assert settings["SuccessExitStatus"] == "143"
    codes = (UsageError.exit_code, ModelError.exit_code)
    assert settings["RestartPreventExitStatus"].split() == [str(code) for code in codes]


@pytest.mark.parametrize("unit", UNITS.values(), ids=UNITS)
def test_command_of_the_unit_has_options_that_exist(unit):
    command = re.search(r"^ExecStart=\S*/panda serve (.*)$", unit.read_text("utf-8"), re.M)[1]
    parser = load_command("serve")
    with parser.make_context("serve", command.split()) as given:
        assert given.params["media_dir"]
        assert given.params["keep_alive"] >= 600


def docker_runs():
    if shutil.which("docker") is None:
        return False
    return subprocess.run(["docker", "info"], capture_output=True, check=False).returncode == 0


def torch_index():
    """Where this machine finds PyTorch's builds, if its pip is set up to look elsewhere."""
    listed = [sys.executable, "-m", "pip", "config", "list"]
    settings = subprocess.run(listed, capture_output=True, text=True, check=True).stdout
    return "https://pypi.org/simple" if re.search("index-url|find-links", settings) else None


@pytest.fixture(scope="module")
def image():
    """The image, for a CPU."""
    if docker_runs():
        image = DockerImage(ROOT)
        image.build()
        yield image
        return
    folder = tempfile.mkdtemp(prefix="panda-image-")  # 1.3 GB, which pytest would keep
    try:
        index = torch_index()
        image = FolderImage(Path(folder), ROOT, {"TORCH_INDEX": index} if index else {})
        image.build()
        yield image
    finally:
        shutil.rmtree(folder)


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


@contextmanager
def serving(image, **variables):
    """The port of a server that runs in the image; it ends with the block."""
    port = free_port()
    process = image.run(port=port, **variables)
    try:
        deadline = time.monotonic() + 120
        while not image.is_healthy(port):
            assert process.poll() is None, process.communicate()[1]
            assert time.monotonic() < deadline
            time.sleep(0.5)
        yield port, process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.communicate(timeout=60)
        process.kill()


def post(port, body, key):
    headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
    with closing(HTTPConnection("127.0.0.1", port, timeout=120)) as connection:
        connection.request("POST", "/v1/chat/completions", json.dumps(body), headers)
        response = connection.getresponse()
        return response.status, json.loads(response.read())


@pytest.mark.slow
def test_image_for_a_cpu_has_no_cuda(image):
    script = (
        "import torch, importlib.metadata as m\n"
        "names = sorted(d.name.lower() for d in m.distributions())\n"
        "print(torch.version.cuda, [n for n in names if n.startswith(('nvidia', 'triton'))])"
    )
    process = image.execute("python", "-c", script)
    assert process.communicate(timeout=120)[0] == "None []\n"


@pytest.mark.slow
def test_container_without_a_key_exits_with_2_and_a_clear_line(image):
    process = image.run(port=free_port(), PANDA_MODEL="tiny")
    shown, errors = process.communicate(timeout=60)
    assert (process.returncode, shown) == (2, "")
    assert "PANDA_API_KEY is not set" in errors
    assert len(errors.splitlines()) == 2


@pytest.mark.slow
def test_container_answers_with_the_key_only_and_ends_on_sigterm(image):
    data = base64.b64encode(CLIP.read_bytes()).decode()
    video = {"type": "video_url", "video_url": {"url": f"data:video/mp4;base64,{data}"}}
    content = [video, {"type": "text", "text": "What happens?"}]
    body = {"model": "tiny", "messages": [{"role": "user", "content": content}]}
    with serving(image, PANDA_API_KEY=KEY, PANDA_MODEL="tiny") as (port, process):
        assert post(port, body, "guessed")[0] == 401
        with urlopen(f"http://127.0.0.1:{port}/", timeout=30) as page:
            assert page.read().startswith(b"<!doctype html>")
        status, answer = post(port, body, KEY)
        assert status == 200, answer
        assert answer["choices"][0]["message"]["content"].startswith("A red circle moves right")
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 143
