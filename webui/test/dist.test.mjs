// dist/ is committed; it must be what src/ gives, byte for byte.
import assert from "node:assert/strict";
import { mkdtemp, readdir, readFile, rm } from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import test from "node:test";
import { fileURLToPath } from "node:url";
import { buildInto } from "../build.mjs";

const root = path.join(path.dirname(fileURLToPath(import.meta.url)), "..");

async function tree(dir) {
  const files = {};
  for (const entry of await readdir(dir, { recursive: true, withFileTypes: true })) {
    if (!entry.isFile()) continue;
    const file = path.join(entry.parentPath ?? entry.path, entry.name);
    files[path.relative(dir, file)] = (await readFile(file)).toString("base64");
  }
  return files;
}

test("dist equals a fresh build, and so does the next", async (t) => {
  const tmp = await mkdtemp(path.join(os.tmpdir(), "holdfast-webui-"));
  t.after(() => rm(tmp, { recursive: true, force: true }));
  await buildInto(path.join(tmp, "a"));
  await buildInto(path.join(tmp, "b"));
  const [a, b, dist] = await Promise.all([tree(path.join(tmp, "a")), tree(path.join(tmp, "b")), tree(path.join(root, "dist"))]);
  assert.deepEqual(Object.keys(dist).sort(), Object.keys(a).sort(), "dist/ is stale: npm run build");
  for (const [name, data] of Object.entries(a)) {
    assert.ok(dist[name] === data, `dist/${name} is stale: npm run build`);
    assert.ok(b[name] === data, `${name} differs between two builds`);
  }
});

test("the build asks nobody else for anything", async () => {
  for (const [name, data] of Object.entries(await tree(path.join(root, "dist")))) {
    if (name === "licenses.txt") continue;
    const text = Buffer.from(data, "base64").toString("utf8");
    const hosts = [...text.matchAll(/(?:https?:|["'`(])\/\/([a-z0-9-]+\.[a-z0-9.-]+)/gi)].map((m) => m[1]);
    assert.deepEqual(hosts.filter((h) => h !== "www.w3.org"), [], name); // names of XML namespaces
  }
});
