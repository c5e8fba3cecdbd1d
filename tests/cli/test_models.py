"""`panda models`, `panda info` and `panda rm`."""

import json

import pytest

from pandacli.checkpoints.artifacts import write_manifest

COPY = "copies/dddddddddddddddd-int8"


@pytest.fixture
def copy(home):
    """A copy of the 7B in 8 bits, of which nothing else is here."""
    folder = home / "models" / COPY
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(b"x" * 2000)
    write_manifest(
        folder,
        model="video-panda-7b",
        form="int8",
        commit=None,
        digest="d" * 64,
        source_files={},
    )
    return folder


def test_piped_models_are_tab_separated_lines(panda):
    rows = [line.split("\t") for line in panda("models").stdout.decode().splitlines()]
    assert [row[0] for row in rows] == ["video-panda-7b", "video-panda-7b-pretrained", "tiny"]
    assert rows[0][1:3] == ["-", "16.7 GB"]
    assert rows[0][4] == "get it: panda pull video-panda-7b"
    assert (rows[2][1], rows[2][2].endswith(" MB"), rows[2][3]) == ("none", True, "Apache-2.0")
    assert rows[2][4].endswith("pandacli/assets/tiny")


def test_models_lists_each_copy_with_its_folder(panda, copy):
    first = panda("models").stdout.decode().splitlines()[0]
    assert first.split("\t")[:3] == ["video-panda-7b", "8bit", "2 kB"]
    assert first.endswith(str(copy))


def test_models_as_json_is_one_object(panda, copy):
    listed = json.loads(panda("models", "--json").stdout)["models"]
    assert listed[0]["copies"][0]["path"] == str(copy)
    assert listed[2]["state"] == "here"


def test_damaged_copy_prints_how_to_remove_it(panda, copy):
    (copy / "model.safetensors").write_bytes(b"short")
    done = panda("models")
    assert str(copy) not in done.stdout.decode()
    assert done.stderr.startswith(b"panda: ")
    assert done.stderr.endswith(b"can be removed with:\n         panda rm video-panda-7b\n")


def test_info_lists_sizes_and_files(panda):
    text = panda("info", "tiny").stdout.decode()
    for line in ("licence     Apache-2.0", "vocabulary  640", "parameters  4,3", "  config.json"):
        assert line in text


def test_info_as_json_is_one_object(panda):
    record = json.loads(panda("info", "tiny", "--json").stdout)
    assert record["parameters"] > 3_000_000
    assert record["parameters_exact"] is True
    assert "model.safetensors" in [file["name"] for file in record["files"]]


def test_info_on_a_missing_model_prints_the_pull_command(panda):
    done = panda("info", "video-panda-7b")
    assert done.returncode == 0
    assert "get it   panda pull video-panda-7b" in done.stdout.decode()


def test_info_on_a_missing_model_lists_its_published_files(panda):
    text = panda("info", "video-panda-7b").stdout.decode()
    assert "licence  apache-2.0 by its card; derived from Vicuna and Llama 2" in text
    assert "known    commit 6e2080cb41ca99c43eae3433068fecf3fd85ecb9" in text
    assert "  config.json                         1,550 bytes\n" in text
    assert "  pytorch_model-00001-of-00002.bin  about 9.98 GB\n" in text
    assert "    sha256 295d0055a90975f83e76a76479aa460c562d1e2e36fca47b95dc5a629ffe3dc8\n" in text
    record = json.loads(panda("info", "video-panda-7b", "--json").stdout)
    assert (record["commit"], record["commit_known"]) == (None, None)
    assert record["known"]["commit"] == "6e2080cb41ca99c43eae3433068fecf3fd85ecb9"
    assert [file["bytes_exact"] for file in record["known"]["files"]] == [True, False, False]


def test_info_on_the_pretrained_model_lists_known_files(panda):
    record = json.loads(panda("info", "video-panda-7b-pretrained", "--json").stdout)
    assert {file["name"]: file["bytes"] for file in record["known"]["files"]} == {
        "config.json": 1666,
        "special_tokens_map.json": 438,
        "tokenizer_config.json": 749,
    }


def test_info_on_an_unknown_model_exits_with_4(panda):
    assert panda("info", "tinny").returncode == 4


def test_control_characters_in_file_names_are_escaped(panda, home):
    (home / "mine").mkdir()
    (home / "mine" / "config.json").write_text('{"model_type": "videopanda"}')
    (home / "mine" / "tokenizer.model").touch()
    (home / "mine" / "model.safetensors").write_bytes(b"\x02\0\0\0\0\0\0\0{}")
    (home / "mine" / "\x1b[31mred").touch()
    done = panda("info", "./mine")
    assert done.returncode == 0
    assert b"\x1b" not in done.stdout


def test_rm_deletes_a_copy(panda, copy):
    done = panda("rm", "video-panda-7b", "--yes")
    assert done.stderr == b"panda: deleted the 8bit copy (int8) of video-panda-7b, 2 kB\n"
    assert done.returncode == 0
    assert not copy.exists()


def test_rm_deletes_nothing_without_confirmation(panda, copy):
    done = panda("rm", "video-panda-7b")
    assert done.returncode == 2
    assert b"add --yes" in done.stderr
    assert copy.exists()


def test_rm_ignores_the_default_of_quant(panda, copy):
    assert panda("rm", "video-panda-7b", "--yes", PANDA_QUANT="4bit").returncode == 0
    assert not copy.exists()


@pytest.mark.parametrize(
    ("arguments", "code"),
    [(["tiny"], 2), (["video-panda-7b"], 4), (["video-panda-7b", "--quant", "2bit"], 2)],
)
def test_rm_refuses_models_it_cannot_delete(panda, arguments, code):
    assert panda("rm", "--yes", *arguments).returncode == code
