"""The review station by keyboard: a shift, a race, zoom, hostile names, contrast."""

import io
import random
import statistics
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, expect

from lad_agent.judgement import Disposition, Finding
from lad_agent.store import AuditStore, ReviewFilter, ledger, review_queue
from tests.service import floor

pytestmark = pytest.mark.browser

HOSTILE = "<img src=x onerror=alert(1)><script>alert(2)</script>\"'`{{7*7}}${1}\u202egnp.exe"

CONTRAST = Path(__file__).with_name("contrast.js").read_text()


def escalated(store: AuditStore, folder: Path, count: int, **changed: Any) -> list[floor.Part]:
    return [floor.escalate(store, folder, number, **changed) for number in range(count)]


def begin(page: Page) -> None:
    page.goto("/reviews")
    page.keyboard.press("g")
    expect(page.locator("[data-review]")).to_be_visible()


def at_hand(page: Page) -> str:
    found = page.locator("[data-review]").get_attribute("data-review")
    assert found
    return found


def moved_on(page: Page, review: str) -> None:
    """Wait until `review` is not the one at hand any more, and the page listens again."""
    page.wait_for_function(
        "review => document.querySelector('[data-review]')?.dataset.review !== review", arg=review
    )


def test_a_whole_shift_by_keyboard_alone(
    page: Page, store: AuditStore, tmp_path: Path, parts: int, capsys: pytest.CaptureFixture[str]
) -> None:
    truth = {part.part_id: part for part in escalated(store, tmp_path, parts)}
    begin(page)
    took = []
    for number in range(parts):
        review = at_hand(page)
        part = truth[page.locator("h1").inner_text()]
        wrong = number % 5 == 4  # the person sees it otherwise than the reasoner
        since = time.monotonic()
        page.keyboard.press("c" if part.anomalous == wrong else "s")
        if wrong:
            expect(page.locator("#comment")).to_be_focused()
            page.keyboard.type("seen otherwise")
            page.keyboard.press("Enter")
        if number < parts - 1:
            moved_on(page, review)
        else:
            expect(page.get_by_role("heading", name="Nothing waits")).to_be_visible()
        took.append(time.monotonic() - since)
    decided = store.reviews(ReviewFilter(decided=True))
    assert len(decided) == parts
    for one in decided:
        assert one.decision is not None
        part = truth[one.inspected.intake.part_id]
        against = one.decision.comment is not None
        bad = one.decision.finding is Finding.NONCONFORMING
        assert bad == (part.anomalous != against)
        if bad and not against:
            assert one.decision.rule == part.rule
    expect(page.locator(".shift")).to_contain_text(f"{parts} decided this shift")
    with capsys.disabled():
        print(f"\n{parts} parts, a decision took {statistics.median(took) * 1000:.0f} ms "
              f"(median; longest {max(took) * 1000:.0f})")  # fmt: skip


def test_undo_steps_back_through_the_shift(page: Page, store: AuditStore, tmp_path: Path) -> None:
    escalated(store, tmp_path, 3)
    begin(page)
    first = at_hand(page)
    page.keyboard.press("n")
    page.keyboard.type("both pictures, see R1")
    page.keyboard.press("Enter")
    page.keyboard.press("4")
    page.keyboard.press("v")
    moved_on(page, first)
    decision = store.review(first).decision
    assert decision is not None
    assert decision.disposition is Disposition.RETURN
    assert decision.rule == "R4"
    second = at_hand(page)
    page.keyboard.press("n")
    page.keyboard.type("worn")
    page.keyboard.press("Escape")
    page.keyboard.press("k")
    moved_on(page, second)
    third = at_hand(page)
    page.keyboard.press("u")
    moved_on(page, third)
    assert at_hand(page) == second
    page.keyboard.press("u")
    moved_on(page, second)
    assert at_hand(page) == first
    assert store.reviews(ReviewFilter(decided=True)) == []
    expect(page.locator(".past")).to_contain_text("taken back")


def test_a_held_key_decides_about_one_part(page: Page, store: AuditStore, tmp_path: Path) -> None:
    escalated(store, tmp_path, 3)
    begin(page)
    first = at_hand(page)
    page.keyboard.press("n")
    page.keyboard.type("x")
    page.keyboard.press("Escape")
    for _ in range(5):  # without a release in between, each but the first is a repeat
        page.keyboard.down("s")
    moved_on(page, first)
    for _ in range(5):
        page.keyboard.down("s")
    page.keyboard.up("s")
    expect(page.locator(".claim")).to_contain_text("yours until")
    assert len(store.reviews(ReviewFilter(decided=True))) == 1


def test_a_new_page_has_the_focus_and_no_ring_around_it(
    page: Page, store: AuditStore, tmp_path: Path
) -> None:
    escalated(store, tmp_path, 2)
    begin(page)
    first = at_hand(page)
    page.keyboard.press("ArrowRight")
    moved_on(page, first)
    expect(page.locator("main")).to_be_focused()
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "none"


