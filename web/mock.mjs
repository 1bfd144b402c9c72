// A stand-in for the node, for work on the pages only: invented figures, never part of what is shipped.
//   node mock.mjs [training|starting|finished|halted|norun|nobaseline] [port]
// In Chat, an opening with the word "fail" gets an error of the API, "break" loses the connection midway.

import { createReadStream, existsSync } from "node:fs";
import { createServer } from "node:http";
import { createHash } from "node:crypto";
import { extname, join } from "node:path";
import { fileURLToPath } from "node:url";

const mode = process.argv[2] ?? "training";
const port = Number(process.argv[3] ?? 7171);
const assets = process.env.CAIRN_WEB_OUT ?? fileURLToPath(new URL("../crates/gateway/assets/", import.meta.url));
const ROUNDS = 40;
const TOKENS_PER_ROUND = 65_536;
const ROUND_MS = Number(process.env.MOCK_ROUND_MS ?? 1500);
const started = Date.now() - (mode === "training" ? Number(process.env.MOCK_START ?? 14) * ROUND_MS : 0);

const hex = (text) => createHash("sha256").update(text).digest("hex");
const noise = (key) => parseInt(hex(String(key)).slice(0, 6), 16) / 0xffffff - 0.5;
const loss = (tokens, key, wobble) => 3.05 + 4.6 * Math.exp(-tokens / 420_000) + wobble * noise(`${key}${tokens}`);

function round() {
  if (mode === "starting" || mode === "norun") return 0;
  if (mode === "finished") return ROUNDS;
  if (mode === "halted") return 23;
  return Math.min(ROUNDS, Math.floor((Date.now() - started) / ROUND_MS));
}

function point(r) {
  const tokens = r * TOKENS_PER_ROUND;
  const behind = 1 + 0.018 * Math.exp(-r / 30);
  return { tokens, training_loss: r === 0 ? null : loss(tokens, "t", 0.12) * behind, heldout_loss: r % 2 === 1 ? null : loss(tokens, "h", 0.02) * behind + 0.04 };
}

function baseline() {
  if (mode === "nobaseline") return null;
  const points = Array.from({ length: ROUNDS * 2 + 1 }, (_, index) => {
    const tokens = (index * TOKENS_PER_ROUND) / 2;
    return { tokens, training_loss: index === 0 ? null : loss(tokens, "bt", 0.12), heldout_loss: index % 2 === 0 ? loss(tokens, "bh", 0.01) + 0.04 : null };
  });
  return { label: "cairn train --solo, the same recipe, seed and tokens in one place", points };
}

const WORDS = "the of and to a in was her it she not be that had as with he you for his at have is but so very could all which him they were my on would said been from by Elinor Emma Anne Miss Crawford Mr. Elton letter sister dear felt every nothing much little think hope evening walked carriage room".split(" ");
function babble(r, length, key) {
  const out = [];
  for (let index = 0; index < length; index += 1) {
    const pick = Math.floor((noise(`${key}${r}${index}`) + 0.5) * WORDS.length);
    let word = WORDS[Math.min(pick, WORDS.length - 1)];
    if (r < 8) word = hex(`${key}${r}${index}`).replace(/\d/g, "").slice(0, 1 + (index % 5)) || "e";
    out.push(word + (index % 29 === 28 ? ".\n\n" : index % 9 === 8 ? "," : ""));
  }
  return ` ${out.join(" ")}`.replaceAll(/(.{60,66}) /g, "$1\n").replaceAll("\n\n ", "\n\n");
}
const sample = (r) => ({ round: r, tokens: r * TOKENS_PER_ROUND, prompt: "It is a truth universally acknowledged, that", text: babble(r, 70, "s") });

const ACTIVITIES = ["training", "training", "fetching", "applying", "waiting"];
function peers(r) {
  const count = 4;
  return Array.from({ length: count }, (_, index) => {
    const activity = paused ? "paused" : mode === "starting" ? ["joining", "offline", "joining", "joining"][index] : r >= ROUNDS ? "done" : mode === "halted" ? "waiting" : ACTIVITIES[Math.floor(Date.now() / 700 + index * 1.3) % 5];
    return {
      id: hex(`peer ${index}`),
      name: `peer ${index + 1}`,
      activity,
      validator: index === 0,
      shares: r * 250_000_000,
      share_of_supply: r === 0 ? 0 : 0.25 + (index - 1.5) * 0.004,
      receipts: r * 2,
      bytes_sent: r * (91_000 + index * 1300),
      bytes_received: r * (262_000 - index * 900),
      tokens_per_second: activity === "training" ? 3100 + 120 * noise(`${r}${index}`) : 0,
      restarts: index === 3 ? 1 : 0,
      faults: mode === "halted" && index === 2 ? 2 : 0,
    };
  });
}

