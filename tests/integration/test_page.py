"""The web page in Chromium, as a person uses it. Needs Chromium, Playwright and axe; no Ray."""

import contextlib
import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image
from programs import needs
from unit.serving_support import CHAMPION, STARTER, LocalBackend, server
from unit.support import natural_photo

from degrain.imaging.codecs import decode, encode_png
from degrain.serving.messages import Refusal, ServedModel

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page, Route

api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = Path("/usr/bin/chromium")
pytestmark = needs(CHROMIUM.exists(), "chromium")

OLDER = ServedModel(id="best-ssim", label="m v2", card={**CHAMPION.card, "model": "unet"})
PHOTO = natural_photo(160, 240)
AXE_RULES = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "best-practice"]}


@pytest.fixture(scope="module")
def browser() -> "Iterator[Browser]":
    api.expect.set_options(timeout=600_000)
    with api.sync_playwright() as playwright:
        # No sandbox: the tests may run as root in a container, and open only their own page.
        made = playwright.chromium.launch(
            executable_path=str(CHROMIUM), args=["--no-sandbox", "--disable-gpu"]
        )
        yield made
        made.close()


@pytest.fixture
def backend() -> LocalBackend:
    return LocalBackend(CHAMPION, OLDER, STARTER)


@pytest.fixture
def page(browser: "Browser", backend: LocalBackend) -> "Iterator[Page]":
    """The open page; every error in its console or script, and every request elsewhere, fails."""
    with server(backend, largest_megapixels=1) as url:
        context = browser.new_context(viewport={"width": 1280, "height": 800})
        opened = context.new_page()
        opened.set_default_timeout(30_000)
        problems: list[str] = []
        expected = re.compile("Failed to load resource: the server responded with a status of [45]")
        opened.on("pageerror", lambda error: problems.append(str(error)))
        opened.on(
            "console",
            lambda m: m.type == "error" and not expected.match(m.text) and problems.append(m.text),
        )
        opened.on(
            "request",
            lambda r: not r.url.startswith((url, "blob:")) and problems.append(r.url),
        )
        opened.goto(url)
        yield opened
        context.close()
        assert problems == []


def choose(
    page: "Page", content: bytes = b"", name: str = "holiday.png", kind: str = "image/png"
) -> None:
    file = {"name": name, "mimeType": kind, "buffer": content or encode_png(PHOTO)}
    page.set_input_files("#file", file)


def wait_until_done(page: "Page") -> None:
    api.expect(page.locator("#progress")).to_have_text("Done.")


def pixel(page: "Page", x: float, y: float) -> tuple[int, ...]:
    """The colour that the view shows at a share of its width and height."""
    box = page.locator(".view").first.bounding_box()
    with Image.open(io.BytesIO(page.screenshot())) as shot:
        colour = shot.convert("RGB").getpixel(
            (int(box["x"] + x * box["width"]), int(box["y"] + y * box["height"]))
        )
    assert isinstance(colour, tuple)
    return colour


def test_a_photo_is_shown_before_and_after_and_downloaded(page: "Page") -> None:
    flat = encode_png(np.full((100, 150, 3), 200, np.uint8))
    choose(page, flat)
    wait_until_done(page)
    # `Darker` halves the values: 200 on the left of the slider, 100 on its right.
    assert pixel(page, 0.4, 0.5) == (200, 200, 200)
    assert pixel(page, 0.6, 0.5) == (100, 100, 100)
    page.locator("#split").fill("100")
    assert pixel(page, 0.6, 0.5) == (200, 200, 200)
    page.locator("#split").fill("0")
    assert pixel(page, 0.4, 0.5) == (100, 100, 100)
    with page.expect_download() as download:
        page.get_by_role("button", name="Download").click()
    assert download.value.suggested_filename == "holiday-denoised.png"
    assert np.all(decode(Path(download.value.path()).read_bytes()) == 100)
    facts = page.locator("#facts").inner_text()
    assert "150 × 100" in facts
    assert "m v3" in facts


def test_strength_and_detail_are_sent_with_the_chosen_model(
    page: "Page", backend: LocalBackend
) -> None:
    choose(page)
    wait_until_done(page)
    page.locator("#strength").fill("0.5")
    page.locator("#detail").fill("0.25")
    page.locator("#model").select_option("best-ssim")
    api.expect(page.locator("figcaption").first).to_contain_text("m v2")
    wait_until_done(page)
    last = backend.requests[-1]
    assert (last.model, last.blend.strength, last.blend.detail) == ("best-ssim", 0.5, 0.25)
    page.locator("#card summary").click()
    assert "unet" in page.locator("#card-facts").inner_text()


