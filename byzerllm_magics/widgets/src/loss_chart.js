// The loss chart: columns of float32 from the kernel, drawn by uPlot in the colours of the page's theme.
import uPlot from "uplot";
import { brief, count, coverStill, follow, h } from "./page.js";

const SERIES = {
  loss: "Loss",
  learning_rate: "Learning rate",
  grad_norm: "Gradient norm",
  tokens_per_second: "Tokens/s",
};

/** Return the columns by name; what is not finite becomes null, which uPlot draws as a gap. */
function unpack(data, meta) {
  const bytes = data.buffer.slice(data.byteOffset, data.byteOffset + data.byteLength); // aligned to 4
  const values = new Float32Array(bytes);
  const names = ["step", ...(meta.names ?? [])];
  return Object.fromEntries(
    names.map((name, index) => {
      const column = values.subarray(index * meta.points, (index + 1) * meta.points);
      return [name, Array.from(column, (value) => (Number.isFinite(value) ? value : null))];
    }),
  );
}

/** Return the steps the x axis spans: the zoom, or the whole plan while the job runs, or what was done. */
function xRange(meta, zoom) {
  if (zoom.length === 2) return zoom;
  const last = meta.last_step ?? 0;
  return [0, Math.max(1, (meta.active && meta.total_steps) || last)];
}

/** Return readable ticks for a logarithmic axis: uPlot's own count up from the range's odd lower end. */
function logTicks(low, high) {
  const decades = Math.log10(high / low);
  if (decades < 0.5) {
    const raw = (high - low) / 5;
    const unit = 10 ** Math.floor(Math.log10(raw));
    const step = unit * ([1, 2, 5].find((factor) => factor * unit >= raw) ?? 10);
    const first = Math.ceil(low / step);
    return Array.from({ length: Math.floor(high / step) - first + 1 }, (_, index) => (first + index) * step);
  }
  const factors = decades > 4 ? [1] : decades > 1 ? [1, 2, 5] : [1, 2, 3, 4, 6, 8];
  const ticks = [];
  for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high); power++) {
    ticks.push(...factors.map((factor) => factor * 10 ** power));
  }
  return ticks.filter((tick) => tick >= low && tick <= high);
}

class Chart {
  constructor(model, root) {
    this.model = model;
    this.root = root;
    this.shown = "loss";
    this.log = false;
    this.tabs = Object.entries(SERIES).map(([name, label]) =>
      h("button", { type: "button", onclick: () => this.choose(name) }, label),
    );
    this.logButton = h("button", { type: "button", title: "Logarithmic scale", onclick: () => this.toggleLog() }, "log");
    this.resetButton = h("button", { type: "button", hidden: "", onclick: () => this.zoom([]) }, "⤺ all steps");
    this.readout = h("span", { class: "byzer-readout", "aria-live": "off" });
    this.empty = h("div", { class: "byzer-empty" });
    this.plot = h("div", { class: "byzer-plot", role: "img" }, this.empty);
    root.append(h("header", {}, ...this.tabs, this.logButton, this.resetButton, this.readout), this.plot);
  }

  choose(name) {
    this.shown = name;
    this.draw();
  }

  toggleLog() {
    this.log = !this.log;
    this.make();
  }

  zoom(range) {
    this.model.set("range", range);
    this.model.save_changes(); // the kernel answers with this range at full resolution
  }

  /** Read what the kernel sent. */
  load() {
    this.meta = this.model.get("meta");
    this.columns = unpack(this.model.get("data"), this.meta);
    // what is drawn, for whoever reads the page: how many points the job has, and the last one
    this.root.dataset.points = this.meta.raw ?? 0;
    this.root.dataset.step = this.columns.step.at(-1) ?? 0;
    this.root.dataset.loss = this.columns.loss?.at(-1) ?? "";
    if (this.u) this.draw();
  }

  /** Make the uPlot anew: its scale's distribution and its size are fixed at birth. */
  make() {
    this.u?.destroy();
    const colour = (name) => () => getComputedStyle(this.root).getPropertyValue(name).trim() || "gray";
    const faint = () => `color-mix(in srgb, ${colour("--byzer-accent")()} ${this.shown === "loss" ? 38 : 100}%, transparent)`;
    const axis = { stroke: colour("--byzer-quiet"), font: "11px system-ui, sans-serif", ticks: { show: false } };
    const grid = { stroke: colour("--byzer-border"), width: 1 };
    this.u = new uPlot(
      {
        width: this.plot.clientWidth,
        height: this.plot.clientHeight,
        padding: [8, 18, 0, 0],
        legend: { show: false },
        cursor: { y: false, drag: { x: true, y: false, setScale: false }, points: { size: 6 } },
        scales: {
          x: { time: false, range: () => xRange(this.meta, this.model.get("range")) },
          y: this.log ? { distr: 3, range: (_u, low, high) => [(low ?? 1) / 1.1, (high ?? 10) * 1.1] } : {},
        },
        axes: [
          { ...axis, grid: { show: false }, size: 26, values: (_u, splits) => splits.map((v) => (Number.isInteger(v) ? count(v) : "")) },
          {
            ...axis,
            grid,
            size: (_u, values) => Math.max(40, ...(values ?? []).map((text) => 14 + 6.5 * (text?.length ?? 0))),
            ...(this.log && { splits: (_u, _axis, low, high) => logTicks(low, high), filter: (_u, ticks) => ticks }),
            values: (_u, splits) => splits.map(brief),
          },
        ],
        series: [
          {},
          { stroke: faint, width: 1, points: { show: (u) => u.data[0].length < 2 } },
          { stroke: colour("--byzer-accent"), width: 2, points: { show: false } },
        ],
        hooks: {
          setCursor: [() => this.read()],
          setSelect: [(u) => this.selected(u)],
          drawAxes: [(u) => this.markCheckpoints(u, colour("--byzer-warm")())],
        },
      },
      this.table(),
      this.plot,
    );
    this.u.over.addEventListener("dblclick", () => this.zoom([]));
    this.draw();
  }

