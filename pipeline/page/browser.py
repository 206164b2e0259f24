"""What the browser gets besides Gradio's own: the look, the script of the Live tab, and its two views."""

from pathlib import Path

CAMERA = {"video": {"width": {"ideal": 640}, "height": {"ideal": 480}, "frameRate": {"ideal": 30}}}
CSS = """
.gradio-container {max-width: 1180px !important; min-width: 0 !important; margin: auto}
#source-gallery {min-height: 130px; min-width: 0}
#source-gallery .grid-container {grid-template-columns: repeat(auto-fill, 110px) !important; grid-auto-flow: row; min-width: 0}
.view {position: relative; background: var(--background-fill-secondary); border: 1px solid var(--border-color-primary);
       border-radius: var(--block-radius); overflow: hidden; height: var(--view-height, 380px)}
.view video, .view img {width: 100%; height: 100%; object-fit: contain; display: block}
.view figcaption {position: absolute; top: 0; left: 0; padding: 2px 8px; font-size: 12px; z-index: 1;
                  background: var(--background-fill-primary); color: var(--body-text-color);
                  border-bottom-right-radius: var(--block-radius)}
.view select, .view button {position: absolute; right: 6px; top: 6px; z-index: 1; max-width: 60%; padding: 2px 6px;
                            background: var(--background-fill-primary); color: var(--body-text-color); font-size: 12px;
                            border: 1px solid var(--border-color-primary); border-radius: 4px}
.view select[hidden] {display: none}
#live-output img.clear {background: repeating-conic-gradient(#8883 0 25%, transparent 0 50%) 0 0 / 24px 24px}
.mirrored video, .mirrored img {transform: scaleX(-1)}
#live-latency {min-height: 1.5em}
@media (max-width: 640px) { .gradio-container {padding: 6px !important} .view {height: 280px} }
"""
HEAD = f"<script>{(Path(__file__).parent / 'live.js').read_text()}</script>"
START = "() => understudy.start()"
CONNECT = "ticket => understudy.connect(ticket)"
STOP = "() => understudy.stop()"
MIRROR = """
on => ['#live-camera', '#live-output'].forEach(place => document.querySelector(place).classList.toggle('mirrored', on))
"""
CAMERA_VIEW = """
<figure class="view" style="--view-height: 300px"><figcaption>You</figcaption>
<video muted autoplay playsinline aria-label="What your camera sees"></video>
<select hidden aria-label="Which camera"></select></figure>
"""


def output_view(picture: str) -> str:
    """What is made of it, with a picture (a URL) to begin with."""
    return f"""
<figure class="view" style="--view-height: 440px"><figcaption>Result</figcaption>
<img alt="The chosen portrait, moved by you" src="{picture}">
<button onclick="this.parentElement.requestFullscreen()">Full screen</button></figure>
"""
