"""The page as its readers use it, in a real browser in front of a real service."""

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from serve.retrieval.index import build
from serve.service.assistant import Assistant
from serve.service.ratings import read
from tests.conftest import ROOT
from tests.data.records import record, write_shards
from tests.eval.browser import Page, browse
from tests.serve.engine import ANSWER, FakeEngine, assistant, engine
from tests.serve.reader import ask, click, failures, last, press, show, texts, type_in, until

HOSTILE = '<script>window.ran = 1</script><img src=x onerror="window.ran = 1">'
BEYOND = "𠀀😀 The xylophone 𠮷 has keys 👩‍🔬, as xylophones do: xylophone 😀."
"""Characters that UTF-16 stores in two units."""
KEY = "a-key-that-is-long-ü"


@pytest.fixture(scope="module")
def browser() -> Iterator[Page]:
    with browse() as opened:
        yield opened


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("index")
    only_abstract: dict[str, Any] = {"claims": None, "description": None, "date": "2015-01-06"}
    law = only_abstract | {"abstract": None, "title": "专利法"}
    records = [
        record(1, title="Toy 😀", abstract=BEYOND, **only_abstract),
        record(2, title=HOSTILE, abstract=f"zither {HOSTILE} {'w' * 700}", **only_abstract),
        record(3, id="law", **(law | {"description": "第一条 甲。\n第二条 乙。"})),
        *map(record, range(4, 40)),
    ]
    write_shards([records], place / "records")
    build([place / "records"], place / "index")
    return place / "index"


@pytest.fixture
def page(browser: Page, url: str, fake: FakeEngine) -> Iterator[Page]:
    """The page, open; nothing of it may have failed, run or gone elsewhere."""
    assert not fake.asked
    show(browser, url)
    yield browser
    assert failures(browser) == []
    assert all(address.startswith(f"{url}/") for address in browser.asked), browser.asked
    assert browser.evaluate("window.ran") is None


def scripted(page: Page, events: list[dict[str, Any]], step: int = 1) -> None:
    """Answer the next questions in the page itself: these events, `step` bytes at a time."""
    data = "".join(f"data: {json.dumps(each, ensure_ascii=False)}\r\n\r\n" for each in events)
    page.evaluate(f"""
      window.fetch = async path => path !== "v1/chat/completions" ? new Response("{{}}") : new Response(
        new ReadableStream({{ start(controller) {{
          const bytes = new TextEncoder().encode({json.dumps(data + "data: [DONE]")} + "\\n\\n");
          for (let i = 0; i < bytes.length; i += {step}) controller.enqueue(bytes.slice(i, i + {step}));
          controller.close();
        }} }}));
      0""")


def opening(**more: Any) -> dict[str, Any]:
    """The first event of an answer."""
    return {"id": "a", "sources": [], "gate": None, **piece(""), **more}


def piece(content: str, **more: Any) -> dict[str, Any]:
    """An event with a piece of an answer."""
    return {"choices": [{"index": 0, "delta": {"content": content}, "finish_reason": None, **more}]}


def test_a_question_is_asked_by_keyboard_and_answered_piece_by_piece(page: Page, fake: FakeEngine) -> None:
    fake.pieces, fake.delay = [f"word{n} " for n in range(8)], 0.15
    assert page.evaluate("document.activeElement.id") == "question"
    assert last_of(page, "#model") == "m"
    page.evaluate("""
      window.seen = []; window.heard = [];
      new MutationObserver(() => seen.push(turns[0].part(".answer").textContent))
        .observe(at("turns"), {subtree: true, characterData: true, childList: true});
      new MutationObserver(() => heard.push(at("heard").textContent)).observe(at("heard"), {childList: true});
      0""")
    type_in(page, "What does")
    press(page, modifiers=8)  # Shift
    type_in(page, "the pump move?")
    press(page)
    until(page, "turns.length && !running && turns[0].text")
    assert last(page, ".question") == "What does\nthe pump move?"
    assert last(page, ".answer") == "".join(fake.pieces)
    whole = "".join(fake.pieces)
    seen = [text for text in page.evaluate("seen") if text]
    assert len(set(seen)) > 3  # it grew
    assert all(whole.startswith(text) for text in seen)
    assert page.evaluate("heard") == ["Preparing the answer…", whole]  # a screen reader hears it once
    assert page.evaluate("document.activeElement.id") == "question"
    assert page.evaluate("at('question').value") == ""
    assert page.console == []


