"""``make demo``: a page on this machine that tags a sound and shows what each network saw.

It asks nothing of any other machine (no analytics, no fonts), answers this machine alone, and keeps
no sound once it has answered. Labels, names and messages are escaped: they come from users.
"""

import base64
import html
import importlib.util
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

from freesound_tagging.errors import DataError
from freesound_tagging.learning.tagger import Tagger, read_settings
from freesound_tagging.tag import NOT_KNOWN, describe_model, draw_file, newest_model

# Whatever gradio's page may ask of other machines, the browser does not ask it.
_POLICY = (
    "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; "
    "frame-ancestors 'self'; form-action 'self'"
)


def answer(path: str | None, taggers: Sequence[Tagger]) -> str:
    """Return HTML: an uploaded sound, and what each network heard and saw; the file is deleted."""
    if not path:
        return _paragraph("Record or upload a sound first.")
    file = Path(path)
    try:
        said = f'<audio controls src="data:audio/wav;base64,{_base64(file.read_bytes())}"></audio>'
        for tagger in taggers:
            tags = tagger.tag_file(file)
            known = "" if tags.is_known else f": {NOT_KNOWN}"
            said += _paragraph(f"{tagger.representation}{known}")
            for tag in tags.best(3):
                words = f"{tag.label}, heard best at {tag.start:.1f} to {tag.end:.1f} s"
                meter = f"<meter value={tag.probability:.3f}></meter> {tag.probability:.0%}"
                said += f"<div>{meter} {html.escape(words)}</div>"
            image = _base64(draw_file(tagger, tags, file))
            said += f'<img src="data:image/png;base64,{image}">'
        return said
    except DataError as error:
        return _paragraph(str(error).replace(str(file), file.name))  # no folder is named
    finally:
        file.unlink(missing_ok=True)


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()


def _paragraph(text: str) -> str:
    """Return HTML that shows a text as it is."""
    return f"<p>{html.escape(text)}</p>"


def build_page(folder: Path):
    """Return the page for a model, gradio's Blocks."""
    import gradio as gr

    taggers = [Tagger(folder, name) for name in read_settings(folder).networks]
    with gr.Blocks(title="Tag a sound", fill_width=True, analytics_enabled=False) as page:
        about = "".join(map(_paragraph, describe_model(taggers[0]).split("\n")))
        gr.HTML(f"<h1>Tag a sound</h1>{about}")
        sound = gr.Audio(type="filepath", label="Record or upload a sound", elem_id="sound")
        button = gr.Button("Tag it", variant="primary", elem_id="tag")
        said = gr.HTML(elem_id="said")
        button.click(lambda path: (None, answer(path, taggers)), sound, [sound, said])
    return page


def serve(folder: Path | None, port: int) -> None:
    """Serve the page of a model, by default the newest, on this machine alone, until Ctrl-C."""
    if not importlib.util.find_spec("gradio"):
        raise DataError("the page needs gradio, which is not installed: pip install -e '.[demo]'")
    from starlette.middleware import Middleware
    from starlette.middleware.base import BaseHTTPMiddleware

    folder = folder or newest_model()
    # Gradio asks this machine whether the page is there, and nobody else.
    os.environ |= {"no_proxy": "*", "HF_HUB_DISABLE_TELEMETRY": "1"}
    with tempfile.TemporaryDirectory(prefix="tag-a-sound-") as uploads:
        os.environ["GRADIO_TEMP_DIR"] = uploads
        page = build_page(folder)
        try:
            page.launch(
                server_name="127.0.0.1",
                server_port=port,
                share=False,
                ssr_mode=False,
                max_file_size="20mb",
                footer_links=[],
                app_kwargs={"middleware": [Middleware(BaseHTTPMiddleware, dispatch=_add_policy)]},
            )
        except (OSError, OverflowError) as error:
            raise DataError(f"port {port} of this machine cannot be used; try --port") from error


async def _add_policy(request, call_next):
    """Put `_POLICY` on an answer of the server."""
    response = await call_next(request)
    response.headers["content-security-policy"] = _POLICY
    return response
