/** What the Contribute page says; pure, so that it can be tested without a browser. */

import * as format from "../format";
import type { MachineView, Pause, PeerView, PipelineView } from "../net/types";

/** Why a machine pauses, in the words of the terminal. */
export function pauseText(pause: Pause): string {
  switch (pause.why) {
    case "person":
      return "Paused by you";
    case "hours":
      return `Paused until ${pause.until}`;
    case "busy":
      return "Paused: other programs keep this machine busy";
  }
}

/** What follows from it. */
export function pauseNote(pause: Pause | null): string {
  if (pause === null) return "A pause gives up the unit under way and nothing else: nobody waits for you, your shares stay yours, and others still get from here what this machine has stored.";
  const rest = "Nobody waits for it, and what it earned stays yours. It follows the run and serves what it has.";
  return pause.why === "person" ? rest : `${rest} It goes on by itself.`;
}

/** The part of a peer in the run. */
export function role(peer: PeerView, pipeline: PipelineView | null | undefined): string {
  const orders = peer.validator ? ", orders the blocks" : "";
  if (!pipeline || peer.stage === undefined || peer.stage === null) return `full replica${orders}`;
  return `stage ${peer.stage + 1} of ${pipeline.layers.length}${orders}`;
}

/** Peers of this machine, and not of others that the ledger names. */
export function here(peers: PeerView[]): PeerView[] {
  return peers.filter((peer) => peer.name.startsWith("peer "));
}

/** `4.21 Mbit/s`. */
export function bits(perSecond: number): string {
  return perSecond < 500 ? "0" + format.THIN + "bit/s" : format.bytes(perSecond).replace(/B$/, "bit/s");
}

/** One limit: what is used, what may be, and the part of it; no part where there is no limit or nothing was measured. */
export interface Gauge {
  name: string;
  option: string;
  used: string;
  limit: string | null;
  part: number | null;
}

/** What is measured of a machine with so many peers, against its limits. */
export function gauges(machine: MachineView, peers = 1): Gauge[] {
  const { limits, used } = machine;
  const of = (now: number | null, most: number | null) => (now === null || most === null || most <= 0 ? null : now / most);
  const cores = (part: number) => `${format.percent(part, 0)} of ${machine.cores} ${machine.cores === 1 ? "core" : "cores"}`;
  return [
    { name: "Processor", option: "--cpu 50%", used: used.cpu === null ? "–" : format.percent(used.cpu, 0), limit: limits.cpu === null ? null : cores(limits.cpu), part: of(used.cpu, limits.cpu) },
    { name: "Memory", option: "--memory 4G", used: used.memory_bytes === null ? "–" : format.bytes(used.memory_bytes), limit: limits.memory_bytes === null ? null : `${format.bytes(limits.memory_bytes)} a peer`, part: of(used.memory_bytes, limits.memory_bytes === null ? null : limits.memory_bytes * Math.max(peers, 1)) },
    { name: "To other machines", option: "--up 5M", used: bits(used.up_bits_per_s), limit: limits.up_bits_per_s === null ? null : bits(limits.up_bits_per_s), part: of(used.up_bits_per_s, limits.up_bits_per_s) },
    { name: "From other machines", option: "--down 20M", used: bits(used.down_bits_per_s), limit: limits.down_bits_per_s === null ? null : bits(limits.down_bits_per_s), part: of(used.down_bits_per_s, limits.down_bits_per_s) },
  ];
}

/** When it works, in a sentence. */
export function schedule(machine: MachineView): string {
  const when = machine.limits.when;
  if (when === "always") return "It works at all times.";
  if (when !== "idle") return `It works from ${when.replace("-", " to ")}, by this machine's clock.`;
  const others = machine.used.others_cpu;
  const now = others === null ? "" : ` Now they take ${format.percent(others, 0)}.`;
  return `It works while other programs take little of the processor: it pauses above 30${format.THIN}%, and goes on below 15${format.THIN}%.${now}`;
}
