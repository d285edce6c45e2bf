"""Files in the encodings of East Asia: recognised, declared, or given by the source."""

from pathlib import Path

import pytest

from data.readers.column_mapping import Options
from data.readers.source import Source
from data.stream import encoding
from tests.data.readers.reading import grant, only, records, rejected, write

TEXTS = {
    "gb18030": "本发明涉及一种水泵的制造方法，包括浇铸的步骤，其特征在于该泵体设有密封圈。",
    "cp949": "본 발명은 우산을 말리는 거치대에 관한 것으로, 여러 우산을 꽂을 수 있고 물이 모인다. 뷁",
    "cp932": "本発明は、ウェーハの加工方法に関する。レーザービームを照射して、①溝を形成する。",
    "big5": "本發明係關於一種水泵的製造方法，包括澆鑄的步驟，其特徵在於該泵體設有密封圈。",
}
DECLARED = [
    ("gb18030", "gb2312"), ("cp949", "EUC-KR"), ("cp949", "ks_c_5601-1987"), ("cp932", "Shift_JIS"),
    ("big5", "Big5"),
]  # fmt: skip


@pytest.mark.parametrize("name", TEXTS)
def test_an_encoding_is_recognised_in_text_and_tables(name: str, tmp_path: Path) -> None:
    data = TEXTS[name].encode(name)
    assert encoding(data) == name
    assert only(write(tmp_path, "a.txt", data))["description"] == TEXTS[name]
    table = f'publication_number,abstract\nXX-12345-A,"{TEXTS[name]}"\n'.encode(name)
    assert only(write(tmp_path, "a.csv", table))["abstract"] == TEXTS[name]


@pytest.mark.parametrize(("name", "declared"), DECLARED)
def test_xml_may_declare_a_smaller_one(name: str, declared: str, tmp_path: Path) -> None:
    document = grant(description=f"<p>{TEXTS[name]}</p>").replace("UTF-8", declared).encode(name)
    assert only(write(tmp_path, "a.xml", document))["description"] == TEXTS[name]


@pytest.mark.parametrize("name", TEXTS)
def test_a_source_gives_the_encoding_of_its_files(name: str, tmp_path: Path) -> None:
    document = grant(description=f"<p>{TEXTS[name]}</p>").encode(name)  # declares UTF-8
    (record,) = records(write(tmp_path, "a.xml", document), Options(encoding=name))
    assert record["description"] == TEXTS[name]
    lines = f'{{"text": "{TEXTS[name]}"}}\n'.encode(name)
    (record,) = records(write(tmp_path, "a.jsonl", lines), Options(encoding=name))
    assert record["description"] == TEXTS[name]
    wrong = rejected(write(tmp_path, "b.jsonl", b'{"text": "\x81 "}\n'), Options(encoding=name))
    assert wrong.reason == "bad-encoding"


def test_an_unknown_encoding_is_refused() -> None:
    with pytest.raises(ValueError, match="cp9490"):
        Source(path="a", encoding="cp9490")
    with pytest.raises(ValueError, match="requires `path`"):
        Source(dataset=".", encoding="cp949")
