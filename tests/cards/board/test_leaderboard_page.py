"""The leaderboard's page in headless Chromium: 1000 classes, 30 rows, mouse and keyboard."""

from collections.abc import Iterator
from typing import Any

import pytest

from cards.board.board import assemble_board
from cards.measured.result_folder import read_folder
from cards.pages.page import write_site
from tests.cards.board.made_up_reports import a_finetuning, a_study, a_sweep
from tests.cards.made_up_results import labelled_fixture
from tests.cards.opened_page import ALL_DRAWN, opened

BOARD = "#fixture-classifiers"
CLASSES = "#fixture-training .classes"
SCHEMES = ("light", "dark")
WIDTHS = (400, 1600)


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("board")
    results = labelled_fixture(folder / "results", classes=1000, rows=30)
    a_study(results / "study")
    a_sweep(results / "sweep")
    a_finetuning(results / "finetuning")
    files = write_site(assemble_board(read_folder(results), [], published=True), folder / "site")
    assert files[0].stat().st_size < 3_000_000
    return files[0].as_uri()


@pytest.fixture
def page(browser: Any, address: str) -> Iterator[Any]:
    """Opened, at 1600 px wide; the test fails if the page asks for anything or complains."""
    with opened(browser, address) as page:
        yield page


def column(page: Any, table: str, number: int) -> list[str]:
    """Texts of a column (from 1 on) in the rows that are shown."""
    cells = page.locator(f"{table} tbody tr:not(.group):not([hidden]) td:nth-child({number})")
    return [text.strip() for text in cells.all_text_contents()]


def heading(page: Any, table: str, label: str) -> Any:
    return page.locator(f"{table} thead button", has_text=label)


def numbers(texts: list[str]) -> list[float]:
    return [float(text.split(" ")[0]) for text in texts]


def tooltip(page: Any) -> str:
    page.wait_for_selector("#vg-tooltip-element.visible")
    return str(page.locator("#vg-tooltip-element").inner_text())


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("width", WIDTHS)
def test_page_fits_its_width(browser: Any, address: str, width: int, scheme: str) -> None:
    with opened(browser, address, width, scheme) as page:
        for facet in ("ImageNet-1k", "fixture"):
            page.get_by_role("button", name=facet, exact=True).click()
            page.wait_for_function(ALL_DRAWN)
            assert page.evaluate("document.documentElement.scrollWidth") <= width
        style = "getComputedStyle(document.body)"
        colours = page.evaluate(f"[{style}.color, {style}.backgroundColor]")
        ink, paper = (sum(int(n) for n in c[4:-1].split(",")) for c in colours)
        assert abs(ink - paper) > 450
        assert (paper > ink) == (scheme == "light")


def test_rows_are_sorted_by_mouse_and_by_keyboard(page: Any) -> None:
    top1 = heading(page, BOARD, "Top-1")
    place = page.locator(f"{BOARD} thead th").all_text_contents()
    number = next(i for i, text in enumerate(place, 1) if text.startswith("Top-1"))
    top1.click()
    assert numbers(column(page, BOARD, number)) == sorted(
        numbers(column(page, BOARD, number)), reverse=True
    )
    top1.focus()
    page.keyboard.press("Enter")
    values = numbers(column(page, BOARD, number))
    assert values == sorted(values)
    assert len(values) == 30
    assert page.locator(f"{BOARD} th[aria-sort=ascending]").count() == 1


def test_rows_are_filtered_by_words(page: Any) -> None:
    page.locator(f"{BOARD} .filter").focus()
    page.keyboard.type("REAL made-up")
    assert column(page, BOARD, 2) == ["made-up real"]
    assert page.locator(f"{BOARD} .count").inner_text() == "1 row"


def test_class_is_found_named_and_marked(page: Any) -> None:
    page.locator(f"{CLASSES} .find-class").fill("class number 999")
    assert column(page, CLASSES, 1) == ["made-up class number 999"]
    page.wait_for_function(
        "[...document.querySelectorAll('.class-chart text')]"
        ".some(t => t.textContent === 'made-up class number 999')"
    )


def test_every_class_is_named_on_hover(page: Any) -> None:
    points = page.locator(f"{CLASSES} path[aria-roledescription=class]")
    assert points.count() == 1000
    labels = points.evaluate_all("all => all.map(p => p.getAttribute('aria-label'))")
    named = {label.split("class: ")[1].split(";")[0] for label in labels}
    assert named == {f"made-up class number {i}" for i in range(1000)}
    page.locator(f"{CLASSES} .class-chart").scroll_into_view_if_needed()
    box = points.last.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    shown = tooltip(page)
    assert "made-up class number" in shown
    assert "95% interval" in shown


