"""The page "Chat": answers, steps, sources and tokens equal those of the API; a stream can be stopped; texts stay
text."""

import json
import os
import signal
import urllib.request
from typing import Any

import pytest

from lm.chat.template import ChatTemplate
from lm.tokenizer import load
from tests.assistant_run import PAGES
from tests.until import until
from tests.window.axe import grave_faults
from tests.window.browser import PHONE, WIDE, page_ids, settle, show
from tests.window.driven import ONLY_POINTED_AT, walk
from tests.window.runs import BIDI, ENTITY, HANDLER, SCRIPT, URLS
from tests.window.test_window import INERT

QUESTION = "What is Brem?"
CUT_STREAM = """() => {
  const whole = window.fetch;
  window.fetch = async (path, options) => {
    const answer = await whole(path, options);
    if (path !== "/v1/chat/completions") return answer;
    window.fetch = whole;
    const events = (await answer.text()).split("\\n\\n");
    const body = new ReadableStream({ start: (control) => {
      const end = events.findIndex((one) => one.includes('"finish_reason":"'));
      control.enqueue(new TextEncoder().encode(events.slice(0, end).join("\\n\\n") + "\\n\\n"));
      options.signal.addEventListener("abort", () => { window.aborted = true; control.error(options.signal.reason); });
    } });
    return new Response(body);
  };
}"""
"""Hold back the end of the next answer."""
CANCELLED = """() => fetch("/metrics").then((answer) => answer.text()).then((text) =>
  text.includes("gristmill_slots_busy 0.0") ? Number(/outcome="cancelled"} (.*)/.exec(text)?.[1] ?? 0) : -1)"""
"""Number of cancelled requests while no request runs; -1 while one does."""


def completion(url: str, asked: dict[str, Any]) -> dict[str, Any]:
    """Message of the API for a request of the page, without streaming."""
    body = json.dumps({**asked, "stream": False}).encode()
    request = urllib.request.Request(f"{url}/v1/chat/completions", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)["choices"][0]["message"]


def asked_by(page: Any, act: Any) -> dict[str, Any]:
    """Body of the request that `act()` causes, once it is answered."""
    with page.expect_request("**/v1/chat/completions") as sent:
        act()
    settle(page)
    return sent.value.post_data_json


def send(page: Any, text: str) -> dict[str, Any]:
    page.fill("#chat-message", text)
    return asked_by(page, lambda: page.press("#chat-message", "Enter"))


def shown(page: Any) -> list[str]:
    """Texts of the turns, without steps and sources."""
    return page.locator(".chat-turn > .chat-text").all_text_contents()


@pytest.mark.slow
def test_an_answer_equals_the_apis_and_its_source_opens_its_document(assistant, open_page):
    page = open_page(f"{assistant.window}#chat")
    message = completion(assistant.url, send(page, QUESTION))
    call, result = message["steps"]
    assert shown(page) == [QUESTION, message["content"]] and message["content"]
    name, arguments = call["tool_calls"][0]["function"].values()
    step = page.locator(".chat-step")
    assert step.count() == 1 and not step.locator(".chat-text").is_visible()
    step.locator("summary").press("Enter")
    assert name in step.inner_text() and json.loads(arguments)["query"] in step.inner_text()
    assert step.locator(".chat-text").inner_text() == result["content"]
    (source,) = result["sources"]
    page.locator(".chat-sources a", has_text=source["url"]).click()
    page.wait_for_selector(".data-text")
    settle(page)
    assert page.inner_text(".data-text") == PAGES["Brem"] and source["passage"] in PAGES["Brem"]
    assert "Training steps" not in page.inner_text("main")  # these are those of the base run
    page.go_back()
    settle(page)
    assert shown(page) == [QUESTION, message["content"]]


