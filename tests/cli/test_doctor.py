"""`panda doctor`: sections, problems and hidden secrets."""

import json

import pytest


@pytest.fixture(scope="module")
def healthy(module_panda):
    """What it says with nothing wrong; it takes seconds, so once for all."""
    return module_panda("doctor")


def test_login_in_an_option_is_hidden(panda):
    done = panda("doctor", "--json", PANDA_ADDRESS="ray://user:do_not_tell@head:10001")
    assert b"do_not_tell" not in done.stdout
    record = json.loads(done.stdout)
    assert record["Defaults"]["set"] == ["address = ray://head:10001"]


@pytest.fixture(scope="module")
def ill(module_panda, tmp_path_factory):
    """What it says, as JSON, about a broken configuration."""
    broken = tmp_path_factory.mktemp("config") / "panda" / "config.toml"
    broken.parent.mkdir()
    broken.write_text("frames 8")
    return module_panda(
        "doctor",
        "--json",
        XDG_CONFIG_HOME=str(broken.parents[1]),
        PANDA_JSON="perhaps",
        PANDA_HOME="/dev/null/home",
        HF_TOKEN="hf_do_not_tell",
        HF_COOKIE="hf_do_not_tell",
        HF_ENDPOINT="https://user:pa@hf_do_not_tell@hub.example/?token=hf_do_not_tell",
    )


def test_healthy_installation_exits_with_0_and_empty_stderr(healthy):
    assert (healthy.returncode, healthy.stderr) == (0, b"")


def test_piped_values_are_in_one_column(healthy):
    lines = healthy.stdout.decode().splitlines()
    facts = [line for line in lines if line.startswith("  ")]
    column = next(line for line in facts if line.startswith("  panda ")).index("0.1")
    assert {line[column - 2 : column] for line in facts} == {"  "}
    assert all(line[column] != " " for line in facts)


def test_every_section_is_present(healthy):
    titles = [line for line in healthy.stdout.decode().splitlines() if line[:1].strip()]
    assert titles[:-1] == [
        "Software",
        "Processor",
        "Memory",
        "CUDA",
        "Engines",
        "Store",
        "Variables",
        "Defaults",
        "Terminal",
        "For video-panda-7b",
    ]
    assert titles[-1].startswith("Problems: ")


def test_problems_are_reported_together(ill):
    assert ill.returncode == 1
    record = json.loads(ill.stdout)
    problems = {found["fact"]: found["problem"] for found in record["problems"]}
    assert "is not a TOML file" in problems["set"]
    assert "PANDA_HOME" in problems
    assert record["Software"]["panda"]


def test_token_is_hidden(ill):
    assert b"hf_do_not_tell" not in ill.stdout + ill.stderr
    assert json.loads(ill.stdout)["Variables"]["HF_TOKEN"] == "(set, not shown)"
    assert json.loads(ill.stdout)["Variables"]["HF_ENDPOINT"] == "https://hub.example"
