"""Archives, compression and encodings: read as they are, and what is hostile in them is refused by name."""

import bz2
import gzip
import io
import json
import lzma
import random
import tarfile
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path

import openpyxl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from data.readers.archives import Limits, members
from data.readers.formats import read
from data.record import Rejected
from data.stream import LINE_BYTES, encoding, open_file
from tests.data.readers.reading import grant, reasons, records, rejected, without_digest, write

LINES = b'{"id": "a", "text": "one"}\n{"id": "b", "text": "two"}\n'


def zipped(members: Iterable[tuple[str, bytes]]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return file.getvalue()


def tarred(members: Iterable[tuple[str, bytes]]) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return file.getvalue()


def test_members_are_read_and_named_by_archive_and_member(tmp_path: Path) -> None:
    weekly = (grant("1000001") + grant("1000002")).encode()
    inner = zipped([("week.xml", weekly), ("deep/rows.jsonl", LINES)])
    path = write(
        tmp_path, "bulk.data", tarred([("x.xml", grant().encode()), ("y", inner), ("z.txt", b"prose")])
    )
    found = records(path)
    assert [record["source"] for record in found] == [
        f"{path}/x.xml",
        f"{path}/y/week.xml#0",
        f"{path}/y/week.xml#{len(grant('1000001').encode())}",
        f"{path}/y/deep/rows.jsonl#1",
        f"{path}/y/deep/rows.jsonl#2",
        f"{path}/z.txt",
    ]
    assert [without_digest(record["id"]) for record in found][-3:] == ["a", "b", "z"]


@pytest.mark.parametrize(
    "pack",
    [gzip.compress, zstandard.compress, bz2.compress, lzma.compress,
     lambda data: gzip.compress(data[:9]) + gzip.compress(data[9:]),
     lambda data: zstandard.compress(data[:9]) + zstandard.compress(data[9:]),
     lambda data: gzip.compress(zstandard.compress(data))],
)  # fmt: skip
def test_compressed_files_keep_their_name(tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    path = write(tmp_path, "rows.csv.gz", pack(b"id,text\na,one\n,two\n"))
    assert reasons(path) == ["a", "rows-000003"]
    assert records(path)[0]["source"] == f"{path}#2"
    packed = write(tmp_path, "t.tgz", pack(tarred([("a.xml", grant().encode())])))
    assert records(packed)[0]["source"] == f"{packed}/a.xml"


def test_one_bad_member_does_not_end_the_archive(tmp_path: Path) -> None:
    members = [("../up.xml", b"x"), ("/etc/passwd", b"x"), ("c:\\x.xml", b"x"), ("empty.xml", b"")]
    members += [("cut.gz", gzip.compress(LINES)[:-12]), ("good.jsonl", LINES)]
    wanted = ["unsafe-name"] * 3 + ["empty-file", "truncated-archive", "a", "b"]
    for name, pack in (("a.zip", zipped), ("a.tar", tarred)):
        found = reasons(write(tmp_path, name, pack(members)))
        assert [reason for reason in found if reason != "unsafe-name"][-4:] == wanted[-4:]
        assert found.count("unsafe-name") == 3


def test_links_in_a_tar_are_not_followed(tmp_path: Path) -> None:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        link = tarfile.TarInfo("link.txt")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
        archive.addfile(tarfile.TarInfo("folder/"))
    assert reasons(write(tmp_path, "a.tar", file.getvalue())) == ["archive-link", "empty-file"]


def test_an_encrypted_or_damaged_member_is_refused(tmp_path: Path) -> None:
    data = bytearray(zipped([("a.jsonl", LINES), ("b.jsonl", LINES)]))
    central = data.index(b"PK\x01\x02")
    data[central + 8] |= 1  # the flag that says encrypted
    assert reasons(write(tmp_path, "a.zip", bytes(data))) == ["encrypted", "a", "b"]
    data = bytearray(zipped([("a.jsonl", LINES), ("b.jsonl", LINES)]))
    data[data.index(b"a.jsonl") + 12] ^= 0xFF
    assert reasons(write(tmp_path, "b.zip", bytes(data)))[-3:] == ["damaged-archive", "a", "b"]
    assert reasons(write(tmp_path, "c.zip", bytes(data[:60]))) == ["damaged-archive"]
    assert reasons(write(tmp_path, "d.zip", zipped([]))) == ["empty-file"]


@pytest.mark.parametrize("pack", [gzip.compress, zstandard.compress, bz2.compress, lzma.compress])
def test_what_came_before_the_end_of_a_cut_file_is_read(
    tmp_path: Path, pack: Callable[[bytes], bytes]
) -> None:
    noise = random.Random(0)
    rows = [{"id": f"{n}", "text": f"{noise.getrandbits(4000):x}"} for n in range(2000)]
    whole = "".join(json.dumps(row) + "\n" for row in rows).encode()
    packed = pack(whole)
    found = reasons(write(tmp_path, "a.jsonl", packed[: len(packed) * 3 // 4]))
    assert found[-1] == "truncated-archive"
    assert found[:-1] == [f"{n}" for n in range(len(found) - 1)]
    assert len(found) > 200


def test_bombs_are_refused_by_ratio_and_by_size(tmp_path: Path) -> None:
    blank = bytes(4 << 20)
    limits = Limits(free_bytes=1 << 20)

    def first(path: Path, limits: Limits) -> str:
        opened = open_file(path)
        with opened.file, pytest.raises(Exception, match="more than") as error:
            for content in members(opened, limits):
                assert not isinstance(content, Rejected)
                content.file.read()
        return str(error.value)

    for name, data in (("a.zip", zipped([("a", blank)])), ("a.gz", gzip.compress(blank)),
                       ("a.zst", zstandard.compress(blank))):  # fmt: skip
        assert "100 times" in first(write(tmp_path, name, data), limits)
    stored = tarred([("a", blank)])
    assert "bytes from one member" in first(write(tmp_path, "a.tar", stored), Limits(stream_bytes=1 << 20))


def test_a_real_bomb_ends_in_one_rejection(tmp_path: Path) -> None:
    layer = gzip.compress(b'{"text": "' + b"a" * (256 << 20), 1)
    assert reasons(write(tmp_path, "a.zip", zipped([("a.gz", layer), ("b.jsonl", LINES)]))) == [
        "archive-bomb", "a", "b"
    ]  # fmt: skip
    nested = LINES
    for _ in range(6):
        nested = zipped([("x.zip", nested)])
    assert reasons(write(tmp_path, "nested.zip", nested)) == ["nested-archive"]


def test_a_line_without_end_is_passed_over(tmp_path: Path) -> None:
    long = b'{"text": "' + b"a" * LINE_BYTES + b'"}\n'
    assert reasons(write(tmp_path, "a.jsonl", LINES + long + LINES)) == ["a", "b", "too-long", "a", "b"]
    table = b"id,text\na,one\nb," + b"a" * LINE_BYTES + b"\nc,three\n"
    assert reasons(write(tmp_path, "a.csv", table)) == ["a", "too-long", "c"]
    assert reasons(write(tmp_path, "a.txt", b"a" * (LINE_BYTES + 1))) == ["too-long"]


@pytest.mark.parametrize("name", ["utf-16-le", "utf-16-be"])
def test_utf_16_with_its_mark_is_read(tmp_path: Path, name: str) -> None:
    def encode(text: str) -> bytes:
        return ("\ufeff" + text).encode(name)

    xml = grant(description="<p>气泵😀</p>").replace("UTF-8", "UTF-16")
    assert records(write(tmp_path, "a.xml", encode(xml)))[0]["description"] == "气泵😀"
    weekly = grant("1000001").replace("UTF-8", "UTF-16") + xml
    assert reasons(write(tmp_path, "w.xml", encode(weekly))) == ["US-1000001-B2", "US-8930553-B2"]
    assert records(write(tmp_path, "a.csv", encode("标题,摘要\n泵,一种泵。\n")))[0]["abstract"] == "一种泵。"
    assert reasons(write(tmp_path, "a.jsonl", encode('{"id": "x", "text": "y"}\n'))) == ["x"]
    assert reasons(write(tmp_path, "b.jsonl", encode(LINES.decode())[:-1])) == ["a", "bad-encoding"]


def test_a_mislabelled_document_is_read_by_what_it_is(tmp_path: Path) -> None:
    assert reasons(write(tmp_path, "a.xml", grant().replace("UTF-8", "utf-16"))) == ["US-8930553-B2"]


CHINESE = "本发明公开了一种水泵，包括壳体、转子和密封件，所述转子设置在壳体内。"
JAPANESE = "本発明は、ハウジングとロータとを備えるポンプに関するものである。"


def test_chinese_in_gb18030_is_recognised_and_nothing_else_is_taken_for_it(tmp_path: Path) -> None:
    assert records(write(tmp_path, "a.txt", CHINESE.encode("gb18030")))[0]["description"] == CHINESE
    table = f"公开号,标题\nCN101A,{CHINESE}\n".encode("gb18030")
    assert records(write(tmp_path, "a.csv", table))[0]["title"] == CHINESE
    declared = grant(description=f"<p>{CHINESE}</p>").replace("UTF-8", "GB18030").encode("gb18030")
    assert records(write(tmp_path, "a.xml", declared))[0]["description"] == CHINESE
    for text, name in (
        (JAPANESE, "euc-jp"),
        ("café à la crème", "latin-1"),
    ):
        assert encoding(text.encode(name)) == "utf-8", name
        refused = rejected(write(tmp_path, "b.txt", text.encode(name)))
        assert refused.reason == "bad-encoding"
        assert "byte" in refused.detail
    table *= 1000  # the wrong byte is beyond what is looked at to recognise a file
    broken = table + b"CN102A,\xff\xff\n" + "CN103A,泵\n".encode("gb18030")
    outcomes = list(read(write(tmp_path, "c.csv", broken)))
    assert [isinstance(outcome, Rejected) for outcome in outcomes[-3:]] == [False, True, False]
    assert f"byte {len(table) + 7} of the file is not GB18030" in str(outcomes[-2])


@pytest.mark.parametrize("seed", range(6))
def test_no_damage_to_a_file_ends_a_run(tmp_path: Path, seed: int) -> None:
    xlsx, parquet = tmp_path / "a.xlsx", tmp_path / "a.parquet"
    book = openpyxl.Workbook()
    assert book.active is not None
    for row in (["id", "text"], *([f"{number}", "some text"] for number in range(50))):
        book.active.append(row)
    book.save(xlsx)
    pq.write_table(pa.table({"id": ["a", "b"], "text": ["one", "two"]}), parquet)
    whole = [xlsx.read_bytes(), parquet.read_bytes(), gzip.compress(LINES), zstandard.compress(LINES), LINES]
    whole += [zipped([("a.jsonl", LINES), ("b.xlsx", whole[0])]), tarred([("a", LINES), ("b", LINES)])]
    chance = random.Random(seed)
    for number, data in enumerate(whole):
        for _ in range(20):
            broken = bytearray(data)
            for _ in range(chance.choice((1, 3, 30))):
                broken[chance.randrange(len(broken))] = chance.randrange(256)
            cut = bytes(broken[: chance.choice((len(broken), chance.randrange(len(broken))))])
            assert list(read(write(tmp_path, f"broken{number}", cut))), "at least one outcome"
