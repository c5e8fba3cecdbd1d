"""Where an option's value comes from: option, variable, file, built-in, in that order."""

import re

import pytest

from pandacli.cli import config as defaults
from pandacli.cli.parser import load_command
from pandacli.errors import UsageError
from pandacli.timeline.segments import SegmentOptions

COMMANDS = {
    "ask": ["clip.mp4", "why?"],
    "batch": ["questions.jsonl"],
    "eval": ["answers.jsonl"],
    "chat": ["clip.mp4"],
    "find": ["clips", "a star"],
    "frames": ["clip.mp4"],
    "mcp": [],
    "when": ["clip.mp4", "why?"],
}


@pytest.fixture(autouse=True)
def config(tmp_path, monkeypatch):
    """The configuration file, which does not exist yet; no variable is set."""
    for name in defaults.READERS:
        monkeypatch.delenv(defaults.variable(name), raising=False)
    path = tmp_path / "config.toml"
    monkeypatch.setattr(defaults, "config_path", lambda: path)
    return path


def values(*words, command="ask"):
    """The parameters that a command is called with, by the names of the options.

    Of `batch`, `--format` is a setting; of other commands it is an option of another kind.
    """
    parser = load_command(command)
    with parser.make_context(command, [*COMMANDS[command], *words]) as context:
        given = {
            max(p.opts, key=len).lstrip("-"): context.params[p.name]
            for p in parser.params
            if p.name in context.params
        }
    if command != "batch":
        given.pop("format", None)
    return given


def value_of(name, *words):
    return values(*words)[name]


BUILT_IN = {
    "model": "video-panda-7b",
    "quant": "auto",
    "engine": "auto",
    "device": "auto",
    "server": "auto",
    "from": None,
    "to": None,
    "every": None,
    "frames": 8,
    "canvas": 448,
    "max-tokens": 1024,
    "temperature": 0.0,
    "seed": None,
    "stop": None,
    "system": None,
    "offline": False,
    "format": "auto",
    "output-format": None,
    "video-dir": None,
    "batch-size": None,
    "fail-fast": False,
    "choose": "likelihood",
    "shard": (1, 1),
    "workers": None,
    "address": None,
    "cache-size": 4_000_000_000,
    "full-hash": False,
    "no-frames": False,
    "no-log": False,
    "json": False,
    "stats": False,
    "logprobs": False,
    "judge": None,
    "judge-url": None,
    "judge-jobs": 8,
    "judge-temperature": 0.0,
    "judge-seed": None,
    "threshold": 0.9,
    "window": 2.0,
    "stride": None,
    "precision": 0.5,
    "top": 10,
    "graphics": "auto",
    "quiet": False,
    "debug": False,
}


def test_built_in_values_hold_without_settings():
    everything = {name: v for command in COMMANDS for name, v in values(command=command).items()}
    assert {name: everything[name] for name in BUILT_IN} == BUILT_IN
    assert set(BUILT_IN) == set(defaults.READERS)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_names_the_default_that_holds(command):
    given = values(command=command)
    for parameter in load_command(command).params:
        name = max(parameter.opts, key=len).lstrip("-")
        value, said = given.get(name), re.search(r"\[default: (.+)\]", parameter.help or "")
        if said and type(value) in (int, float) and name in defaults.READERS:
            assert defaults.READERS[name](said[1]) == value, name


def test_search_has_the_same_defaults_in_python():
    given, options = values(command="when"), SegmentOptions()
    for name in ("window", "stride", "threshold", "precision"):
        assert given[name] == getattr(options, name)


@pytest.mark.parametrize("command", COMMANDS)
def test_option_has_the_same_default_in_every_command(command):
    given = values(command=command)
    assert {n: v for n, v in given.items() if n in BUILT_IN} == {
        n: v for n, v in BUILT_IN.items() if n in given
    }


def test_file_overrides_the_built_in_value(config):
    config.write_text("max-tokens = 64\n")
    assert value_of("max-tokens") == 64