@pytest.mark.parametrize("scheme", SCHEMES)
def test_verdicts_are_told_apart_without_colours(browser: Any, address: str, scheme: str) -> None:
    with opened(browser, address, scheme=scheme) as page:
        symbols = page.locator(f"{CLASSES} .role-legend-symbol path")
        shapes = symbols.evaluate_all("all => all.map(symbol => symbol.getAttribute('d'))")
        words = page.locator(f"{CLASSES} .role-legend-label text").all_text_contents()
        assert words == ["harmed", "helped", "not significant", "not tested"]
        assert len(set(shapes)) == len(words)
        marks = page.locator(f"{CLASSES} path[aria-roledescription=class]")
        drawn = marks.evaluate_all("all => all.map(mark => mark.getAttribute('d'))")
        assert len(set(drawn)) == len(set(column(page, CLASSES, 6)))


def test_charts_are_walked_by_keyboard(page: Any) -> None:
    page.locator(f"{CLASSES} .class-chart").focus()
    page.keyboard.press("ArrowRight")
    first = tooltip(page)
    assert "made-up class number" in first
    page.keyboard.press("ArrowRight")
    page.wait_for_function(
        "first => document.getElementById('vg-tooltip-element').innerText !== first", arg=first
    )
    assert "class: made-up class number" in page.locator(f"{CLASSES} .spoken").inner_text()
    page.keyboard.press("Escape")
    page.wait_for_selector("#vg-tooltip-element.visible", state="detached")


@pytest.mark.parametrize(
    ("chart", "said"),
    [
        ("CAS against FD to train", "training set: made-up set"),
        ("More generated images: made-up-model", "difference to real, points: "),
        ("The paper's curve", "series: generated at"),
        ("FD along guidance w: steps 16", "point: ddpm-w1-g0-s16-a0"),
    ],
)
def test_every_kind_of_chart_tells_its_points(page: Any, chart: str, said: str) -> None:
    figure = page.locator("figure.view:visible", has_text=chart).first
    figure.locator(".chart").focus()
    page.keyboard.press("ArrowRight")
    assert tooltip(page)
    assert said in figure.locator(".spoken").inner_text()


def test_contents_lead_to_their_section(page: Any) -> None:
    page.get_by_role("button", name="Sampler sweep: recipe made-up, stage 16 px").click()
    title = page.locator("#fixture-selection-0-title")
    assert title.evaluate("title => title === document.activeElement")
    assert 0 <= title.bounding_box()["y"] < 1000


def test_best_generator_at_256_for_training_is_two_clicks_away(page: Any) -> None:
    page.get_by_role("button", name="ImageNet-1k", exact=True).click()
    heading(page, "#published-systems", "CAS top-1").click()
    group = page.locator("#published-systems tbody", has_text="256 \N{MULTIPLICATION SIGN} 256 px")
    best = group.locator("tr:not(.group)").first.locator("td").all_text_contents()
    assert best[0] == "Imagen (fine-tuned)"
    assert best[4].strip() == "64.96"


def test_harmed_classes_are_one_click_away(page: Any) -> None:
    page.locator(f"{CLASSES} .verdict", has_text="harmed").click()
    verdicts = column(page, CLASSES, 6)
    assert set(verdicts) == {"harmed"}
    assert (
        page.locator(f"{CLASSES} .verdict", has_text="harmed").inner_text()
        == f"harmed {len(verdicts)}"
    )
    differences = [float(t.replace("\N{MINUS SIGN}", "-")) for t in column(page, CLASSES, 4)]
    assert differences == sorted(differences)
    assert max(differences) < 0


def test_accuracy_can_be_read_on_a_phone_without_scrolling(browser: Any, address: str) -> None:
    with opened(browser, address, 400) as page:
        cell = page.locator(f"{BOARD} tbody tr:not(.group) td.number").nth(1)
        box = cell.bounding_box()
        assert float(cell.inner_text().split(" ")[0]) > 1  # the top-1, behind the rank
        assert box["x"] + box["width"] <= 400


def test_page_begins_with_the_answer(page: Any) -> None:
    said = page.locator("#facet-fixture .answer").inner_text()
    assert said.startswith("On fixture the best set of generated images, made-up set 28")
