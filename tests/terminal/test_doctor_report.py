"""The report of `panda doctor`, as text and as JSON."""

import pytest

from pandacli.diagnostics import Bytes, Fact, Section
from pandacli.terminal.console import Screen
from pandacli.terminal.listings import format_value, report_record, show_report

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
def test_values_are_formatted_for_people(value, text):
    assert format_value(value) == text


def test_piped_report_has_a_line_per_fact_and_lists_problems_again(capsys):
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


def test_report_without_problems_says_so(capsys):
    show_report([Section("CUDA", [Fact("driver", "550.54")])], Screen())
    assert capsys.readouterr().out.endswith("\nProblems: none found\n")


def test_facts_are_sanitized(capsys):
    show_report([Section("Variables", [Fact("\x1b[1m", "\x1b[31m", "\x07")])], Screen())
    assert not set(capsys.readouterr().out) & {"\x1b", "\x07"}


def test_record_has_sections_and_problems():
    assert report_record(SECTIONS) == {
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


def test_control_characters_are_escaped_in_json(capsys):
    Screen().json(report_record([Section("Variables", [Fact("PANDA_MODEL", "\x9b\u202e")])]))
    assert "\\u009b\\u202e" in capsys.readouterr().out
