"""The page of a result: its numbers are the exact fronts', and a real browser shows them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from devices.cost import bound_factor, latency_table, predict
from devices.profile import get_profile
from ofa.checkpoint import Checkpoint, read_checkpoint
from ofa.layers import lower, macs
from ofa.space import Arch
from specialize import Result, specialize
from specialize.accuracy import fit, percent
from specialize.page import collect
from specialize.problem import Budget, Limit, Objective, Problem
from specialize.search import exact
from tests.tiny_checkpoint import write_tiny_checkpoint

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page


@pytest.fixture(scope="module")
def tiny(shapes_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_checkpoint(shapes_folder, tmp_path_factory.mktemp("page"))


@pytest.fixture(scope="module")
def source(tiny: Path) -> Checkpoint:
    return read_checkpoint(tiny)


@pytest.fixture(scope="module")
def made(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Result:
    output = tmp_path_factory.mktemp("made") / "out"
    return specialize("pixel", "0.6ms", checkpoint=tiny, output=output, candidates=2, threads=1)


def figures_of(folder: Path) -> Any:
    text = (folder / "report.html").read_text()
    (data,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', text)
    return json.loads(data)


def front_of(source: Checkpoint, device: str) -> exact.Front:
    table = latency_table(source.space, get_profile(device))
    limit = Limit(Budget("latency", np.inf), table, np.inf)
    return exact.front(
        Problem(source.space, fit(source.space, source.evaluated).table, (limit,), device)
    )


def test_every_front_is_exact(made: Result, source: Checkpoint) -> None:
    figures = figures_of(made.output)
    assert figures["devices"][0]["name"] == "pixel4"
    assert len(figures["devices"]) > 30
    for device in figures["devices"]:
        front = front_of(source, device["name"])
        assert device["ms"] == pytest.approx(front.cost, rel=5e-4)
        assert device["percent"] == pytest.approx(percent(front.value), rel=5e-4)
        assert device["rows"] == "".join(chr(ord("@") + gene) for gene in front.rows.ravel())
        # The script's prices: what a resolution costs, and each block that there is.
        r, *choices = front.rows[-1]
        table = device["latency"]
        ms = table["fixed"][r] + sum(
            table["blocks"][r][p][c - 1] for p, c in enumerate(choices) if c
        )
        assert ms == pytest.approx(front.cost[-1], rel=5e-3)


def test_the_page_needs_nothing_but_itself(made: Result) -> None:
    text = (made.output / "report.html").read_text()
    assert len(text) < 1.5e6
    linked = set(re.findall(r'(?:src|href)="([^"]*)"', text))
    assert linked == {"data:,", *(file.path for file in made.report.files), "report.json"}
    assert "url(" not in text
    assert "@import" not in text
    assert "report.html" not in {file.path for file in made.report.files}


def test_other_devices_gain_what_the_exact_front_says(made: Result, source: Checkpoint) -> None:
    """Every device of the page but its own, once; the chosen network is never above the front."""
    report = made.report
    accuracy = fit(source.space, source.evaluated).table
    arch = Arch.parse(report.architecture)
    profiles = [get_profile(d["name"]) for d in figures_of(made.output)["devices"][1:]]
    own = get_profile("pixel4")
    page = collect(report, source.space, accuracy, own, Objective(), [(1, 0.0)])
    told = {there.title: there for there in (*page.elsewhere, *page.more)}
    assert sorted(told) == sorted(profile.title for profile in profiles)
    assert len(told) == len(page.elsewhere) + len(page.more)
    text = (made.output / "report.html").read_text()
    shown = re.findall(
        r'<tr><th scope="row">([^<]*)<small>grade .</small></th>\n'
        r"<td>([\d.]+)<small>at most ([\d.]+)</small></td><td>([\d.]+) %</td><td>\+([\d.]+)</td>",
        text,
    )
    assert len(shown) == len(profiles)
    for profile in profiles:
        there = told[profile.title]
        latency = predict(profile, lower(source.space, arch), 0.9)
        assert (there.ms, there.bound) == pytest.approx((latency.point, latency.bound))
        front = front_of(source, profile.name)
        best = percent(front.value[np.flatnonzero(front.cost <= there.ms + 1e-9)[-1]])
        assert there.best == pytest.approx(best)
        assert there.gain == pytest.approx(best - report.accuracy.estimated, abs=1e-9)
        assert there.gain >= 0
        row = [f"{there.ms:.4g}", f"{there.bound:.4g}", f"{there.best:.2f}", f"{there.gain:.2f}"]
        assert (profile.title, *row) in shown
    # The short list: each other hardware once.
    hardware = {p.title: p.hardware.device for p in profiles}
    first = [hardware[there.title] for there in page.elsewhere]
    assert sorted(first) == sorted(set(hardware.values()) - {own.hardware.device})
    gains = [there.gain for there in page.elsewhere]
    assert gains == sorted(gains, reverse=True)


def test_the_plot_is_a_picture(made: Result) -> None:
    with Image.open(made.output / "front.png") as picture:
        assert picture.size == (1200, 750)


@pytest.mark.slow
@pytest.mark.parametrize(
    "asked",
    [
        {"minimize": "macs", "min_accuracy": 10},
        {"budget": "0.6MMACs", "tradeoff": -2},
        {"budget": "0.6MMACs"},
    ],
)
def test_other_objectives_have_a_page(asked: dict[str, Any], tiny: Path, tmp_path: Path) -> None:
    report = specialize(
        "rpi4", checkpoint=tiny, output=tmp_path / "out", candidates=1, threads=1, **asked
    ).report
    figures = figures_of(tmp_path / "out")
    assert figures["devices"][0]["name"] == "rpi4"
    assert figures["chosen"]["budget"] == report.latency_ms.bound
    proof = report.search.certificate
    assert figures["progress"]["unit"] == proof.unit
    assert figures["progress"]["trace"][-1][1] == pytest.approx(proof.best, rel=1e-4)


@pytest.fixture
def shown(browser: Browser, made: Result) -> Iterator[Page]:
    """The page from the disk; at the end, nothing else was asked for and nothing went wrong."""
    page = browser.new_page()
    asked: list[str] = []
    wrong: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: wrong.append(message.text))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.goto((made.output / "report.html").as_uri())
    yield page
    page.close()
    assert (asked, wrong) == ([(made.output / "report.html").as_uri()], [])


def check_shown(page: Page, source: Checkpoint, device: str) -> None:
    """What is announced and drawn is the front's point within the budget that is set."""
    front = front_of(source, device)
    factor = bound_factor(get_profile(device), 0.9)
    budget = float(page.input_value("#exact"))
    assert page.get_attribute("#budget", "aria-valuetext") == f"{budget:.4g} ms"
    # The page has four digits of each.
    bounds = np.array([float(f"{cost:.4g}") for cost in front.cost]) * factor
    index = int(np.flatnonzero(bounds <= budget * (1 + 1e-9))[-1])
    arch = source.space.decode(front.rows[index])
    estimate = Decimal(f"{percent(front.value[index]):.4g}").quantize(Decimal("0.1"), ROUND_HALF_UP)
    size = macs(lower(source.space, arch)) / 1e6
    assert page.inner_text("#readout") == (
        f"{budget:.4g} ms: {estimate} % estimated, r{arch.resolution}, {size:.3g} MMACs"
    )
    assert page.inner_text("#architecture") == str(arch)
    boxes = page.locator("#network .block:not(.absent, .rest) b").all_inner_texts()
    blocks = [block for stage in arch.stages for block in stage]
    assert [box.replace("\N{MULTIPLICATION SIGN}", "x") for box in boxes] == [
        f"{b.kernel}x{b.kernel} e{b.expand}" for b in blocks
    ]
    shares = page.locator("#blocks td:last-child").all_text_contents()
    assert len(shares) == len(blocks) + 1
    assert sum(float(share.split()[0]) for share in shares) == pytest.approx(100, abs=0.6)