let paused = null;
function machine() {
  const working = paused === null;
  return {
    cores: 8,
    isa: "AVX2",
    memory_bytes: 16_600_000_000,
    memory_free_bytes: 7_210_000_000,
    disk_free_bytes: 212_000_000_000,
    paused,
    limits: { cpu: 0.5, memory_bytes: 4_000_000_000, up_bits_per_s: 5_000_000, down_bits_per_s: null, when: "22:00-07:00" },
    used: { cpu: working ? 0.462 : 0.004, others_cpu: 0.07, memory_bytes: 1_310_000_000, up_bits_per_s: working ? 4_210_000 : 300, down_bits_per_s: working ? 9_870_000 : 210 },
  };
}

function state(full) {
  const r = round();
  const run = {
    id: hex("run"),
    name: "austen-1",
    phase: mode === "starting" || mode === "finished" || mode === "halted" ? mode : r >= ROUNDS ? "finished" : "training",
    parameters: 1_836_032,
    model: "Llama-style, 4 layers of width 128, 4 heads (2 for keys and values), feed-forward 384, vocabulary 2048",
    data: "five novels by Jane Austen (3.1 MB of text), Persuasion held out",
    recipe: "40 rounds of 4 units, Muon × 8 inner steps of 8 × 128 tokens, 64 of 4096 entries sent with 2 bits",
    round: r,
    rounds: ROUNDS,
    tokens: r * TOKENS_PER_ROUND,
    tokens_target: ROUNDS * TOKENS_PER_ROUND,
    elapsed_seconds: (r * ROUND_MS) / 1000 + 0.4,
    eta_seconds: r === 0 ? null : r >= ROUNDS ? 0 : ((ROUNDS - r) * ROUND_MS) / 1000,
    tokens_per_second: r === 0 ? 0 : 12_300 + 500 * noise(r),
    training_loss: point(r).training_loss,
    heldout_loss: r < 2 ? null : point(r - (r % 2)).heldout_loss,
    bytes_per_token: r === 0 ? 0 : 5.61 + 0.1 * noise(r),
    payload_bytes_per_token: r === 0 ? 0 : 1.42,
    compression: r === 0 ? 0 : 78.4,
    time: r === 0 ? { compute: 0, communication: 0, idle: 0 } : { compute: 0.871, communication: 0.041, idle: 0.088 },
    state_root: hex(`state ${r}`),
  };
  const faults = mode === "halted" ? [
    { peer: hex("peer 2"), round: 9, what: "sent a payload that was not available" },
    { peer: hex("peer 2"), round: 23, what: "its state root b5c1fe02 differs from the canonical 77ae0c11" },
  ] : [];
  return {
    version: "0.1.0",
    run: mode === "norun" ? null : run,
    curve: full && mode !== "norun" && mode !== "starting" ? Array.from({ length: r }, (_, index) => point(index + 1)) : [],
    baseline: full && mode !== "norun" ? baseline() : null,
    peers: mode === "norun" ? [] : peers(r),
    samples: full && mode !== "norun" ? Array.from({ length: Math.floor(r / 2) }, (_, index) => sample((index + 1) * 2)) : [],
    ledger: mode === "norun" ? null : { height: r * 3 + 1, root: hex(`ledger ${r}`), supply: r * 1_000_000_000, receipts: r * 8 },
    faults,
    machine: mode === "norun" ? undefined : machine(),
  };
}

function events(response) {
  response.writeHead(200, { "content-type": "text/event-stream", "cache-control": "no-store" });
  let known = round();
  const send = (event, data) => response.write(`event: ${event}\ndata: ${JSON.stringify(data)}\n\n`);
  send("state", state(true));
  const timer = setInterval(() => {
    for (const now = round(); known < now; ) {
      known += 1;
      send("point", point(known));
      if (known % 2 === 0) send("sample", sample(known));
    }
    send("state", state(false));
  }, 500);
  response.on("close", () => clearInterval(timer));
}

const IMPORTED = [
  { id: "smollm2-135m", object: "model", created: 1, owned_by: "imported", imported: true, chat: true, title: "SmolLM2 135M Instruct", licence: "apache-2.0", state_root: hex("smollm2"), parameters: 134_515_008, context: 8192 },
  { id: "pebble", object: "model", created: 1, owned_by: "imported", imported: true, chat: false, title: "pebble", licence: null, state_root: hex("pebble"), parameters: 1_049_088, context: 256 },
];