@pytest.mark.slow
def test_regenerate_takes_another_seed_and_a_message_continues_the_conversation(assistant, open_page):
    page = open_page(f"{assistant.window}#chat")
    first = send(page, QUESTION)
    page.locator(".page-chat .slider input").fill("0.3")
    page.fill("#chat-system", " ")
    second = asked_by(page, lambda: page.get_by_role("button", name="Regenerate").click())
    assert second["messages"] == first["messages"] == [{"role": "user", "content": QUESTION}]
    assert (first["temperature"], second["temperature"]) == (0, 0.3) and first["seed"] != second["seed"]
    message = completion(assistant.url, second)
    assert shown(page) == [QUESTION, message["content"]]
    page.fill("#chat-system", "Be brief.")
    third = send(page, "Add 6 and 7.")["messages"]
    steps = [{key: one[key] for key in one if key != "sources"} for one in message.get("steps", ())]
    ids = lambda messages: json.loads(
        json.dumps(messages), object_hook=lambda one: one | {"id": "", "tool_call_id": ""}
    )
    expected = [
        {"role": "system", "content": "Be brief."}, *second["messages"], *steps,
        {"role": "assistant", "content": message["content"]}, {"role": "user", "content": "Add 6 and 7."},
    ]  # fmt: skip
    assert ids(third) == ids(expected)  # the ids of calls are random
    page.get_by_role("button", name="New conversation").click()
    assert shown(page) == [] and send(page, "Hi")["messages"][1:] == [{"role": "user", "content": "Hi"}]


@pytest.mark.slow
def test_stop_keeps_the_text_so_far(assistant, open_page):
    page = open_page(f"{assistant.window}#chat")
    page.evaluate(CUT_STREAM)
    page.fill("#chat-message", QUESTION)
    with page.expect_request("**/v1/chat/completions") as sent:
        page.get_by_role("button", name="Send").click()
    text = completion(assistant.url, sent.value.post_data_json)["content"]
    page.locator(".chat-turn > .chat-text", has_text=text).wait_for()
    assert page.get_by_role("button", name="Regenerate").is_disabled()
    page.get_by_role("button", name="Stop").click()
    settle(page)
    assert page.evaluate("window.aborted") and page.locator(".chat-turn .note").all_inner_texts() == ["Stopped."]
    assert shown(page) == [QUESTION, text] and page.get_by_role("button", name="Stop").is_disabled()
    assert page.evaluate("document.activeElement.id") == "chat-message"
    asked_by(page, lambda: page.get_by_role("button", name="Regenerate").click())
    assert shown(page) == [QUESTION, text] and not page.locator(".chat-turn .note").count()


@pytest.mark.slow
def test_stop_cancels_the_request_on_the_server(assistant, open_page):
    page, process = open_page(f"{assistant.window}#chat"), assistant.server.process
    before = page.evaluate(CANCELLED)
    page.fill("#chat-message", QUESTION)
    os.kill(process.pid, signal.SIGSTOP)
    try:
        with page.expect_request("**/v1/chat/completions"):
            page.press("#chat-message", "Enter")
        page.get_by_role("button", name="Stop").click()
        page.locator(".chat-form [role=status]", has_text="Stopped.").wait_for()
    finally:
        os.kill(process.pid, signal.SIGCONT)
    until(lambda: page.evaluate(CANCELLED) == before + 1)
    assert shown(page) == [QUESTION]
    asked_by(page, lambda: page.get_by_role("button", name="Regenerate").click())
    assert len(shown(page)) == 2


