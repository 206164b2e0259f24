// Lamps around a head, put where they are wanted by dragging or by arrow keys: the body of a function that Gradio calls once with
// `element`, `trigger`, `props` and `watch`. The disc is all directions laid flat: its middle is the camera, the dashed ring beside the head,
// its rim behind it. `props.value` is a list of {direction: [x, y, z], color: linear [r, g, b], intensity}, +x right, +y down, +z away.
const SVG = 'http://www.w3.org/2000/svg', MOST = 4, STEP = Math.PI / 36;
const board = element.querySelector('svg'), place = element.querySelector('.lamps');
const strength = element.querySelector('[name=strength]'), colour = element.querySelector('[name=colour]');
const desk = element.querySelector('.desk'), add = element.querySelector('.add'), drop = element.querySelector('.drop');
let lamps = [], chosen = -1;

const linear = code => (code <= 0.04045 ? code / 12.92 : ((code + 0.055) / 1.055) ** 2.4);
const direction = ({ x, y }) => {
  const r = Math.hypot(x, y), angle = Math.min(r, 1) * Math.PI;
  const side = r > 1e-6 ? Math.sin(angle) / r : 0;
  return [x * side, y * side, -Math.cos(angle)].map(v => Math.round(v * 1e4) / 1e4);
};
const light = lamp => ({
  direction: direction(lamp),
  color: [1, 3, 5].map(k => Math.round(1e4 * linear(parseInt(lamp.colour.slice(k, k + 2), 16) / 255)) / 1e4),
  intensity: lamp.strength,
});
const where = ({ x, y }) => {
  const [dx, dy, dz] = direction({ x, y }), degrees = v => Math.round((v * 180) / Math.PI);
  const side = degrees(Math.atan2(dx, -dz)), up = degrees(Math.asin(Math.max(-1, Math.min(1, -dy))));
  return `${Math.abs(side)} degrees to the ${side < 0 ? 'left' : 'right'}, ${Math.abs(up)} ${up < 0 ? 'below' : 'above'}`;
};

function told() {
  props.value = lamps.map(light);
  trigger('input');
}

function draw() {
  while (place.childElementCount > lamps.length) place.lastChild.remove();
  while (place.childElementCount < lamps.length) {
    const dot = document.createElementNS(SVG, 'circle');
    dot.setAttribute('tabindex', '0');
    dot.setAttribute('role', 'slider');
    place.append(dot);
  }
  lamps.forEach((lamp, k) => {
    const dot = place.children[k];
    dot.setAttribute('cx', lamp.x);
    dot.setAttribute('cy', lamp.y);
    dot.setAttribute('r', 0.06 + 0.02 * Math.min(lamp.strength, 3));
    dot.setAttribute('fill', lamp.colour);
    dot.setAttribute('aria-label', `Lamp ${k + 1}; arrow keys move it`);
    dot.setAttribute('aria-valuenow', Math.round(100 * Math.hypot(lamp.x, lamp.y)));
    dot.setAttribute('aria-valuetext', where(lamp));
    dot.classList.toggle('chosen', k === chosen);
  });
  const lamp = lamps[chosen];
  add.disabled = lamps.length >= MOST;
  drop.disabled = strength.disabled = colour.disabled = !lamp;
  if (lamp) {
    strength.value = lamp.strength;
    colour.value = lamp.colour;
  }
}

function choose(k) {
  chosen = k;
  draw();
}

function move(k, x, y) {
  const r = Math.hypot(x, y);
  if (r > 1) (x /= r), (y /= r);
  Object.assign(lamps[k], { x, y });
  draw();
  told();
}

const number = event => [...place.children].indexOf(event.target);
place.addEventListener('focusin', event => choose(number(event)));
place.addEventListener('pointerdown', event => {
  event.preventDefault();
  event.target.focus();
  event.target.setPointerCapture(event.pointerId);
});
place.addEventListener('pointermove', event => {
  const k = number(event);
  if (k < 0 || !event.target.hasPointerCapture(event.pointerId)) return;
  const at = new DOMPoint(event.clientX, event.clientY).matrixTransform(board.getScreenCTM().inverse());
  move(k, at.x, at.y);
});
place.addEventListener('keydown', event => {
  const k = number(event), way = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
  if (k < 0) return;
  if (way) move(k, lamps[k].x + (way[0] * STEP) / Math.PI, lamps[k].y + (way[1] * STEP) / Math.PI);
  else if (event.key === 'Delete' || event.key === 'Backspace') drop.click();
  else return;
  event.preventDefault();
});
add.addEventListener('click', () => {
  lamps.push({ x: [-0.3, 0.3, 0, 0][lamps.length], y: [-0.15, -0.15, -0.35, 0.3][lamps.length], colour: '#ffffff', strength: 1 });
  choose(lamps.length - 1);
  place.children[chosen].focus();
  told();
});
drop.addEventListener('click', () => {
  if (chosen < 0) return;
  lamps.splice(chosen, 1);
  choose(lamps.length - 1);
  told();
});
desk.addEventListener('input', () => {
  if (chosen < 0) return;
  Object.assign(lamps[chosen], { strength: Number(strength.value), colour: colour.value });
  draw();
  told();
});
draw();
