// Users, sessions and tokens in a real browser, with a real recorder, from the
// claim on.
//
//   NVR_BIN=bin/nvr node --test test/users.test.mjs
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import readline from "node:readline";
import test from "node:test";
import { launch, watch } from "./browser.mjs";

const limit = 60_000; // ms for what a person would wait for; a busy machine is slow
const phone = { width: 360, height: 740 };

/** owned starts a recorder with two cameras that are not there, and claims it
 * for anna. */
async function owned(t) {
  const bin = process.env.NVR_BIN;
  assert.ok(bin, "NVR_BIN must be the path of the nvr program");
  const data = await mkdtemp(path.join(os.tmpdir(), "holdfast-users-"));
  const child = spawn(path.resolve(bin), ["run", "-data", data, "-http", "127.0.0.1:0"], { stdio: ["ignore", "pipe", "pipe"] });
  const exited = once(child, "exit");
  let log = "";
  child.stderr.on("data", (b) => (log += b));
  t.after(async () => {
    if (child.exitCode === null) child.kill("SIGKILL");
    await exited;
    await rm(data, { recursive: true, force: true });
  });
  let address, code;
  for await (const line of readline.createInterface({ input: child.stdout })) {
    address ??= /^serving (\S+)/.exec(line)?.[1];
    code ??= /the code (\S+)$/.exec(line)?.[1];
    if (address && code) break;
  }
  assert.ok(address && code, `it does not start: ${log}`);
  const send = async (path, body, cookie) => {
    const r = await fetch(address + path, {
      method: "POST", body: JSON.stringify(body), headers: { "Content-Type": "application/json", ...(cookie && { Cookie: cookie }) },
    });
    assert.ok(r.ok, `${path}: ${r.status}`);
    return r.headers.get("Set-Cookie")?.split(";")[0];
  };
  const cookie = await send("/api/claim", { code, username: "anna", password: "correct horse" });
  for (const shortName of ["front", "yard"]) {
    await send("/api/cameras/", { shortName, streams: { main: { url: "rtsp://192.0.2.1/main", record: false } } }, cookie);
  }
  return { address, host: new URL(address).host };
}

/** signedIn opens the page in a browser of its own, as a user. */
async function signedIn(t, it, name, password, options) {
  const context = await launch(t, options);
  const page = context.pages()[0] ?? (await context.newPage());
  page.setDefaultTimeout(limit);
  const wrong = watch(page, it.host);
  await page.goto(it.address);
  await signIn(page, name, password);
  return { page, wrong };
}

async function signIn(page, name, password) {
  await page.getByLabel("Name").fill(name);
  await page.getByLabel("Password").fill(password);
  await page.keyboard.press("Enter");
}

/** sound fails when a control of the page has no name, an id is there twice, or
 * the page is wider than the window. */
async function sound(page) {
  const found = await page.evaluate(() => {
    const wrong = [];
    for (const e of document.querySelectorAll("input, select, button, a")) {
      if (e.closest("[aria-hidden=true]")) continue;
      const name = e.getAttribute("aria-label") || e.textContent?.trim() || [...(e.labels ?? [])].map((l) => l.textContent?.trim()).join("");
      if (!name) wrong.push(`no name: ${e.outerHTML}`);
    }
    const ids = [...document.querySelectorAll("[id]")].map((e) => e.id);
    wrong.push(...ids.filter((id, i) => ids.indexOf(id) !== i).map((id) => `id twice: ${id}`));
    const over = document.documentElement.scrollWidth - innerWidth;
    if (over > 0) wrong.push(`wider than the window by ${over} pixels`);
    return wrong;
  });
  assert.deepEqual(found, []);
}

const card = (page, name) => page.locator(".card", { has: page.getByRole("heading", { name }) });
const field = (page, name) => page.locator(`.field:has(input[name=${name}])`);