def last_of(page: Page, selector: str) -> str:
    """The text of an element."""
    return str(page.evaluate(f"document.querySelector({json.dumps(selector)}).textContent"))


def test_an_enter_that_ends_a_composition_sends_nothing(page: Page, fake: FakeEngine) -> None:
    page.call("Input.imeSetComposition", text="专利", selectionStart=2, selectionEnd=2)
    press(page)
    assert page.evaluate("turns.length") == 0
    page.call("Input.insertText", text="专利")
    press(page)
    until(page, "turns.length && !running")
    assert "专利" in fake.asked[-1]["messages"][-1]["content"]


def test_sources_are_marked_where_the_questions_terms_stand(page: Page) -> None:
    ask(page, "xylophone keys")
    assert texts(page, ".number")[0] == "[1]"
    assert (texts(page, ".name")[0], texts(page, ".title")[0]) == ("US-1-A, abstract", "Toy 😀")
    assert texts(page, ".sources time")[0] == "2015-01-06"
    assert texts(page, ".passage")[0] == f"Toy 😀\n{BEYOND}"
    assert texts(page, "mark") == ["xylophone", "keys", "xylophone"]
    assert page.evaluate("[...document.querySelectorAll('.sources details')].some(d => d.open)") is False
    assert page.evaluate("document.querySelector('.passage').lang") == "en"


def test_a_citation_opens_its_source_and_a_wrong_one_is_marked(page: Page, fake: FakeEngine) -> None:
    fake.pieces = ["𠀀😀 See [1] and ", "[1, 9], [7]; 《专利法》第二条、《专利法》第三条。"]
    ask(page, "xylophone 专利法")
    assert texts(page, ".cite") == ["[1]"]
    assert texts(page, ".wrong") == ["[1, 9]", "[7]", "《专利法》第三条"]
    assert texts(page, ".reason") == ["no such source", "no such source", "no such article"]
    assert texts(page, ".found") == ["《专利法》第二条"]
    page.evaluate("document.querySelector('.cite').focus()")
    press(page)
    until(page, "document.querySelector('.sources details').open")
    assert page.evaluate("document.activeElement == document.querySelector('.sources summary')")
    press(page)
    until(page, "!document.querySelector('.sources details').open")
    click(page, "button.wrong")  # [1, 9]: what it has is opened
    until(page, "document.querySelector('.sources details').open")


@pytest.mark.parametrize("step", [1, 2, 3, 7, 100_000])
def test_a_stream_may_be_cut_anywhere(page: Page, step: int) -> None:
    text = "专利𠀀😀é [1]。"
    source = {"number": 1, "name": "n", "title": None, "date": None, "language": "zh", "text": "😀专利x",
              "found": [[1, 3]]}  # fmt: skip
    start = text.index("[")
    citation = {"start": start, "end": start + 3, "problem": None, "sources": [1]}
    closing = piece("", finish_reason="stop") | {"citations": [citation]}
    scripted(page, [opening(sources=[source]), *map(piece, text), closing], step)
    assert ask(page, "q") == text
    assert (texts(page, ".cite"), texts(page, "mark")) == (["[1]"], ["专利"])
    assert page.evaluate("document.querySelector('.problem[role=alert]').hidden")


def test_a_stream_that_ends_early_is_marked(page: Page) -> None:
    scripted(page, [opening(), piece("Half an")])
    assert ask(page, "q") == "Half an"
    assert last(page, ".problem") == "The answer broke off and is incomplete."
    scripted(page, [opening(), piece("Half an", finish_reason="length")])
    click(page, ".again")
    until(page, "!running && turns[0].finish")
    assert last(page, ".problem") == "The answer reached its greatest length and ends here."
    scripted(page, [opening(), piece("", finish_reason="stop")])
    click(page, ".again")
    until(page, "!running && turns[0].finish == 'stop'")
    assert last(page, ".problem") == "The answer is empty."


