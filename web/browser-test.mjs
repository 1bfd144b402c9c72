// Looks at a real run with a real browser.
//   node browser-test.mjs [URL] [DIRECTORY]
// URL (or CAIRN_URL) is a node that is training now; screenshots go to DIRECTORY (default: browser-test-shots).
// CAIRN_CHROMIUM names the browser (default /usr/bin/chromium), CAIRN_TEST_SECONDS the patience per step (default 120).
// Exit code 0: everything held. 1: a check failed. 2: it could not be tried at all.

import { existsSync, mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { chromium } from "playwright-core";

const url = process.argv[2] ?? process.env.CAIRN_URL;
const shots = process.argv[3] ?? "browser-test-shots";
const browserPath = process.env.CAIRN_CHROMIUM ?? "/usr/bin/chromium";
const patience = Number(process.env.CAIRN_TEST_SECONDS ?? 120) * 1000;
const WEIGHT_MAX_BYTES = 300_000;
const OPENING = "She opened the letter, and";
const FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"];

class Failed extends Error {}

function check(holds, claim, details = "") {
  if (!holds) throw new Failed(`${claim}${details === "" ? "" : `: ${details}`}`);
  console.log(`ok   ${claim}${details === "" ? "" : `: ${details}`}`);
}

/** Everything the page asked for, said or got wrong. */
function watch(page) {
  const seen = { foreign: [], errors: [], failed: [] };
  const own = new URL(url).origin;
  page.on("request", (request) => {
    const address = new URL(request.url());
    if (!["data:", "blob:"].includes(address.protocol) && address.origin !== own) seen.foreign.push(request.url());
  });
  page.on("websocket", (socket) => seen.foreign.push(socket.url()));
  page.on("console", (message) => message.type() === "error" && seen.errors.push(message.text()));
  page.on("pageerror", (error) => seen.errors.push(String(error)));
  page.on("requestfailed", (request) => seen.failed.push(`${request.url()} (${request.failure()?.errorText})`));
  return seen;
}

/** Bytes on the wire of everything that finished loading; the stream of events never finishes and carries no page. */
async function weigh(page) {
  const session = await page.context().newCDPSession(page);
  const sizes = new Map();
  await session.send("Network.enable");
  session.on("Network.responseReceived", ({ requestId, response }) => sizes.set(requestId, { url: response.url, bytes: 0 }));
  session.on("Network.loadingFinished", ({ requestId, encodedDataLength }) => {
    if (sizes.has(requestId)) sizes.get(requestId).bytes = encodedDataLength;
  });
  return () => [...sizes.values()];
}

async function until(page, claim, predicate, argument) {
  try {
    return await (await page.waitForFunction(predicate, argument, { timeout: patience, polling: 250 })).jsonValue();
  } catch (error) {
    const phase = await page.locator(".phase").textContent({ timeout: 1000 }).catch(() => "unknown");
    throw new Failed(`${claim}: not within ${patience / 1000} s (phase \`${phase}\`): ${String(error).split("\n")[0]}`);
  }
}

/** Pixels of the chart that have the colour of the named line. */
function linePixels(page, line) {
  return page.evaluate((name) => {
    const canvas = document.querySelector(".plot canvas");
    const probe = document.createElement("i");
    probe.style.color = getComputedStyle(canvas).getPropertyValue(`--line-${name}`);
    document.body.append(probe);
    const [red, green, blue] = getComputedStyle(probe).color.match(/\d+/g).map(Number);
    probe.remove();
    const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
    let count = 0;
    for (let at = 0; at < data.length; at += 4) {
      const distance = Math.abs(data[at] - red) + Math.abs(data[at + 1] - green) + Math.abs(data[at + 2] - blue);
      if (data[at + 3] > 200 && distance < 24) count += 1;
    }
    return count;
  }, line);
}

/** The node may still be starting. */
async function answers() {
  const end = Date.now() + patience;
  for (;;) {
    const response = await fetch(new URL("/net/state", url)).catch(() => null);
    if (response?.ok) return;
    if (Date.now() > end) throw new Failed(`the node at ${url} does not answer within ${patience / 1000} s`);
    await new Promise((resolve) => setTimeout(resolve, 250));
  }
}

async function runPage(page, weight) {
  await page.goto(url, { waitUntil: "load" });
  await page.keyboard.press("Tab");
  check((await page.evaluate(() => document.activeElement?.className)) === "skip", "the first Tab reaches the skip link");
  await until(page, "the page shows a run", () => document.querySelector("#run-name")?.textContent);
  const loaded = weight();
  const total = loaded.reduce((sum, item) => sum + item.bytes, 0);
  check(total > 0 && total < WEIGHT_MAX_BYTES, "the first load is light", `${(total / 1000).toFixed(1)} kB in ${loaded.length} responses, at most ${WEIGHT_MAX_BYTES / 1000} kB`);

  const phase = await page.locator(".phase").textContent();
  check(phase === "starting" || phase === "training", "the run is under way while the page looks on", phase === "training" || phase === "starting" ? phase : `it is ${phase}, so nothing can be seen to fall`);
  const before = Number(await page.locator(".plot").getAttribute("data-swarm-points"));
  await page.getByText("The numbers as a table").click();
  const fell = await until(page, "the loss falls", (before) => {
    const rows = [...document.querySelectorAll(".curve-table tbody tr")].map((row) => [...row.cells].map((cell) => Number.parseFloat(cell.textContent.replaceAll(",", ""))));
    const points = Number(document.querySelector(".plot")?.dataset.swarmPoints);
    for (const column of [2, 1]) {
      const known = rows.filter((row) => Number.isFinite(row[column]));
      if (points >= 2 && points > before && known.length >= 2 && known[0][column] < known.at(-1)[column]) {
        return { points, kind: column === 2 ? "held-out" : "training", first: known.at(-1)[column], newest: known[0][column] };
      }
    }
    return null;
  }, before);
  check(fell.newest < fell.first, "the loss fell", `${fell.kind} ${fell.first} → ${fell.newest} over ${fell.points} points, ${before} when the page opened`);
  await page.getByText("The numbers as a table").click();

  await until(page, "the model wrote a sample", () => (document.querySelector(".sample blockquote b")?.textContent ?? "").length > 0);
  check(true, "a sample of the model's text is shown");
  const peers = await page.locator(".peers tbody tr").count();
  check(peers > 0, "the peers are listed", `${peers} rows`);
  await baselineDrawn(page);
}

async function baselineDrawn(page) {
  const points = Number(await page.locator(".plot").getAttribute("data-baseline-points"));
  check(points >= 2, "a baseline is known", `${points} points`);
  const button = page.getByRole("button", { name: "Baseline, held-out" });
  const drawn = await linePixels(page, "baseline-heldout");
  await button.click();
  await page.waitForTimeout(300);
  const without = await linePixels(page, "baseline-heldout");
  await button.click();
  check(drawn >= 60 && without < drawn / 10, "the baseline curve is drawn, and its button hides it", `${drawn} pixels, ${without} when hidden`);
  await until(page, "a held-out loss of the swarm is shown", () => Number.isFinite(Number.parseFloat(document.querySelector(".line.swarm-heldout")?.parentElement.querySelector("b").textContent)));
  await page.waitForTimeout(300);
  const swarm = await linePixels(page, "swarm-heldout");
  check(swarm >= 20, "the swarm's curve is drawn", `${swarm} pixels`);
}

/** Screenshots in both looks and at the width of a phone, where nothing may stick out. */
async function pictures(page) {
  await page.screenshot({ path: join(shots, "run-light.png"), fullPage: true });
  await page.emulateMedia({ colorScheme: "dark" });
  await page.waitForTimeout(300);
  await page.screenshot({ path: join(shots, "run-dark.png"), fullPage: true });
  await page.emulateMedia({ colorScheme: "light" });
  for (const width of [360, 390]) {
    await page.setViewportSize({ width, height: 844 });
    await page.waitForTimeout(300);
    const over = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
    check(over <= 0, `the page fits ${width} px`, `${Math.max(0, over)} px too wide`);
  }
  await page.screenshot({ path: join(shots, "run-phone.png"), fullPage: true });
  await page.setViewportSize({ width: 1280, height: 900 });
}

async function chatPage(page) {
  await page.getByRole("link", { name: "Chat" }).click();
  check(new URL(page.url()).pathname === "/chat", "Chat has its own address");
  await page.evaluate(() => {
    window.lengths = [];
    new MutationObserver(() => {
      const length = document.querySelector(".turn .answer")?.textContent.length ?? 0;
      if (length > (window.lengths.at(-1) ?? 0)) window.lengths.push(length);
    }).observe(document.querySelector(".turns"), { childList: true, subtree: true, characterData: true });
  });
  await page.keyboard.type(OPENING);
  check((await page.locator("#opening").inputValue()) === OPENING, "typing works at once, without a click");
  await page.keyboard.press("Enter");
  const end = await until(page, "the answer ends", () => {
    const status = document.querySelector(".turn .answer")?.dataset.answer;
    return ["done", "failed", "stopped"].includes(status) ? status : null;
  });
  const error = await page.locator(".turn-error").allTextContents();
  check(end === "done", "the answer is complete", error.join(" ") || end);
  const lengths = await page.evaluate(() => window.lengths);
  check(lengths.length >= 3, "the answer streamed in", `the text grew ${lengths.length} times to ${lengths.at(-1)} characters`);
  const facts = await page.locator(".turn-facts").textContent();
  check(/root [0-9a-f]{8}/.test(facts), "the answer names its checkpoint", facts);
  await page.screenshot({ path: join(shots, "chat.png") });
}

/** Pauses this machine by a click, and lets it go on. */
async function contributePage(page) {
  await page.getByRole("link", { name: "Contribute" }).click();
  check(new URL(page.url()).pathname === "/contribute", "Contribute has its own address");
  await until(page, "the limits are measured", () => document.querySelectorAll(".limits li").length === 4 && /%/.test(document.querySelector(".limits li b").textContent));
  await page.getByRole("button", { name: "Pause", exact: true }).click();
  await until(page, "the click pauses", () => document.querySelector(".now .phase")?.textContent === "Paused by you");
  const paused = await page.evaluate(async () => (await (await fetch("/net/state")).json()).machine.paused);
  check(paused?.why === "person", "the node pauses, too", JSON.stringify(paused));
  await until(page, "the peers pause", () => [...document.querySelectorAll(".mine .doing")].every((peer) => peer.textContent === "paused"));
  for (const [name, width, scheme] of [["contribute-light", 1280, "light"], ["contribute-dark", 1280, "dark"], ["contribute-phone", 360, "light"]]) {
    await page.setViewportSize({ width, height: 900 });
    await page.emulateMedia({ colorScheme: scheme });
    await page.waitForTimeout(300);
    await page.screenshot({ path: join(shots, `${name}.png`), fullPage: true });
    const over = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
    check(over <= 0, `Contribute fits ${width} px, ${scheme}`, `${Math.max(0, over)} px too wide`);
  }
  await page.setViewportSize({ width: 1280, height: 900 });
  await page.emulateMedia({ colorScheme: "light" });
  await page.getByRole("button", { name: "Resume", exact: true }).click();
  await until(page, "the click lets it go on", () => document.querySelector(".now .phase")?.textContent !== "Paused by you");
  await until(page, "the peers work again", () => [...document.querySelectorAll(".mine .doing")].some((peer) => peer.textContent !== "paused"));
}

/** Lets an imported model answer, where there is one. */
async function otherModel(page) {
  const imported = await page.evaluate(async () => (await (await fetch("/v1/models")).json()).data.find((model) => model.imported)?.id);
  if (imported === undefined) return console.log("skip no model is imported, so none can be chosen");
  await page.locator(".picker select").selectOption(imported);
  await page.locator("#opening").fill(OPENING);
  await page.keyboard.press("Enter");
  await until(page, "the chosen model answers", () => {
    const answers = document.querySelectorAll(".turn .answer");
    return answers.length === 2 && ["done", "failed", "stopped"].includes(answers[1].dataset.answer);
  });
  const facts = await page.locator(".turn-facts").last().textContent();
  check(facts.startsWith(`${imported} · root`), "the chosen model answers and is named", facts);
  for (const [name, width, scheme] of [["chat-model", 1280, "light"], ["chat-model-dark", 1280, "dark"], ["chat-model-phone", 390, "light"]]) {
    await page.setViewportSize({ width, height: 900 });
    await page.emulateMedia({ colorScheme: scheme });
    await page.evaluate(() => scrollTo(0, 0));
    await page.screenshot({ path: join(shots, `${name}.png`) });
    const overflow = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
    check(overflow <= 0, `nothing of the chat is cut off at ${width} pixels, ${scheme}`, `${overflow} pixels too wide`);
  }
}

async function main() {
  mkdirSync(shots, { recursive: true });
  const profile = mkdtempSync(join(tmpdir(), "cairn-browser-"));
  const context = await chromium.launchPersistentContext(profile, { executablePath: browserPath, args: FLAGS, viewport: { width: 1280, height: 900 }, colorScheme: "light" });
  const page = context.pages()[0] ?? (await context.newPage());
  try {
    const seen = watch(page);
    const weight = await weigh(page);
    await answers();
    await runPage(page, weight);
    await pictures(page);
    await contributePage(page);
    await chatPage(page);
    await otherModel(page);
    check(seen.foreign.length === 0, "no request left the node", seen.foreign.join(", "));
    check(seen.failed.length === 0, "no request failed", seen.failed.join(", "));
    check(seen.errors.length === 0, "the console shows no error", seen.errors.join("; "));
  } catch (error) {
    await page.screenshot({ path: join(shots, "failure.png"), fullPage: true }).catch(() => {});
    throw error;
  } finally {
    await context.close();
    rmSync(profile, { recursive: true, force: true });
  }
}

if (!url) {
  console.error("error: no address\n\nhint: node browser-test.mjs http://127.0.0.1:7070/ DIRECTORY");
  process.exit(2);
}
if (!existsSync(browserPath)) {
  console.error(`error: no browser at \`${browserPath}\`\n\nhint: apt-get install -y chromium, or set CAIRN_CHROMIUM`);
  process.exit(2);
}
try {
  await main();
  console.log(`all checks hold; screenshots in ${shots}`);
} catch (error) {
  console.error(`FAIL ${error instanceof Failed ? error.message : (error.stack ?? error)}`);
  console.error(`\nhint: ${join(shots, "failure.png")} shows the page at that moment`);
  process.exit(1);
}
