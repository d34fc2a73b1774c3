// Puts the page together.
let DATA;
const lineText = n => { const [file, line] = DATA.locs[n]; return `${file.split("/").pop()}:${line}`; };
const placeText = n => lineText(n) + (DATA.locs[n][2] ? ` (layer ${DATA.locs[n][2]})` : "");
const kernelLocs = k => [...new Set(DATA.rows.filter(r => r.kernel === DATA.kernels[k]).flatMap(r => r.locs))];

async function unpacked() {
  const raw = Uint8Array.from(atob(document.getElementById("data").textContent), c => c.charCodeAt(0));
  const stream = new Blob([raw]).stream().pipeThrough(new DecompressionStream("gzip"));
  return JSON.parse(await new Response(stream).text());
}

function sourcePanes(data, kernelsOfLoc) {
  return data.sources.filter(s => s.text).map(s => {
    const texts = s.text.split("\n"), locs = texts.map(() => []), kernels = texts.map(() => []);
    data.locs.forEach(([file, line], n) => { if (file === s.file && line <= texts.length) {
      locs[line - 1].push(n); kernels[line - 1].push(...kernelsOfLoc[n]); } });
    return new CodePane(s.name, texts, locs, kernels, "line");
  });
}

function codeView(data) {
  // a line of code belongs to the source lines of its kernel; a source line to the kernels that it went into
  const locsOfKernel = data.kernels.map((_, k) => kernelLocs(k)), kernelsOfLoc = data.locs.map(() => []);
  locsOfKernel.forEach((locs, k) => locs.forEach(l => kernelsOfLoc[l].push(k)));
  const panes = [...sourcePanes(data, kernelsOfLoc), ...data.stages.map(s => {
    const [locs, kernels] = unrolled(s.runs);
    const cache = new Map();
    const once = (key, make) => { const t = key.join(); if (!cache.has(t)) cache.set(t, make()); return cache.get(t); };
    const all = locs.map((l, i) => l.length ? l : once(kernels[i], () => [...new Set(kernels[i].flatMap(k => locsOfKernel[k]))]));
    const ks = kernels.map((k, i) => k.length ? k : once(["l", ...locs[i]], () => [...new Set(locs[i].flatMap(l => kernelsOfLoc[l]))]));
    return new CodePane(s.name, s.text.split("\n"), all, ks, ["graph", "simplified", "fused"].includes(s.name) ? "loc" : "kernel");
  })];
  const first = new Set([...data.sources.map(s => s.name), "graph", "planned", "loops", "asm"]);
  const bar = el("div", { class: "bar" }, "Show ", ...panes.map(p => {
    p.root.hidden = !first.has(p.name);
    const b = el("button", { type: "button", "aria-pressed": p.root.hidden ? "false" : "true", onclick: () => {
      p.root.hidden = !p.root.hidden; b.setAttribute("aria-pressed", p.root.hidden ? "false" : "true"); p.light(); } }, p.name);
    return b; }), el("span", {}, "A click on a line lights up what belongs to it everywhere; a second click, the next of several. Arrow keys, Enter, n: next lit line."));
  return el("div", { class: "view" }, bar, el("div", { class: "panes" }, ...panes.map(p => p.root)));
}

function pictureView(data) {
  const pictures = Object.fromEntries(Object.entries(data.pictures).map(([n, p]) => [n, new GraphPicture(p)]));
  const holder = el("div", { class: "panes" });
  const show = n => { const p = pictures[n]; holder.replaceChildren(p.root); if (!p.drawn) p.draw(); };
  const select = el("select", { "aria-label": "stage", onchange: () => show(select.value) }, ...Object.keys(pictures).map(n => el("option", { value: n }, n)));
  const view = el("div", { class: "view" }, el("div", { class: "bar" }, "Stage ", select, "A click on a cluster opens or closes it; on an operator, lights up its line."), holder);
  view.begin = () => holder.children.length || show(select.value);
  return view;
}

function wrapped(content) { return el("div", { class: "view" }, content); }

function tabs(views) {
  const bar = document.getElementById("tabs"), main = document.getElementById("views"), made = {};
  const names = Object.keys(views);
  function show(name) {
    if (!made[name]) main.append(made[name] = views[name]());
    for (const n of names) { if (made[n]) made[n].hidden = n !== name;
      const b = bar.querySelector(`[data-tab="${n}"]`); b.setAttribute("aria-selected", n === name ? "true" : "false"); b.tabIndex = n === name ? 0 : -1; }
    made[name].begin?.();
    listeners.forEach(f => f());
  }
  bar.append(...names.map((n, i) => el("button", { type: "button", role: "tab", "data-tab": n, onclick: () => show(n), onkeydown: e => {
    const to = { ArrowRight: 1, ArrowLeft: -1 }[e.key]; if (!to) return;
    const next = names[(i + to + names.length) % names.length]; show(next); bar.querySelector(`[data-tab="${next}"]`).focus(); } }, n)));
  show(names[0]);
}

function told() {
  const where = document.getElementById("selection"), clear = document.getElementById("clear");
  clear.hidden = !chosen.kind;
  where.textContent = chosen.kind === "line" ? `line ${lineText(LINES.indexOf(chosen.number))}`
    : chosen.kind === "loc" ? placeText(chosen.number) : chosen.kind === "kernel"
    ? `kernel ${DATA.kernels[chosen.number]}: lines ${[...new Set(kernelLocs(chosen.number).map(placeText))].join(", ")}` : "";
}

async function begin() {
  DATA = await unpacked();
  const seen = new Map();
  LINES = DATA.locs.map(([file, line]) => { const k = `${file}:${line}`; if (!seen.has(k)) seen.set(k, seen.size); return seen.get(k); });
  document.title = `graphc: ${DATA.title}`;
  document.getElementById("title").textContent = DATA.title;
  document.getElementById("about").textContent = `graphc ${DATA.version}, ${DATA.target}`;
  listeners.push(told);
  tabs({ code: () => codeView(DATA), graph: () => pictureView(DATA), memory: () => wrapped(memoryView(DATA)),
    kernels: () => wrapped(kernelView(DATA)), passes: () => wrapped(passView(DATA)) });
  document.getElementById("clear").addEventListener("click", () => choose(null, -1));
  document.addEventListener("keydown", e => e.key === "Escape" && choose(null, -1));
  document.getElementById("theme").addEventListener("click", () => {
    const root = document.documentElement, dark = getComputedStyle(root).colorScheme === "dark"
      || !root.dataset.theme && matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark"; });
  document.body.dataset.ready = "yes";
}
begin();