@pytest.mark.slow
def test_it_opens_with_the_chosen_network(shown: Page, made: Result) -> None:
    report = made.report
    assert shown.inner_text("#architecture") == report.architecture
    assert shown.inner_text("#readout").startswith("0.6 ms: ")
    test = report.accuracy.test
    assert f"{test.value:.1f} % on {test.n} test images" in shown.inner_text("#status")
    assert shown.locator("#front .mark").count() == 2


@pytest.mark.slow
def test_the_slider_moves_by_keyboard_through_the_exact_front(
    shown: Page, source: Checkpoint
) -> None:
    shown.focus("#budget")
    seen = []
    for key in ("Home", *["PageUp"] * 4, "ArrowRight", "ArrowLeft", "ArrowLeft", "End"):
        shown.keyboard.press(key)
        check_shown(shown, source, "pixel4")
        seen.append((shown.inner_text("#architecture"), shown.inner_html("#network")))
    assert len(set(seen)) > 4
    assert "not scored on images" in shown.inner_text("#status")


@pytest.mark.slow
def test_a_budget_can_be_written_and_another_device_taken(
    shown: Page, source: Checkpoint, made: Result
) -> None:
    shown.fill("#exact", "0.5")
    shown.keyboard.press("Enter")
    check_shown(shown, source, "pixel4")
    drawn = shown.inner_html("#front")
    for device in ("iphonexs", "a03s"):
        shown.select_option("#device", device)
        check_shown(shown, source, device)
        assert shown.inner_html("#front") != drawn
    shown.click("#reset")
    assert shown.inner_text("#architecture") == made.report.architecture
    assert shown.input_value("#device") == "pixel4"


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_is_accessible(shown: Page, scheme: Any) -> None:
    from axe_playwright_python.sync_playwright import Axe

    shown.emulate_media(color_scheme=scheme, reduced_motion="reduce")
    shown.evaluate("document.querySelectorAll('details').forEach((d) => (d.open = true))")
    found = Axe().run(shown).response
    assert len(found["passes"]) > 20
    serious = [v for v in found["violations"] if v["impact"] in ("serious", "critical")]
    assert not serious, json.dumps(serious, indent=1)
    duration = shown.locator(".block").first.evaluate("e => getComputedStyle(e).transitionDuration")
    assert duration == "0s"


@pytest.mark.slow
def test_nothing_overflows_on_a_phone(shown: Page) -> None:
    shown.set_viewport_size({"width": 360, "height": 740})
    shown.evaluate("document.querySelectorAll('details').forEach((d) => (d.open = true))")
    assert shown.evaluate("document.documentElement.scrollWidth") == 360
