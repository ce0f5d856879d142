"""``make demo``: a page on this machine that tags a sound and shows what each network saw.

It asks nothing of any other machine (no analytics, no fonts), answers this machine alone, and keeps
no sound once it has answered.
"""

from __future__ import annotations

import base64
import html
import importlib.util
import io
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import soundfile as sf

from freesound_tagging.errors import DataError
from freesound_tagging.learning.tagger import Tagger, Tags, read_settings
from freesound_tagging.sounds import microcalls
from freesound_tagging.sounds.clips import decode, seconds_of
from freesound_tagging.tag import NOT_KNOWN, describe_model, draw, newest_model

if TYPE_CHECKING:
    from gradio import Blocks
    from starlette.middleware import Middleware

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


def check_gradio() -> None:
    """Raise `DataError` where gradio is not installed."""
    if importlib.util.find_spec("gradio") is None:
        raise DataError("the page needs gradio, which is not installed: pip install -e '.[demo]'")


def read_upload(path: str | None) -> tuple[np.ndarray, int]:
    """Return an uploaded sound as `decode` does, and delete the file.

    Raises
    ------
    DataError
        Where there is none, it cannot be read, or it is longer than `LONGEST`. The message names no
        folder of the server.
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
    peak = float(np.abs(waveform).max()) or 1.0
    sf.write(content, waveform / max(peak, 1.0), sample_rate, format="WAV", subtype="PCM_16")
    data = base64.b64encode(content.getvalue()).decode()
    return f'<audio controls style="width:100%" src="data:audio/wav;base64,{data}"></audio>'


def sentence(representation: str, tags: Tags) -> str:
    """Say in one sentence what a network heard."""
    best = tags.best(1)[0]
    if not tags.is_known:
        return (
            f"{representation}: {NOT_KNOWN} (its best label has {best.probability:.2f}, less than "
            f"{tags.threshold:.2f})."
        )
    return f"{representation}: {best.label}, heard best at {best.start:.1f} to {best.end:.1f} s."


def build_page(folder: Path) -> Blocks:
    """Return the page for a model."""
    import gradio as gr

    taggers = {name: Tagger(folder, name) for name in read_settings(folder)["networks"]}

    def answer(waveform: np.ndarray, sample_rate: int, chosen: list[str]) -> list:
        if not chosen:
            raise DataError("Choose a representation.")
        tags = {name: taggers[name](waveform, sample_rate) for name in taggers if name in chosen}
        figure = draw(waveform, sample_rate, [(taggers[name], tags[name]) for name in tags])
        said = "\n\n".join(sentence(name, tags[name]) for name in tags)
        labels = [
            gr.Label(
                {tag.label: tag.probability for tag in tags[name].best(3)}
                if name in tags
                else None,
                visible=name in tags,
            )
            for name in taggers
        ]
        return [said, player(waveform, sample_rate), *labels, figure]

    def failed(error: DataError) -> list:
        return [f"**{html.escape(str(error))}**", "", *[None] * len(taggers), None]

    def tag_upload(path: str | None, chosen: list[str]) -> list:
        try:
            return [None, *answer(*read_upload(path), chosen)]
        except DataError as error:
            return [None, *failed(error)]

    def tag_example(label: str, chosen: list[str]) -> list:
        try:
            waveform = microcalls.synthesise(label, microcalls.clip_rng(0, label, UNSEEN))
            return answer(waveform, 22_050, chosen)
        except DataError as error:
            return failed(error)

    with gr.Blocks(
        title="Tag a sound", fill_width=True, analytics_enabled=False, delete_cache=(60, 60)
    ) as page:
        about = html.escape(describe_model(next(iter(taggers.values())))).replace("\n", "\n\n")
        gr.Markdown(f"# Tag a sound\n\n{about}")
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
                said = gr.Markdown(elem_id="said")
                heard = gr.HTML(elem_id="heard")
                labels = [
                    gr.Label(num_top_classes=3, label=name, elem_id=f"bars-{i}")
                    for i, name in enumerate(taggers)
                ]
        gr.Markdown("## What the networks saw")
        drawn = gr.Plot(show_label=False, elem_id="drawn")  # a label would cover the waveform
        outputs = [said, heard, *labels, drawn]
        button.click(tag_upload, [sound, chosen], [sound, *outputs], api_name=False)
        example.click(tag_example, [call, chosen], outputs, api_name=False)
    return page


def serve(folder: Path | None, port: int) -> None:
    """Serve the page of a model, by default the newest, on this machine alone, until Ctrl-C.

    Raises
    ------
    DataError
        Where gradio is not installed, there is no model, or the port is taken.
    """
    check_gradio()
    folder = folder or newest_model()
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
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
                app_kwargs={"middleware": [_policy()]},
            )
        except (OSError, OverflowError) as error:
            raise DataError(
                f"port {port} of this machine cannot be used; give another one with --port"
            ) from error


def _policy() -> Middleware:
    """Return what puts `_POLICY` on every answer of the server."""
    from starlette.middleware import Middleware

    class Policy:
        def __init__(self, app):
            self.app = app

        async def __call__(self, scope, receive, send) -> None:
            async def send_with_policy(message) -> None:
                if message["type"] == "http.response.start":
                    policy = (b"content-security-policy", _POLICY.encode())
                    message["headers"] = [*message.get("headers", []), policy]
                await send(message)

            await self.app(scope, receive, send_with_policy)

    return Middleware(Policy)
