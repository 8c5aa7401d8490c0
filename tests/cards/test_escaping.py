"""Names from files that strangers wrote, where people read them: text, never a command."""

import csv
import io

import numpy as np
import pytest

from cards.board.board import assemble_board
from cards.drawing.markdown_text import Verbatim, fenced, markdown_text
from cards.measured.result_folder import read_folder
from cards.pages.data_files import render_classes_csv, render_csv
from cards.pages.facet import Facet
from cards.pages.page import TEMPLATES, render_html, render_markdown
from cards.pages.terminal import print_board
from release.commands.command import fail
from release.commands.terminal import printable
from tests.cards.made_up_results import a_source, write_run

ESCAPE = "\x1b]0;owned\x07\x1b[2J"
HOSTILE = [
    '=HYPERLINK("http://x","y")',
    "+1+1",
    "-2+3",
    "@SUM(A1)",
    "\tTab",
    "\rReturn",
    f"{ESCAPE}red",
    "<script>alert(1)</script>",
    "a|b",
    "two\nlines",
    "\N{RIGHT-TO-LEFT OVERRIDE}gpj.exe",
    "[x](javascript:alert(1))",
]


@pytest.fixture(scope="module")
def facets(tmp_path_factory: pytest.TempPathFactory) -> tuple[Facet, ...]:
    """Releases and classes of such names."""
    folder = tmp_path_factory.mktemp("hostile")
    labels = np.repeat(np.arange(len(HOSTILE)), 5)
    for number, name in enumerate(HOSTILE):
        for kind, end in (("synthetic", "made"), ("real", "real")):
            source = a_source(name if kind == "synthetic" else "real", 10, kind)
            if kind == "synthetic" or number == 0:
                path = folder / f"{number}-{end}.json"
                right = labels % (3 if kind == "real" else 4) > 0
                write_run(path, [source], right, labels, HOSTILE, 0)
    return assemble_board(read_folder(folder), [])


def test_no_cell_of_the_csv_is_a_formula(facets: tuple[Facet, ...]) -> None:
    for text in (render_csv(facets), render_classes_csv(facets)):
        rows = list(csv.DictReader(io.StringIO(text, newline="")))
        for row in rows:
            for name, value in row.items():
                if name in ("value", "low", "high", "difference", "std"):
                    float(value or 0)  # numbers stay numbers, below 0 too
                else:
                    assert not value.startswith(("=", "+", "-", "@", "\t", "\r")), (name, value)
        assert "difference" not in rows[0] or any(float(row["difference"]) < 0 for row in rows)
        assert "'" + HOSTILE[0] in {row.get("system", row.get("class_name")) for row in rows}


def test_terminal_gets_no_escape_sequence(
    facets: tuple[Facet, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    print_board(facets)
    shown = capsys.readouterr().out
    assert not {c for c in shown if c != "\n" and ord(c) < 32} | ({"\x9b", "\u202e"} & set(shown))
    assert "\\x1b" in shown.replace("\n", "")


def test_what_only_controls_a_terminal_is_shown_by_its_number() -> None:
    assert printable("a\x1b[0m\u202eb\udc80") == "a\\x1b[0m\\u202eb\\udc80"
    fine = "Zoë 장미 ورد \N{MINUS SIGN}1\N{FIGURE SPACE}2 ±"
    assert printable(fine) == fine


def test_an_error_line_gets_no_escape_sequence(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        fail(f"{ESCAPE} is no release\r\n")
    assert capsys.readouterr().err == "error: \\x1b]0;owned\\x07\\x1b[2J is no release\n"


def test_markdown_has_no_raw_html_no_links_and_whole_rows(facets: tuple[Facet, ...]) -> None:
    text = render_markdown(facets)
    assert "<script" not in text
    assert "](javascript" not in text
    assert "\x1b" not in text
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    columns = {len(line.replace("\\|", "").split("|")) for line in rows if "not checked" in line}
    checked = {len(line.replace("\\|", "").split("|")) for line in rows if "| yes |" in line}
    assert len(columns | checked) == 1
    assert "a\\|b" in text
    assert "two lines" in text


def test_page_has_no_markup_from_names(facets: tuple[Facet, ...]) -> None:
    page = render_html(facets)
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert" in page


def test_markdown_text_leaves_numbers_and_what_is_meant_alone() -> None:
    assert markdown_text(3) == 3
    assert markdown_text(Verbatim("a|b<c>")) == "a|b<c>"
    assert markdown_text("[19.0, 21.0] ± 1 & more") == "[19.0, 21.0] ± 1 & more"
    assert "```" not in fenced("x\n```\nrm -rf ~")


def test_every_template_is_escaped_by_its_kind() -> None:
    """`safe` stands only where the content was made for a script element."""
    for path in TEMPLATES.glob("*.html"):
        for line in path.read_text().splitlines():
            if "| safe" in line:
                assert line.strip().startswith("<script"), f"{path.name}: {line}"
    assert not [p.name for p in TEMPLATES.glob("*.md") if "safe" in p.read_text()]
