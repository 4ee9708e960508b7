// Builds src/ into dist/, which the recorder embeds. The same source gives the
// same bytes: names in dist/assets carry a hash of what is in them, and
// nothing depends on the time, the machine or the order of a directory.
//
//   node build.mjs [OUTDIR]
import { build } from "esbuild";
import { createHash } from "node:crypto";
import { mkdir, readdir, readFile, rm, writeFile } from "node:fs/promises";
import path from "node:path";
import { fileURLToPath } from "node:url";

const root = path.dirname(fileURLToPath(import.meta.url));

// inputs are the files that decide what dist/ holds; webui_test.go knows the
// same list.
async function inputs() {
  const files = ["build.mjs", "package-lock.json", "package.json", "tsconfig.json"];
  for (const entry of await readdir(path.join(root, "src"), { recursive: true, withFileTypes: true })) {
    if (entry.isFile()) {
      files.push(path.relative(root, path.join(entry.parentPath ?? entry.path, entry.name)).split(path.sep).join("/"));
    }
  }
  return files.sort();
}

const sha256 = (data) => createHash("sha256").update(data).digest("hex");

export async function buildInto(out) {
  const bundled = await build({
    absWorkingDir: root,
    entryPoints: ["src/main.tsx", "src/app.css"],
    outdir: "assets",
    entryNames: "[name]-[hash]",
    bundle: true,
    minify: true,
    sourcemap: false,
    legalComments: "none",
    format: "esm",
    charset: "utf8",
    target: ["chrome107", "edge107", "firefox110", "safari16"],
    jsx: "automatic",
    jsxImportSource: "preact",
    metafile: true,
    write: false,
    logLevel: "warning",
  });
  const assets = bundled.outputFiles.map((f) => ({ name: path.basename(f.path), data: f.contents }));
  const icon = await readFile(path.join(root, "src/icon.svg"));
  assets.push({ name: `icon-${sha256(icon).slice(0, 8).toUpperCase()}.svg`, data: icon });

  const named = (prefix, suffix) => {
    const found = assets.filter((a) => a.name.startsWith(prefix) && a.name.endsWith(suffix));
    if (found.length !== 1) throw new Error(`${found.length} assets named ${prefix}…${suffix}`);
    return `/assets/${found[0].name}`;
  };
  const html = (await readFile(path.join(root, "src/index.html"), "utf8"))
    .replaceAll("%SCRIPT%", named("main-", ".js"))
    .replaceAll("%STYLE%", named("app-", ".css"))
    .replaceAll("%ICON%", named("icon-", ".svg"));

  await rm(out, { recursive: true, force: true });
  await mkdir(path.join(out, "assets"), { recursive: true });
  for (const a of assets) await writeFile(path.join(out, "assets", a.name), a.data);
  await writeFile(path.join(out, "index.html"), html);
  await writeFile(
    path.join(out, "licenses.txt"),
    `The script of this page holds Preact:\n\n${await readFile(path.join(root, "node_modules/preact/LICENSE"), "utf8")}`,
  );

  // What dist/ was made from, so that a Go test can tell without Node whether
  // it is stale. It is not embedded.
  const lines = [];
  for (const f of await inputs()) lines.push(`${sha256(await readFile(path.join(root, f)))}  ${f}\n`);
  await writeFile(path.join(out, "sources.sha256"), lines.join(""));
  return bundled.metafile;
}

if (process.argv[1] && path.resolve(process.argv[1]) === fileURLToPath(import.meta.url)) {
  await buildInto(path.resolve(process.argv[2] ?? path.join(root, "dist")));
}
