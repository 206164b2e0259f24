"""What the browser gets besides Gradio's own: the look, the scripts, the Live tab's two views and the Relight tab's."""

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
.compare {touch-action: none}
.compare img {position: absolute; inset: 0}
.compare img:not([src]) {display: none}
.compare .before {clip-path: inset(0 calc(100% - var(--cut, 50%)) 0 0)}
.compare .after {background: repeating-conic-gradient(#8883 0 25%, transparent 0 50%) 0 0 / 24px 24px}
.compare i {position: absolute; top: 0; bottom: 0; left: var(--cut, 50%); width: 2px; margin-left: -1px; background: #fffc;
            box-shadow: 0 0 3px #000; pointer-events: none}
.compare input {position: absolute; inset: 0; width: 100%; height: 100%; margin: 0; opacity: 0; cursor: ew-resize; z-index: 1}
.compare:focus-within {outline: 2px solid var(--color-accent)}
.compare figcaption + figcaption {left: auto; right: 0}
.sphere {display: flex; gap: 10px; flex-wrap: wrap; align-items: center}
.sphere svg {width: 170px; height: 170px; touch-action: none; flex: none}
.sphere .all {fill: url(#sphere-shade)}
.sphere .side {fill: none; stroke: #fff9; stroke-width: .01; stroke-dasharray: .04 .04}
.sphere .face {fill: #fff3; stroke: #fff9; stroke-width: .01}
.sphere .lamps circle {stroke: #000; stroke-width: .015; cursor: grab; outline: none} /* it would be a disc wide */
.sphere .lamps .chosen {stroke: var(--color-accent); stroke-width: .03}
.sphere .lamps .chosen:focus {stroke-width: .05}
.sphere .desk {display: grid; gap: 6px; font-size: 13px; flex: 1; min-width: 130px}
.sphere label {display: grid; gap: 2px}
.sphere button {padding: 4px 10px; border: 1px solid var(--border-color-primary); border-radius: 6px;
                background: var(--button-secondary-background-fill); color: var(--body-text-color)}
.sphere button:disabled {opacity: .4}
.sphere input[type=color] {width: 100%; height: 26px; padding: 0}
@media (max-width: 640px) { .gradio-container {padding: 6px !important} .view {height: 280px} }
"""
_HERE = Path(__file__).parent
HEAD = f"<script>{(_HERE / 'live.js').read_text()}</script>"
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


LAMPS_SCRIPT = (_HERE / "lamps.js").read_text()
LAMPS_VIEW = """
<div class="sphere">
<svg viewBox="-1.1 -1.1 2.2 2.2" role="group" aria-label="Lamps around the head: the middle is at the camera, the rim behind">
<defs><radialGradient id="sphere-shade" cx=".5" cy=".45"><stop offset="0" stop-color="#8b93a7"/>
<stop offset="1" stop-color="#232838"/></radialGradient></defs>
<circle class="all" r="1"/><circle class="side" r=".5"/><ellipse class="face" rx=".13" ry=".18"/>
<path class="face" d="M0 -.04 L.03 .05 L-.03 .05 Z"/><g class="lamps"></g></svg>
<div class="desk"><button type="button" class="add">Add a lamp</button>
<button type="button" class="drop">Remove this lamp</button>
<label>Strength<input name="strength" type="range" min="0" max="4" step="0.05" value="1"></label>
<label>Colour<input name="colour" type="color" value="#ffffff"></label></div></div>
"""
COMPARE_VIEW = """
<figure class="view compare" style="--view-height: 440px"><figcaption>As it was</figcaption><figcaption>Relit</figcaption>
<img class="after" alt="The picture relit"><img class="before" alt="The picture as it was"><i></i>
<input type="range" min="0" max="100" value="50" step="0.5" aria-label="How much is shown as it was"></figure>
"""
# a value {before, after} holds pictures' addresses; one that is null stays
COMPARE = """
const figure = element.querySelector('figure'), range = element.querySelector('input');
range.addEventListener('input', () => figure.style.setProperty('--cut', `${range.value}%`));
const show = () => ['before', 'after'].forEach(name => {
  const address = props.value?.[name];
  if (address) element.querySelector(`.${name}`).src = address;
});
watch('value', show);
show();
"""
