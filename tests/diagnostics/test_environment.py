"""Environment variables are shown without secrets."""

import pytest

from pandacli.cli import config, options  # noqa: F401  (fills the table of options)
from pandacli.diagnostics.software import environment

HIDDEN = "(set, not shown)"


OPTIONS = {config.variable(name) for name in config.READERS}


def shown_values(**variables: str) -> dict[str, object]:
    return {fact.name: fact.value for fact in environment(OPTIONS, variables).facts}


def test_panda_and_hugging_face_variables_are_shown() -> None:
    assert shown_values(PANDA_MODEL="tiny", HF_HOME="/data", HOME="/root") == {
        "HF_HOME": "/data",
        "PANDA_MODEL": "tiny",
    }


@pytest.mark.parametrize("option", config.READERS)
def test_variable_of_every_option_is_shown(option: str) -> None:
    name = config.variable(option)
    assert shown_values(**{name: "host.example"}) == {name: "host.example"}


@pytest.mark.parametrize(
    "name",
    [
        "HF_TOKEN",
        "HUGGING_FACE_HUB_TOKEN",
        "HUGGINGFACE_API_KEY",
        "HF_COOKIE",
        "PANDA_SECRET",
        "PANDA_PWD",
        "CUDA_ANYTHING",
    ],
)
def test_unsafe_variable_shows_only_its_name(name: str) -> None:
    assert shown_values(**{name: "hf_abc"}) == {name: HIDDEN}


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("https://me:word@hub.example:8443/api", "https://hub.example:8443"),
        ("https://user:pa@SECRET@hub.example", "https://hub.example"),
        ("https://hub.example/?token=SECRET", "https://hub.example"),
        ("https://hub.example#SECRET", "https://hub.example"),
        ("user:SECRET@hub.example:80", "hub.example:80"),
        ("https://hub.example:SECRET", HIDDEN),
        ("https://[SECRET", HIDDEN),
        ("/SECRET", HIDDEN),
    ],
)
@pytest.mark.parametrize("name", ["HF_ENDPOINT", "HTTPS_PROXY", "all_proxy", "PANDA_ADDRESS"])
def test_address_shows_only_its_host(name: str, address: str, shown: str) -> None:
    assert shown_values(**{name: address}) == {name: shown}


def test_misplaced_address_shows_only_its_host() -> None:
    assert shown_values(PANDA_MODEL="https://me:SECRET@hub.example/x") == {
        "PANDA_MODEL": "https://hub.example"
    }
