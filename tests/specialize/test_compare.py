"""Results side by side: what the page says is what the reports and the profiles say."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from devices.cost import predict
from devices.memory import flash_table
from devices.profile import get_profile
from ofa.checkpoint import read_checkpoint
from ofa.layers import lower
from ofa.space import Arch
from specialize.compare import apart, collect, read_result, render
from specialize.fleet import FleetResult, specialize_fleet
from specialize.report import Measured, Report
from tests.commands import command
from tests.strategies import TINY
from tests.tiny_checkpoint import write_tiny_checkpoint

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

NAMES = ("pixel4", "rpi4")


@pytest.fixture(scope="module")
def tiny(shapes_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_checkpoint(shapes_folder, tmp_path_factory.mktemp("compare"))


@pytest.fixture(scope="module")
def fleet(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> FleetResult:
    output = tmp_path_factory.mktemp("made") / "fleet"
    return specialize_fleet(
        ["pixel", "rpi4"], "2ms", checkpoint=tiny, output=output, candidates=1, threads=1
    )


def changed(report: Report, **parts: Any) -> Report:
    """The same with other keys: ``device_name="host"`` is that of the device."""
    data = json.loads(report.to_json())
    for key, value in parts.items():
        part, _, name = key.partition("_")
        if name:
            data[part][name] = value
        else:
            data[part] = value
    return Report.model_validate(data)


def cells(page: str) -> list[list[str]]:
    """Texts of the table of each network on each device."""
    (table,) = re.findall(r'<table class="crossed">(.*?)</table>', page, re.DOTALL)
    rows = re.findall(r'<tr><th scope="row">(.*?)</tr>', table, re.DOTALL)
    found = [re.findall(r"<td[^>]*>(.*?)</td>", row, re.DOTALL) for row in rows]
    return [[" ".join(re.sub("<[^>]*>", " ", cell).split()) for cell in row] for row in found]


@pytest.mark.slow
def test_a_fleet_has_its_page(fleet: FleetResult) -> None:
    """It is that of the command line, which sees that these are a fleet."""
    text = (fleet.output / "compare.html").read_text()
    result = command(
        "ofa-specialize", "compare", *(fleet.output / name for name in NAMES),
        "--output", fleet.output / "compare.html",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert result.stdout == f"{fleet.output / 'compare.html'}\n"
    assert (fleet.output / "compare.html").read_text() == text
    gains = text.partition("What a network of its own is worth")[2]
    for member in fleet.fleet.members:
        assert f"{member.best.estimated:.2f} %" in gains
        for other in (fleet.fleet.single, member.by_macs):
            gain = fleet.fleet.gain(member, other)
            assert ("nothing keeps" if gain is None else f"<td>{gain:+.2f}</td>") in gains


def test_the_page_says_what_the_reports_say(fleet: FleetResult, tmp_path: Path) -> None:
    for name in NAMES:  # elsewhere, and without their fleet
        shutil.copytree(fleet.output / name, tmp_path / "some results" / name)
    folders = [f"some results/{name}" for name in NAMES]
    result = command("ofa-specialize", "compare", *folders, cwd=tmp_path)
    assert (result.returncode, result.stdout) == (0, "compare.html\n"), result.stderr
    text = (tmp_path / "compare.html").read_text()
    assert "What a network of its own is worth" not in text
    reports = [read_result(tmp_path / folder) for folder in folders]
    for report in reports:
        test = report.accuracy.test
        for figure in (
            f"{test.value:.1f}<small>{test.low:.1f} to {test.high:.1f}</small>",
            f"✓ 2 ms<small>{report.latency_ms.bound:.4g} (bound)</small>",
            f"{report.macs / 1e6:.3g} MMACs<small>{report.parameters / 1e6:.3g} M parameters",
            report.architecture,
            *(f"{file.bytes / 1e6:.3g} MB<small>{file.path}" for file in report.files[:2]),
        ):
            assert figure in text
    expected = []
    for report in reports:
        layers = lower(TINY, Arch.parse(report.architecture))
        there = [predict(get_profile(name), layers, 0.9) for name in NAMES]
        expected.append([f"{one.point:.4g} at most {one.bound:.4g} (90 %)" for one in there])
    assert cells(text) == expected
    # It needs nothing but itself, and links to the reports only.
    linked = re.findall(r'(?:src|href)="([^"]*)"', text)
    assert linked == ["data:,", *(f"some%20results/{name}/report.html" for name in NAMES)]
    for bad in ("url(", "@import", "<script"):
        assert bad not in text


def test_cells_say_why_they_are_empty(fleet: FleetResult, tiny: Path, tmp_path: Path) -> None:
    pixel, pi = (result.report for result in fleet.results)
    elsewhere = pixel.command.replace(str(tiny), "gone")

    def missing(a: Report, b: Report) -> list[str]:
        """Of the first network on the second's device, and the reverse."""
        page = collect([(tmp_path / "a", a), (tmp_path / "b", b)], tmp_path / "compare.html")
        (own, one), (other, second) = page.takes
        assert own.own
        assert second.own
        return [one.missing, other.missing]

    assert missing(pixel, pi) == ["", ""]
    unlike = changed(pixel, checkpoint_sha256="0" * 64)
    assert missing(unlike, pi) == ["checkpoint has changed", ""]
    gone = changed(pixel, checkpoint_name="gone", command=elsewhere)
    assert missing(gone, pi) == ["checkpoint not found", ""]
    assert missing(pixel, changed(pi, device_name="mine")) == ["profile not found", ""]
    filed = changed(pi, command=pi.command.replace("--device rpi4", "--device lost/rpi4.json"))
    assert missing(pixel, filed) == ["profile not found", ""]
    assert missing(pixel, changed(pi, device_name="host")) == ["measured here only", ""]
    odd = changed(pixel, command="ofa-specialize 'oops")  # found by its name alone, so not here
    assert missing(odd, pi) == ["checkpoint not found", ""]


