"""The page in a real browser."""

import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

import igpt_jax as ig
from tests.ports import free_port

ROOT = pathlib.Path(__file__).parents[2]
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs the distribution's package chromium")


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """The address of a page with an autoregressive and a BERT model, and where it keeps uploads."""
    directory = tmp_path_factory.mktemp("demo")
    for name in ("ar", "bert"):
        options = {"resolution": 8, "vocabulary": 8, "layers": 1, "width": 16}
        ig.pretrain("digits", steps=2, workdir=directory / name, model=options, objective={"name": name})
    (directory / "tmp").mkdir()
    port = free_port()
    command = [sys.executable, "-m", "igpt_jax", "demo", f"--workdir={directory}/ar", f"--weights={directory}/bert"]
    environment = os.environ | {"TMPDIR": str(directory / "tmp"), "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        [*command, "--nobrowser", f"--port={port}"], env=environment, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == f"http://127.0.0.1:{port} completes pictures; Ctrl-C ends it\n"
        yield f"http://127.0.0.1:{port}", directory / "tmp"
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    assert not list((directory / "tmp").iterdir())  # no upload is left


@pytest.fixture
def page(served):
    """The page, on a screen as wide as a desktop's."""
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1400, "height": 1000})
        page.requested, page.failed = [], []
        page.on("request", lambda request: page.requested.append(request.url))
        page.on("console", lambda message: page.failed.append(message.text) if message.type == "error" else None)
        page.goto(served[0])
        page.wait_for_selector("#canvas canvas")
        page.wait_for_timeout(1500)  # until the canvas takes pictures
        yield page
        browser.close()


def complete(page):
    page.click("#complete")
    page.wait_for_selector("text=nats per pixel")
    return page.locator("#results figcaption").all_inner_texts()


def test_a_held_out_image_is_completed(page):
    page.locator("#examples button").first.click()
    page.wait_for_timeout(1000)
    captions = complete(page)
    assert captions[:5] == ["given", *(f"completion {i}" for i in range(1, 5))]
    assert [caption.split(",")[0] for caption in captions[5:9]] == [f"nearest to {i}" for i in range(1, 5)]
    assert len(captions) == 11
    assert page.failed == []
    assert all(url.startswith((page.url, "data:", "blob:")) for url in page.requested)  # nothing leaves this machine


def test_an_uploaded_file_is_completed_and_a_phone_can_show_it(page, tmp_path):
    page.set_viewport_size({"width": 390, "height": 844})
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)).save(tmp_path / "noise.png")
    page.locator("#canvas input[type=file]").first.set_input_files(tmp_path / "noise.png")
    page.wait_for_timeout(2000)
    assert len(complete(page)) == 11
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


def test_a_drawing_is_completed(page):
    box = page.locator("#canvas canvas").first.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.click("#canvas button[aria-label=Brush]")
    page.mouse.move(x - 60, y - 60)
    page.mouse.down()
    for offset in range(-60, 60, 10):
        page.mouse.move(x + offset, y + offset)
        page.wait_for_timeout(30)
    page.mouse.up()
    page.wait_for_timeout(1000)
    assert len(complete(page)) == 11


def test_without_a_picture_one_must_be_given_or_no_row(page):
    page.click("#complete")
    page.wait_for_selector("text=There is no picture yet")
    page.locator("input[type=number]").first.fill("0")
    page.locator("input[type=number]").first.press("Enter")
    assert complete(page)[-2].startswith("completion 1, ")


def test_a_bert_model_can_be_chosen_and_fills_a_square(page):
    page.get_by_label("Model").click()
    page.locator("[role=option]").nth(1).click()
    page.wait_for_selector("text=Rows around the hidden square, of 8")
    page.locator("#examples button").first.click()
    page.wait_for_timeout(1000)
    assert len(complete(page)) == 11


def test_only_this_machine_can_open_the_page(served):
    address = socket.gethostbyname(socket.gethostname())
    if address.startswith("127."):
        pytest.skip("this machine has no other address")
    port = int(served[0].rpartition(":")[2])
    with pytest.raises(OSError), socket.create_connection((address, port), timeout=5):  # noqa: PT011 - refused
        pass


def test_a_port_that_is_taken_is_refused_in_one_line(served):
    directory = served[1].parent
    port = served[0].rpartition(":")[2]
    command = [sys.executable, "-m", "igpt_jax", "demo", f"--workdir={directory}/ar", "--nobrowser", f"--port={port}"]
    refused = subprocess.run(command, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    assert refused.returncode == 2
    assert refused.stderr.splitlines()[-1] == (f"igpt_jax demo: port {port} of 127.0.0.1 is taken; give another --port")
