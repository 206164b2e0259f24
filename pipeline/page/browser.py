"""What the browser gets besides Gradio's own: the look, the camera's wishes, and scripts for its buttons."""

CAMERA = {"video": {"width": {"ideal": 640}, "height": {"ideal": 480}, "frameRate": {"ideal": 30}}}
CSS = """
.gradio-container {max-width: 1180px !important; min-width: 0 !important; margin: auto}
#source-gallery {min-height: 130px; min-width: 0}
#source-gallery .grid-container {grid-template-columns: repeat(auto-fill, 110px) !important; grid-auto-flow: row; min-width: 0}
#live-latency {min-height: 1.5em}
#live-output img {width: 100%; height: 100%; object-fit: contain}
.mirrored video, .mirrored img {transform: scaleX(-1)}
@media (max-width: 640px) { .gradio-container {padding: 6px !important} }
"""
# the page's own buttons work Gradio's camera controls: start opens the camera, waits for its picture and begins to stream
START = """
async () => {
  const root = document.querySelector('#live-camera');
  const wait = ms => new Promise(done => setTimeout(done, ms));
  if (!navigator.mediaDevices) {
    document.querySelector('#live-latency').innerText =
      'This browser gives no camera here: open the page as http://localhost or over https, or use the Video tab.';
    return;
  }
  document.querySelectorAll('#video-output video').forEach(film => film.pause());  // unseen, it would still be decoded
  const canvas = HTMLCanvasElement.prototype;
  if (!canvas.thriftily) {  // Gradio asks for a JPEG of the default quality, which is twice as large and as long in the making
    canvas.thriftily = canvas.toDataURL;
    canvas.toDataURL = function (kind, quality) { return this.thriftily(kind, quality ?? 0.8); };
  }
  const access = root.querySelector('[title="grant webcam access"] button');
  if (access) access.click();
  for (let i = 0; i < 300; i++) {
    const begin = root.querySelector('.button-wrap [title="start recording"]');
    const video = root.querySelector('video');
    if (root.querySelector('.button-wrap [title="stop recording"]')) return;
    if (begin && video && video.readyState >= 2 && video.videoWidth > 0) { begin.closest('button').click(); return; }
    await wait(50);
  }
  document.querySelector('#live-latency').innerText =
    'No picture came from a camera: not allowed, in use elsewhere, or none there. Allow it in the browser, then press start.';
}
"""
MIRROR = """
on => ['#live-camera', '#live-output'].forEach(place => document.querySelector(place).classList.toggle('mirrored', on))
"""
STOP = """
() => {
  const root = document.querySelector('#live-camera');
  const end = root.querySelector('.button-wrap [title="stop recording"]');
  if (end) end.closest('button').click();
  const video = root.querySelector('video');
  if (video && video.srcObject) video.srcObject.getTracks().forEach(track => track.stop());
}
"""
