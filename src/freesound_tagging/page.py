"""``make demo``: a page on this machine that tags a sound and shows what each network saw.

It asks nothing of any other machine (no analytics, no fonts), answers this machine alone, and keeps
no sound once it has answered. Labels, names and messages are escaped: they come from users.
"""

from __future__ import annotations

import base64
import html
import io
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import soundfile as sf

from freesound_tagging.errors import DataError
from freesound_tagging.learning.tagger import Tagger, Tags, read_settings
from freesound_tagging.sounds import microcalls
from freesound_tagging.sounds.clips import decode, seconds_of
from freesound_tagging.tag import NOT_KNOWN, as_png, describe_model, newest_model

if TYPE_CHECKING:
    from gradio import Blocks

LONGEST = 60.0
"""Seconds of a sound that the page takes."""

LARGEST_MB = 20
"""Size of a file that the page takes."""

UNSEEN = 10_000
"""Number of the generated clips that are offered as examples: no corpus has so many."""

# Whatever gradio's page may ask of other machines, the browser does not ask it.
_POLICY = (
    "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; "
    "frame-ancestors 'self'; form-action 'self'"
)


def read_upload(path: str | None) -> tuple[np.ndarray, int]:
    """Return an uploaded sound as `decode` does, and delete the file.

    What is said where it cannot be read, or is longer than `LONGEST`, names no folder here.
    """
    if not path:
        raise DataError("Record or upload a sound first.")
    file = Path(path)
    try:
        seconds = seconds_of(file)
        if seconds is not None and seconds > LONGEST:
            raise DataError(
                f"{file.name} lasts {seconds:.0f} s; this page takes up to {LONGEST:.0f} s. The "
                "command freesound-tagging tag takes longer ones."
            )
        return decode(file)
    except DataError as error:
        raise DataError(str(error).replace(str(file), file.name)) from error
    finally:
        file.unlink(missing_ok=True)


def player(waveform: np.ndarray, sample_rate: int) -> str:
    """Return HTML that plays a waveform; the sound is in the page itself, in no file."""
    content = io.BytesIO()
    scaled = waveform / max(float(np.abs(waveform).max()), 1.0)
    sf.write(content, scaled, sample_rate, format="WAV", subtype="PCM_16")
    data = base64.b64encode(content.getvalue()).decode()
    return f'<audio controls style="width:100%" src="data:audio/wav;base64,{data}"></audio>'


def paragraphs(*lines: str) -> str:
    """Return HTML that shows lines of text as they are."""
    return "".join(f"<p>{html.escape(line)}</p>" for line in lines)


def sentence(representation: str, tags: Tags) -> str:
    """Say in one sentence what a network heard."""
    best = tags.best(1)[0]
    heard = f"{best.label}, heard best at {best.start:.1f} to {best.end:.1f} s."
    return f"{representation}: {heard if tags.is_known else f'{NOT_KNOWN}; nearest: {heard}'}"


def build_page(folder: Path) -> Blocks:
    """Return the page for a model."""
    import gradio as gr

    taggers = {name: Tagger(folder, name) for name in read_settings(folder).networks}

    def answer(get_sound: Callable[[], tuple[np.ndarray, int]], chosen: list[str]) -> list:
        try:
            waveform, rate = get_sound()
            if not chosen:
                raise DataError("Choose a representation.")
            tags = {name: taggers[name](waveform, rate) for name in taggers if name in chosen}
        except DataError as error:
            return [paragraphs(str(error)), "", *[None] * len(taggers), ""]
        said = paragraphs(*(sentence(name, tags[name]) for name in tags))
        top = {name: {tag.label: tag.probability for tag in tags[name].best(3)} for name in tags}
        bars = [gr.Label(top.get(name), visible=name in top) for name in taggers]
        png = as_png(waveform, rate, [(taggers[name], tags[name]) for name in tags])
        data = base64.b64encode(png).decode()
        return [said, player(waveform, rate), *bars, f'<img src="data:image/png;base64,{data}">']

    def tag_upload(path: str | None, chosen: list[str]) -> list:
        return [None, *answer(lambda: read_upload(path), chosen)]

    def tag_example(label: str, chosen: list[str]) -> list:
        rng = microcalls.clip_rng(0, label, UNSEEN)
        return answer(lambda: (microcalls.synthesise(label, rng), 22_050), chosen)

    with gr.Blocks(
        title="Tag a sound", fill_width=True, analytics_enabled=False, delete_cache=(60, 60)
    ) as page:
        about = describe_model(next(iter(taggers.values()))).split("\n")
        gr.HTML(f"<h1>Tag a sound</h1>{paragraphs(*about)}")
        with gr.Row():
            with gr.Column():
                sound = gr.Audio(
                    sources=["upload", "microphone"],
                    type="filepath",
                    label=f"Record or upload a sound, up to {LONGEST:.0f} s",
                    elem_id="sound",
                )
                chosen = gr.CheckboxGroup(
                    list(taggers), value=list(taggers), label="Representation"
                )
                button = gr.Button("Tag it", variant="primary", elem_id="tag")
                call = gr.Dropdown(list(microcalls.CALLS), label="Or a generated sound")
                example = gr.Button("Tag this one", elem_id="example")
            with gr.Column():
                said = gr.HTML(elem_id="said")
                heard = gr.HTML(elem_id="heard")
                bars = [
                    gr.Label(num_top_classes=3, label=name, elem_id=f"bars-{i}")
                    for i, name in enumerate(taggers)
                ]
        gr.HTML("<h2>What the networks saw</h2>")
        drawn = gr.HTML(elem_id="drawn")
        outputs = [said, heard, *bars, drawn]
        button.click(tag_upload, [sound, chosen], [sound, *outputs], api_name=False)
        example.click(tag_example, [call, chosen], outputs, api_name=False)
    return page


def serve(folder: Path | None, port: int) -> None:
    """Serve the page of a model, by default the newest, on this machine alone, until Ctrl-C."""
    try:
        from starlette.middleware import Middleware
        from starlette.middleware.base import BaseHTTPMiddleware
    except ImportError as error:
        raise DataError(
            "the page needs gradio, which is not installed: pip install -e '.[demo]'"
        ) from error
    folder = folder or newest_model()
    for variable in [name for name in os.environ if name.lower().endswith("_proxy")]:
        del os.environ[variable]  # gradio asks this machine whether the page is there, nobody else
    os.environ |= {"no_proxy": "*", "GRADIO_ANALYTICS_ENABLED": "False"}
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    with tempfile.TemporaryDirectory(prefix="tag-a-sound-") as uploads:
        os.environ["GRADIO_TEMP_DIR"] = uploads
        try:
            build_page(folder).launch(
                server_name="127.0.0.1",
                server_port=port,
                share=False,
                ssr_mode=False,
                max_file_size=f"{LARGEST_MB}mb",
                footer_links=[],
                app_kwargs={"middleware": [Middleware(BaseHTTPMiddleware, dispatch=_add_policy)]},
            )
        except (OSError, OverflowError) as error:
            raise DataError(
                f"port {port} of this machine cannot be used; give another one with --port"
            ) from error


async def _add_policy(request, call_next):
    """Put `_POLICY` on an answer of the server."""
    response = await call_next(request)
    response.headers["content-security-policy"] = _POLICY
    return response
