// One exchange: the prompt as it was typed, the answer as it streams in.
import { follow, h } from "./page.js";
import { copyButton, GrowingMarkdown } from "./markdown.js";

function render({ model, el }) {
  const user = h("div", { class: "byzer-user" });
  const answer = h("div", { class: "byzer-answer", "aria-label": "Answer" });
  const stats = h("span", { class: "byzer-stats", role: "status" });
  let text = "";
  let frame = 0;
  const copy = copyButton(() => text);
  const root = h("section", { class: "byzer-view byzer-chat", "aria-label": "Chat" }, user, answer, h("footer", {}, stats, copy));
  const markdown = new GrowingMarkdown(answer);
  el.append(root);

  const draw = () => {
    frame = 0;
    markdown.show(text);
    copy.hidden = !text;
  };
  const grow = (longer) => {
    text = longer;
    frame ||= requestAnimationFrame(draw); // several pieces in one frame are one rendering
  };
  const unfollow = follow(model, {
    "change:user": () => {
      user.textContent = model.get("user");
      user.hidden = !user.textContent;
    },
    "change:text": () => {
      const whole = model.get("text"); // while streaming it may be older than the pieces that came
      if (!text.startsWith(whole) || model.get("state") !== "streaming") grow(whole);
    },
    "change:stats change:state": () => {
      const state = model.get("state");
      root.dataset.state = state;
      answer.setAttribute("aria-busy", state === "waiting" || state === "streaming");
      const word = { waiting: "waiting for the model", streaming: "writing", done: "", stopped: "stopped", failed: "failed" }[state];
      stats.textContent = [word, model.get("stats")].filter(Boolean).join(" · ");
      if (state !== "streaming") grow(model.get("text"));
    },
  });
  const piece = (message) => {
    // A gap means this page was not there for an earlier piece: the next whole text fills it.
    if (message.type === "piece" && message.offset === text.length) grow(text + message.piece);
  };
  model.on("msg:custom", piece);
  return () => {
    cancelAnimationFrame(frame);
    model.off("msg:custom", piece);
    unfollow();
  };
}

export default { render };
