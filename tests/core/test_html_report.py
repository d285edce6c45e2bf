"""Reports: pages that load nothing, in which no text from the data can become markup."""

import html
import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core import html_report


def plain(marked: str) -> str:
    """The text of marked-up HTML."""
    return html.unescape(re.sub(r"</?(ins|del)>", "", marked))


TEXT = st.text(st.sampled_from("ab<&\"'>一\n "), max_size=30)


@settings(deadline=None)  # the first example loads the template
@given(TEXT, TEXT)
def test_marking_differences_loses_no_text(before: str, after: str) -> None:
    left, right = html_report.mark_differences(before, after)
    assert plain(left) == "\n".join(before.splitlines())
    assert plain(right) == "\n".join(after.splitlines())
    assert not re.search(r"<(?!/?(ins|del)>)", left + right)


def test_only_what_differs_is_marked() -> None:
    left, right = html_report.mark_differences("[0001] A pump.\nSame.", "A pump.\nSame.")
    assert left == "<del>[0001] </del>A pump.\nSame."
    assert right == "A pump.\nSame."


def test_a_table_for_a_terminal_has_its_numbers_below_each_other() -> None:
    found = html_report.text_table(["office", "tokens"], [["CN", 1234567], ["all", 8]])
    assert found == "office     tokens\nCN      1,234,567\nall             8"
    assert html_report.text_table(["office", "tokens"], []) == "office  tokens"


def test_a_page_needs_no_network_and_escapes_what_it_is_given() -> None:
    hostile = "<script>alert(1)</script>"
    page = html_report.page(
        hostile,
        [
            html_report.section(hostile, html_report.paragraph(hostile)),
            html_report.table([hostile, "n"], [[hostile, 1234567]]),
            html_report.bars({hostile: 3, "none": 0}),
            html_report.pair(hostile, hostile, "", (hostile, hostile), hostile),
            html_report.section(hostile, html_report.heading(hostile), hostile),
            html_report.folded(hostile, html_report.preformatted(hostile)),
            html_report.estimates(
                [html_report.Line(hostile, html_report.Estimate(1, 0, 2), note=hostile)], (hostile, hostile)
            ),
        ],
    )
    assert "<script" not in page
    assert not re.search(r"""(src|href)=|url\(|@import""", page)
    assert "1,234,567" in page
    assert 'name="viewport"' in page


@pytest.mark.parametrize(
    ("before", "after"),
    [("是" * 4000, "是的" * 2000), ("一种装置，" * 800, "一种设备，" * 790),
     ("。\n" * 2000, "是\n。\n" * 1000), ("abab" * 1000, "ba" * 1990 + "x" * 20)],
    ids=["syllables", "phrases", "lines", "letters"],
)  # fmt: skip
def test_text_that_repeats_itself_is_compared_in_a_moment(before: str, after: str) -> None:
    start = time.process_time()
    left, right = html_report.mark_differences(before, after)
    assert time.process_time() - start < 3
    assert plain(left) == "\n".join(before.splitlines())
    assert plain(right) == "\n".join(after.splitlines())
