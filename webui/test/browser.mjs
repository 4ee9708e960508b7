// A Chromium for tests: its own empty profile, and a record of everything that
// must not happen.
import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import { chromium } from "playwright-core";

const executable = process.env.CHROMIUM ?? "/usr/bin/chromium";

/** launch opens a browser that ends with the test t. */
export async function launch(t, options = {}) {
  assert.ok(existsSync(executable), `${executable} is missing: apt-get install chromium, or set CHROMIUM`);
  const profile = await mkdtemp(path.join(os.tmpdir(), "holdfast-chromium-"));
  const context = await chromium.launchPersistentContext(profile, {
    executablePath: executable,
    headless: true,
    viewport: { width: 1280, height: 900 },
    args: [
      "--no-sandbox",
      "--disable-gpu",
      "--disable-quic",
      "--no-first-run",
      "--disable-background-networking",
      "--disable-component-update",
      "--disable-sync",
    ],
    ...options,
  });
  t.after(async () => {
    await context.close();
    // Its children may still write there, which is no fault of what is tested.
    await rm(profile, { recursive: true, force: true, maxRetries: 20 }).catch((e) => t.diagnostic(`${profile} stays: ${e.message}`));
  });
  return context;
}

/** watch records what a page does wrong: errors on its console, and requests
 * to anyone but host. */
export function watch(page, host) {
  const wrong = [];
  const ask = (url) => {
    const u = new URL(url);
    if (!["data:", "blob:", "about:"].includes(u.protocol) && u.host !== host) wrong.push(`request to ${url}`);
  };
  page.on("console", (m) => m.type() === "error" && wrong.push(`console: ${m.text()} (${m.location().url})`));
  page.on("pageerror", (e) => wrong.push(`exception: ${e.stack ?? e}`));
  page.on("request", (r) => ask(r.url()));
  page.on("websocket", (w) => ask(w.url()));
  return wrong;
}

/** moving waits until the video a selector finds shows moving pictures: its
 * clock advances and its pixels change. It returns what it saw. */
export async function moving(page, selector, timeout) {
  const handle = await page.waitForFunction(
    (selector) => {
      const video = document.querySelector(selector);
      if (!video || video.readyState < 2 || video.videoWidth === 0) return false;
      const canvas = document.createElement("canvas");
      canvas.width = 64;
      canvas.height = 36;
      const g = canvas.getContext("2d", { willReadFrequently: true });
      g.drawImage(video, 0, 0, 64, 36);
      const pixels = g.getImageData(0, 0, 64, 36).data;
      let sum = 0;
      for (let i = 0; i < pixels.length; i++) sum = (sum * 31 + pixels[i]) | 0;
      const seen = (video.seenByTest ??= { times: new Set(), pictures: new Set() });
      if (!video.paused) seen.times.add(video.currentTime);
      seen.pictures.add(sum);
      return (
        seen.times.size >= 5 &&
        seen.pictures.size >= 5 && {
          width: video.videoWidth,
          height: video.videoHeight,
          time: video.currentTime,
          pictures: seen.pictures.size,
        }
      );
    },
    selector,
    { timeout, polling: 100 },
  );
  return handle.jsonValue();
}