test("an administrator adds a viewer, changes its rights, ends its session, disables and deletes it", { timeout: 180_000 }, async (t) => {
  const it = await owned(t);
  const { page, wrong } = await signedIn(t, it, "anna", "correct horse", { viewport: phone });
  await page.getByRole("link", { name: "Users" }).click();
  await card(page, "anna (you)").getByText("Administrator").waitFor();
  await sound(page);

  // By the keyboard alone; what is wrong is said beside its field.
  await page.getByRole("button", { name: "Add user" }).focus();
  await page.keyboard.press("Enter");
  const dialog = page.getByRole("dialog");
  await dialog.getByLabel("Name", { exact: true }).fill("ben");
  await dialog.getByLabel("Password").fill("short");
  await dialog.getByLabel("front: live").focus();
  await page.keyboard.press("Space");
  await sound(page);
  await page.keyboard.press("Enter");
  await field(dialog, "password").getByText("shorter than 8 characters").waitFor();
  assert.equal(await page.evaluate(() => document.activeElement?.getAttribute("name")), "password");
  await page.keyboard.press("ControlOrMeta+A");
  await page.keyboard.type("battery staple");
  await page.keyboard.press("Enter");
  await card(page, "ben").getByText("Viewer. front: live video").waitFor();
  await dialog.waitFor({ state: "hidden" });

  // A second of that name is refused, beside the name.
  await page.getByRole("button", { name: "Add user" }).click();
  await dialog.getByLabel("Name", { exact: true }).fill("ben");
  await dialog.getByLabel("Password").fill("battery staple");
  await dialog.getByRole("button", { name: "Add", exact: true }).click();
  await field(dialog, "name").getByText("there is a user of this name already").waitFor();
  await page.keyboard.press("Escape");
  await dialog.waitFor({ state: "hidden" });

  // The viewer sees the one camera, and no page of users.
  const ben = await signedIn(t, it, "ben", "battery staple");
  await ben.page.getByRole("heading", { name: "front" }).waitFor();
  assert.equal(await ben.page.getByRole("heading", { name: "yard" }).count(), 0);
  assert.equal(await ben.page.getByRole("button", { name: /^(Add|Change|Delete)/ }).count(), 0);
  assert.equal(await ben.page.getByRole("link", { name: "Users" }).count(), 0);
  await ben.page.goto(`${it.address}/#page=users`);
  await ben.page.getByRole("heading", { name: "front" }).waitFor();

  // Its session is listed and ended; the page says so.
  await page.getByRole("button", { name: "Sessions of ben" }).click();
  await page.getByRole("button", { name: /^Sign out the browser at 127\.0\.0\.1…$/ }).click();
  await dialog.getByRole("button", { name: "Sign out" }).click();
  await page.getByText("Nobody is signed in as ben").waitFor();
  await ben.page.getByRole("alert").filter({ hasText: "open /login" }).waitFor();

  // Rights, for all cameras; then no sign in at all.
  await page.getByRole("button", { name: "Change ben…" }).click();
  assert.ok(await dialog.getByLabel("front: live").isChecked());
  await dialog.getByLabel("front: live").uncheck();
  await dialog.getByLabel("All, also later ones: export").check();
  await dialog.getByLabel("Disabled").check();
  await dialog.getByRole("button", { name: "Save" }).click();
  await card(page, "ben").getByText("Viewer. All cameras: recordings, export").waitFor();
  await card(page, "ben").getByText("Disabled").waitFor();
  await ben.page.goto(`${it.address}/login`);
  await signIn(ben.page, "ben", "battery staple");
  await ben.page.getByText("name or password is wrong").waitFor();

  // An administrator by a new password; the last one cannot go.
  await page.getByRole("button", { name: "Delete anna…" }).click();
  await dialog.getByRole("button", { name: "Delete user" }).click();
  await dialog.getByRole("alert").filter({ hasText: "this is the last administrator" }).waitFor();
  await page.keyboard.press("Escape");
  await page.getByRole("button", { name: "Change ben…" }).click();
  await dialog.getByLabel("Disabled").uncheck();
  await dialog.getByLabel("New password").fill("another password");
  await dialog.getByLabel("do everything").check();
  await dialog.getByRole("button", { name: "Save" }).click();
  await card(page, "ben").getByText("Administrator: may everything").waitFor();
  await signIn(ben.page, "ben", "another password");
  await ben.page.getByRole("link", { name: "Users" }).waitFor();

  await page.getByRole("button", { name: "Delete ben…" }).click();
  await dialog.getByRole("button", { name: "Delete user" }).click();
  await card(page, "ben").waitFor({ state: "detached" });
  await ben.page.getByRole("alert").filter({ hasText: "open /login" }).waitFor();
  await sound(page);
  const refused = /status of (400|409)/; // what was tried above, as Chromium notes it
  assert.deepEqual(wrong.filter((w) => !refused.test(w)), []);
});

