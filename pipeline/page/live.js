// The Live tab in the browser: camera frames go out and pictures come in over a socket, beside the page's own thread.
//
// Both ways the newest wins, and neither side sends more than the other has said it can take: nothing piles up.
// A message with a frame or a picture is its moments in this page's milliseconds (float64, little-endian), then a JPEG (a PNG where it is
// transparent); all other messages are JSON.
window.understudy = (() => {
  const $ = place => document.querySelector(place);
  const CAMERA = { width: { ideal: 640 }, frameRate: { ideal: 30 } }; // a height would have upright pictures cropped
  const AGAIN = 1000; // ms between looks for a camera that is gone
  let run = null; // what is going on between start and stop
  let chosen = null; // the camera's id, where the visitor has picked one

  // runs in a worker
  function traffic() {
    const QUALITY = 0.8, LONGEST = 640, HEADER = 16;
    const now = () => performance.timeOrigin + performance.now();
    let socket = null, credit = 0, waiting = null, busy = false, sheet = null, pen = null, reader = null;

    function drop() {
      waiting?.picture.close();
      waiting = null;
    }

    async function send() {
      if (busy || !waiting || credit < 1 || socket?.readyState !== WebSocket.OPEN) return;
      busy = true;
      const { picture, taken } = waiting;
      waiting = null;
      try {
        const wide = picture.displayWidth ?? picture.width, high = picture.displayHeight ?? picture.height;
        const scale = Math.min(1, LONGEST / Math.max(wide, high));
        const size = [Math.round(wide * scale), Math.round(high * scale)];
        if (!sheet || sheet.width !== size[0] || sheet.height !== size[1]) {
          sheet = new OffscreenCanvas(...size);
          pen = sheet.getContext('2d', { alpha: false, willReadFrequently: true });
        }
        pen.drawImage(picture, 0, 0, ...size);
        picture.close();
        const jpeg = await (await sheet.convertToBlob({ type: 'image/jpeg', quality: QUALITY })).arrayBuffer();
        const message = new Uint8Array(HEADER + jpeg.byteLength);
        const moments = new DataView(message.buffer);
        moments.setFloat64(0, taken, true);
        moments.setFloat64(8, now() - taken, true);
        message.set(new Uint8Array(jpeg), HEADER);
        credit -= 1;
        socket.send(message);
      } finally {
        busy = false;
      }
      send();
    }

    function offer(picture, taken) {
      drop();
      waiting = { picture, taken };
      send();
    }

    async function read(frames) {
      const mine = (reader = frames.getReader());
      for (;;) {
        const { value, done } = await mine.read();
        if (done) return;
        if (reader === mine) offer(value, now());
        else value.close();
      }
    }

    function open(address) {
      socket = new WebSocket(address);
      socket.binaryType = 'arraybuffer';
      socket.onmessage = ({ data }) => {
        if (typeof data !== 'string') {
          const taken = new DataView(data).getFloat64(0, true);
          const file = new Uint8Array(data, 8);
          postMessage({ picture: new Blob([file], { type: file[0] === 0x89 ? 'image/png' : 'image/jpeg' }), taken });
          return;
        }
        const told = JSON.parse(data);
        if (told.credit) {
          credit += told.credit;
          send();
        } else postMessage(told);
      };
      socket.onclose = () => postMessage({ closed: true });
    }

    onmessage = ({ data }) => {
      if (data.address) open(data.address);
      else if (data.frames) read(data.frames);
      else if (data.frame) offer(data.frame, data.taken);
      else if (socket?.readyState === WebSocket.OPEN) socket.send(JSON.stringify(data));
    };
  }

  function say(words) {
    $('#live-latency').innerText = words;
  }

  function why(error) {
    if (error.name === 'NotAllowedError') return 'The camera was not allowed. Allow it in the browser, then press Start.';
    if (error.name === 'NotFoundError') return 'No camera was found. Plug one in, then press Start.';
    if (error.name === 'NotReadableError') return 'The camera is busy: another program uses it. Close that, then press Start.';
    return `No picture came from a camera (${error.message || error.name}). Look after it, then press Start.`;
  }

  async function open(mine) {
    const wanted = chosen ? { ...CAMERA, deviceId: { exact: chosen } } : CAMERA;
    const stream = await navigator.mediaDevices.getUserMedia({ video: wanted, audio: false });
    if (run !== mine) return release(stream); // stopped meanwhile
    if (mine.stream) release(mine.stream);
    mine.stream = stream;
    const track = stream.getVideoTracks()[0];
    const video = $('#live-camera video');
    video.srcObject = stream;
    video.play().catch(() => {});
    track.onended = () => lost(mine);
    film(mine, track, video);
    list(track).catch(() => {});
  }

  // hands the camera's frames to the worker
  function film(mine, track, video) {
    if ('MediaStreamTrackProcessor' in window) {
      const { readable } = new MediaStreamTrackProcessor({ track, maxBufferSize: 2 });
      mine.worker.postMessage({ frames: readable }, [readable]);
      return;
    }
    const next = async (moment, about) => {
      if (run !== mine || mine.stream.getVideoTracks()[0] !== track) return;
      const frame = await createImageBitmap(video).catch(() => null);
      const taken = performance.timeOrigin + (about?.captureTime ?? moment);
      if (frame) mine.worker.postMessage({ frame, taken }, [frame]);
      await_next();
    };
    const await_next = () => video.requestVideoFrameCallback?.(next) ?? requestAnimationFrame(next);
    await_next();
  }

  async function lost(mine) {
    say('The camera is gone. It is looked for again.');
    while (run === mine) {
      await new Promise(done => setTimeout(done, AGAIN));
      try {
        if (run === mine) return await open(mine);
      } catch {
        chosen = null; // any other will do
      }
    }
  }

  // the cameras to choose from, where there are several
  async function list(track) {
    const cameras = (await navigator.mediaDevices.enumerateDevices()).filter(device => device.kind === 'videoinput');
    const menu = $('#live-camera select');
    menu.hidden = cameras.length < 2;
    menu.replaceChildren(...cameras.map((camera, k) => new Option(camera.label || `Camera ${k + 1}`, camera.deviceId)));
    menu.value = track.getSettings().deviceId;
    menu.onchange = () => {
      chosen = menu.value;
      if (run) open(run).catch(error => say(why(error)));
    };
  }

  function release(stream) {
    stream?.getTracks().forEach(track => {
      track.onended = null;
      track.stop();
    });
  }

  // one picture at a time is decoded; the newest waits
  function show(mine, picture, taken) {
    mine.next = { picture, taken };
    if (mine.showing) return;
    mine.showing = true;
    const { picture: blob, taken: moment } = mine.next;
    mine.next = null;
    const image = $('#live-output img');
    const url = URL.createObjectURL(blob);
    const done = () => {
      image.onload = image.onerror = null;
      if (mine.url) URL.revokeObjectURL(mine.url);
      mine.url = url;
      mine.showing = false;
      const age = performance.timeOrigin + performance.now() - moment;
      mine.worker.postMessage({ shown: Number.isFinite(age) ? age : null });
      if (mine.next && run === mine) show(mine, mine.next.picture, mine.next.taken);
    };
    image.onload = image.onerror = done;
    image.classList.toggle('clear', blob.type === 'image/png'); // a chequered ground shows what is transparent
    image.src = url;
  }

  // at once, so that the visitor is asked for the camera while the engine gets ready
  function start() {
    if (!navigator.mediaDevices) {
      say('This browser gives no camera here: open the page as http://localhost or over https, or use the Video tab.');
      return;
    }
    stop();
    document.querySelectorAll('#video-output video').forEach(film => film.pause()); // unseen, it would still be decoded
    say('Getting ready.');
    const mine = (run = { worker: new Worker(URL.createObjectURL(new Blob([`(${traffic})()`], { type: 'text/javascript' }))) });
    mine.opened = open(mine).then(() => null, why);
    mine.worker.onmessage = ({ data }) => {
      if (run !== mine) return;
      if (data.picture) show(mine, data.picture, data.taken);
      else if (data.words) say(data.words);
      else if (data.closed) {
        stop();
        say(mine.last ?? 'The connection is lost. Press Start again.');
      } else if (data.over) mine.last = data.over;
    };
  }

  // once the engine is ready
  async function connect(ticket) {
    const mine = run;
    if (!mine || !ticket) return;
    const base = new URL('.', location.href);
    base.protocol = base.protocol === 'https:' ? 'wss:' : 'ws:';
    mine.worker.postMessage({ address: new URL(`live/${ticket}`, base).href });
    const failed = await mine.opened;
    if (failed && run === mine) {
      stop();
      say(failed);
    }
  }

  function stop() {
    const mine = run;
    run = null;
    release(mine?.stream);
    mine?.worker.terminate();
    const video = $('#live-camera video');
    if (video) video.srcObject = null;
    say('The camera is off. Press Start and allow the camera.');
  }

  return { start, connect, stop };
})();
