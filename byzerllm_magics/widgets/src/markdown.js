// Markdown of a model, which nobody vouches for, to elements that can do nothing but be read.
import DOMPurify from "dompurify";
import hljs from "highlight.js/lib/core";
import bash from "highlight.js/lib/languages/bash";
import javascript from "highlight.js/lib/languages/javascript";
import json from "highlight.js/lib/languages/json";
import python from "highlight.js/lib/languages/python";
import sql from "highlight.js/lib/languages/sql";
import MarkdownIt from "markdown-it";
import { h } from "./page.js";

for (const [name, language] of Object.entries({ bash, javascript, json, python, sql })) hljs.registerLanguage(name, language);

const md = new MarkdownIt({ html: false, linkify: true, highlight });
md.linkify.set({ fuzzyLink: false, fuzzyEmail: false });
// A picture's address can carry the conversation away as soon as it loads: show its words instead.
md.renderer.rules.image = (tokens, index) => `[${md.utils.escapeHtml(`picture: ${tokens[index].content || "untitled"}`)}]`;

const ALLOWED = {
  ALLOWED_TAGS: ["a", "blockquote", "br", "code", "em", "h1", "h2", "h3", "h4", "h5", "h6", "hr", "li", "ol", "p", "pre", "s", "span", "strong", "table", "tbody", "td", "th", "thead", "tr", "ul"],
  ALLOWED_ATTR: ["class", "href", "start", "title"],
  ALLOWED_URI_REGEXP: /^(?:https?|mailto):/i,
  RETURN_DOM_FRAGMENT: true,
};

function highlight(code, language) {
  return hljs.getLanguage(language) ? hljs.highlight(code, { language, ignoreIllegals: true }).value : "";
}

/** Return the top-level blocks of a text: the tokens of each and the source that made it. */
function blocksOf(text, env) {
  const lines = text.split("\n");
  const blocks = [];
  let tokens = [];
  let depth = 0;
  for (const token of md.parse(text, env)) {
    tokens.push(token);
    depth += token.nesting;
    if (depth > 0) continue;
    const [first, last] = tokens[0].map ?? [0, 0];
    blocks.push({ tokens, source: `${tokens[0].type}\n${lines.slice(first, last).join("\n")}` });
    tokens = [];
  }
  return blocks;
}

function elementOf(block, env) {
  const element = h("div");
  element.append(DOMPurify.sanitize(md.renderer.render(block.tokens, md.options, env), ALLOWED));
  for (const link of element.querySelectorAll("a")) markLink(link);
  for (const pre of element.querySelectorAll("pre")) {
    const frame = h("div", { class: "byzer-code" });
    pre.replaceWith(frame);
    frame.append(pre, copyButton(() => pre.textContent));
  }
  return element;
}

/** Say where a link leads: its words are the model's, its host is not to be overlooked. */
function markLink(link) {
  if (!link.hasAttribute("href")) return link.replaceWith(...link.childNodes);
  link.rel = "noopener noreferrer nofollow";
  link.target = "_blank";
  const place = link.protocol === "mailto:" ? link.pathname : link.host;
  if (!link.textContent.includes(place)) link.after(h("span", { class: "byzer-host" }, ` (${place})`));
}

/** Return a button that copies what `text()` says at the time. */
export function copyButton(text) {
  const button = h("button", { type: "button" }, "Copy");
  button.addEventListener("click", async () => {
    await copy(text());
    button.textContent = "Copied";
    setTimeout(() => (button.textContent = "Copy"), 1500);
  });
  return button;
}

async function copy(text) {
  if (navigator.clipboard) return navigator.clipboard.writeText(text);
  // A page served without TLS from another machine, as JupyterHubs often are, has no clipboard API.
  const area = h("textarea", { style: "position: fixed; opacity: 0" });
  area.value = text;
  document.body.append(area);
  area.select();
  document.execCommand("copy");
  area.remove();
}

/** Shows a growing Markdown text; a block whose source stays the same keeps its elements. */
export class GrowingMarkdown {
  constructor(element) {
    this.element = element;
    this.blocks = [];
  }

  show(text) {
    const env = {};
    const blocks = blocksOf(text, env);
    const links = JSON.stringify(env.references ?? {}); // a definition at the end makes links at the start
    if (links !== this.links) this.blocks.length = 0;
    this.links = links;
    const same = blocks.findIndex(({ source }, index) => source !== this.blocks[index]?.source);
    const kept = same < 0 ? blocks.length : same;
    while (this.element.childElementCount > kept) this.element.lastElementChild.remove();
    for (const block of blocks.slice(kept)) this.element.append(elementOf(block, env));
    this.blocks = blocks.map(({ source }) => ({ source }));
  }
}
