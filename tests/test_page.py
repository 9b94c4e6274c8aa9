"""The page in a real browser: every screen, both languages, keyboard, an input method, a dead network, hostile text."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
from playwright.sync_api import Browser, Route, expect, sync_playwright

from page_driver import PATIENCE_MS, WATCH, Place, Visit, find_chromium, gateway, stand_in
from web_mock.payloads import FIRST, PAYLOADS

SCREENS = ("/", "/compare", "/live", "/queue", "/dashboard", "/annotators", "/data", "/models", "/settings")
PLACES = (*SCREENS, "/queue/disagreements")
TELEPHONE = {"width": 390, "height": 844}


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    with gateway() as found:
        yield found


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    path = find_chromium()
    expect.set_options(timeout=PATIENCE_MS)
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def session(place: Place, browser: Browser) -> Any:
    """Somebody who is logged in, once for all tests: a gateway lets nobody try often."""
    context = browser.new_context(locale="en-US")
    Visit(place, context.new_page()).log_in()
    state = context.storage_state()
    context.close()
    return state


@pytest.fixture
def visit(place: Place, browser: Browser, session: Any) -> Iterator[Visit]:
    context = browser.new_context(locale="en-US", viewport={"width": 1280, "height": 800}, storage_state=session)
    context.add_init_script(WATCH)
    made = Visit(place, context.new_page())
    made.listen()
    made.speak("en")
    made.open("/")
    made.page.wait_for_selector(".frame")
    yield made
    if not made.page.is_closed():
        made.check_words()
    context.close()


def only_mock(place: Place) -> None:
    if not place.is_mock:
        pytest.skip("needs the stand-in")


# ---------------------------------------------------------------- every screen


@pytest.mark.parametrize("language", ["en", "zh"])
def test_every_screen_shows_in_both_languages_and_breaks_no_rule(visit: Visit, language: str) -> None:
    visit.speak(language)
    names = set()
    for path in SCREENS:
        visit.open(path)
        visit.page.wait_for_selector("main h1")
        visit.check_words()
        expect(visit.page.locator("main .skeleton")).to_have_count(0)
        names.add(visit.page.title())
        assert visit.page.evaluate("document.documentElement.lang") == {"en": "en", "zh": "zh-CN"}[language]
        expect(visit.page.locator("main h1")).to_have_text(
            re.compile("^[^a-z]+$" if language == "zh" else "^[^一-鿿]+$")
        )
    assert len(names) == len(SCREENS)
    visit.check_unbroken()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_bars_anybody_from_a_screen(visit: Visit, browser: Browser, scheme: Any) -> None:
    # The policy on content is lifted for the checker alone, which is no part of the page.
    context = browser.new_context(
        bypass_csp=True, color_scheme=scheme, reduced_motion="reduce", storage_state=visit.page.context.storage_state()
    )
    checked = Visit(visit.place, context.new_page())
    checked.listen()
    found = {}
    for path in PLACES:
        checked.open(path)
        checked.page.wait_for_selector("main h1")
        expect(checked.page.locator("main .skeleton")).to_have_count(0)
        found[path] = checked.serious_barriers()
    page = checked.page
    checked.open("/compare")
    page.locator(".segments label").last.click()
    page.locator(".suggestions button").first.click()
    expect(page.locator(".places button:enabled")).to_have_count(16)
    for key in "ab":
        page.keyboard.press(key)
    found["putting in order"] = checked.serious_barriers()
    checked.open("/")
    checked.ask("How many coins for apple pie?")
    page.get_by_role("button", name="Mark a part").click()
    expect(page.locator(".marking")).to_be_visible()
    found["marking"] = checked.serious_barriers()
    context.close()
    assert {path: barriers for path, barriers in found.items() if barriers} == {}


def test_a_telephone_scrolls_down_and_never_sideways(visit: Visit) -> None:
    visit.page.set_viewport_size(TELEPHONE)
    for path in PLACES:
        visit.open(path)
        visit.page.wait_for_selector("main h1")
        expect(visit.page.locator("main .skeleton")).to_have_count(0)
        assert visit.page.evaluate("document.scrollingElement.scrollWidth") <= TELEPHONE["width"], path
    expect(visit.page.locator(".tabs a").first).to_be_visible()


@pytest.mark.parametrize(("language", "day"), [("en", r"Nov 2, \d\d:30"), ("zh", r"11月2日 \d\d:30")])
def test_a_chart_of_one_point_says_when_it_was(visit: Visit, language: str, day: str) -> None:
    only_mock(visit.place)
    page = visit.page

    def cut(value: Any) -> Any:
        """The last of every list."""
        return {name: cut(each) for name, each in value.items()} if isinstance(value, dict) else value[-1:]

    def answer(route: Any) -> None:
        figures = route.fetch().json()
        figures |= {name: cut(figures[name]) for name in ("series", "versions")}
        for each in figures["series"].values():
            each["t"] = ["2025-11-02T12:30:00Z"]
        route.fulfill(json=figures)

    page.route("**/api/dashboard", answer)
    page.add_init_script(
        "window.written = []; const write = CanvasRenderingContext2D.prototype.fillText;"
        "CanvasRenderingContext2D.prototype.fillText = function (text, ...place) {"
        " window.written.push(text); return write.call(this, text, ...place); }"
    )
    visit.speak(language)
    visit.open("/dashboard")
    expect(page.locator(".plot canvas")).to_have_count(12)
    expect(page.locator(".chart-empty")).to_have_count(1)  # of the defects the last version has no figure
    page.wait_for_function("window.written.includes('v4')")
    written = {str(one) for one in page.evaluate("window.written")}
    assert {one for one in written if one.startswith("v")} == {"v4"}
    assert any(re.search(day, one) for one in written), written
    assert not [one for one in written if one.startswith(("Jan", "1月"))]


# ---------------------------------------------------------------- chat and what one says


def test_an_answer_streams_and_a_judgment_of_it_is_saved(visit: Visit) -> None:
    visit.ask("How many coins for apple pie?")
    with visit.page.expect_request("**/v1/feedback") as posted:
        visit.page.locator(".thumbs button").first.click()
    body = posted.value.post_data_json
    assert (body["kind"], body["value"], body["scale"]) == ("rating", 1, {"low": 0, "high": 1})
    assert posted.value.headers["idempotency-key"]
    expect(visit.page.locator(".strip li.done").first).to_be_visible()
    visit.page.reload()
    expect(visit.page.locator(".thumbs button").first).to_have_attribute("aria-pressed", "true")
    visit.check_unbroken()


def test_a_judgment_is_seen_to_be_learned_and_live(visit: Visit) -> None:
    only_mock(visit.place)
    visit.ask("How many coins for apple pie?")
    visit.page.locator(".thumbs button").first.click()
    expect(visit.page.locator(".strip li.done")).to_have_count(3)
    expect(visit.page.locator(".strip li").last).to_have_text(re.compile(r"live in v\d"))


def test_a_version_is_chosen_and_gone_back_from(visit: Visit) -> None:
    only_mock(visit.place)
    visit.open("/models")
    held = visit.page.locator(".model-version").first
    expect(held).to_contain_text("length of the answers")
    held.get_by_role("button", name="Serve this version").click()
    expect(visit.page.locator("dialog")).to_contain_text("held this version back")
    visit.page.locator("dialog .primary").click()
    expect(visit.page.locator(".model-version.active .version")).to_have_text("v4")
    visit.page.get_by_role("button", name="Roll back").click()
    visit.page.locator("dialog .primary").click()
    expect(visit.page.locator(".model-version.active .version")).to_have_text("v3")

    visit.page.get_by_role("button", name="Pause learning").click()
    visit.page.fill("dialog input", "we are on holiday")
    visit.page.locator("dialog .primary").click()
    expect(visit.page.locator("main .alarm")).to_contain_text("we are on holiday")
    visit.open("/dashboard")
    expect(visit.page.locator(".learning")).to_contain_text("we are on holiday")
    visit.open("/models")
    visit.page.get_by_role("button", name="Resume learning").click()
    expect(visit.page.locator("main .alarm")).to_have_count(0)
    visit.check_unbroken()


@pytest.mark.parametrize("language", ["en", "zh"])
def test_older_versions_are_shown_on_demand_and_an_engine_that_is_down_is_said_to_be(
    visit: Visit, language: str
) -> None:
    only_mock(visit.place)
    visit.speak(language)

    def changed(route: Route) -> None:
        reply = route.fetch(url=route.request.url.split("?")[0])
        found = reply.json()
        found |= {"engine": "down", "next": 1}
        if "older_than=1" in route.request.url:
            found |= {"items": [found["items"][-1] | {"version": "v0.5", "active": False}], "next": None}
        route.fulfill(response=reply, json=found)

    visit.page.route("**/api/models*", changed)
    visit.open("/models")
    words = {"en": ("Show older versions", "is not answering"), "zh": ("显示更早的版本", "没有响应")}[language]
    expect(visit.page.locator("main .alarm").first).to_contain_text(words[1])
    before = visit.page.locator(".model-version").count()
    visit.page.get_by_role("button", name=words[0]).click()
    expect(visit.page.locator(".model-version")).to_have_count(before + 1)
    expect(visit.page.get_by_role("button", name=words[0])).to_have_count(0)
    visit.check_unbroken()


def test_pressing_a_thumb_again_takes_it_back(visit: Visit) -> None:
    visit.ask("How many coins for apple pie?")
    thumb = visit.page.locator(".thumbs button").first
    thumb.click()
    expect(visit.page.locator(".strip li.done").first).to_be_visible()
    with visit.page.expect_request(lambda request: request.method == "DELETE") as retracted:
        thumb.click()
    assert "/v1/feedback/" in retracted.value.url
    expect(thumb).to_have_attribute("aria-pressed", "false")


def test_a_correction_shows_what_changed_word_by_word(visit: Visit) -> None:
    visit.ask("How many coins for apple pie?")
    visit.page.locator("#composer").blur()
    visit.page.keyboard.press("e")
    text = visit.page.locator(".editor textarea")
    before = text.input_value()
    text.fill(f"{before} Good day!")
    expect(visit.page.locator(".editor ins")).to_contain_text("Good day!")
    with visit.page.expect_request("**/v1/feedback") as posted:
        text.press("Control+Enter")
    assert posted.value.post_data_json["corrected"] == f"{before} Good day!"
    expect(visit.page.locator(".answer ins")).to_contain_text("Good day!")


def test_a_question_answered_again_keeps_both_answers(visit: Visit) -> None:
    visit.ask("How many coins for apple pie?")
    visit.page.get_by_role("button", name="Answer again").click()
    expect(visit.page.locator(".alternatives")).to_contain_text("2/2")
    visit.page.get_by_role("button", name="Previous answer").click()
    expect(visit.page.locator(".alternatives")).to_contain_text("1/2")


def test_what_is_said_without_a_network_is_delivered_by_the_next_tab(visit: Visit) -> None:
    visit.ask("How many coins for apple pie?")
    context = visit.page.context
    context.route("**/v1/feedback", lambda route: route.abort("internetdisconnected"))
    visit.page.locator(".star").nth(3).click()
    expect(visit.page.locator(".strip.sending")).to_be_visible()
    expect(visit.page.locator(".outbox")).to_contain_text("1 judgment waits")
    visit.page.close()

    context.unroute("**/v1/feedback")
    reopened = Visit(visit.place, context.new_page())
    with reopened.page.expect_response("**/v1/feedback") as answered:
        reopened.open("/")
    assert answered.value.status == 201
    assert answered.value.request.post_data_json["value"] == 4
    expect(reopened.page.locator(".outbox")).to_have_count(0)


def test_a_refused_judgment_is_kept_and_says_why(visit: Visit) -> None:
    only_mock(visit.place)
    visit.ask("How many coins for apple pie?")
    visit.page.get_by_role("button", name="Remark").click()
    visit.page.fill(".remark textarea", "refuse me")
    visit.page.click(".remark button[type=submit]")
    expect(visit.page.locator(".outbox")).to_contain_text("the text is not acceptable")
    visit.page.get_by_role("button", name="Discard").click()
    expect(visit.page.locator(".outbox")).to_have_count(0)


def test_a_line_that_breaks_is_mended_and_no_word_is_missed(visit: Visit) -> None:
    only_mock(visit.place)  # a real answer may be whole before the line breaks
    lines: list[Any] = []

    def listen(line: Any) -> None:
        line.connect_to_server()
        lines.append(line)

    visit.page.route_web_socket("**/api/socket**", listen)
    visit.open("/")
    visit.page.fill("#composer", "How many coins for apple pie?")
    visit.page.press("#composer", "Enter")
    visit.page.wait_for_selector(".answer [data-i='2']")
    lines[0].close()
    visit.page.wait_for_selector(".answer[data-phase=done]")
    assert len(lines) > 1
    heard = visit.page.locator(".answer .tokens").inner_text()
    visit.page.reload()
    expect(visit.page.locator(".answer .tokens")).to_have_text(heard)


def test_an_unsent_text_outlives_the_tab(visit: Visit) -> None:
    visit.page.fill("#composer", "half a thou")
    visit.page.reload()
    expect(visit.page.locator("#composer")).to_have_value("half a thou")


# ---------------------------------------------------------------- the keyboard


def test_an_input_method_that_composes_sends_nothing(visit: Visit) -> None:
    visit.page.focus("#composer")
    method = visit.page.context.new_cdp_session(visit.page)
    method.send("Input.imeSetComposition", {"text": "pingguo", "selectionStart": 7, "selectionEnd": 7})
    for key in ("Enter", "?", "n"):
        # As Chromium sends them: the key belongs to the input method, its code is 229.
        method.send("Input.dispatchKeyEvent", {"type": "keyDown", "key": key, "windowsVirtualKeyCode": 229})
    expect(visit.page.locator(".answer")).to_have_count(0)
    expect(visit.page.locator("dialog")).to_have_count(0)
    method.send("Input.insertText", {"text": "苹果派多少钱？"})
    visit.page.press("#composer", "Enter")
    expect(visit.page.locator(".said")).to_have_text("苹果派多少钱？")


def test_single_keys_rest_while_somebody_types(visit: Visit) -> None:
    visit.page.locator("#composer").press_sequentially("n?ge/t")
    expect(visit.page.locator("#composer")).to_have_value("n?ge/t")
    expect(visit.page.locator("dialog")).to_have_count(0)
    visit.page.fill("#composer", "")
    visit.page.locator("#composer").blur()
    visit.page.keyboard.press("?")
    expect(visit.page.locator("dialog")).to_contain_text("Keyboard")
    visit.page.keyboard.press("Escape")
    expect(visit.page.locator("dialog")).to_have_count(0)  # until it has gone, keys are its own
    visit.page.keyboard.press("g")
    visit.page.keyboard.press("d")
    expect(visit.page).to_have_url(re.compile("/dashboard$"))


def test_a_comparison_is_blind_until_the_vote(visit: Visit) -> None:
    visit.open("/compare")
    visit.page.locator(".suggestions button").first.click()
    expect(visit.page.locator(".vote.first")).to_be_enabled()
    expect(visit.page.locator("main .version")).to_have_count(0)
    with visit.page.expect_request("**/v1/feedback") as posted:
        visit.page.keyboard.press("2")
    body = posted.value.post_data_json
    assert (body["kind"], body["choice"]) == ("preference", "second")
    assert sorted(target["choice"] for target in body["targets"]) == [0, 1]
    expect(visit.page.locator("main .pair .version")).to_have_count(2)


@pytest.mark.parametrize(("language", "count"), [("en", 3), ("zh", 4)])
def test_more_answers_are_put_in_order_by_keys_alone(visit: Visit, language: str, count: int) -> None:
    visit.speak(language)
    visit.open("/compare")
    page = visit.page
    page.locator(".segments label").nth(count - 2).click()
    page.reload()
    expect(page.locator(".segments input").nth(count - 2)).to_be_checked()  # it is remembered
    page.keyboard.press("n")
    expect(page.locator(".ranked .side")).to_have_count(count)
    expect(page.locator(".places button:enabled")).to_have_count(count * count)
    expect(page.locator("main .version")).to_have_count(0)
    for key in ("b", "a", "Backspace", "c", "0", "a") + ("d",) * (count > 3):
        page.keyboard.press(key)
    with page.expect_request("**/v1/feedback") as posted:
        page.keyboard.press("Enter")
    body = posted.value.post_data_json
    assert (body["kind"], body["ranks"]) == ("ranking", [2, 1, 2, 3][:count])
    assert sorted(target["choice"] for target in body["targets"]) == list(range(count))
    assert posted.value.headers["idempotency-key"]
    expect(page.locator(".ranked .version")).to_have_count(count)
    expect(page.locator(".strip li.done").first).to_be_visible()
    visit.check_unbroken()


def test_more_answers_are_put_in_order_on_a_telephone(visit: Visit) -> None:
    page = visit.page
    page.set_viewport_size(TELEPHONE)
    visit.open("/compare")
    page.locator(".segments label").nth(2).click()
    page.locator(".suggestions button").first.click()
    places = page.locator(".ranked .places")
    expect(page.locator(".places button:enabled")).to_have_count(16)
    assert page.evaluate("document.scrollingElement.scrollWidth") <= TELEPHONE["width"]
    heights = page.locator(".places button").evaluate_all("all => all.map(one => one.getBoundingClientRect().height)")
    assert min(heights) >= 44  # a thumb's width
    send = page.get_by_role("button", name="Save the order")
    for at, place in enumerate((4, 2, 1, 1)):
        expect(send).to_be_disabled()
        places.nth(at).locator("button").nth(place - 1).click()
    with page.expect_request("**/v1/feedback") as posted:
        send.click()
    assert posted.value.post_data_json["ranks"] == [3, 2, 1, 1]
    expect(page.locator(".strip li.done").first).to_be_visible()
    if visit.place.is_mock:
        visit.open("/data")
        page.locator(".rows button").first.click()
        expect(page.locator("dialog .ranks b")).to_have_text(["Place 3", "Place 2", "Place 1", "Place 1"])
    visit.check_unbroken()


def test_what_is_marked_by_keys_fits_on_a_telephone(visit: Visit) -> None:
    page = visit.page
    page.set_viewport_size(TELEPHONE)
    visit.ask("How many coins for apple pie?")
    page.get_by_role("button", name="Mark a part").click()
    expect(page.locator(".marking")).to_be_visible()
    for _ in range(6):
        page.keyboard.press("ArrowRight")
        assert page.evaluate("document.scrollingElement.scrollWidth") <= TELEPHONE["width"]


def test_a_key_that_is_held_marks_the_words_as_they_appear(visit: Visit) -> None:
    visit.open("/live")
    visit.page.locator(".suggestions button").first.click()
    visit.page.wait_for_selector(".stage [data-i='1']")
    visit.page.keyboard.down("+")
    visit.page.wait_for_function("() => document.querySelectorAll('.stage .mark-up').length >= 3")
    visit.page.keyboard.up("+")
    liked = visit.page.locator(".stage .mark-up").count()
    visit.page.wait_for_timeout(500)
    assert visit.page.locator(".stage .mark-up").count() == liked
    visit.page.keyboard.down("-")
    visit.page.wait_for_selector(".stage .mark-down")
    visit.page.keyboard.up("-")


def test_a_queue_can_be_worked_off_by_keys_alone(visit: Visit) -> None:
    only_mock(visit.place)
    visit.open("/queue")
    assert {answer_by_keys(visit) for _ in range(3)} == {"choice", "value", "corrected"}
    question = asked(visit)
    visit.page.keyboard.press("s")
    visit.page.locator("dialog .chip").first.click()
    expect(visit.page.locator("dialog")).to_have_count(0)
    expect(visit.page.locator(".assignment .said")).not_to_have_text(question)
    last = asked(visit)
    answer_by_keys(visit)
    visit.page.keyboard.press("u")
    expect(visit.page.locator(".assignment .said")).to_have_text(last)


def asked(visit: Visit) -> str:
    return str(visit.page.locator(".assignment .said").inner_text())


def answer_by_keys(visit: Visit) -> str:
    """Answers the assignment on screen as its kind asks; returns what was answered."""
    page, question = visit.page, asked(visit)
    with page.expect_request("**/answer") as posted:
        if page.locator(".votes").count():
            page.keyboard.press("1")
        elif page.locator(".rate-row").count():
            page.keyboard.press("4")
        else:
            page.keyboard.press("e")
            page.keyboard.type(" Good day!")
            page.keyboard.press("Control+Enter")
    assert posted.value.headers["idempotency-key"]
    expect(page.locator(".assignment .said")).not_to_have_text(question)
    (field,) = posted.value.post_data_json
    return str(field)


def test_every_person_is_explained(visit: Visit) -> None:
    visit.open("/annotators")
    people = visit.page.locator("tbody th button")
    expect(people.first).to_be_visible()
    for number in range(people.count()):
        people.nth(number).click()
        expect(visit.page.get_by_role("dialog")).to_be_visible()
        visit.check_words()
        visit.page.keyboard.press("Escape")


def test_people_are_found_put_in_order_and_explained(visit: Visit) -> None:
    only_mock(visit.place)
    page, rows = visit.page, visit.page.locator("tbody th")
    visit.speak("en")
    visit.open("/annotators")
    expect(rows).to_have_count(9)
    # one drifts, one has said the same too often: they need a look
    expect(rows.filter(has_text="drifting")).to_have_text([re.compile("^dora")])
    expect(rows.filter(has_text="same answer")).to_have_text([re.compile("^egon")])
    assert sorted(text.split()[0] for text in rows.all_inner_texts()[:2]) == ["dora", "egon"]
    page.get_by_label("Order").select_option("reliability")
    expect(rows.first).to_have_text(re.compile("^egon"))
    page.get_by_label("Find a person").fill("yu")
    expect(rows).to_have_text(["Chen Yu"])
    page.get_by_label("Find a person").fill("nobody at all")
    expect(page.get_by_text("Nobody of that name")).to_be_visible()
    page.get_by_label("Find a person").fill("egon")
    rows.get_by_role("button").click()
    expect(page.get_by_role("dialog")).to_contain_text("Choice: Left is better, 17 times in a row")


@pytest.mark.parametrize(
    ("language", "question", "tinted"),
    [("en", "How many coins for apple pie?", True), ("zh", "苹果派多少钱？", False)],
)
def test_a_part_is_marked_by_keys_alone(visit: Visit, language: str, question: str, tinted: bool) -> None:
    page = visit.page
    visit.speak(language)
    visit.open("/")
    visit.ask(question)
    if not tinted:
        page.keyboard.press("Escape")
        page.locator("#composer").blur()
        page.keyboard.press("t")
    answer = page.locator(".answer .tokens, .answer .markdown").inner_text()
    page.locator("#composer").blur()
    for key in ("p", "ArrowRight", "ArrowRight", "Shift+ArrowRight", "Shift+ArrowRight", "Shift+ArrowLeft"):
        page.keyboard.press(key)
    said = page.locator("p[aria-live]")
    expect(said).to_have_text(re.compile("^“.+”$"))
    chosen = str(said.inner_text())[1:-1]
    assert page.evaluate("getSelection().toString()") == chosen
    assert chosen in answer
    assert not answer.startswith(chosen)
    if language == "en":
        assert len(chosen.split()) == 2
    expect(page.locator(".marking button")).to_have_count(4)
    with page.expect_request("**/v1/feedback") as posted:
        page.keyboard.press("5")  # where nothing is marked, these are stars
        page.keyboard.press("4")
    body = posted.value.post_data_json
    assert (body["kind"], body["category"], body["severity"]) == ("span", "well_said", 1)
    assert answer[body["start"] : body["end"]] == chosen
    expect(page.locator(".remarks")).to_contain_text(chosen)
    expect(page.locator(".marking, .mark-hint")).to_have_count(0)
    page.keyboard.press("p")
    page.keyboard.press("Escape")
    expect(page.locator(".mark-hint")).to_have_count(0)
    with page.expect_request("**/v1/feedback") as posted:
        page.keyboard.press("4")
    assert posted.value.post_data_json["kind"] == "rating"
    visit.check_unbroken()


def test_marking_by_keys_needs_no_single_keys(visit: Visit) -> None:
    page = visit.page
    page.evaluate("localStorage.setItem('rewardloop.keys', 'false')")
    visit.open("/")
    visit.ask("How many coins for apple pie?")
    button = page.get_by_role("button", name="Mark a part")
    button.focus()
    page.keyboard.press("Enter")
    page.keyboard.press("End")
    page.keyboard.press("Enter")  # to the categories, which are buttons as well
    page.keyboard.press("Tab")
    with page.expect_request("**/v1/feedback") as posted:
        page.keyboard.press("Enter")
    assert posted.value.post_data_json["category"] == "topic_drift"
    expect(button).to_be_focused()


def test_gold_questions_are_pasted_from_a_table(browser: Browser) -> None:
    with stand_in() as place:
        context = browser.new_context(locale="en-US")
        visit = Visit(place, context.new_page())
        visit.log_in()
        visit.open("/queue")
        visit.page.get_by_role("button", name="Manage").click()
        visit.page.locator(".tasks .segments label", has_text="What was asked").click()
        table = visit.page.get_by_role("textbox", name="Gold questions")
        table.fill("Who bakes?\tRuth does.\tNobody.\nWho paints?\tOnly two columns")
        expect(visit.page.locator("form .wrong")).to_contain_text("Line 2")
        add = visit.page.get_by_role("button", name="Add to the queue")
        expect(add).to_be_disabled()
        table.fill("Who bakes?\tRuth does.\tNobody.")
        with visit.page.expect_request("**/api/queue/tasks") as posted:
            add.click()
        assert posted.value.post_data_json["gold"] == [
            {"prompt": "Who bakes?", "better": "Ruth does.", "worse": "Nobody."}
        ]
        expect(table).to_have_value("")
        context.close()


@pytest.mark.parametrize("language", ["en", "zh"])
def test_what_people_disagree_about_is_decided_by_keys_alone(browser: Browser, language: str) -> None:
    with stand_in() as place:
        visit = Visit(place, browser.new_context(locale="en-US").new_page())
        visit.page.add_init_script(WATCH)
        visit.listen()
        visit.log_in()
        visit.speak(language)
        visit.open("/queue")
        page = visit.page
        expect(page.locator("a[href='/queue/disagreements'] .badge")).to_have_text("3")
        page.locator("a[href='/queue/disagreements']").click()
        opinions = page.locator(".opinions")
        tie = {"en": "A tie", "zh": "不相上下"}[language]
        expect(opinions).to_contain_text("ben")
        expect(opinions.locator("li").nth(2)).to_contain_text(tie)
        expect(opinions.locator("li").nth(2)).to_contain_text("both are right")
        page.keyboard.press("k")  # from the first to the last: a correction
        expect(opinions.locator("ins")).to_have_count(1)
        page.keyboard.press("j")
        expect(page.locator(".votes")).to_be_visible()
        for key, body in (("0", {"choice": "tie"}), ("4", {"value": 4})):
            with page.expect_request("**/verdict") as posted:
                page.keyboard.press(key)
            assert posted.value.post_data_json == body
            assert posted.value.headers["idempotency-key"]
            expect(page.locator(f".{'votes' if key == '0' else 'rate-row'}")).to_have_count(0)
        with page.expect_request("**/verdict") as posted:
            opinions.get_by_role("button").click()
        assert "copper coins" in posted.value.post_data_json["corrected"]
        expect(page.locator(".empty")).to_be_visible()
        page.locator(".segments label").last.click()
        expect(page.locator(".verdict")).to_contain_text("anna")
        expect(page.locator(".verdict")).to_contain_text(tie)
        visit.check_unbroken()


def test_a_verdict_without_a_network_is_kept_and_given_once(browser: Browser) -> None:
    with stand_in() as place:
        visit = Visit(place, browser.new_context(locale="en-US").new_page())
        visit.log_in()
        visit.open("/queue/disagreements")
        page = visit.page
        expect(page.locator(".votes")).to_be_visible()
        page.route("**/verdict", lambda route: route.abort("internetdisconnected"))
        page.keyboard.press("0")
        expect(page.locator(".votes")).to_have_count(0)
        expect(page.locator(".outbox")).to_contain_text("1 judgment waits")
        page.unroute("**/verdict")
        with page.expect_response("**/verdict") as answered:
            page.get_by_role("button", name="Send now").click()
        assert answered.value.status == 201
        expect(page.locator(".disagreement-bar")).to_contain_text("Decided: 1")
        expect(page.locator(".outbox")).to_have_count(0)


def test_who_may_not_decide_is_not_shown_what_to_decide(browser: Browser) -> None:
    with stand_in() as place:
        annotator = Place(place.url, name="ben")
        visit = Visit(annotator, browser.new_context(locale="en-US").new_page())
        visit.listen()
        visit.log_in()
        visit.open("/queue/disagreements")
        expect(visit.page.locator("main h1")).to_have_text("Queue")
        expect(visit.page.locator(".assignment")).to_be_visible()
        expect(visit.page.locator("a[href='/queue/disagreements']")).to_have_count(0)


# ---------------------------------------------------------------- hostile text


def test_nothing_that_a_model_writes_is_executed(visit: Visit) -> None:
    only_mock(visit.place)
    for at in range(len(FIRST)):
        visit.ask(f"payload {at}")
    for tinted in (True, False):
        visit.page.get_by_role("switch", name="Rewards").set_checked(tinted, force=True)
        visit.page.wait_for_selector(".tokens.tinted" if tinted else ".markdown", state="attached")
        visit.page.mouse.move(600, 400)
        visit.check_unbroken()
    left = "form input button select style svg math iframe object embed base meta [style] [id] [name] [data-link]"
    inside = ", ".join(f".markdown {one}" for one in left.split())
    assert visit.page.locator(inside).count() == 0
    assert visit.page.locator(".markdown img:not([src^='data:'])").count() == 0
    assert visit.page.locator(".markdown a[href^='javascript:'], .markdown a[href^='data:']").count() == 0


def test_nothing_that_a_person_writes_is_executed(visit: Visit) -> None:
    for payload in PAYLOADS[:6]:
        visit.ask(payload)
    visit.page.locator(".answer").last.get_by_role("button", name="Remark").click()
    visit.page.fill(".remark textarea", PAYLOADS[1])
    visit.page.click(".remark button[type=submit]")
    visit.page.locator(".answer").last.get_by_role("button", name="Correct").click()
    visit.page.locator(".editor textarea").fill(PAYLOADS[0])
    visit.page.locator(".editor textarea").press("Control+Enter")
    expect(visit.page.locator(".answer ins").last).to_be_visible()
    visit.open("/data")
    visit.page.locator(".rows button").first.click()
    visit.page.wait_for_selector("dialog")
    visit.check_unbroken()


# ---------------------------------------------------------------- doors, and a base model


def test_the_first_visitor_sets_up_and_invites_the_second(browser: Browser) -> None:
    with stand_in("--fresh") as fresh:
        owner = Visit(fresh, browser.new_context(locale="en-US").new_page())
        owner.listen()
        owner.open("/setup#first")
        owner.page.fill("input[name=username]", "ada")
        owner.page.fill("input[name=password]", "a long enough password")
        assert "#" not in owner.page.url
        owner.page.click("button[type=submit]")
        owner.page.wait_for_selector(".frame")
        owner.open("/settings")
        owner.page.get_by_role("button", name="Make an invitation").click()
        link = owner.page.locator(".secret code").inner_text()

        guest = Visit(fresh, browser.new_context(locale="zh-CN").new_page())
        guest.listen()
        guest.page.goto(link)
        guest.page.fill("input[name=username]", "李雷")
        guest.page.fill("input[name=password]", "一句很长很长的密码呀")
        guest.page.click("button[type=submit]")
        guest.page.wait_for_selector(".frame")
        assert guest.page.evaluate("document.documentElement.lang") == "zh-CN"
        guest.open("/annotators")
        expect(guest.page.locator(".sidebar a[href='/annotators']")).to_have_count(0)


def test_a_base_model_continues_the_text(browser: Browser) -> None:
    with stand_in("--base") as place:
        visit = Visit(place, browser.new_context(locale="en-US").new_page())
        visit.listen()
        visit.log_in()
        visit.ask("Once upon a time")
        expect(visit.page.locator(".prompt-text")).to_have_text("Once upon a time")
        visit.page.press("#composer", "Enter")
        expect(visit.page.locator(".answer")).to_have_count(2)
        assert visit.page.get_by_role("button", name="Town facts").count() == 0
