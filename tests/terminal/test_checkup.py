"""The findings of a check-up, for people and for programs."""

import json

import pytest

from pandacli.diagnostics.facts import Bytes, Fact, Section
from pandacli.terminal.console import Screen
from pandacli.terminal.doctor import report_json, show_report, shown

SECTIONS = [
    Section("CUDA", []),
    Section(
        "For the model",
        [
            Fact("--quant", "8bit"),
            Fact("free disk", Bytes(3_000_000_000), "less than the model needs"),
            Fact("torch", None, "not installed"),
        ],
    ),
]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "none"),
        (True, "yes"),
        (Bytes(1_500_000_000), "1.5 GB"),
        (1_500_000_000, "1500000000"),
        ([], "none"),
        (["avx2", "fma"], "avx2, fma"),
        ({"path": "/data", "used": Bytes(2_000_000), "files": 3}, "/data, 2 MB used, 3 files"),
    ],
)
def test_values_are_shown_as_people_read_them(value, text):
    assert shown(value) == text


def test_piped_every_fact_is_an_aligned_line_and_problems_come_twice(capsys):
    show_report(SECTIONS, Screen())
    assert capsys.readouterr().out == (
        "CUDA\n"
        "  none\n"
        "\n"
        "For the model\n"
        "  --quant    8bit\n"
        "  free disk  3.0 GB - PROBLEM: less than the model needs\n"
        "  torch      PROBLEM: not installed\n"
        "\n"
        "Problems: 2\n"
        "  free disk  3.0 GB - PROBLEM: less than the model needs\n"
        "  torch      PROBLEM: not installed\n"
    )


def test_without_problems_that_is_said(capsys):
    show_report([Section("CUDA", [Fact("driver", "550.54")])], Screen())
    assert capsys.readouterr().out.endswith("\nProblems: none found\n")


def test_what_comes_from_outside_is_made_harmless(capsys):
    show_report([Section("Variables", [Fact("\x1b[1m", "\x1b[31m", "\x07")])], Screen())
    assert not set(capsys.readouterr().out) & {"\x1b", "\x07"}


def test_json_has_an_object_for_each_section_and_the_problems():
    assert json.loads(report_json(SECTIONS, pretty=False)) == {
        "CUDA": {},
        "For_the_model": {"quant": "8bit", "free_disk": 3_000_000_000, "torch": None},
        "problems": [
            {
                "section": "For_the_model",
                "fact": "free_disk",
                "problem": "less than the model needs",
            },
            {"section": "For_the_model", "fact": "torch", "problem": "not installed"},
        ],
    }


def test_json_is_ascii_whatever_is_in_it():
    text = report_json([Section("Variables", [Fact("PANDA_MODEL", "\x9b\u202e")])], pretty=False)
    assert text.isascii()