@pytest.mark.slow
def test_markup_and_names_of_special_tokens_are_text_and_the_tokens_are_those_of_the_template(assistant, open_page):
    page = open_page(f"{assistant.window}#chat")
    text = f"{SCRIPT}<|end|>"
    asked = send(page, text)
    page.locator(".chat-tokens summary").click()
    settle(page)
    message = completion(assistant.url, asked)
    assert shown(page)[0] == text and set(page.evaluate(INERT).values()) == {0}
    template = ChatTemplate(load(assistant.folder / "tokenizer"))
    special = {id: name for name, id in template.tokenizer.special_tokens.items()}
    answer = {"role": "assistant", "content": message["content"]}
    ids, trained = template.encode([*asked["messages"], *message.get("steps", ()), answer])
    tokens = page.locator(".chat-tokens .token")
    assert tokens.count() == len(ids)
    marked = lambda kind: tokens.evaluate_all(
        "(all, kind) => all.flatMap((one, i) => one.classList.contains(kind) ? [i] : [])", kind
    )
    assert marked("chat-special") == [i for i, id in enumerate(ids.tolist()) if id in special]
    assert marked("chat-trained") == trained.nonzero()[0].tolist()
    names = page.locator(".chat-special").all_inner_texts()
    assert names == [special[id] for id in ids.tolist() if id in special] and names.count("<|user|>") == 1
    page.press(".chat-tokens .strip", "End")
    assert f"id {ids[-1]}, a special token, written by the model" in page.inner_text(".chat-tokens [role=status]")


@pytest.mark.slow
def test_errors_of_the_server_are_shown_and_the_conversation_stays(assistant, open_page):
    page = open_page(f"{assistant.window}#chat", expected="console: ")
    send(page, "mill " * 200)
    assert "the context holds 160" in page.inner_text(".problem") and len(shown(page)) == 1
    page.get_by_role("button", name="New conversation").click()
    send(page, QUESTION)
    assert len(shown(page)) == 2 and not page.locator(".problem").count()


@pytest.mark.slow
@pytest.mark.parametrize(("width", "dark"), [(PHONE, True), (WIDE, False)])
def test_the_page_works_for_screen_readers_keyboards_and_phones(assistant, open_page, width, dark):
    page = open_page(f"{assistant.window}#chat", width=width, dark=dark)
    assert not grave_faults(page)
    send(page, QUESTION)
    for summary in page.locator("main summary").all():
        summary.press("Enter")
    settle(page)
    assert not grave_faults(page) and not page.evaluate(ONLY_POINTED_AT)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    unreached, wrong = walk(page)
    assert not unreached and not wrong


def test_a_run_without_a_chat_template_has_no_such_page(hostile, open_page):
    page = open_page(f"{hostile.window}#chat")
    assert "chat" not in page_ids(page) and page.get_attribute("nav [aria-current]", "data-page") == "report"


@pytest.mark.slow
def test_the_exported_page_shows_recorded_conversations(assistant, open_page):
    page = open_page(assistant.exported)
    assert page_ids(page) == ["chat", "training"]
    hidden = "".join(f"\\u{ord(one):04x}" for one in BIDI)
    entity = ENTITY.replace("\u2028", "\\u2028")
    answers = [QUESTION, PAGES["Brem"].partition(". ")[0] + ".", SCRIPT, f"{HANDLER}<|end|>{hidden}", entity, ""]
    assert shown(page) == answers
    assert page.locator(".chat-step summary").all_inner_texts() == 2 * ['search(query: "Brem")']
    page.locator(".chat-step summary").first.press("Enter")
    assert page.locator(".chat-step .chat-text").first.inner_text() == PAGES["Brem"]
    assert page.inner_text(".chat-sources bdi") == URLS[0]
    assert page.inner_text(".chat-sources q").strip('\u201c\u201d"') == entity + PAGES["Brem"]
    assert ["was cut off" in one for one in page.locator(".chat-turn > .note").all_inner_texts()] == [True, False]
    assert f"-m launch.chat {assistant.folder}" in page.inner_text("main > div > .note")
    assert set(page.evaluate(INERT).values()) == {0} and not page.locator("main textarea").count()
    assert not grave_faults(page)
    show(page, "training")
    assert page.inner_text(".training-state") == "Finished: 200 steps." and not page.locator(".training-watch").count()
    page.locator(".chart-large .chart-plot").click()
    assert not grave_faults(page)