def test_two_models_are_shown_side_by_side(page: "Page") -> None:
    choose(page)
    wait_until_done(page)
    page.locator("#other").select_option("starter")
    api.expect(page.locator("figcaption").nth(1)).to_contain_text("starter")
    views = page.locator(".view")
    first, second = views.first.bounding_box(), views.nth(1).bounding_box()
    assert abs(first["width"] - second["width"]) <= 1
    assert first["x"] + first["width"] <= second["x"] + 1
    page.locator("#zoom-full").click()
    transforms = page.eval_on_selector_all(".layers", "all => all.map(one => one.style.transform)")
    assert len(set(transforms)) == 1


def test_the_full_view_shows_a_pixel_of_the_photo_on_a_pixel_of_the_screen(page: "Page") -> None:
    choose(page)
    wait_until_done(page)
    page.locator("#zoom-full").click()
    assert page.locator("#zoom").inner_text() == "100%"
    assert page.locator(".layers img").first.bounding_box()["width"] == PHOTO.shape[1]
    page.locator("#zoom-in").click()
    assert page.locator("#zoom").inner_text() == "125%"
    page.locator("#zoom-fit").click()
    assert page.locator(".layers img").first.bounding_box()["height"] > PHOTO.shape[0]


def test_errors_are_in_words(page: "Page", backend: LocalBackend) -> None:
    choose(page, b"not a photo at all", "letter.png")
    alert = page.get_by_role("alert")
    api.expect(alert).to_contain_text("The photo cannot be read: it is not a photo")
    backend.refusal = Refusal(status=503, reason="the process that denoised the photo has ended")
    choose(page)
    api.expect(alert).to_contain_text("The process that denoised the photo has ended.")
    backend.refusal = None
    page.get_by_role("button", name="Denoise", exact=True).click()
    wait_until_done(page)
    assert alert.is_hidden()


def test_after_a_refused_photo_nothing_of_it_or_of_the_one_before_is_shown(page: "Page") -> None:
    choose(page)
    wait_until_done(page)
    caption = page.locator("figcaption").first
    api.expect(caption).not_to_be_empty()
    choose(page, b"not a photo at all", "letter.png")
    api.expect(page.get_by_role("alert")).to_be_visible()
    api.expect(caption).to_be_empty()
    images = page.locator(".layers img")
    assert images.count() == 4
    for image in images.all():
        assert image.get_attribute("src") is None
        api.expect(image).to_be_hidden()


def test_a_sample_and_a_large_photo_which_becomes_a_job(
    page: "Page", backend: LocalBackend
) -> None:
    page.get_by_role("button", name="cat, ISO 3200").click()
    wait_until_done(page)
    assert "451 × 300" in page.locator("#facts").inner_text()
    large = io.BytesIO()
    Image.new("RGB", (1300, 1000), (80, 80, 80)).save(large, "PNG")
    choose(page, large.getvalue())
    wait_until_done(page)
    assert "1300 × 1000" in page.locator("#facts").inner_text()
    assert backend.requests[-1].largest_megapixels > 1


def test_tiff_of_16_bits_is_shown_and_downloaded_as_tiff(page: "Page") -> None:
    import tifffile

    file = io.BytesIO()
    tifffile.imwrite(file, np.full((60, 90, 3), 40000, np.uint16), photometric="rgb")
    choose(page, file.getvalue(), "scan.tif", "image/tiff")
    wait_until_done(page)
    with page.expect_download() as download:
        page.get_by_role("button", name="Download").click()
    assert download.value.suggested_filename == "scan-denoised.tif"
    result = tifffile.imread(download.value.path())
    assert result.dtype == np.uint16
    assert np.all(result == 20000)


class Held:
    """Requests of a page that are answered when `release` is called."""

    def __init__(self, page: "Page", pattern: str) -> None:
        self._routes: list[Route] = []
        self._released = False
        page.route(pattern, self._hold)

    def _hold(self, route: "Route") -> None:
        if self._released:
            route.continue_()
        else:
            self._routes.append(route)

    def release(self) -> None:
        self._released = True
        for route in self._routes:
            route.continue_()


def test_a_photo_that_is_chosen_before_the_models_are_known_waits_for_them(
    browser: "Browser", backend: LocalBackend
) -> None:
    with server(backend) as url, contextlib.closing(browser.new_context()) as context:
        opened = context.new_page()
        models = Held(opened, "**/v1/models")
        opened.goto(url)
        choose(opened)
        api.expect(opened.locator("#run")).to_have_text(re.compile("Denoising"))
        assert opened.locator("#download").is_disabled()
        models.release()
        wait_until_done(opened)
        with opened.expect_download():
            opened.locator("#download").click()