test("an administrator tries and changes a camera", { timeout: 180_000 }, async (t) => {
  const it = await owned(t);
  const { page, wrong } = await signedIn(t, it, "anna", "correct horse", { viewport: phone });
  const dialog = page.getByRole("dialog");
  await page.getByRole("button", { name: "Change front…" }).focus();
  await page.keyboard.press("Enter");
  await dialog.getByLabel("Name", { exact: true }).fill("yard");
  const main = dialog.getByRole("group", { name: "Main stream" });
  await main.getByLabel("Address").fill("rtsp://127.0.0.1:1/main");
  await main.getByRole("button", { name: "Test the main stream" }).click();
  await main.getByRole("alert").filter({ hasText: "127.0.0.1:1" }).waitFor();
  await sound(page);
  await main.getByLabel("Record").check();
  await main.getByLabel("in GB").fill("0.001");
  await main.getByLabel("in days").fill("14");
  await page.keyboard.press("Enter");
  await field(dialog, '"main.keep"').getByText("a recorded stream needs at least").waitFor();
  assert.equal(await page.evaluate(() => document.activeElement?.getAttribute("name")), "main.keep");
  await page.keyboard.press("ControlOrMeta+A");
  await page.keyboard.type("20");
  await page.keyboard.press("Enter");
  await field(dialog, "name").getByText('there is a camera named "yard" already').waitFor();
  await page.keyboard.press("ControlOrMeta+A");
  await page.keyboard.type("gate");
  await page.keyboard.press("Enter");
  await page.getByRole("heading", { name: "gate", exact: true }).waitFor();
  await dialog.waitFor({ state: "hidden" });
  await page.getByRole("button", { name: "Change gate…" }).click();
  assert.equal(await main.getByLabel("Address").inputValue(), "rtsp://127.0.0.1:1/main");
  assert.equal(await main.getByLabel("in GB").inputValue(), "20");
  assert.equal(await main.getByLabel("in days").inputValue(), "14");
  assert.ok(await main.getByLabel("Record").isChecked());
  await page.keyboard.press("Escape");
  await dialog.waitFor({ state: "hidden" });
  const refused = /status of 400/; // what was tried above, as Chromium notes it
  assert.deepEqual(wrong.filter((w) => !refused.test(w)), []);
});

test("users change their password, make and revoke a token, and sign out everywhere", { timeout: 180_000 }, async (t) => {
  const it = await owned(t);
  const { page, wrong } = await signedIn(t, it, "anna", "correct horse", { viewport: phone });
  const other = await signedIn(t, it, "anna", "correct horse");
  await other.page.getByRole("link", { name: "Users" }).waitFor();
  await page.getByRole("link", { name: "Account anna" }).click();
  const own = page.getByRole("form", { name: "Change password" });
  await own.getByLabel("Password until now").fill("wrong horse");
  await own.getByLabel("New password").fill("a better horse");
  await own.getByRole("button", { name: "Change password" }).click();
  await field(own, "old").getByText("this is not the password until now").waitFor();
  await own.getByLabel("Password until now").fill("correct horse");
  await own.getByLabel("New password").fill("a better horse");
  await own.getByRole("button", { name: "Change password" }).click();
  await own.getByRole("status").getByText("The password is changed").waitFor();
  await other.page.getByRole("alert").filter({ hasText: "open /login" }).waitFor();
  assert.equal(await own.getByLabel("New password").inputValue(), "");

  const make = page.getByRole("form", { name: "New token" });
  await make.getByLabel("recorded").uncheck();
  await make.getByLabel("Name of the token").fill("backup");
  await make.getByRole("button", { name: "Make token" }).click();
  await make.getByRole("alert").filter({ hasText: "the scope is empty" }).waitFor();
  await make.getByLabel("recorded").check();
  await make.getByLabel("Ends after so many days").fill("90");
  await make.getByRole("button", { name: "Make token" }).click();
  const token = await make.getByLabel("Copy it now").inputValue();
  assert.match(token, /^hft_/);
  const ask = () => fetch(`${it.address}/api/`, { headers: { Authorization: `Bearer ${token}` } });
  assert.equal((await ask()).status, 200);
  await page.getByText("Token backup", { exact: true }).waitFor();
  await page.getByText("may: recorded").waitFor();
  await sound(page);
  await page.reload();
  await page.getByText("Token backup", { exact: true }).waitFor();
  assert.ok(!(await page.content()).includes(token), "it is shown once");
  await page.getByRole("button", { name: "Revoke the token backup…" }).click();
  await page.getByRole("dialog").getByRole("button", { name: "Revoke" }).click();
  await page.getByText("Token backup", { exact: true }).waitFor({ state: "detached" });
  assert.equal((await ask()).status, 401);

  await page.getByRole("button", { name: "Sign out everywhere…" }).click();
  await page.getByRole("dialog").getByRole("button", { name: "Sign out everywhere" }).click();
  await page.waitForURL(/\/login/);
  await signIn(page, "anna", "a better horse");
  await page.getByRole("link", { name: "Account anna" }).click();
  await page.getByRole("button", { name: "Sign out", exact: true }).click();
  await page.waitForURL(/\/login/);
  const refused = /status of (400|401|412)/; // what was tried above, as Chromium notes it
  assert.deepEqual(wrong.filter((w) => !refused.test(w)), []);
});
