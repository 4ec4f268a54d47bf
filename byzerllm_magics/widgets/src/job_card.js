// The job card: what a training job is and where it stands; its clock ticks here, everything else comes in.
import { brief, count, duration, follow, h } from "./page.js";

/** Return the end of a path, where the folders differ; the whole path is in the tooltip. */
function shorten(folder, length = 44) {
  return folder.length <= length ? folder : `…${folder.slice(1 - length)}`;
}

class Card {
  constructor(model, root) {
    this.model = model;
    this.root = root;
    this.values = {};
    this.name = h("span", { class: "byzer-name" });
    this.method = h("span", { class: "byzer-quiet" });
    this.badge = h("span", { class: "byzer-badge", role: "status" });
    this.actions = h("span", { class: "byzer-actions" });
    this.done = h("div");
    this.bar = h("div", { class: "byzer-bar", role: "progressbar", "aria-label": "Steps done", "aria-valuemin": "0" }, this.done);
    this.message = h("p", { class: "byzer-message" });
    this.notice = h("p", { class: "byzer-message byzer-notice", role: "alert" });
    this.samples = h("div", { class: "byzer-samples" });
    const facts = ["Step", "Loss", "Speed", "Elapsed", "Left", "Workers", "Folder"].map((label) => {
      this.values[label] = h("span");
      return h("span", {}, h("span", { class: "byzer-quiet" }, label), " ", this.values[label]);
    });
    root.append(h("div", { class: "byzer-head" }, this.name, this.method, this.badge, this.actions), this.bar,
      h("div", { class: "byzer-facts" }, ...facts), this.message, this.notice, this.samples);
  }

  /** Show what the kernel sent. */
  show() {
    const card = this.model.get("card");
    if (card.name === undefined) return;
    this.card = card;
    this.received = performance.now();
    this.root.dataset.state = card.state;
    this.name.textContent = card.name;
    this.method.textContent = card.method;
    if (this.badge.textContent !== card.state) this.badge.textContent = card.state;
    const known = card.total_steps !== null;
    this.bar.hidden = !known;
    this.bar.setAttribute("aria-valuemax", card.total_steps ?? 0);
    this.bar.setAttribute("aria-valuenow", card.step);
    this.done.style.width = known ? `${Math.min(100, (100 * card.step) / Math.max(1, card.total_steps))}%` : "0";
    this.fact("Step", known ? `${count(card.step)} / ${count(card.total_steps)}` : count(card.step));
    this.fact("Loss", card.loss === null ? null : brief(card.loss));
    this.fact("Speed", card.tokens_per_second === null ? null : `${count(Math.round(card.tokens_per_second))} tokens/s`);
    this.fact("Workers", card.attempt > 1 ? `${card.workers}, attempt ${card.attempt}` : String(card.workers));
    this.fact("Folder", shorten(card.folder));
    this.values.Folder.title = card.folder;
    this.message.textContent = card.message;
    this.message.hidden = !card.message;
    this.showSamples(card.samples ?? []);
    this.offerStop();
    this.tick();
  }

  /** Show the newest answers to the user's own prompts. */
  showSamples(samples) {
    this.samples.hidden = !samples.length;
    this.samples.replaceChildren(...samples.map(({ step, prompt, answer }) => h("p", { title: `step ${count(step)}` },
      h("span", { class: "byzer-quiet" }, `${prompt} → `), answer)));
  }

  /** Set one fact; null hides it. */
  fact(label, text) {
    this.values[label].parentElement.hidden = text === null;
    this.values[label].textContent = text ?? "";
  }

  /** Move the clock on from the kernel's last word. */
  tick() {
    if (!this.card) return;
    const passed = this.card.active ? (performance.now() - this.received) / 1000 : 0;
    const { elapsed, remaining } = this.card;
    this.fact("Elapsed", elapsed === null ? null : duration(elapsed + passed));
    this.fact("Left", remaining === null ? null : `about ${duration(Math.max(0, remaining - passed))}`);
  }

  /** Put the right button there, unless the user is in the middle of answering. */
  offerStop() {
    const wanted = this.card.stoppable ? "offered" : "none";
    if (wanted === "offered" && this.actions.childElementCount) return;
    if (wanted === "none") this.actions.replaceChildren();
    else this.actions.replaceChildren(h("button", { type: "button", onclick: () => this.ask() }, "Stop"));
  }

  ask() {
    const keep = h("button", { type: "button", onclick: () => this.keep() }, "Keep running");
    const stop = h("button", { type: "button", class: "byzer-danger", onclick: () => this.stop() }, "Stop it");
    this.actions.replaceChildren(h("span", {}, "Stop this job?"), stop, keep);
    keep.focus();
  }

  keep() {
    this.actions.replaceChildren();
    this.offerStop();
    this.actions.firstElementChild?.focus();
  }

  stop() {
    this.model.send({ type: "stop" });
    this.actions.replaceChildren(h("button", { type: "button", disabled: "" }, "Stopping…"));
  }

  /** Say why a stop failed, and offer it again. */
  complain() {
    this.notice.textContent = this.model.get("notice");
    this.notice.hidden = !this.notice.textContent;
    if (this.card && this.notice.textContent) this.keep();
  }
}

function render({ model, el }) {
  const root = h("section", { class: "byzer-view byzer-job-card", "aria-label": "Training job" });
  const card = new Card(model, root);
  el.append(root);
  const unfollow = follow(model, { "change:card": () => card.show(), "change:notice": () => card.complain() });
  const clock = setInterval(() => card.tick(), 1000);
  return () => {
    clearInterval(clock);
    unfollow();
  };
}

export default { render };