def test_stop_frees_the_engine(page: Page, fake: FakeEngine) -> None:
    fake.pieces, fake.delay, left = ["word "] * 500, 0.05, fake.left
    type_in(page, "pump")
    press(page)
    until(page, "turns[0]?.text")
    click(page, "#stop")
    until(page, "!running")
    assert last(page, ".problem") == "Stopped: the answer is incomplete."
    assert last(page, ".answer").startswith("word")
    deadline = time.monotonic() + 10
    while fake.left == left:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    click(page, ".up")  # what is there can be rated
    until(page, "turns[0].part('.said').textContent == 'Saved. Thank you.'")


def test_a_follow_up_sends_the_conversation_and_another_try_goes_back(page: Page, fake: FakeEngine) -> None:
    click(page, "#with-sources")
    ask(page, "one")
    fake.pieces = ["Two."]
    ask(page, "two")
    sent = [message["content"] for message in fake.asked[-1]["messages"]]
    assert sent == ["one", "".join(ANSWER), "two"]
    fake.pieces = ["Again."]
    page.evaluate("document.querySelector('.again').focus()")
    press(page)
    until(page, "!running && turns[0].text == 'Again.'")
    assert [message["content"] for message in fake.asked[-1]["messages"]] == ["one"]
    assert texts(page, "article .question") == ["one"]
    click(page, "#fresh")
    assert texts(page, "article") == []
    assert page.evaluate("document.activeElement.id") == "question"
    ask(page, "three")
    assert [message["content"] for message in fake.asked[-1]["messages"]] == ["three"]


def test_a_conversation_may_be_longer_than_the_service_takes(page: Page, fake: FakeEngine) -> None:
    click(page, "#with-sources")
    page.evaluate("for (let i = 0; i < 60; i++) addTurn(`q${i}`).text = 'a'; 0")
    fake.pieces = ["Done."]
    assert ask(page, "last") == "Done."
    sent = [message["content"] for message in fake.asked[-1]["messages"]]
    assert (len(sent), sent[-3:]) == (41, ["q59", "a", "last"])


def test_a_new_conversation_ends_the_answer_that_is_written(page: Page, fake: FakeEngine) -> None:
    fake.pieces, fake.delay = ["word "] * 500, 0.05
    type_in(page, "pump")
    press(page)
    until(page, "turns[0]?.text")
    click(page, "#fresh")
    fake.pieces, fake.delay = ["Done."], 0.0
    assert ask(page, "again") == "Done."
    assert [message["role"] for message in fake.asked[-1]["messages"]] == ["user"]


def test_ratings_and_corrections_are_kept(page: Page, folder: Path) -> None:
    said = "turns[0].part('.said').textContent"
    before = len(list(read(folder)))
    ask(page, "pump")
    pressed = "[...document.querySelectorAll('.up, .down')].map(e => e.getAttribute('aria-pressed')).join()"
    for thumb, expected in (("up", "true,false"), ("down", "false,true"), ("down", "false,false"),
                            ("up", "true,false")):  # fmt: skip
        click(page, f".{thumb}")
        until(page, f"{pressed} == '{expected}' && {said} == 'Saved. Thank you.'")
    click(page, ".improve")
    assert page.evaluate("document.activeElement.value") == "".join(ANSWER)
    page.evaluate("document.activeElement.select()")
    type_in(page, f"The pump moves water [1].\n{HOSTILE}")
    click(page, ".correction .main")
    until(page, "turns[0].part('.correction').hidden && turns[0].rating.correction")
    kept = list(read(folder))[before:]
    assert [line["rating"] for line in kept] == ["up", "down", "none", "up", "up"]
    assert kept[-1]["correction"] == f"The pump moves water [1].\n{HOSTILE}"
    assert (kept[-1]["text"], kept[-1]["answer"]) == ("".join(ANSWER), page.evaluate("turns[0].id"))
    click(page, ".improve")
    assert page.evaluate("document.activeElement.value").startswith("The pump moves")
    click(page, ".cancel")
    page.evaluate("turns[0].id = 'gone'")
    click(page, ".down")
    until(page, f"{said}.includes('there is no such answer')")
    assert page.evaluate(pressed) == "true,false"


