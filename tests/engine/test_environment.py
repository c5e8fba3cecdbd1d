"""Variables are told, secrets are not."""

import pytest

from pandacli.engine.environment import environment


def told(**variables: str) -> dict[str, object]:
    return {fact.name: fact.value for fact in environment(variables).facts}


def test_variables_of_panda_and_of_hugging_face_are_told() -> None:
    assert told(PANDA_MODEL="tiny", HF_HOME="/data", HOME="/root") == {
        "HF_HOME": "/data",
        "PANDA_MODEL": "tiny",
    }


@pytest.mark.parametrize(
    "name", ["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HUGGINGFACE_API_KEY", "PANDA_SECRET"]
)
def test_of_a_secret_only_its_name_is_told(name: str) -> None:
    assert told(**{name: "hf_abc"}) == {name: "(set, not shown)"}


def test_a_password_in_an_address_is_left_out() -> None:
    assert told(HF_ENDPOINT="https://me:word@hub.example/api") == {
        "HF_ENDPOINT": "https://…@hub.example/api"
    }
