"""Hostile text in every place where words stand, through a real gateway and a real browser: nothing of it happens."""

from __future__ import annotations

import re
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
from playwright.sync_api import Page, expect, sync_playwright

import page_driver
from page_driver import PATIENCE_MS, WATCH, Visit, find_chromium
from rewardloop.serve.edge.access import Role, Scope
from serving import MODEL, Place, StubEngine, a_place
from web_mock.payloads import PAYLOADS

# A name is a line of at most 64 printable characters; others are refused.
NAMES = [name for name in dict.fromkeys(" ".join(one.split())[:64] for one in PAYLOADS) if name.isprintable()]
# What no words may become, whoever wrote them.
FORBIDDEN = """[...document.querySelectorAll('*')].filter(one =>
  [...one.attributes].some(({name, value}) => /^on|^srcdoc$|^formaction$|^ping$/.test(name)
    || (/^(href|src|action|data)$/.test(name) && /^(javascript|vbscript|data:text)/i.test(value.trim())))
  || one.matches('iframe, object, embed, base, meta[http-equiv], frameset, applet, portal, style')
  || (one.matches('script, link') && one.closest('body')?.querySelector('.frame')?.contains(one))
  || (one.closest('.markdown') && (one.id || one.matches('form, input, svg, math, img:not([src^="data:image/"])')))
).map(one => one.outerHTML.slice(0, 200))"""


class Echo(StubEngine):
    """Answers with what it was asked; of several answers, the second says it twice, and so on."""

    def words(self, asked: dict[str, Any]) -> list[str]:
        said = asked["messages"][-1]["content"] if "messages" in asked else asked["prompt"]
        return re.findall(r"\s*\S+(?:\s+\Z)?", "\n\n".join([said] * asked.get("times", 1)))

    async def _events(self, asked: dict[str, Any]) -> AsyncIterator[bytes]:
        count = asked.get("n", 1)
        for number in range(count):
            async for event in super()._events({**asked, "n": 1, "times": number + 1}):
                if b"[DONE]" in event and number + 1 < count:
                    continue
                yield event.replace(b'"index": 0', f'"index": {number}'.encode())


@dataclass
class Watched:
    """A window, and everything in it that must not have happened."""

    visit: Visit
    happened: list[str] = field(default_factory=list)

    @property
    def page(self) -> Page:
        return self.visit.page  # type: ignore[no-any-return]

    def watch(self) -> None:
        base, page = self.visit.place.url, self.page
        page.on("request", lambda asked: self.ask(asked.url, base))
        page.on("dialog", lambda dialog: (self.happened.append(dialog.message), dialog.dismiss()))
        page.on("popup", lambda popup: self.happened.append(f"a window: {popup.url}"))
        page.on("download", lambda found: self.happened.append(f"a download: {found.url}"))

    def ask(self, url: str, base: str) -> None:
        if not url.startswith((f"{base}/", "data:image/", "blob:")):
            self.happened.append(f"a request: {url}")

    def check(self) -> None:
        self.visit.check_unbroken()
        assert self.page.evaluate(FORBIDDEN) == []
        assert self.happened == []
        assert self.page.url.startswith(self.visit.place.url)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with a_place(tmp_path_factory.mktemp("hostile"), Echo()) as made:
        yield made


@pytest.fixture
def window(place: Place) -> Iterator[Watched]:
    owner = place.owner
    cookies: list[Any] = [{"name": name, "value": value, "url": place.base} for name, value in owner.cookies.items()]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=["--no-sandbox"])
        context = browser.new_context(locale="en-US", viewport={"width": 1280, "height": 800})
        context.add_cookies(cookies)
        context.add_init_script(WATCH)
        expect.set_options(timeout=PATIENCE_MS)
        made = Watched(Visit(page_driver.Place(place.base, is_mock=False), context.new_page()))
        made.visit.listen()
        made.watch()
        yield made
        browser.close()


def answered(place: Place, program: Any, conversation: str, said: list[dict[str, str]]) -> dict[str, Any]:
    reply = program.post(
        "/v1/chat/completions",
        json={"model": MODEL, "messages": said, "max_tokens": 256, "rewards": True},
        headers={"x-openwebui-chat-id": conversation},
    )
    assert reply.status_code == 200, reply.text
    return dict(reply.json())