def test_a_service_that_starts_again_has_the_ratings(browser: Page, fake: FakeEngine, tmp_path: Path) -> None:
    given = ("--endpoint", fake.url, "--model", "m")
    with assistant(tmp_path, *given) as url:
        show(browser, url)
        assert browser.evaluate("at('filters').hidden")  # no index, nothing to filter
        ask(browser, "pump")
        click(browser, ".down")
        until(browser, "turns[0].part('.said').textContent == 'Saved. Thank you.'")
    with assistant(tmp_path, *given) as url:
        show(browser, url)
        browser.evaluate("fetch('v1/ratings').then(r => r.json()).then(counts => window.counts = counts); 0")
        assert until(browser, "window.counts") == {"up": 0, "down": 1, "corrections": 0}
    assert failures(browser) == []


def test_filters_reach_the_service_and_their_errors_the_reader(page: Page, fake: FakeEngine) -> None:
    click(page, "#filters summary")
    click(page, "[name=before]")
    type_in(page, HOSTILE)
    assert last_of(page, "#filter-count") == "(1)"
    ask(page, "zither")
    assert last(page, ".problem").startswith(f"before={HOSTILE}: neither a date")
    assert not fake.asked
    for before, sources in (("2015-01-06", 0), ("2015-01-07", 1)):
        page.evaluate(f"document.querySelector('[name=before]').value = '{before}'")
        click(page, ".again")
        until(page, "!running && turns[0].text")
        assert len(texts(page, ".passage")) == sources
    assert page.evaluate("at('filters').open") is False


def test_what_others_wrote_stays_text(page: Page, fake: FakeEngine) -> None:
    fake.pieces = [HOSTILE, " [1] ", HOSTILE]
    assert ask(page, f"zither {HOSTILE}") == "".join(fake.pieces)
    assert last(page, ".question") == f"zither {HOSTILE}"
    assert texts(page, ".title")[0] == HOSTILE
    assert HOSTILE in texts(page, ".passage")[0]
    scripted(page, [opening(), piece(HOSTILE), {"error": {"message": HOSTILE}}])
    click(page, ".again")
    until(page, "!running && turns[0].text")
    assert last(page, ".problem") == f"The answer broke off and is incomplete.\n{HOSTILE}"
    click(page, ".improve")
    assert page.evaluate("document.querySelectorAll('img').length") == 0
    assert page.evaluate("document.scripts.length") == 1


@pytest.mark.parametrize("mode", ["warn", "refuse"])
def test_the_gates_doubt_is_shown(page: Page, mode: str) -> None:
    gate = {"accepted": False, "probability": 0.1, "mode": mode}
    scripted(page, [opening(gate=gate), piece("Answer.", finish_reason="stop")])
    ask(page, "q")
    assert page.evaluate("document.querySelector('article .note').hidden") == (mode == "refuse")
    assert page.evaluate("document.querySelector('.up').hidden") == (mode == "refuse")  # nothing to be rated


@pytest.mark.parametrize("mode", ["warn", "refuse"])
def test_a_gate_says_what_happens_to_what_it_refuses(mode: Any) -> None:
    class Gate:
        def probability(self, _: str) -> float:
            return 0.1

        def accepts(self, _: str) -> bool:
            return False

    gate: Any = Gate()
    prepared = Assistant(gate=gate, gate_mode=mode).prepare([{"role": "user", "content": "q"}])
    assert prepared.gate == {"accepted": False, "probability": 0.1, "mode": mode}
    assert (prepared.abstained is not None) == (mode == "refuse")


def test_a_reader_who_scrolled_up_is_left_there(page: Page, fake: FakeEngine) -> None:
    fake.pieces, fake.delay = ["line\n"] * 120, 0.01
    type_in(page, "pump")
    press(page)
    until(page, "document.documentElement.scrollHeight > innerHeight + 300")
    bottom = "Math.abs(innerHeight + scrollY - document.documentElement.scrollHeight) < 2"
    assert page.evaluate(bottom)
    page.evaluate("scrollTo(0, 100)")
    until(page, "!running")
    assert page.evaluate("scrollY") == 100


