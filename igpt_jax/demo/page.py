"""The page: its parts, and what happens when its button is pressed."""

import base64
import html
import io
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import gradio as gr
import numpy as np
from PIL import Image

from igpt_jax.demo.player import Player
from igpt_jax.errors import InputError
from igpt_jax.generate.sample import Sampler
from igpt_jax.report.sheets import GRAY, enlarge

CANVAS = 320  # side of the canvas, in pixels of the screen
MOST_COMPLETIONS = 8
INTRODUCTION = """# Image GPT

Drop a picture or draw one, then press **Complete**. The model sees the picture at its own resolution and in its own
colors. It draws what is missing.
"""
CSS = """
footer { display: none !important; }
#examples img { image-rendering: pixelated; }
#examples .grid-container {
  grid-template-columns: repeat(6, minmax(0, 1fr)) !important;
  grid-auto-rows: auto !important;
  height: auto !important;
}
#examples .grid-wrap { height: auto !important; min-height: 0 !important; }
#examples .grid-container button { aspect-ratio: 1; height: auto; }
.pictures { display: flex; flex-wrap: wrap; gap: 12px; margin-bottom: 16px; }
.pictures figure { margin: 0; width: 104px; }
.pictures img { width: 104px; height: 104px; image-rendering: pixelated; border-radius: 6px; }
.pictures figcaption { font-size: 12px; opacity: 0.75; }
"""


def build(players: Mapping[str, Player]) -> gr.Blocks:
    """Builds the page for one or more models, by their names.

    It keeps nothing: gradio deletes what was uploaded after ten minutes.
    """
    first = next(iter(players))

    with gr.Blocks(title="Image GPT", analytics_enabled=False, delete_cache=(600, 600)) as page:
        gr.Markdown(INTRODUCTION)
        with gr.Row():
            with gr.Column(min_width=CANVAS):
                name = gr.Dropdown(list(players), value=first, label="Model", visible=len(players) > 1)
                canvas = gr.ImageEditor(
                    label="Picture",
                    sources=("upload", "clipboard"),
                    canvas_size=(CANVAS, CANVAS),
                    height=CANVAS + 100,
                    layers=False,
                    transforms=(),
                    brush=gr.Brush(default_size=24),
                    elem_id="canvas",
                )
                with gr.Column(visible=len(players[first].examples) > 0) as untouched:
                    gr.Markdown("Or take an image that the model has not been trained on:")
                    examples = gr.Gallery(
                        _shown(players[first].examples),
                        show_label=False,
                        container=False,
                        allow_preview=False,
                        buttons=[],
                        format="png",
                        elem_id="examples",
                    )
            with gr.Column(min_width=CANVAS, scale=2):
                given = gr.Slider(**_given(players[first]), step=1)
                n = gr.Slider(1, MOST_COMPLETIONS, 4, step=1, label="Completions")
                with gr.Accordion("Sampling", open=False):
                    temperature = gr.Slider(
                        0, 2, 1, step=0.1, label="Temperature", info="0 always takes the most likely color"
                    )
                    top_p = gr.Slider(
                        0.1, 1, 1, step=0.05, label="Top-p", info="Samples among the colors that hold this probability"
                    )
                    seed = gr.Number(0, label="Seed", precision=0, minimum=0, maximum=2**31 - 1)
                button = gr.Button("Complete", variant="primary", elem_id="complete")
                results = gr.HTML(elem_id="results")

        def choose_model(name: str) -> tuple[gr.Slider, gr.Column, gr.Gallery]:
            player = players[name]
            gallery = gr.Gallery(_shown(player.examples), selected_index=None)
            return gr.Slider(**_given(player)), gr.Column(visible=len(player.examples) > 0), gallery

        def choose_example(name: str, event: gr.SelectData) -> np.ndarray:
            return enlarge(players[name].examples[event.index], players[name].pixels)

        def complete(
            name: str,
            canvas: dict[str, Any] | None,
            given: int,
            n: int,
            temperature: float,
            top_p: float,
            seed: int,
        ) -> Iterator[str]:
            player, picture = players[name], _picture(canvas)
            if picture is None and (given or not player.causal):
                raise gr.Error(
                    "There is no picture yet. Drop one, draw one, or give 0 rows to have a new one sampled.",
                    print_exception=False,
                )
            r = player.pixels
            image = np.full((r, r, 3), GRAY) if picture is None else player.shrink(picture)
            shown = [(player.hide(image, given), "given")]
            try:
                sampler = Sampler(temperature, 0, top_p)
                for completions in player.complete(image, given, n, sampler, seed):
                    drawn = [(picture, f"completion {i}") for i, picture in enumerate(completions, start=1)]
                    sections = [_section("Completions", shown + drawn)]
                    yield sections[0]
            except InputError as error:
                raise gr.Error(str(error), print_exception=False) from error
            if near := player.neighbors(completions):
                caption = "nearest to {}, differs by {:.0f} of 255"
                sections.append(
                    _section(
                        "Are they copies? The nearest training image of each",
                        [(image, caption.format(i, distance)) for i, (image, distance) in enumerate(near, start=1)],
                    )
                )
            subject, what = (completions[0], "completion 1") if picture is None else (image, "the picture")
            nats, heat = player.surprise(subject)
            captions = (f"{what}, {nats.mean():.2f} nats per pixel", f"black: 0 nats, bright: {nats.max():.1f}")
            sections.append(_section("What surprises the model", list(zip((subject, heat), captions, strict=True))))
            yield "".join(sections)

        name.change(choose_model, name, [given, untouched, examples], api_visibility="private")
        examples.select(choose_example, name, canvas, api_visibility="private")
        button.click(
            complete,
            [name, canvas, given, n, temperature, top_p, seed],
            results,
            api_visibility="private",
            show_progress="minimal",
        )
    return page


def _given(player: Player) -> dict[str, Any]:
    """The slider of how much of a picture the model is given."""
    r = player.resolution
    if player.causal:
        return {"minimum": 0, "maximum": r - 1, "value": r // 2, "label": f"Rows given, of {r}"}
    return {"minimum": 1, "maximum": r - 1, "value": r // 2, "label": f"Rows around the hidden square, of {r}"}


def _picture(canvas: dict[str, Any] | None) -> np.ndarray | None:
    """What is on the canvas, (h, w, 4) uint8 RGBA; None if that is nothing."""
    composite = canvas["composite"] if canvas else None
    return composite if composite is not None and composite[..., 3].any() else None


def _shown(images: np.ndarray) -> list[np.ndarray]:
    return [enlarge(image, image.shape[0]) for image in images]


def _section(title: str, pictures: Sequence[tuple[np.ndarray, str]]) -> str:
    """Pictures with captions, (h, w, 3) uint8 RGB each, as HTML that holds them."""
    figures = []
    for picture, caption in pictures:
        png = io.BytesIO()
        Image.fromarray(picture).save(png, "PNG")
        source = f"data:image/png;base64,{base64.b64encode(png.getvalue()).decode()}"
        words = html.escape(caption)
        figures.append(f'<figure><img src="{source}" alt="{words}"><figcaption>{words}</figcaption></figure>')
    return f'<h3>{html.escape(title)}</h3><div class="pictures">{"".join(figures)}</div>'
