"""Use a page as a person does: by keyboard only, and by pointer."""

from typing import Any

from tests.window.browser import settle

REACHABLE = """() => {
  window.reachable = [...document.querySelectorAll("a[href], button, input, select, textarea, summary, [tabindex]")]
    .filter((node) => node.tabIndex >= 0 && !node.disabled && !node.closest("[hidden], [inert]"))
    .filter((node) => node.checkVisibility({ visibilityProperty: true }))
    .filter((node) => node.type !== "radio" || node.checked);
  return window.reachable.map((node) => node.outerHTML.slice(0, 160));
}"""
"""Record the elements that Tab has to reach; in a group of radio buttons, the selected one."""
FOCUSED = """() => {
  const node = document.activeElement;
  const framed = (one) => getComputedStyle(one).outlineStyle !== "none" || getComputedStyle(one).boxShadow !== "none";
  const shown = node.matches(":focus-visible") && [node, ...node.children].some(framed);
  return [window.reachable.indexOf(node), node === document.body || shown, node.outerHTML.slice(0, 160)];
}"""
ONLY_POINTED_AT = """() => [...document.querySelectorAll("main *")]
  .filter((node) => getComputedStyle(node).cursor === "pointer")
  .filter((node) => !node.closest("a[href], button, input, select, textarea, summary, label, option, [tabindex]"))
  .map((node) => node.outerHTML.slice(0, 160))"""


def walk(page: Any) -> tuple[set[str], list[str]]:
    """Press Tab until it wraps around, then Shift+Tab once.

    Returns the unreached elements, and faults of the reached ones: an invisible or stuck focus.
    """
    expected, reached, wrong = page.evaluate(REACHABLE), set(), []
    page.evaluate("() => document.activeElement.blur()")
    for _ in range(len(expected) + 40):
        page.keyboard.press("Tab")
        at, visible, node = page.evaluate(FOCUSED)
        if not visible:
            wrong.append(f"its focus is not seen: {node}")
        if at in reached:
            break
        reached |= {at} - {-1}
    else:
        wrong.append(f"Tab does not come round; it ended at {node}")
    before = page.evaluate(FOCUSED)
    page.keyboard.press("Shift+Tab")
    if page.evaluate(FOCUSED) == before and len(expected) > 1:
        wrong.append(f"Shift+Tab does not leave {before[2]}")
    return {one for number, one in enumerate(expected) if number not in reached}, wrong


def use(page: Any, text: str, most: int) -> dict[str, int]:
    """Type into the fields of the visible page, select the last option of every choice, move sliders by key and by
    pointer, walk through its tokens, open its details and press its buttons, at most `most` of a kind.

    Returns how many of each kind were used.
    """
    acts = {
        "textarea": lambda one: (one.fill(text), one.press("End")),
        "input[type=text], input[type=search]": lambda one: (one.fill(text.split(" ")[0]), one.press("Enter")),
        "select": lambda one: one.select_option(index=one.locator("option").count() - 1),
        "input[type=number]": lambda one: (one.press("ArrowUp"), one.press("ArrowDown")),
        "input[type=range]": drag, "[role=slider]": lambda one: (one.press("End"), one.press("ArrowLeft")),
        ".strip": lambda one: [one.press(key) for key in ("ArrowRight", "ArrowRight", "Home", "Enter")],
        ".token": lambda one: one.hover(), "summary": lambda one: one.click(),
        "textarea:not([readonly])": lambda one: one.fill(text[:12]),  # a model of few tokens can continue it
        "button": lambda one: one.click(),
    }  # fmt: skip
    used = {}
    for kind, act in acts.items():
        for number in range(most):
            usable = page.locator("main").locator(kind).locator("visible=true")
            if number >= usable.count():
                break
            one = usable.nth(number)
            if one.is_enabled():
                act(one)
                settle(page)
                used[kind] = used.get(kind, 0) + 1
    return used


def use_all(page: Any, text: str, most: int) -> dict[str, int]:
    """Call `use` in the visible view and in the views that it links to."""
    used = use(page, text, most)
    for number in range(most):
        links = page.locator("main a[href^='#']").locator("visible=true")
        if number >= links.count():
            break
        links.nth(number).click()
        settle(page)
        for kind, count in ({"a": 1} | use(page, text, most)).items():
            used[kind] = used.get(kind, 0) + count
    return used


def drag(one: Any) -> None:
    """By keys to both ends, by the pointer from the left to the middle."""
    for key in ("End", "Home", "ArrowRight"):
        one.press(key)
    one.scroll_into_view_if_needed()
    box = one.bounding_box()
    mouse, height = one.page.mouse, box["y"] + box["height"] / 2
    mouse.move(box["x"] + 5, height)
    mouse.down()
    mouse.move(box["x"] + box["width"] / 2, height, steps=4)
    mouse.up()
