// Builds ../static from the files beside this one: `npm ci && npm run build`. Node is needed for nothing else.
import { createHash } from "node:crypto";
import { readFileSync, readdirSync, writeFileSync } from "node:fs";
import { build } from "esbuild";

const out = "../static/";
const views = ["loss_chart", "job_card", "chat"];

const { metafile } = await build({
  entryPoints: views.flatMap((view) => [`${view}.js`, `${view}.css`]),
  outdir: out,
  bundle: true,
  minify: true,
  format: "esm",
  target: "es2022",
  legalComments: "none", // they are all in THIRD-PARTY-LICENSES.txt
  metafile: true,
});

const bundled = new Set(
  Object.keys(metafile.inputs)
    .map((path) => /^node_modules\/((?:@[^/]+\/)?[^/]+)\//.exec(path)?.[1])
    .filter(Boolean),
);
const licences = [...bundled].sort().map((name) => {
  const folder = `node_modules/${name}/`;
  const { version, license } = JSON.parse(readFileSync(`${folder}package.json`));
  const file = readdirSync(folder).find((entry) => /^licen[cs]e(-mit)?(\.(md|txt))?$/i.test(entry));
  if (!file) throw new Error(`${name} ships no licence`);
  return `${name} ${version} (${license})\n\n${readFileSync(folder + file, "utf8").trim()}\n`;
});
writeFileSync(
  `${out}THIRD-PARTY-LICENSES.txt`,
  `The scripts and style sheets beside this file contain:\n\n${licences.join(`\n${"-".repeat(79)}\n\n`)}`,
);

// Without node, a test compares these with the files: edited sources that were not built, or edited bundles, show.
const digest = (path) => createHash("sha256").update(readFileSync(path)).digest("hex");
const digests = (paths, folder = "") => Object.fromEntries(paths.sort().map((path) => [path, digest(folder + path)]));
const sources = readdirSync(".").filter((name) => /\.(m?js|css|json)$/.test(name));
const built = readdirSync(out).filter((name) => /\.(js|css|txt)$/.test(name));
writeFileSync(
  `${out}manifest.json`,
  `${JSON.stringify({ sources: digests(sources), built: digests(built, out) }, null, 2)}\n`,
);
