"""The report stands alone, escapes whatever it is given, and says what the run found."""

import base64
import dataclasses
import io
import re
import struct

import matplotlib.image
import pytest
from hypothesis import given
from hypothesis import strategies as st
from workbench.runs.html_page import ALLOWED, ATTRIBUTES, Page

from jgmm import plot
from jgmm.workbench.runs import report
from jgmm.workbench.runs.storage import Figure, MixtureTable, RunRecord, Table

EVIL = "<script>alert('x')</script>\"'&amp; onload=\"x\" https://example.org/x.png ]]> </style>"


def picture(title="points"):
    figure, (ax,) = plot.new_figure(size=(2, 1.5))
    plot.scatter([[0.0, 1.0], [2.0, 3.0]], ax=ax, columns=[title, "y"])
    return plot.png(figure)


PNG = picture()


def record(text="plain"):
    """A record that holds `text` wherever a record holds text."""
    return RunRecord(
        name=text,
        study=text,
        status=text,
        started="2026-03-01T14:05:09+00:00" if text == "plain" else text,
        seconds=83.2,
        config_toml=f'name = "{text}"',
        environment={"jax": "0.10.2", text: text, "data": [text]},
        metrics={"log_likelihood": -1130.2639, "n_components": 2, text: text},
        notes=[text, "two\nlines"],
        tables=[
            Table("selection", text, [{"k": 1, "bic": 2.5, text: text}, {"k": 2, "new": None}]),
            Table(text, text, [{text: text}] * (report.MAX_ROWS + 3)),
            Table("empty", text, []),
        ],
        figures=[Figure(text, text, PNG), Figure("no caption " + text, "", PNG)],
        mixtures=[
            MixtureTable(
                "best " + text,
                [text, "waiting"],
                [0.25, 0.75],
                [[2.0, 55.0], [4.5, 80.0]],
                [[[0.04, 0.1], [0.1, 36.0]], [[0.25, 0.1], [0.1, 49.0]]],
            )
        ],
    )


def words(source):
    return " ".join(" ".join(Page(source).text).split())


@pytest.mark.parametrize("text", ["plain", EVIL, "", "\ud800\x00\x1b[0m", "±∑ 日本 🙂"])
def test_the_page_is_balanced_and_holds_only_our_own_tags(text):
    source = report.render(record(text))
    source.encode("utf-8")
    page = Page(source)
    assert {tag for tag, _ in page.tags} <= ALLOWED
    assert {name for _, attributes in page.tags for name in attributes} <= ATTRIBUTES
    counts = [len(page.all(tag)) for tag in ("html", "head", "title", "style", "main", "h1")]
    assert counts == [1] * 6


def test_nothing_changes_the_tags_but_what_is_found():
    # The same tags in the same order whatever the text says: nothing escapes its place.
    plain = [tag for tag, _ in Page(report.render(record("words"))).tags]
    assert [tag for tag, _ in Page(report.render(record(EVIL))).tags] == plain


@given(st.text())
def test_any_text_stays_text(text):
    source = f'<p class="{report.escaped(text)}">{report.escaped(text)}</p>'
    page = Page(source)
    assert [tag for tag, _ in page.tags] == ["p"]
    assert set(page.tags[0][1]) == {"class"}
    source.encode("utf-8")


def test_each_field_is_shown_as_it_is():
    source = report.render(record(EVIL))
    # Wherever a record holds text, except its own duplicates: title, heading, study, status, …
    assert source.count(report.escaped(EVIL)) > 20
    assert "<script" not in source
    assert EVIL in words(source)


def test_nothing_is_loaded_from_anywhere():
    source = report.render(record(EVIL))
    page = Page(source)
    for _, attributes in page.tags:
        assert attributes.get("src", "data:image/png;base64,").startswith("data:image/png;base64,")
        assert not {"href", "srcset", "style", "action", "data", "poster"} & set(attributes)
    style = source[source.index("<style>") : source.index("</style>")]
    assert not re.search(r"url\(|@import|https?:", style)
    (policy,) = [a["content"] for a in page.all("meta") if "http-equiv" in a]
    assert policy.startswith("default-src 'none'")


def test_pictures_are_inside_at_their_printed_size():
    page = Page(report.render(record()))
    first = page.all("img")[0]
    content = base64.b64decode(first["src"].removeprefix("data:image/png;base64,"))
    assert content == PNG
    height, width = matplotlib.image.imread(io.BytesIO(content)).shape[:2]
    assert (width, height) == (300, 225)  # 2 by 1.5 inches at 150 dots an inch
    assert (first["width"], first["height"]) == ("192", "144")  # the same at 96
    assert first["alt"] == "plain"
    assert page.all("img")[1]["alt"] == "no caption plain"


@pytest.mark.parametrize("content", [b"", b"GIF89a", PNG[:12], b"x" * 100])
def test_a_picture_that_is_none_is_refused(content):
    broken = dataclasses.replace(record(), figures=[Figure("broken", "", content)])
    with pytest.raises(ValueError, match="'broken' is not a PNG"):
        report.render(broken)


