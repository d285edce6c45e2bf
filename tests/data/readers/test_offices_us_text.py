"""United States documents as text, the green book and BRS exports: their known traps."""

from pathlib import Path

from data.readers.formats import read
from data.record import Rejected
from tests.data.readers.reading import records, write

GREEN_BOOK = """HHHHHT        APS1        ISSUE - 760210
PATN
WKU  039373754
SRC  5
APN  5184541
TTL  Bumper support for a
      boat loader
ISD  19760210
NCL  2
INVT
NAM  Daniels; Everette E.
CLAS
ICL  B60R  900
ICL  G01G 1904
UREF
PNO  2542907
ISD  19510200
ABST
PAL  A unit of CO.sub.2 and R.sub.(i+1) at 10.sup.-3 .mu.m, C.sub.1-10, i.e. small,
      which goes on.
BSUM
PAC  BACKGROUND OF THE INVENTION
PAR  It is .times.5.degree. of ##EQU1## and ##STR2##.
TBL                 TABLE 1
     ______________________
     Part           Share
     rotor          5 %
DETD
PAR  See 10.
CLMS
STM  What I claim is:
NUM  1.
PAR  1. A support, comprising:
PA1  (a) a strap (1); and
PA1  (b) a hook.
NUM  2.
PAR  2. The support of claim 1.
PATN
WKU  D02384567
SRC  5
APN  6000001
TTL  Bottle
ISD  19760217
DCLM
PAR  The ornamental design for a bottle, as shown.
"""


def test_the_green_book(tmp_path: Path) -> None:
    path = write(tmp_path, "pftaps.txt", GREEN_BOOK)
    patent, design = records(path)
    assert patent == {
        "id": "US-3937375-A",
        "office": "US",
        "kind": "A",
        "language": "en",
        "date": "1976-02-10",
        "application_id": "US-05518454",
        "family_id": None,
        "filed": None,
        "priority": None,
        "cites": ["US-2542907"],
        "claim_numbers": None,
        "title": "Bumper support for a boat loader",
        "abstract": "A unit of CO₂ and R_{(i+1)} at 10⁻³ μm, C₁₋₁₀, i.e. small, which goes on.",
        "claims": ["A support, comprising:\n(a) a strap (1); and\n(b) a hook.", "The support of claim 1."],
        "description": "BACKGROUND OF THE INVENTION\nIt is ×5° of [formula] and [chemistry].\n"
        "TABLE 1\nPart\tShare\nrotor\t5 %\nSee 10.",
        "ipc": ["B60R 9/00", "G01G 19/04"],
        "source": f"{path}#{GREEN_BOOK.index('PATN')}",
    }
    assert (design["id"], design["kind"], design["claims"]) == (
        "US-D238456-S", "S", ["The ornamental design for a bottle, as shown."]
    )  # fmt: skip


def test_a_green_book_goes_on_after_wrong_bytes(tmp_path: Path) -> None:
    data = GREEN_BOOK.encode().replace(b"See 10", b"See " + b"\xb5" * 6 + b" 10")
    bad, good = read(write(tmp_path, "a.txt", data))
    assert isinstance(bad, Rejected)
    assert bad.reason == "bad-encoding"
    assert f"byte {data.index(0xB5)} of the file" in bad.detail
    assert isinstance(good, list)


BRS = """09204581	B2	20151201	13676098	43247
Method for reduction
*** BRS DOCUMENT BOUNDARY ***
WKU 09204581
DID US 9204581 B2
GISD 20151201
APNR 13676098
IPCG 20060101 A H01Q H01Q15/00 L I B US H 20151201
IPCG 20060101 A H05K H05K9/00 F I B US H 20151201
TTL Method for reduction,
      and apparatus
ASTX N/A
ABPR  A method is provided.
BSTX BACKGROUND
BSTX  The invention relates to V.sub.2O.sub.3 in a 4.sup.th generation
      device.
DETX  See 10.
CLST What is claimed is:
CLPR  1. A method, comprising: providing
      a circuit.
CLPR  2. The method of claim 1.
DSRC US
09204582	B2	20151201	14577134	75551
Electronic device protection
*** BRS DOCUMENT BOUNDARY ***
DID US 9204582 B2
TTL Electronic device protection
CLPR  1. A device.
"""


def test_brs_exports(tmp_path: Path) -> None:
    path = write(tmp_path, "css.txt", BRS)
    first, second = records(path)
    assert first == {
        "id": "US-9204581-B2",
        "office": "US",
        "kind": "B2",
        "language": "en",
        "date": "2015-12-01",
        "application_id": "US-13676098",
        "family_id": None,
        "filed": None,
        "priority": None,
        "cites": None,
        "claim_numbers": None,
        "title": "Method for reduction, and apparatus",
        "abstract": "A method is provided.",
        "claims": ["A method, comprising: providing a circuit.", "The method of claim 1."],
        "description": "BACKGROUND\nThe invention relates to V₂O₃ in a 4^{th} generation device.\nSee 10.",
        "ipc": ["H05K 9/00", "H01Q 15/00"],
        "source": f"{path}#{BRS.index('***')}",
    }
    assert (second["id"], second["title"], second["claims"]) == (
        "US-9204582-B2", "Electronic device protection", ["A device."]
    )  # fmt: skip