  selected(u) {
    const { left, width } = u.select;
    if (width < 5) return;
    u.setSelect({ left: 0, width: 0, top: 0, height: 0 }, false);
    this.zoom([u.posToVal(left, "x"), u.posToVal(left + width, "x")].map((step) => Math.max(0, step)));
  }

  /** Return uPlot's table: steps, the chosen series, its smoothed line. */
  table() {
    const { step } = this.columns;
    const positive = (column) => (this.log ? column.map((value) => (value > 0 ? value : null)) : column);
    const blank = new Array(step.length).fill(null);
    const column = (name) => positive(this.columns[name] ?? blank);
    return [step, column(this.shown), column(`${this.shown}_smoothed`)];
  }

  draw() {
    Object.keys(SERIES).forEach((name, index) => this.tabs[index].setAttribute("aria-pressed", name === this.shown));
    this.logButton.setAttribute("aria-pressed", this.log);
    this.resetButton.hidden = this.model.get("range").length === 0;
    const rows = this.columns.step.length;
    this.empty.hidden = rows > 0;
    this.empty.textContent = this.meta.state === "running" ? "Waiting for the first step…" : "No steps yet";
    const [first, last] = xRange(this.meta, this.model.get("range"));
    this.plot.setAttribute(
      "aria-label",
      `${SERIES[this.shown]} of ${this.meta.title}, steps ${count(Math.round(first))} to ${count(Math.round(last))}; newest ${brief(this.meta.last?.[this.shown])}`,
    );
    this.u.series[1].width = this.shown === "loss" ? 1 : 1.5;
    this.u.setData(this.table());
    this.read();
  }

  /** Say what is under the cursor, or else the newest values. */
  read() {
    if (!this.u) return;
    const { step, loss, learning_rate: rate } = this.columns;
    const index = this.u.cursor.idx ?? step.length - 1;
    if (index < 0 || index >= step.length) {
      this.readout.textContent = "";
      return;
    }
    const parts = [`step ${count(step[index])}`, `loss ${brief(loss[index])}`, `lr ${brief(rate[index])}`];
    if (this.shown !== "loss" && this.shown !== "learning_rate") {
      parts[2] = `${SERIES[this.shown].toLowerCase()} ${brief(this.columns[this.shown][index])}`;
    }
    this.readout.textContent = parts.join(" · ");
  }

  markCheckpoints(u, colour) {
    const { ctx, bbox } = u;
    ctx.save();
    ctx.fillStyle = colour;
    for (const step of this.meta.checkpoints ?? []) {
      const x = u.valToPos(step, "x", true);
      if (x < bbox.left || x > bbox.left + bbox.width) continue;
      ctx.fillRect(Math.round(x) - uPlot.pxRatio / 2, bbox.top + bbox.height - 8 * uPlot.pxRatio, uPlot.pxRatio * 1.5, 8 * uPlot.pxRatio);
    }
    ctx.restore();
  }

  resize() {
    const { clientWidth: width, clientHeight: height } = this.plot;
    if (width === 0) return; // in a hidden tab
    if (this.u) this.u.setSize({ width, height });
    else this.make();
  }
}

function render({ model, el }) {
  const root = h("section", { class: "byzer-view byzer-loss-chart", "aria-label": "Training chart" });
  const [style, uncover] = coverStill(model);
  const chart = new Chart(model, root);
  el.append(style, root);
  const unfollow = follow(model, { "change:meta": () => chart.load() });
  // Data that answers a zoom arrives after the zoom itself; until then the chart shows what it has.
  const rezoom = () => chart.u && chart.draw();
  model.on("change:range", rezoom);
  const size = new ResizeObserver(() => chart.resize());
  size.observe(chart.plot);
  const theme = new MutationObserver(() => chart.u?.redraw(false, true));
  theme.observe(document.body, { attributes: true, attributeFilter: ["data-jp-theme-name", "class"] });
  return () => {
    uncover();
    unfollow();
    model.off("change:range", rezoom);
    size.disconnect();
    theme.disconnect();
    chart.u?.destroy();
  };
}

export default { render };