def test_nothing_can_be_downloaded_while_a_newer_result_is_in_work(page: "Page") -> None:
    choose(page)
    wait_until_done(page)
    assert page.locator("#download").is_enabled()
    photos = Held(page, "**/v1/denoise*")
    page.locator("#strength").fill("0.5")
    api.expect(page.locator("#progress")).to_have_text("Denoising…")
    assert page.locator("#download").is_disabled()
    photos.release()
    wait_until_done(page)
    assert page.locator("#download").is_enabled()


def test_a_sample_that_arrives_after_a_newer_choice_is_dropped(page: "Page") -> None:
    page.route("**/samples/cat.png", lambda _: None)
    page.get_by_role("button", name="cat, ISO 3200").click()
    with page.expect_event("requestfailed", lambda request: "cat" in request.url):
        choose(page)
    wait_until_done(page)
    assert "240 × 160" in page.locator("#facts").inner_text()


def test_a_download_has_the_settings_of_the_result_not_of_a_slider_that_moves(
    page: "Page", backend: LocalBackend
) -> None:
    import tifffile

    file = io.BytesIO()
    tifffile.imwrite(file, np.full((60, 90, 3), 40000, np.uint16), photometric="rgb")
    photos = Held(page, "**/v1/denoise?model=*")
    with page.expect_request("**/v1/denoise?model=*"):
        choose(page, file.getvalue(), "scan.tif", "image/tiff")
    # The slider is held: `change` comes when it is let go.
    page.evaluate("document.getElementById('strength').value = 0.25")
    photos.release()
    wait_until_done(page)
    with page.expect_download():
        page.locator("#download").click()
    assert backend.requests[-1].output.format == "tiff"
    assert backend.requests[-1].blend.strength == 1


def focused(page: "Page") -> str:
    return str(page.evaluate("document.activeElement.id || document.activeElement.className"))


def tab_to(page: "Page", name: str) -> None:
    for _ in range(40):
        if focused(page) == name:
            return
        page.keyboard.press("Tab")
    raise AssertionError(f"Tab does not reach {name}")


def test_everything_works_with_the_keyboard_alone(page: "Page", backend: LocalBackend) -> None:
    page.keyboard.press("Tab")
    while "cat" not in page.evaluate("document.activeElement.textContent"):
        page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    wait_until_done(page)
    tab_to(page, "view")
    page.keyboard.press("1")
    assert page.locator("#zoom").inner_text() == "100%"
    for _ in range(12):
        page.keyboard.press("+")
    before = page.locator(".layers").first.get_attribute("style")
    page.keyboard.press("ArrowRight")
    assert page.locator(".layers").first.get_attribute("style") != before
    page.keyboard.press("0")
    tab_to(page, "split")
    page.keyboard.press("End")
    assert page.locator("#split").input_value() == "100"
    tab_to(page, "strength")
    page.keyboard.press("Home")
    api.expect(page.locator("#strength-value")).to_have_text("0%")
    wait_until_done(page)
    assert backend.requests[-1].blend.strength == 0
    tab_to(page, "download")
    with page.expect_download():
        page.keyboard.press("Enter")


def violations(page: "Page") -> list[str]:
    axe = pytest.importorskip(
        "axe_playwright_python.sync_playwright", reason="axe is not installed"
    )
    found = axe.Axe().run(page, options=AXE_RULES).response["violations"]
    return [f"{v['id']}: {[n['html'][:90] for n in v['nodes']]}" for v in found]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 400])
def test_axe_finds_no_violation(page: "Page", scheme: str, width: int) -> None:
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": width, "height": 800})
    assert violations(page) == []
    choose(page)
    wait_until_done(page)
    page.locator("#other").select_option("starter")
    page.locator("#card summary").click()
    wait_until_done(page)
    assert violations(page) == []
    choose(page, b"not a photo", "letter.png")
    api.expect(page.get_by_role("alert")).to_be_visible()
    assert violations(page) == []


def test_a_phone_shows_everything_without_scrolling_sideways(page: "Page") -> None:
    page.set_viewport_size({"width": 400, "height": 800})
    choose(page)
    wait_until_done(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= 400
    for name in ("#split", "#strength", "#run", "#download", "#model"):
        box = page.locator(name).bounding_box()
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= 400
        assert box["height"] >= 24


def test_the_token_is_asked_for(browser: "Browser", backend: LocalBackend) -> None:
    token = "0123456789abcdef"
    with server(backend, token) as url:
        context = browser.new_context()
        opened = context.new_page()
        opened.goto(url)
        opened.locator("#token").fill(token)
        opened.get_by_role("button", name="Continue").click()
        api.expect(opened.locator("#serving")).to_contain_text("m v3")
        choose(opened)
        wait_until_done(opened)
        context.close()