def test_arrows_walk_and_the_hand_is_opened(page: Page, store: AuditStore, tmp_path: Path) -> None:
    escalated(store, tmp_path, 3)
    begin(page)
    first = at_hand(page)
    expect(page.locator(".claim")).to_contain_text("yours until")
    page.keyboard.press("ArrowRight")
    moved_on(page, first)
    second = at_hand(page)
    expect(page.locator(".claim")).to_contain_text("yours until")
    page.keyboard.press("ArrowLeft")
    moved_on(page, second)
    assert at_hand(page) == first
    page.keyboard.press("q")
    expect(page.locator("h1")).to_contain_text("3 waiting")
    deadline = time.monotonic() + 15
    while any(one.claimed_by for one in store.ask(review_queue.queue)):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_the_loser_of_a_race_is_told_who_decided(
    page: Page, store: AuditStore, tmp_path: Path
) -> None:
    part = escalated(store, tmp_path, 1)[0]
    begin(page)
    review = at_hand(page)
    expect(page.locator(".claim")).to_contain_text("yours until")
    store.release_review(review, "olga")
    store.decide_review(
        review,
        floor.ReviewDecision(
            finding=Finding.NONCONFORMING,
            disposition=Disposition.REWORK,
            rule="R1",
            comment="bent",
            by="anna",
        ),
    )
    page.keyboard.press("s" if part.anomalous else "c")
    expect(page.locator(".banner")).to_contain_text("Your decision was not taken")
    expect(page.locator(".banner")).to_contain_text("anna")
    decision = store.review(review).decision
    assert decision is not None
    assert decision.by == "anna"


def test_zoom_goes_to_the_place_and_moves_both_pictures(
    page: Page, store: AuditStore, tmp_path: Path
) -> None:
    def places(part: floor.Part) -> int:
        outcome = store.outcome(part.inspection_id)
        assert outcome is not None
        return len(outcome.places) or 99

    part = min(escalated(store, tmp_path, 8), key=places)
    page.goto(f"/reviews/{store.history(part.inspection_id).reviews[0].id}")
    expect(page.locator(".cells .fault").first).to_be_attached()
    page.keyboard.press("z")
    where = "() => [...document.querySelectorAll('[data-stage]')].map((one) => one.style.transform)"
    both = page.evaluate(where)
    assert both[0] == both[1]
    assert "scale(1)" not in both[0]
    seen = page.evaluate(
        """() => {
          const frame = document.querySelector('[data-view]').getBoundingClientRect();
          return [...document.querySelectorAll('.fault .edge')].every((edge) => {
            const box = edge.getBoundingClientRect();
            const x = (box.left + box.right) / 2, y = (box.top + box.bottom) / 2;
            return x > frame.left && x < frame.right && y > frame.top && y < frame.bottom;
          });
        }"""
    )
    assert seen
    page.keyboard.press("Shift+ArrowDown")
    page.mouse.move(400, 400)
    page.mouse.wheel(0, -100)
    after = page.evaluate(where)
    assert after[0] == after[1] != both[0]
    page.mouse.down()
    page.mouse.move(300, 350)
    page.mouse.up()
    assert page.evaluate(where)[0] != after[0]
    page.keyboard.press("o")
    expect(page.locator(".cells")).to_be_hidden()
    page.keyboard.press("z")
    assert "scale(1)" in page.evaluate(where)[0]


def test_hostile_words_run_nothing(page: Page, store: AuditStore, tmp_path: Path) -> None:
    """The page fixture fails on any dialog, error or policy violation."""
    part = floor.escalate(
        store,
        tmp_path,
        0,
        name=HOSTILE,
        told=f"R1 {HOSTILE}: 1 of 2 bad",
        file=HOSTILE.replace("/", ":"),
    )
    review = store.history(part.inspection_id).reviews[0].id
    begin(page)
    expect(page.locator("h1")).to_have_text(HOSTILE)
    page.keyboard.press("n")
    page.keyboard.type(HOSTILE.replace("\u202e", ""))
    page.keyboard.press("Escape")
    page.keyboard.press("s")
    expect(page.get_by_role("heading", name="Nothing waits")).to_be_visible()
    page.goto(f"/reviews/{review}")
    expect(page.locator(".banner")).to_contain_text("<script>alert(2)</script>")
    for path in ("/reviews", "/dashboard", f"/reviews?product={HOSTILE}"):
        page.goto(path)
    assert page.evaluate("document.querySelectorAll('img[src=x], script:not([src])').length") == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_words_can_be_read_and_the_focus_seen(
    page: Page,
    store: AuditStore,
    tmp_path: Path,
    scheme: Any,
    shots: Path,
    monkeypatch: pytest.MonkeyPatch,
    parts: int,
) -> None:
    """WCAG 2.2 AA: 4.5 to 1 for every word, 3 to 1 for controls, charts and the ring of focus."""
    populate(store, tmp_path, monkeypatch, parts * 5)
    page.emulate_media(color_scheme=scheme)
    page.goto("/reviews")
    assert page.evaluate(CONTRAST) == []
    shoot(page, shots / f"queue-{scheme}.png")
    page.goto(in_question(store))
    expect(page.locator(".claim")).to_contain_text("yours until")
    page.wait_for_function("[...document.images].every((image) => image.complete)")
    assert page.evaluate(CONTRAST) == []
    shoot(page, shots / f"item-{scheme}.png")
    page.keyboard.press("?")
    expect(page.locator("#help")).to_be_visible()
    assert page.evaluate(CONTRAST) == []
    page.keyboard.press("Escape")
    tab_through(page, 16)
    page.goto("/dashboard")
    assert page.evaluate(CONTRAST) == []
    shoot(page, shots / f"dashboard-{scheme}.png", full_page=True)
    tab_through(page, 8)


