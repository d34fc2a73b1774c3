// Panes of text: only the lines in view are in the document. What belongs together is decided by `lights`.
const ROW = 17;

// A selection is a line of the source, a place (a line and a layer: many layers may stand on one line) or a kernel.
let LINES = [];                     // the number of the line that each place is on
const chosen = { kind: null, number: -1 };
const listeners = [];
function choose(kind, number) {
  if (chosen.kind === kind && chosen.number === number) kind = null;
  chosen.kind = kind; chosen.number = kind ? number : -1;
  listeners.forEach(f => f());
}
function lights(locs, kernels) {
  if (chosen.kind === "line") return locs.some(l => LINES[l] === chosen.number);
  if (chosen.kind === "loc") return locs.includes(chosen.number);
  if (chosen.kind === "kernel") return kernels.includes(chosen.number);
  return false;
}

function el(tag, attributes = {}, ...children) {
  const e = document.createElement(tag);
  for (const [k, v] of Object.entries(attributes)) {
    if (k.startsWith("on")) e.addEventListener(k.slice(2), v);
    else if (v === true) e.setAttribute(k, "");
    else if (v !== false && v != null) e.setAttribute(k, v);
  }
  e.append(...children.filter(c => c != null));
  return e;
}

// Lines `texts[i]` that belong to `locs[i]`, `kernels[i]`; `prefer`: what a click on a line means first.
class CodePane {
  constructor(name, texts, locs, kernels, prefer) {
    Object.assign(this, { name, texts, locs, kernels, prefer, here: -1, found: [] });
    this.count = el("span");
    this.next = el("button", { type: "button", title: "next lit line (n)", onclick: () => this.jump() }, "next");
    this.body = el("div", { class: "code", tabindex: "0", role: "listbox", "aria-label": name,
      onscroll: () => this.draw(), onkeydown: e => this.key(e),
      onpointerdown: e => { this.pressed = [e.clientX, e.clientY]; }, onpointerup: e => this.released(e) });
    this.width = Math.min(600, texts.reduce((n, t) => Math.max(n, t.length), 0)) + 8;
    this.space = el("div", { style: `height:${texts.length * ROW}px;width:1px` });
    this.body.append(this.space);
    this.root = el("section", { class: "pane", "data-pane": name }, el("h2", {}, name, this.count, this.next), this.body);
    listeners.push(() => this.light());
    new ResizeObserver(() => this.draw()).observe(this.body);
  }
  light() {
    this.found = [];
    if (chosen.kind) for (let i = 0; i < this.texts.length; i++)
      if (lights(this.locs[i], this.kernels[i])) this.found.push(i);
    this.lit = new Set(this.found);
    this.count.textContent = chosen.kind ? `${this.found.length} lines` : `${this.texts.length} lines`;
    if (this.found.length && !this.lit.has(this.here)) this.show(this.found[0]);
    this.draw();
  }
  show(line) {
    const top = this.body.scrollTop, height = this.body.clientHeight;
    if (line * ROW < top || (line + 1) * ROW > top + height) this.body.scrollTop = Math.max(0, line * ROW - height / 3);
  }
  jump() {
    if (!this.found.length) return;
    this.here = this.found.find(i => i > this.here) ?? this.found[0];
    this.show(this.here); this.draw();
  }
  pick(line) {
    this.here = line;
    const locs = this.locs[line], kernels = this.kernels[line];
    if (this.prefer === "line" && locs.length) return choose("line", LINES[locs[0]]);
    const order = this.prefer === "kernel" ? [["kernel", kernels], ["loc", locs]] : [["loc", locs], ["kernel", kernels]];
    for (const [kind, numbers] of order) if (numbers.length) {
      const at = chosen.kind === kind ? numbers.indexOf(chosen.number) : -1;       // again: the next of several
      return choose(kind, numbers.length > 1 && at >= 0 ? numbers[(at + 1) % numbers.length] : numbers[0]);
    }
    this.draw();
  }
  // by its place: rows may be drawn anew between the press of the button and its release, which then are no click
  released(e) {
    const [x, y] = this.pressed ?? [Infinity, 0];
    if (e.button !== 0 || Math.hypot(e.clientX - x, e.clientY - y) > 5) return;        // marks text, or began elsewhere
    const line = Math.floor((e.clientY - this.body.getBoundingClientRect().top - this.body.clientTop + this.body.scrollTop) / ROW);
    if (line >= 0 && line < this.texts.length) this.pick(line);
  }
  key(e) {
    const step = { ArrowDown: 1, ArrowUp: -1, PageDown: 30, PageUp: -30 }[e.key];
    if (step) { this.here = Math.min(Math.max(this.here + step, 0), this.texts.length - 1); this.show(this.here); this.draw(); }
    else if (e.key === "Enter" && this.here >= 0) this.pick(this.here);
    else if (e.key === "n") this.jump();
    else return;
    e.preventDefault();
  }
  draw() {
    const first = Math.max(0, Math.floor(this.body.scrollTop / ROW) - 5);
    const last = Math.min(this.texts.length, first + Math.ceil((this.body.clientHeight || 400) / ROW) + 12);
    const rows = [];
    for (let i = first; i < last; i++) {
      const has = this.locs[i].length || this.kernels[i].length;
      const row = el("div", { class: "row" + (has ? " has" : "") + (this.lit?.has(i) ? " lit" : "") + (i === this.here ? " here" : ""),
        style: `top:${i * ROW}px;min-width:max(100%,${this.width}ch)`, role: "option", "aria-selected": i === this.here ? "true" : "false", "data-line": i + 1 },
        el("i", {}, String(i + 1)), this.texts[i].slice(0, 600));
      rows.push(row);
    }
    this.body.replaceChildren(this.space, ...rows);
  }
}

// [count, locs, kernels] runs, one entry a line
function unrolled(runs) {
  const locs = [], kernels = [];
  for (const [n, l, k] of runs) for (let i = 0; i < n; i++) { locs.push(l); kernels.push(k); }
  return [locs, kernels];
}