def test_a_key_is_asked_for_until_it_is_right(browser: Page, fake: FakeEngine, tmp_path: Path) -> None:
    with assistant(tmp_path, "--endpoint", fake.url, "--model", "m", PATENT_LLAMA_KEY=KEY) as url:
        show(browser, url)
        until(browser, "at('key-dialog').open && document.activeElement.id == 'key'")
        browser.call("Input.dispatchKeyEvent", type="keyDown", key="Escape", code="Escape",
                     windowsVirtualKeyCode=27)  # fmt: skip
        until(browser, "!at('key-dialog').open")
        browser.evaluate("at('question').focus()")
        type_in(browser, "pump")
        press(browser)
        for wrong, key in ((False, "wrong"), (True, KEY)):
            until(browser, "at('key-dialog').open")
            assert browser.evaluate("at('key-wrong').hidden") is not wrong
            type_in(browser, key)
            press(browser)
            until(browser, f"key == {json.dumps(key)}")
        until(browser, "!running && turns[0].text")
        assert browser.evaluate("turns[0].text") == "".join(ANSWER)
        until(browser, "at('model').textContent == 'm'")
        show(browser, url)  # the tab still has it
        assert not browser.evaluate("at('key-dialog').open")
        browser.evaluate("sessionStorage.clear()")
        assert failures(browser) == []


def test_what_the_service_cannot_do_is_said(browser: Page, tmp_path: Path) -> None:
    with engine() as gone:
        address = gone.url
    with assistant(tmp_path, "--endpoint", address, "--model", "m", "--rate", "3") as url:
        show(browser, url)
        ask(browser, "pump")
        assert "engine" in last(browser, ".problem")
        until(browser, "!at('down').hidden")
        click(browser, ".again")
        until(browser, "!running")
        assert re.search(r"no engine can be reached .*\nTry again in \d+ s\.", last(browser, ".problem"))
        for _ in range(2):
            click(browser, ".again")
            until(browser, "!running")
        assert re.search(r"more than 3 requests a minute\nTry again in \d+ s", last(browser, ".problem"))
    click(browser, ".again")
    until(browser, "!running")
    assert last(browser, ".problem") == "The service cannot be reached."


@pytest.mark.parametrize("language", ["en-US", "zh-CN", "ko-KR", "ja"])
def test_every_text_is_there_in_every_language(page: Page, url: str, language: str) -> None:
    show(page, url, language=language)
    short = language[:2]
    assert page.evaluate("[language, at('language').value, document.documentElement.lang.slice(0, 2)]") == [
        short, short, short]  # fmt: skip
    assert page.evaluate("Object.values(TEXTS).every(t => t.length == LANGUAGES.length && t.every(Boolean))")
    ask(page, "pump")
    english = page.evaluate("Object.values(TEXTS).map(t => t[0])")
    shown = page.evaluate("""
      [...document.querySelectorAll('[data-text], [data-tip], [data-label], [data-hint]')].flatMap(e =>
        [e.dataset.text && e.textContent, e.title, e.ariaLabel, e.placeholder]).filter(Boolean)""")
    assert len(shown) > 30
    if short != "en":
        assert not set(shown) & set(english)
    page.evaluate("at('language').value = 'en'; at('language').dispatchEvent(new Event('change'))")
    assert last(page, ".improve") == "Improve this answer"


def test_every_text_is_used() -> None:
    script, markup = ((ROOT / "serve/page" / name).read_text("utf-8") for name in ("page.js", "index.html"))
    table, _, code = script.partition("const at")
    names = re.findall(r'^  "?([\w-]+)"?: \[', table, re.MULTILINE)
    assert len(names) > 40
    unused = [name for name in names if f'"{name}"' not in code + markup and not name.startswith("no-such")]
    assert unused == []
    assert not re.search(
        r"innerHTML|outerHTML|insertAdjacent|\beval\(|Function\(|document\.write|localStorage", script
    )


@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_is_wider_than_the_screen(page: Page, fake: FakeEngine, url: str, width: int) -> None:
    show(page, url, width)
    fake.pieces = ["https://example.org/" + "a" * 500, " [1] [77]\n", "长" * 300]
    ask(page, "zither " + "q" * 300)
    page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true); at('model').textContent"
                  " = 'runs/' + 'm'.repeat(200)")  # fmt: skip
    click(page, ".improve")
    for language in ("en", "zh", "ko", "ja"):
        page.evaluate(f"language = '{language}'; translate(document)")
        boxes = page.evaluate(
            "[...document.querySelectorAll('body *')].filter(e => !e.closest('.heard, svg'))"
            ".map(e => e.getBoundingClientRect()).map(b => [b.left, b.right])"
        )
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert all(left >= 0 and right <= width for left, right in boxes)