def test_prompts_answers_and_edits_are_words_and_nothing_else(place: Place, window: Watched) -> None:
    program, page = place.program(Scope.INFER, Scope.FEEDBACK), window.page
    conversation = place.owner.post("/api/conversations").json()["id"]
    said: list[dict[str, str]] = []
    made = []
    for payload in PAYLOADS[: len(PAYLOADS) // 2 + 20]:  # a conversation holds 256 messages
        said.append({"role": "user", "content": payload})
        made.append(answered(place, program, conversation, said))
        said.append({"role": "assistant", "content": made[-1]["choices"][0]["message"]["content"]})
    count = len(made)
    assert count >= 100
    window.visit.open(f"/chat/{conversation}")
    expect(page.locator(".answer")).to_have_count(count)
    assert page.locator(".said").all_text_contents() == list(PAYLOADS[:count])
    for tinted in (True, False):
        page.get_by_role("switch").first.set_checked(tinted, force=True)
        expect(page.locator(".answer .tokens.tinted" if tinted else ".answer .markdown")).to_have_count(count)
        window.check()
    for at, one in enumerate(made):
        body = {"kind": "edit", "target": {"completion_id": one["id"]}, "corrected": PAYLOADS[-1 - at]}
        reply = place.owner.post("/v1/feedback", json=body)
        assert reply.status_code == 201, reply.text
    window.visit.open(f"/chat/{conversation}")
    expect(page.locator(".answer ins").first).to_be_visible()
    expect(page.locator(".answer-note .link")).to_have_count(count)
    window.check()
    window.visit.open("/data")
    page.wait_for_selector(".rows button")
    page.locator(".rows button").first.click()
    page.wait_for_selector("dialog")
    window.check()


def test_names_and_titles_are_words_and_nothing_else(place: Place, window: Watched) -> None:
    asker, judge, page = place.program(Scope.INFER), place.program(Scope.FEEDBACK), window.page
    titles = PAYLOADS[::2]
    for payload in titles:
        conversation = place.owner.post("/api/conversations").json()["id"]
        last = answered(place, asker, conversation, [{"role": "user", "content": payload}])
    for name in NAMES:
        body = {"kind": "comment", "target": {"completion_id": last["id"]}, "text": name}
        reply = judge.post("/v1/feedback", json={**body, "annotator": {"external_id": name}})
        assert reply.status_code == 201, reply.text
    for name in NAMES[:12]:
        link = place.owner.post("/api/invitations", json={"role": "annotator"}).json()["link"]
        given = {"token": link.partition("#")[2], "name": name, "password": "correct horse battery"}
        assert place.nobody().post("/api/join", json=given).status_code == 201
    for path, shown in (("/annotators", len(NAMES)), ("/settings", 12), ("/data", 20)):
        window.visit.open(path)
        page.wait_for_selector("main h1")
        expect(page.locator("main .skeleton")).to_have_count(0)
        for _ in range(20):
            if path != "/data" or not page.get_by_role("button", name="Show more").count():
                break
            page.get_by_role("button", name="Show more").click()
            page.wait_for_timeout(100)
        words = page.locator("main").inner_text()
        assert sum(" ".join(name.split()) in " ".join(words.split()) for name in NAMES) >= shown
        window.check()
    expect(page.locator(".conversations li")).not_to_have_count(0)
    assert page.locator(".conversations li").count() >= len(titles)


def test_what_is_compared_is_words_and_nothing_else(place: Place, window: Watched) -> None:
    page = window.page
    for payload in PAYLOADS[::10]:
        window.visit.open("/compare")
        page.fill("#composer", payload)
        page.press("#composer", "Enter")
        expect(page.locator(".vote.first")).to_be_enabled()
        window.check()


def test_what_is_put_in_order_is_words_and_is_stored(place: Place, window: Watched) -> None:
    page = window.page
    window.visit.open("/compare")
    page.locator(".segments label").nth(2).click()
    for payload in PAYLOADS[5::25]:
        page.fill("#composer", payload)
        page.press("#composer", "Enter")
        page.locator("#composer").blur()
        expect(page.locator(".places button:enabled")).to_have_count(16)
        for key in "dcab":
            page.keyboard.press(key)
        with page.expect_response("**/v1/feedback") as answered:
            page.keyboard.press("Enter")
        assert answered.value.status == 201
        expect(page.locator(".ranked .version").first).to_have_text("v3")
        window.check()
    newest = place.owner.get("/api/data?kind=ranking").json()["items"][0]
    assert newest["body"]["ranks"] == [3, 4, 2, 1]


def test_what_the_queue_asks_and_people_disagree_about_is_words_and_nothing_else(place: Place, window: Watched) -> None:
    page, annotator = window.page, place.person(Role.ANNOTATOR)
    place.owner.put("/api/guidelines", json={"text": "\n\n".join(PAYLOADS[::7])}).raise_for_status()
    for kind, payloads in (("rate", PAYLOADS[:40]), ("compare", PAYLOADS[40:80]), ("edit", PAYLOADS[80:110])):
        asked = [one if at % 2 else [{"role": "user", "content": one}] for at, one in enumerate(payloads)]
        made = place.owner.post("/api/queue/tasks", json={"task": kind, "prompts": asked, "repeat_share": 0})
        assert made.status_code == 201, made.text
    answers = {"rate": {"value": 1}, "compare": {"choice": "both_bad"}}
    for at in range(110):
        question = next_question(annotator)
        answer = answers.get(question["task"], {"corrected": PAYLOADS[-1 - at]}) | {"comment": PAYLOADS[at]}
        reply = annotator.post(f"/api/queue/{question['assignment_id']}/answer", json=answer)
        assert reply.status_code == 201, reply.text

    window.visit.open("/queue")
    shown = set()
    for _ in range(110):
        prompt = page.locator(".assignment-main > :first-child")
        prompt.wait_for()
        shown.add(str(prompt.text_content()))
        window.check()
        with page.expect_response("**/answer") as answered, page.expect_response("**/queue/next"):
            if page.locator(".votes").count():
                page.keyboard.press("1")
            elif page.locator(".rate-row").count():
                page.keyboard.press("5")
            else:
                page.get_by_role("button", name="Nothing to correct").click()
        assert answered.value.status == 201
    assert len(shown) == len(set(PAYLOADS[:110]))

    window.visit.open("/queue/disagreements")
    expect(page.locator(".disagreement-bar")).to_contain_text("1 / 100")  # as many as are sent at once
    for _ in range(100):
        window.check()
        page.keyboard.press("j")
    with page.expect_response("**/verdict") as decided:
        page.keyboard.press("4")
    assert decided.value.status == 201
    page.locator(".segments label").last.click()
    expect(page.locator(".verdict")).to_be_visible()
    window.check()


def next_question(client: Any) -> dict[str, Any]:
    deadline = time.monotonic() + 30
    while (reply := client.post("/api/queue/next")).status_code == 204:
        assert time.monotonic() < deadline, "no question came"
        time.sleep(0.05)
    return dict(reply.json())