def test_other_kinds_of_results_have_a_page(fleet: FleetResult, tmp_path: Path) -> None:
    """Measured, without a budget, with one that is not kept, from another checkpoint."""
    pixel, pi = (result.report for result in fleet.results)
    time = Measured(median=1.25, p90=3.5, runs=50, runtime="LiteRT")
    latency = pi.latency_ms.model_copy(update={"measured": time})
    host = changed(pi, device_name="host", checkpoint_sha256="0" * 64)
    host = host.model_copy(update={"latency_ms": latency, "budgets": [], "objective": "least MACs"})
    missed = pixel.budgets[0].model_copy(update={"kept": False})
    over = pixel.model_copy(update={"budgets": [missed]})
    results = [(fleet.output / "pixel4", over), (tmp_path, host)]
    page = collect(results, fleet.output / "compare.html")
    text = render(page)
    assert page.entries[1].limit_ms == 3.5
    assert cells(text)[1][1] == "1.25 measured; 90th percentile 3.5"
    assert cells(text)[0][1] == "measured here only"
    assert "<td>none<small>least MACs</small>" in text
    for said in ("✗ not kept: 2 ms", "cut from different checkpoints", 'href="pixel4/report.html"'):
        assert said in text
    assert page.entries[1].link.endswith("/report.json")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["fleet/rpi4", "empty"], "empty: no report.json in it"),
        (["fleet/rpi4", "broken"], "broken/report.json: not a readable report"),
        (["fleet/rpi4", "future"], "schema 'ofa-report/9', expected 'ofa-report/1'"),
        (["fleet/rpi4", "short"], "command: Field required"),
        (["fleet/rpi4"], "one result is no comparison"),
        (["fleet/rpi4", "fleet/../fleet/rpi4"], "the folder is named twice"),
        (["fleet/rpi4", "fleet/pixel4", "-o", "thesis.txt"], "is not a page of"),
        (["fleet/rpi4", "fleet/pixel4", "-o", "empty"], "it is a folder"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(
    words: list[str], complaint: str, fleet: FleetResult, tmp_path: Path
) -> None:
    (tmp_path / "fleet").symlink_to(fleet.output)
    texts = {"broken": "{", "future": '{"schema": "ofa-report/9"}'}
    texts["short"] = '{"schema": "ofa-report/1"}'
    for name in ("empty", *texts):
        (tmp_path / name).mkdir()
    for name, text in texts.items():
        (tmp_path / name / "report.json").write_text(text)
    (tmp_path / "thesis.txt").write_text("precious")
    before = sorted(tmp_path.rglob("*"))
    result = command("ofa-specialize", "compare", *words, cwd=tmp_path)
    assert (result.returncode, result.stdout) == (2, ""), result.stderr
    assert complaint in result.stderr
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before
    assert (tmp_path / "thesis.txt").read_text() == "precious"


@given(st.lists(st.floats(0, 100), min_size=1, max_size=40))
def test_marks_stand_apart(places: list[float]) -> None:
    moved = apart(places, 0, 100)
    assert min(moved) >= -1e-9
    assert max(moved) <= 100 + 1e-9
    order = np.argsort(places, kind="stable")
    gaps = np.diff(np.array(moved)[order])
    assert (gaps >= min(4, 100 / len(places)) - 1e-9).all()
    if (np.diff(np.array(places)[order]) >= 4).all():
        assert moved == pytest.approx(np.clip(places, 0, 100))


@pytest.fixture
def shown(browser: Browser, fleet: FleetResult) -> Iterator[Page]:
    """The page from the disk; at the end, nothing else was asked for and nothing went wrong."""
    page = browser.new_page()
    asked: list[str] = []
    wrong: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: wrong.append(message.text))
    page.goto((fleet.output / "compare.html").as_uri())
    yield page
    page.close()
    assert (asked, wrong) == ([(fleet.output / "compare.html").as_uri()], [])


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_is_accessible_and_fits_a_phone(shown: Page, scheme: Any) -> None:
    from axe_playwright_python.sync_playwright import Axe

    shown.emulate_media(color_scheme=scheme)
    for width in (1100, 360):
        shown.set_viewport_size({"width": width, "height": 740})
        found = Axe().run(shown).response
        assert len(found["passes"]) > 15
        serious = [v for v in found["violations"] if v["impact"] in ("serious", "critical")]
        assert not serious, json.dumps(serious, indent=1)
        assert shown.evaluate("document.documentElement.scrollWidth") == width


@pytest.mark.slow
def test_one_for_all_keeps_the_memory_of_each(tiny: Path, tmp_path: Path) -> None:
    """A file of floats is larger than one of integers, which one of the devices takes."""
    source = read_checkpoint(tiny)
    size = flash_table(source.space, source.labels)
    result = specialize_fleet(
        ["pixel4-int8", "pixel4"], "5ms", flash="60kB", checkpoint=tiny, output=tmp_path / "out",
        candidates=1, threads=1,
    )  # fmt: skip
    of_int8, single = result.fleet.members[0].best, result.fleet.single
    assert single is not None
    archs = [Arch.parse(network.architecture) for network in (of_int8, single)]
    too_large, small = size.price(source.space.encode(archs))
    assert small <= 60e3 < too_large