def test_variable_overrides_the_file(config, monkeypatch):
    config.write_text("max-tokens = 64\n")
    monkeypatch.setenv("PANDA_MAX_TOKENS", "65")
    assert value_of("max-tokens") == 65


def test_option_overrides_the_variable(monkeypatch):
    monkeypatch.setenv("PANDA_MAX_TOKENS", "65")
    assert value_of("max-tokens", "--max-tokens", "66") == 66


def test_empty_variable_is_ignored(monkeypatch):
    monkeypatch.setenv("PANDA_MODEL", "")
    assert value_of("model") == "video-panda-7b"


@pytest.mark.parametrize(
    ("text", "flag"), [("1", True), ("yes", True), ("TRUE", True), ("0", False), ("off", False)]
)
def test_flag_is_set_by_a_variable(monkeypatch, text, flag):
    monkeypatch.setenv("PANDA_JSON", text)
    assert value_of("json") is flag


def test_negative_flag_overrides_the_file(config):
    config.write_text("json = true\n")
    assert value_of("json") is True
    assert value_of("json", "--no-json") is False


def test_option_that_repeats_collects_its_values(monkeypatch):
    monkeypatch.setenv("PANDA_STOP", "never")
    assert value_of("stop", "--stop", "a b", "--stop", "\n") == ["a b", "\n"]


def test_variable_of_option_that_repeats_is_one_value(monkeypatch):
    monkeypatch.setenv("PANDA_STOP", "END OF ANSWER")
    assert value_of("stop") == ["END OF ANSWER"]
    assert defaults.configured("stop") == ["END OF ANSWER"]


@pytest.mark.parametrize(
    ("line", "stop"), [('stop = "END OF"', ["END OF"]), ('stop = ["a b", "\\n"]', ["a b", "\n"])]
)
def test_file_sets_option_that_repeats_to_text_or_list(config, line, stop):
    config.write_text(line)
    assert value_of("stop") == stop
    assert defaults.configured("stop") == stop


def test_file_sets_every_kind_of_value(config):
    config.write_text(
        'model = "tiny"\nfrom = "0:01.5"\nto = 9\ntemperature = 0.5\nseed = 7\nstats = true\n'
    )
    names = ("model", "from", "to", "temperature", "seed", "stats")
    given = values()
    assert {name: given[name] for name in names} == {
        "model": "tiny",
        "from": 1.5,
        "to": 9.0,
        "temperature": 0.5,
        "seed": 7,
        "stats": True,
    }


@pytest.mark.parametrize(
    ("line", "message", "hint"),
    [
        ("modle = 'tiny'", "sets 'modle', which is not an option", "did you mean 'model'?"),
        ("max_tokens = 5", "sets 'max_tokens', which is not an option", "'max-tokens'?"),
        ("frames = 0", "frames in {path}: cannot look at 0 frames", "multiple of 4"),
        ("quiet = 'perhaps'", "quiet in {path}: 'perhaps' is neither true nor false", None),
        ("frames = [8]", "frames in {path} must be text, a number or true/false", None),
        ("frames = true", "frames in {path}: 'true' is not a whole number", None),
        ("model = 3", "model in {path} must be text", 'write it in quotes: model = "3"'),
        ("model = true", "model in {path} must be text", 'write it in quotes: model = "true"'),
        ("frames 8", "{path} is not a TOML file", None),
        ("stop = 5", "stop in {path} must be text, or a list of texts", None),
        ("stop = ['a', 5]", "stop in {path} must be text, or a list of texts", None),
        ("stop = ['a', '']", "stop in {path}: is empty", None),
    ],
)
def test_mistake_in_the_file_names_file_and_key(config, line, message, hint):
    config.write_text(line)
    with pytest.raises(UsageError) as caught:
        values()
    assert message.format(path=config) in caught.value.message
    assert (hint or "") in (caught.value.hint or "")


