import { describe, expect, test } from "vitest";
import { bits, gauges, here, pauseText, role, schedule } from "../src/contribute/words";
import type { MachineView, PeerView } from "../src/net/types";

const machine: MachineView = {
  cores: 8,
  isa: "AVX2",
  memory_bytes: 16e9,
  memory_free_bytes: null,
  disk_free_bytes: null,
  paused: null,
  limits: { cpu: 0.5, memory_bytes: null, up_bits_per_s: 5e6, down_bits_per_s: null, when: "always" },
  used: { cpu: 0.4, others_cpu: 0.1, memory_bytes: null, up_bits_per_s: 4e6, down_bits_per_s: 12 },
};

describe("the Contribute page", () => {
  test("says why it pauses", () => {
    expect(pauseText({ why: "person" })).toBe("Paused by you");
    expect(pauseText({ why: "hours", until: "22:00" })).toBe("Paused until 22:00");
    expect(pauseText({ why: "busy" })).toContain("busy");
  });

  test("measures against the limits that there are", () => {
    const [cpu, memory, up, down] = gauges(machine);
    expect(cpu!.part).toBeCloseTo(0.8);
    expect(cpu!.limit).toBe("50\u202f% of 8 cores");
    expect([memory!.used, memory!.limit, memory!.part]).toEqual(["–", null, null]);
    expect(up!.part).toBeCloseTo(0.8);
    expect([down!.used, down!.limit, down!.part]).toEqual(["0\u202fbit/s", null, null]);
    const full = { ...machine, limits: { ...machine.limits, memory_bytes: 1e9 }, used: { ...machine.used, memory_bytes: 2e9 } };
    expect(gauges(full, 4)[1]!.part).toBeCloseTo(0.5);
    expect(bits(4_210_000)).toBe("4.21\u202fMbit/s");
  });

  test("names the part and the hours", () => {
    const peer = { name: "peer 1", stage: 1, validator: false } as PeerView;
    const pipeline = { layers: [[0, 2], [2, 2]], codec: "", boundaries: [], link: null } as never;
    expect(role(peer, pipeline)).toBe("stage 2 of 2");
    expect(role({ ...peer, stage: null, validator: true }, null)).toBe("full replica, orders the blocks");
    expect(here([peer, { ...peer, name: "3f29ab01" }])).toEqual([peer]);
    expect(schedule(machine)).toContain("all times");
    expect(schedule({ ...machine, limits: { ...machine.limits, when: "22:00-07:00" } })).toContain("from 22:00 to 07:00");
    expect(schedule({ ...machine, limits: { ...machine.limits, when: "idle" } })).toContain("they take 10");
  });
});
