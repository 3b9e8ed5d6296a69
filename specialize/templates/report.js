"use strict";
// Looks up and draws; everything was found beforehand. Architectures are genotypes: a character a
// gene, counted from "@", the resolution first, then a choice a block position, 0 where it is left
// out.
const { space, macs, parameters, devices, chosen, progress } = JSON.parse(
  document.getElementById("data").textContent,
);
const LENGTH = 1 + space.choices.length;
const $ = (id) => document.getElementById(id);
const significant = (x, digits = 3) => String(Number(x.toPrecision(digits)));
const column = (x) => (x >= 100 ? x.toFixed(0) : x.toPrecision(3)); // digits one below the other
const genes = (text) => Array.from(text, (letter) => letter.charCodeAt(0) - "@".charCodeAt(0));
const price = (table, [r, ...choices]) =>
  choices.reduce((sum, c, p) => sum + (c && table.blocks[r][p][c - 1]), table.fixed[r]);

function element(name, attributes = {}, ...children) {
  const svg = ["path", "circle", "line", "text"].includes(name);
  const made = svg
    ? document.createElementNS("http://www.w3.org/2000/svg", name)
    : document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

// --- budgets: a slider's steps of 1 %, each a round number, from the first point to the last

const bound = (device, i) => device.ms[i] * device.factor;
const within = (device, ms) =>
  device.ms.findLastIndex((_, i) => bound(device, i) <= ms * (1 + 1e-9));

function budgets(device) {
  const round = (x) => {
    const unit = 10 ** (Math.floor(Math.log10(x)) - 2);
    return Number((Math.ceil(x / unit - 1e-6) * unit).toPrecision(3));
  };
  const least = round(bound(device, 0));
  const most = round(bound(device, device.ms.length - 1));
  const last = Math.ceil(Math.log(most / least) / Math.log(1.01));
  return {
    least, most, last,
    at: (step) => Math.min(most, round(least * 1.01 ** step)),
    step: (ms) => Math.round(Math.log(ms / least) / Math.log(1.01)),
  };
}

// --- charts

const MARGIN = { left: 46, right: 14, top: 14, bottom: 44 };

function scale({ low, high, log }, from, to) {
  const f = log ? Math.log : (v) => v;
  const [a, b] = [f(low), f(high)];
  const at = (v) => from + ((f(v) - a) / (b - a || 1)) * (to - from);
  at.back = (p) => {
    const v = a + ((p - from) / (to - from)) * (b - a);
    return log ? Math.exp(v) : v;
  };
  return at;
}

function ticks({ low, high, log }, most) {
  const found = [];
  if (log) {
    const leading = high / low > 40 ? [1, 2, 5] : [1, 1.5, 2, 3, 4, 5, 7];
    for (let e = Math.floor(Math.log10(low)); 10 ** e <= high; e++)
      found.push(...leading.map((m) => Number((m * 10 ** e).toPrecision(6))));
  } else {
    const raw = (high - low) / most;
    const unit = 10 ** Math.floor(Math.log10(raw));
    const step = unit * [1, 2, 5, 10].find((m) => m * unit >= raw);
    for (let i = Math.ceil(low / step); i * step <= high; i++)
      found.push(Number((i * step).toPrecision(6)));
  }
  return found.filter((v) => v >= low && v <= high);
}

/** Empties a chart and draws its axes; returns the scales. */
function axes(svg, x, y) {
  const { width, height } = svg.getBoundingClientRect();
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  svg.replaceChildren(svg.firstElementChild);
  const X = scale(x, MARGIN.left, width - MARGIN.right);
  const foot = height - MARGIN.bottom;
  const Y = scale(y, foot - 8, MARGIN.top);
  let free = -Infinity;
  for (const v of ticks(y, 6)) {
    svg.append(
      element("line", { class: "grid", x1: MARGIN.left, x2: width - MARGIN.right, y1: Y(v), y2: Y(v) }),
      element("text", { x: MARGIN.left - 8, y: Y(v) + 4, "text-anchor": "end" }, String(v)),
    );
  }
  for (const v of ticks(x, 6)) {
    const label = v.toLocaleString("en");
    const half = 4 * label.length;
    if (X(v) - half < free) continue; // the labels would touch
    free = X(v) + half + 6;
    svg.append(
      element("line", { class: "grid", x1: X(v), x2: X(v), y1: foot, y2: foot + 5 }),
      element("text", { x: X(v), y: foot + 19, "text-anchor": "middle" }, label),
    );
  }
  svg.append(
    element("line", { class: "grid", x1: MARGIN.left, x2: width - MARGIN.right, y1: foot, y2: foot }),
    element("text", { x: width - MARGIN.right, y: height - 6, "text-anchor": "end" }, x.name),
    element("text", { x: MARGIN.left, y: 4 }, y.name),
  );
  return { X, Y, foot };
}

const steps = (xs, ys, X, Y) =>
  xs.map((x, i) => (i ? `H${X(x).toFixed(1)}V${Y(ys[i]).toFixed(1)}` : `M${X(x)} ${Y(ys[i])}`)).join("");

// --- what is shown: a device, a budget, and a network

const state = { device: devices[0], budget: chosen.budget, network: null, scored: true };

/** The chosen network, or the front's at the budget: on the device that it was chosen for. */
function show(device, budget, scored) {
  const range = budgets(device);
  budget = Math.min(range.most, Math.max(range.least, budget));
  const i = within(device, budget);
  const row = scored ? chosen.row : device.rows.substr(i * LENGTH, LENGTH);
  const network = genes(row);
  Object.assign(state, {
    device, budget, network,
    scored: row === chosen.row && device === devices[0],
    ms: scored ? chosen.ms : device.ms[i],
    percent: scored ? chosen.estimated : device.percent[i],
  });
  $("device").value = device.name;
  $("exact").value = significant(budget, 4);
  Object.assign($("budget"), { max: range.last, value: range.step(budget) });
  $("budget").setAttribute("aria-valuetext", `${significant(budget, 4)} ms`);
  say();
  drawFront();
  drawNetwork();
}

function say() {
  const { device, budget, network, ms, percent, scored } = state;
  const size = significant(price(macs, network) / 1e6);
  const weights = significant(price(parameters, network) / 1e6);
  $("readout").textContent =
    `${significant(budget, 4)} ms: ${percent.toFixed(1)} % estimated, ` +
    `r${space.resolutions[network[0]]}, ${size} MMACs`;
  $("status").textContent =
    `${significant(ms, 4)} ms predicted, at most ${significant(ms * device.factor, 4)} ms with ` +
    `${(100 * device.confidence).toFixed(0)} % confidence; ${weights} M parameters. ` +
    (scored
      ? `This is the chosen network: ${chosen.test.toFixed(1)} % on ${chosen.images} test images ` +
        `(${chosen.low.toFixed(1)} to ${chosen.high.toFixed(1)}).`
      : "An estimate: this network was not scored on images.");
}

function drawFront() {
  const { device, budget, ms, percent } = state;
  const svg = $("front");
  const range = budgets(device);
  const values = [...device.percent, chosen.low, chosen.high];
  const { X, Y, foot } = axes(
    svg,
    { low: range.least, high: range.most, log: true,
      name: `Latency, ms (bound with ${(100 * device.confidence).toFixed(0)} % confidence)` },
    { low: Math.min(...values), high: Math.max(...values), name: "Top-1 accuracy, %" },
  );
  svg.back = X.back;
  $("front-title").textContent =
    `Estimated accuracy over latency on ${device.title}: from ${device.percent[0].toFixed(1)} % at ` +
    `${significant(range.least)} ms to ${device.percent.at(-1).toFixed(1)} % at ${significant(range.most)} ms`;
  svg.append(
    element("path", { class: "line", d: steps(device.ms.map((_, i) => bound(device, i)), device.percent, X, Y) + `H${X(range.most)}` }),
    element("line", { class: "budget", x1: X(budget), x2: X(budget), y1: MARGIN.top, y2: foot }),
  );
  // On another device: what the chosen network takes there.
  const taken = device === devices[0] ? chosen.ms : price(device.latency, genes(chosen.row));
  const at = taken * device.factor;
  if (at >= range.least && at <= range.most) {
    const [x, y, top, end] = [X(at), Y(chosen.test), Y(chosen.high), Y(chosen.low)];
    svg.append(
      element("path", { class: "mark", d: `M${x} ${top}V${end}M${x - 4} ${top}h8M${x - 4} ${end}h8` }),
      element("path", { class: "mark filled", d: `M${x} ${y - 6}l6 6l-6 6l-6 -6z` }),
    );
  }
  svg.append(element("circle", { class: "shown", cx: X(ms * device.factor), cy: Y(percent), r: 5.5 }));
  fill("points", Array.from({ length: 16 }, (_, k) => {
    const budget = range.at(Math.round((k / 15) * range.last));
    const i = within(device, budget);
    const network = genes(device.rows.substr(i * LENGTH, LENGTH));
    return [column(budget), column(device.ms[i]), `${device.percent[i].toFixed(1)} %`,
      space.resolutions[network[0]], column(price(macs, network) / 1e6)];
  }));
}

function drawNetwork() {
  const { device, network: [r, ...choices] } = state;
  const table = device.latency;
  // A cache that keeps what all networks have makes the rest of a profile less than nothing.
  const fixed = Math.max(0, table.fixed[r]);
  const blocks = choices.map((c, p) => ({ stage: space.stages[p], ...space.choices[p][c - 1],
    ms: c && table.blocks[r][p][c - 1], side: space.sides[r][p] }));
  const sums = space.widths.map((_, s) =>
    blocks.reduce((sum, b) => sum + (b.stage === s ? b.ms : 0), 0));
  const total = sums.reduce((sum, ms) => sum + ms, fixed);
  const share = (ms) => `${((100 * ms) / total).toFixed(1)} %`;
  const longest = Math.max(...sums, fixed);
  const box = (ms, kind, title, ...lines) => {
    const made = element("div", { class: `block ${kind}`, title }, ...lines);
    made.style.width = `calc(${(100 * ms) / longest}% - 4px)`; // less the gap
    return made;
  };
  const stage = (name, size, ...boxes) =>
    element("div", { class: "stage" },
      element("span", {}, name, size && element("small", {}, size)), element("div", { class: "row" }, ...boxes));
  const rows = [];
  const drawn = space.widths.map((width, s) => {
    const own = blocks.filter((b) => b.stage === s);
    const boxes = own.map((b, i) => {
      if (!b.ms) return box(0, "absent", "left out", "–");
      const kernel = `${b.kernel}×${b.kernel}`;
      const channels = `${b.channels} ch`;
      rows.push([`${s}.${i}`, kernel, `${b.channels} (e${b.expand})`, column(b.ms), share(b.ms)]);
      return box(b.ms, b.kernel > 3 ? "large" : "",
        `Block ${s}.${i}: kernel ${kernel}, ${channels} inside (expand ratio ${b.expand}), ${width} out; ` +
        `${significant(b.ms)} ms, ${share(b.ms)} of the latency`,
        element("b", {}, `${kernel} e${b.expand}`), element("span", {}, channels), element("span", {}, share(b.ms)));
    });
    return stage(`Stage ${s}`, `${own[0].side} × ${own[0].side} × ${width}`, ...boxes);
  });
  const rest = "Stem and last layers";
  rows.push([rest, "", "", column(fixed), share(fixed)]);
  drawn.push(stage(rest, "",
    box(fixed, "rest", `${significant(fixed)} ms, ${share(fixed)} of the latency`,
      element("span", {}, share(fixed)))));
  $("network").replaceChildren(...drawn);
  fill("blocks", rows);

  const texts = space.widths.map((_, s) =>
    blocks.filter((b) => b.stage === s && b.ms).map((b) => `${b.kernel}x${b.kernel}e${b.expand}`).join(","));
  $("architecture").textContent = [`r${space.resolutions[r]}`, ...texts].join(" ");
}

function fill(table, rows) {
  $(table).tBodies[0].replaceChildren(...rows.map(([head, ...cells]) =>
    element("tr", {}, element("th", { scope: "row" }, String(head)),
      ...cells.map((cell) => element("td", {}, String(cell))))));
}

function drawProgress() {
  const svg = $("progress");
  if (!svg) return; // it began with the optimum
  const [counts, values] = [0, 1].map((i) => progress.trace.map((at) => at[i]));
  const all = [...values, progress.best];
  const { X, Y } = axes(
    svg,
    { low: Math.max(1, counts[0]), high: counts.at(-1), log: true, name: "Architectures priced" },
    { low: Math.min(...all), high: Math.max(...all), name: `Best so far, ${progress.unit}` },
  );
  const [from, to] = [X(Math.max(1, counts[0])), X(counts.at(-1))];
  svg.append(
    element("path", { class: "line", d: steps(counts.map((n) => Math.max(1, n)), values, X, Y) }),
    element("path", { class: "budget", d: `M${from} ${Y(progress.best)}H${to}` }),
  );
}

// --- controls

$("budget").addEventListener("input", (event) =>
  show(state.device, budgets(state.device).at(Number(event.target.value)), false));
$("exact").addEventListener("change", (event) =>
  show(state.device, Number(event.target.value) || state.budget, false));
$("device").addEventListener("change", (event) =>
  show(devices.find((device) => device.name === event.target.value), state.budget, false));
$("reset").addEventListener("click", () => show(devices[0], chosen.budget, true));
for (const kind of ["pointerdown", "pointermove"])
  $("front").addEventListener(kind, (event) => {
    if (!event.buttons) return;
    const x = event.clientX - $("front").getBoundingClientRect().left;
    show(state.device, Number($("front").back(x).toPrecision(3)), false);
  });
for (const button of document.querySelectorAll("[data-copy]"))
  button.addEventListener("click", async () => {
    const source = $(button.dataset.copy);
    try {
      await navigator.clipboard.writeText(source.textContent);
      button.textContent = "Copied";
      setTimeout(() => (button.textContent = "Copy"), 2000);
    } catch { // no access: the text is selected, to be copied by hand
      getSelection().selectAllChildren(source);
    }
  });
new ResizeObserver(() => { drawFront(); drawProgress(); }).observe($("front"));
show(devices[0], chosen.budget, true);