async function chat(request, response) {
  let body = "";
  for await (const part of request) body += part;
  const { model: name, messages, max_tokens: length } = JSON.parse(body);
  const imported = IMPORTED.find((model) => model.id === name);
  const opening = messages.at(-1).content;
  if (/fail/.test(opening)) {
    response.writeHead(400, { "content-type": "application/json" });
    response.end(JSON.stringify({ error: { type: "invalid_request_error", code: "context_length_exceeded", message: "the text has 412 tokens, and the model reads at most 256", hint: "clear the conversation, or send a shorter opening" } }));
    return;
  }
  response.writeHead(200, { "content-type": "text/event-stream" });
  const chunk = (choices, usage) => response.write(`data: ${JSON.stringify({ id: "chatcmpl-1", object: "chat.completion.chunk", created: 1, model: name, system_fingerprint: (imported?.state_root ?? hex(`state ${round()}`)).slice(0, 8), choices, ...(usage ? { usage } : {}) })}\n\n`);
  const words = babble(30, length, opening).split(/(?<= )/);
  for (const [index, word] of words.entries()) {
    if (response.destroyed) return;
    if (/break/.test(opening) && index === 12) return response.destroy();
    chunk([{ index: 0, delta: { content: word }, finish_reason: null }]);
    await new Promise((resolve) => setTimeout(resolve, 25));
  }
  chunk([{ index: 0, delta: {}, finish_reason: "length" }]);
  chunk([], { prompt_tokens: 5, completion_tokens: words.length, total_tokens: words.length + 5 });
  response.end("data: [DONE]\n\n");
}

function runs() {
  const line = (name, more) => ({ id: hex(name), name, parameters: 1_049_088, state: "complete", round: 176, rounds: 176, heldout_loss: 3.873, gap: 0.0279, data: "Six novels by Jane Austen", licence: "public domain", parent: null, newest: false, ...more });
  const now = state(false).run;
  return [
    line("austen-1", { id: hex("run"), state: "running", round: now.round, rounds: now.rounds, heldout_loss: now.heldout_loss, gap: null, newest: true, parent: hex("austen-1M") }),
    line("austen-1M", {}),
    line("letters-3M", { parameters: 3_010_000, state: "new", round: 0, rounds: 1200, heldout_loss: null, gap: null, data: "letters", licence: "CC-BY-4.0" }),
    line("letters-80k", { parameters: 77_900, state: "paused", round: 31, rounds: 411, heldout_loss: 5.112, gap: null, data: "letters", licence: "CC-BY-4.0", parent: hex("somebody else's") }),
  ];
}

const CSP =
  "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; connect-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
const TYPES = { ".html": "text/html; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8", ".svg": "image/svg+xml" };
function file(path, response) {
  const name = path === "/" || extname(path) === "" ? "/index.html" : path;
  const found = join(assets, name);
  if (!existsSync(`${found}.gz`)) return response.writeHead(404).end();
  response.writeHead(200, { "content-type": TYPES[extname(name)] ?? "application/octet-stream", "content-encoding": "gzip", "content-security-policy": CSP });
  createReadStream(`${found}.gz`).pipe(response);
}

createServer((request, response) => {
  const { pathname } = new URL(request.url, "http://localhost");
  const json = (value) => response.writeHead(200, { "content-type": "application/json" }).end(JSON.stringify(value));
  if (pathname === "/net/state") json(state(true));
  else if (pathname === "/net/pause") json({ paused: (paused = { why: "person" }) });
  else if (pathname === "/net/resume") json({ paused: (paused = null) });
  else if (pathname === "/net/events") events(response);
  else if (pathname === "/runs" && !request.headers.accept?.includes("text/html")) json({ runs: mode === "norun" ? [] : runs() });
  else if (pathname === "/v1/models") json({ object: "list", data: mode === "starting" ? [] : [...(mode === "norun" ? [] : [{ id: "austen-1", object: "model", created: 1, owned_by: "cairn", round: round(), state_root: hex(`state ${round()}`) }]), ...IMPORTED] });
  else if (pathname === "/v1/chat/completions") void chat(request, response);
  else file(pathname, response);
}).listen(port, "127.0.0.1", () => console.log(`mock (${mode}): http://127.0.0.1:${port}/`));
