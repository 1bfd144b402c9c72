import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { defineConfig, type Plugin } from "vite";

const outDir = process.env.CAIRN_WEB_OUT ?? "../crates/gateway/assets";

/** Writes `FILE.gz` beside each built file. Node's gzip header carries no time; the byte that names the system is fixed. */
function precompress(): Plugin {
  return {
    name: "precompress",
    apply: "build",
    closeBundle() {
      for (const name of readdirSync(outDir).filter((name) => /\.(html|js|css|svg)$/.test(name))) {
        const packed = gzipSync(readFileSync(join(outDir, name)), { level: 9 });
        packed[9] = 255;
        writeFileSync(join(outDir, `${name}.gz`), packed);
      }
    },
  };
}

/** Names without hashes: the binary that embeds the files is their version. */
export default defineConfig({
  base: "/",
  publicDir: "public",
  plugins: [precompress()],
  build: {
    outDir,
    emptyOutDir: true,
    target: "es2022",
    modulePreload: false,
    cssCodeSplit: false,
    reportCompressedSize: false,
    rolldownOptions: {
      output: {
        entryFileNames: "app.js",
        assetFileNames: "app[extname]",
        codeSplitting: false,
      },
    },
  },
});
