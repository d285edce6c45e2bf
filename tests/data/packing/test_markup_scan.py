"""What looks like markup in packed text is counted by source."""

import pytest

from data.packing.markup_scan import scan


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Water <sub>2</sub> and <tb>A<SEP>B", {"tags": 4}),
        ('<p num="1">A <br/> B</p> <EMI ID=1.1>', {"tags": 4}),
        ("if t<t1 and a<b, then b>c; <class>!<unique device ID>", {}),
        ("AT&amp;T &#945; R&D;", {"entities": 2}),
        ("CO.sub.2 at 10.sup.3, .Iadd.new.Iaddend. ##EQU1##", {"APS codes": 5}),
        ("e.g. sub. 2", {}),
        ("zero\u200bwidth", {"invisible characters": 1}),
        ("Abstract\nAbstract\nA pump.", {"doubled headings": 1}),
        ("A pump.\nAnother.", {}),
        ("", {}),
    ],
)
def test_markup_is_counted(text: str, found: dict[str, int]) -> None:
    assert scan(text) == found
