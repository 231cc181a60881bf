import io

from rich.console import Console

from llama_keras.checks import Finding, Report, print_report

REPORT = Report(
    "mine",
    "text_classification",
    {
        "rows": Finding("good", "3 read", examples=(("train, line 9", "kept quiet"),)),
        "empty": Finding("warn", "1 of 3 [bold]", 1, (("train, line 2", "“[red]”"),)),
        "duplicates": Finding("fail", "2 of 3", 2),
    },
)


def printed(**settings):
    output = io.StringIO()
    console = Console(file=output, highlight=False, soft_wrap=True, **settings)
    print_report(REPORT, console=console)
    return output.getvalue()


def test_lines_are_aligned_and_plain_without_a_terminal():
    assert printed().splitlines() == [
        "good  rows        3 read",
        "warn  empty       1 of 3 [bold]",
        "                  train, line 2: “[red]”",
        "fail  duplicates  2 of 3",
        "mine: 1 good, 1 warn, 1 fail",
    ]


def test_a_terminal_gets_colours():
    shown = printed(force_terminal=True, color_system="standard", no_color=False)
    for level, colour in (("good", "32"), ("warn", "33"), ("fail", "1;31")):
        assert f"\x1b[{colour}m{level}\x1b[0m" in shown


def test_plain_values():
    found = REPORT.to_dict()
    assert (found["recipe"], found["level"]) == ("mine", "fail")
    assert found["checks"][1] == {
        "check": "empty",
        "level": "warn",
        "message": "1 of 3 [bold]",
        "count": 1,
        "examples": [{"place": "train, line 2", "text": "“[red]”"}],
        "details": {},
    }