def test_a_wide_picture_takes_the_whole_row():
    header = PNG[:16] + struct.pack(">II", 1500, 600) + PNG[24:]
    one = dataclasses.replace(record(), figures=[Figure("wide", "", header)])
    assert Page(report.render(one)).all("figure")[0].get("class") == "wide"


def test_headline_numbers_come_first():
    shown = words(report.render(record()))
    order = [shown.index(part) for part in ("log likelihood −1130.26", "n components 2", "Figures")]
    assert order == sorted(order)
    assert "1 min 23 s" in shown
    assert "1 March 2026, 14:05:09 UTC" in shown


def test_tables_hold_the_columns_of_all_rows():
    shown = words(report.render(record()))
    assert "k bic plain new 1 2.5 plain – 2 – – –" in shown


def test_a_long_table_says_where_the_rest_is():
    source = report.render(record())
    assert "3 more rows are in tables/plain.csv." in words(source)
    assert source.count("<tr><td>plain</td></tr>") == report.MAX_ROWS
    assert "No rows." in source


def test_every_wide_thing_scrolls_in_its_own_box():
    source = report.render(record())
    assert source.count("<table") == len(re.findall(r'class="scroll"[^>]*><table', source))
    for attributes in Page(source).all("div"):
        if attributes.get("class") == "scroll":
            assert attributes["tabindex"] == "0"  # or a keyboard could not scroll it
            assert attributes["aria-label"]


def test_parameters_of_few_features_have_components_in_rows():
    shown = words(report.render(record()))
    assert "weight plain waiting mean sd mean sd" in shown
    assert "component 0 25.00 % 2.0 0.2 55 6 component 1 75.00 % 4.5 0.5 80 7" in shown
    assert "Covariances" in shown


def test_parameters_of_many_features_have_features_in_rows():
    mixture = MixtureTable(
        "wide",
        ["a", "b", "c"],
        [1.0],
        [[1.0, 2.0, 3.0]],
        [[[4.0, 0, 0], [0, 9.0, 0], [0, 0, 16.0]]],
    )
    shown = words(report.render(dataclasses.replace(record(), mixtures=[mixture])))
    assert "component 0 (100.00 %) mean sd a 1 2 b 2 3 c 3 4" in shown
    assert "Covariances" not in shown  # diagonal: the deviations say it all


def test_an_empty_run_still_has_a_page():
    bare = RunRecord("a", "b", "complete", "2026-03-01T14:05:09+00:00", 0.5, "", {})
    page = Page(report.render(bare))
    assert [tag for tag, _ in page.tags].count("section") == 1  # the config, though empty
    assert "0.50 s" in " ".join(page.text)


def test_light_dark_narrow_and_print_are_provided_for():
    source = report.render(record())
    assert "@media (prefers-color-scheme: dark)" in source
    assert "@media print" in source
    assert "width=device-width" in source


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.0, "0"),
        (-0.5, "−0.5"),
        (3.0, "3"),
        (1 / 3, "0.333333"),
        (999999.9, "1\u202f000\u202f000"),
        (12345.678, "12\u202f345.7"),
        (3.2e-9, "3.2 × 10⁻⁹"),
        (-1.5e300, "−1.5 × 10³⁰⁰"),
        (float("nan"), "NaN"),
        (float("-inf"), "−∞"),
        (1982, "1982"),
        (-273280, "−273\u202f280"),
        (True, "yes"),
        (None, "–"),
        ("<b>", "<b>"),
    ],
)
def test_values_are_written_for_people(value, shown):
    assert report.format_value(value) == shown


@given(st.floats(-1e308, 1e308))
def test_a_written_number_is_the_number_to_five_digits(value):
    text = report.format_value(value).replace("\u202f", "").replace("−", "-")
    text = text.replace(" × 10", "e").translate(str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789"))
    # Five significant digits: half a unit in the last place is at most 5e-5 of the value. The
    # smallest doubles are spaced wider than that.
    assert float(text) == pytest.approx(value, rel=5.1e-5, abs=5e-324)


@pytest.mark.parametrize(
    ("values", "shown"),
    [
        ([-1130.2639, -99.5, None], ["−1130.26", "−99.50", "–"]),
        ([2.0, 3.0], ["2", "3"]),
        ([0.25, 0.5, 1], ["0.25", "0.50", "1"]),
        ([1000.0, 0.001], ["1000", "0.001"]),
        ([1e-9, 2e-9], ["1 × 10⁻⁹", "2 × 10⁻⁹"]),
        ([float("nan"), 1.5], ["NaN", "1.5"]),
    ],
)
def test_the_points_of_a_column_are_below_one_another(values, shown):
    rows = [{"v": value} for value in values]
    table = dataclasses.replace(record(), tables=[Table("t", "", rows)], mixtures=[])
    source = report.render(table)
    assert re.findall(r'<td class="number">([^<]*)</td>', source) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0.004, "0.00 s"),
        (9.99, "9.99 s"),
        (9.996, "10.0 s"),
        (59.96, "1 min 0 s"),
        (3599.6, "1 h 0 min"),
        (90000.0, "25 h 0 min"),
    ],
)
def test_durations_are_written_as_one_says_them(seconds, shown):
    assert report.format_seconds(seconds) == shown