def test_unreadable_file_is_a_usage_error(config):
    config.mkdir()
    with pytest.raises(UsageError, match="cannot read"):
        value_of("model")


def test_invalid_variable_is_named(monkeypatch):
    monkeypatch.setenv("PANDA_DEVICE", "gpu")
    with pytest.raises(UsageError, match="PANDA_DEVICE: 'gpu' is not one of"):
        value_of("device")


def by_option(_config, _monkeypatch):
    return "--engine", ["--engine", "ray"]


def by_variable(_config, monkeypatch):
    monkeypatch.setenv("PANDA_ENGINE", "ray")
    return "PANDA_ENGINE", []


def by_file(config, _monkeypatch):
    config.write_text('engine = "ray"\n')
    return f"engine in {config}", []


@pytest.mark.parametrize("say", [by_option, by_variable, by_file])
def test_ray_is_refused_outside_batch(config, monkeypatch, say):
    where, words = say(config, monkeypatch)
    assert values(*words, command="batch")["engine"] == "ray"
    with pytest.raises(UsageError) as caught:
        values(*words)
    assert caught.value.message == f"{where}: ray is for panda batch"


def test_unknown_engine_is_refused_with_the_choices():
    with pytest.raises(UsageError, match=r"one of auto, torch, bitsandbytes, llama$"):
        values("--engine", "onnx")


@pytest.mark.parametrize("option", ["output", "yes", "drop-original", "clear", "answers"])
def test_option_that_writes_or_deletes_has_no_variable(option):
    assert option not in defaults.READERS


def test_file_in_the_configuration_folder_is_read(panda, home, clip):
    (home / "config" / "panda" / "config.toml").write_text('model = "from-the-file"\n')
    done = panda("ask", str(clip), "why?")
    assert b"no model is called 'from-the-file'" in done.stderr


def test_help_works_with_an_invalid_file(panda, home):
    (home / "config" / "panda" / "config.toml").write_text("not toml")
    assert panda("ask", "--help").returncode == 0


def test_only_options_of_the_command_are_checked_in_the_file(config):
    config.write_text('temperature = "hot"\nmodel = 3\n')
    assert values(command="frames")["frames"] == 8
    with pytest.raises(UsageError, match="temperature in"):
        values("--model", "tiny")


def test_error_names_the_variable_that_set_the_value(panda, clip):
    done = panda("ask", str(clip), "why?", PANDA_MODEL="nosuch")
    assert done.stderr.decode().splitlines()[-1] == "       model = nosuch is set by PANDA_MODEL"
    given = panda("ask", str(clip), "why?", "--model", "nosuch", PANDA_MODEL="other")
    assert b"is set by" not in given.stderr


def test_error_names_the_file_that_set_the_value(panda, home, clip):
    path = home / "config" / "panda" / "config.toml"
    path.write_text('model = "nosuch"\n')
    done = panda("ask", str(clip), "why?")
    assert done.stderr.decode().splitlines()[-1] == f"       model = nosuch is set by {path}"


def test_misspelt_variable_prints_a_notice(panda):
    said = panda("models", PANDA_MODLE="tiny", PANDA_PRC_DIR="x", PANDA_HOME="x").stderr.decode()
    assert said == "panda: PANDA_MODLE has no meaning; did you mean PANDA_MODEL?\n"
    assert panda("frames", "x.mp4", "--quiet", PANDA_MODLE="tiny").stderr.count(b"MODEL") == 0


def test_error_of_another_option_names_no_variable(panda, clip):
    wrong = panda("ask", str(clip), "why?", "--device", "tiny", PANDA_MODEL="tiny")
    assert wrong.returncode == 2
    assert b"is set by" not in wrong.stderr
    variable = panda("ask", str(clip), "why?", PANDA_DEVICE="tiny", PANDA_MODEL="tiny")
    assert variable.returncode == 2
    assert b"is set by" not in variable.stderr
