// Runs a WebAssembly program for WASI with node: `node wasi.mjs FILE [ARGUMENT...]`.
//
// The program's C library may lack functions for threads, which WebAssembly has not: starting one fails (EAGAIN), all others of
// these functions do nothing.
import { readFile } from "node:fs/promises";
import { WASI } from "node:wasi";

const [, , path, ...args] = process.argv;
const wasi = new WASI({ version: "preview1", args: [path, ...args], returnOnExit: true });
const threads = new Proxy({}, { get: (_, name) => () => (name === "pthread_create" ? 6 : 0) });
const module = await WebAssembly.compile(await readFile(path));
const instance = await WebAssembly.instantiate(module, { ...wasi.getImportObject(), env: threads });
process.exitCode = wasi.start(instance);