def tab_through(page: Page, stops: int) -> None:
    for _ in range(stops):
        page.keyboard.press("Tab")
        assert page.evaluate(CONTRAST, "focus") == []


def test_the_toggle_overrules_the_system_and_is_kept(
    page: Page, store: AuditStore, tmp_path: Path
) -> None:
    escalated(store, tmp_path, 1)
    page.goto("/reviews")
    paper = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(paper)
    page.get_by_role("button", name="Light / dark").click()
    dark = page.evaluate(paper)
    assert dark != light
    begin(page)
    assert page.evaluate(paper) == dark


def test_pages_are_light_and_the_next_picture_is_there(
    page: Page, store: AuditStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    escalated(store, tmp_path, 2, size=448)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    begin(page)
    page.wait_for_load_state("networkidle")
    after = page.locator("[data-preload]").get_attribute("data-preload")
    assert after
    for path in after.split():
        assert any(url.endswith(path) for url in asked)
    page.reload()
    page.wait_for_load_state("networkidle")
    entries = page.evaluate(
        """() => ['resource', 'navigation'].flatMap((type) => performance.getEntriesByType(type))
          .map((one) => [one.name, one.decodedBodySize])"""
    )
    weight = sum(size for name, size in entries if "/inspections/" not in name)
    paint = page.evaluate("performance.getEntriesByName('first-contentful-paint')[0]?.startTime")
    assert weight < 120_000
    assert paint is not None
    with capsys.disabled():
        print(f"\npage weight without pictures {weight / 1000:.0f} kB, first paint {paint:.0f} ms")


def test_pages_work_without_scripts(
    browser: Browser, address: str, store: AuditStore, tmp_path: Path
) -> None:
    part = escalated(store, tmp_path, 1)[0]
    context = browser.new_context(base_url=address, java_script_enabled=False)
    opened = context.new_page()
    opened.goto("/reviews/next")
    against = "Conforming" if part.anomalous else "Scrap"
    opened.get_by_role("button", name=against).click()
    expect(opened.locator("#said")).to_contain_text("goes against the reasoner")
    opened.locator("#comment").fill("seen")
    opened.get_by_role("button", name=against).click()
    expect(opened.get_by_role("heading", name="Nothing waits")).to_be_visible()
    context.close()


def populate(store: AuditStore, folder: Path, monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    """A day as a plant has it: most parts good, some audited, some waiting."""
    draw = random.Random(7)
    moment = datetime.now(UTC)
    clock = moment
    monkeypatch.setattr(ledger, "now", lambda: ledger.timestamp(clock))
    for number in range(count):
        clock = moment - timedelta(hours=23 - 22.8 * (number / count) ** 0.8)
        picture = draw.randrange(12) * 2 + (draw.random() < 0.9)
        fate = draw.random()
        name = f"P-{1000 + number}"
        if fate < 0.75:
            floor.decide_alone(store, folder, picture, name=name)
            continue
        if fate < 0.87:
            part = floor.audit(store, folder, picture, name=name)
        else:
            part = floor.escalate(store, folder, picture, name=name)
        bad = part.anomalous != (draw.random() < 0.06)
        scrap = Disposition.SCRAP if bad else None
        finding = Finding.NONCONFORMING if bad else Finding.CONFORMING
        review = store.history(part.inspection_id).reviews[0]
        decision = floor.ReviewDecision(
            finding=finding, disposition=scrap, comment="looked", by="anna"
        )
        store.decide_review(review.id, decision)
    for number in range(12):
        clock = moment - timedelta(minutes=3 + 4 * number)
        floor.escalate(store, folder, number, size=448, name=f"P-{1260 + number}")
    floor.audit(store, folder, 13, name="P-1272")
    monkeypatch.undo()


def shoot(page: Page, path: Path, **options: Any) -> None:
    """A picture for the docs, small enough for a repository."""
    whole = Image.open(io.BytesIO(page.screenshot(**options))).convert("RGB")
    small = whole.resize((1080, round(whole.height * 1080 / whole.width)), Image.Resampling.LANCZOS)
    path.parent.mkdir(parents=True, exist_ok=True)
    small.quantize(256, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE).save(
        path, optimize=True
    )


def in_question(store: AuditStore) -> str:
    """The page of a part whose fault has a place."""
    review = next(
        review
        for review in store.reviews(ReviewFilter(decided=False, kind="escalation"))
        if review.inspected.outcome and len(review.inspected.outcome.places) > 1
    )
    return f"/reviews/{review.id}"
