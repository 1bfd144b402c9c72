/** The JSON of `GET /net/state`; the same fields as `crates/node/src/view.rs`. */

export type Phase = "starting" | "training" | "finished" | "halted";

export type PeerActivity = "offline" | "joining" | "training" | "fetching" | "applying" | "waiting" | "done" | "paused" | "elsewhere" | "restarting";

export interface TimeSplit {
  compute: number;
  communication: number;
  idle: number;
}

/** When the weights of a run may leave its stages. */
export type Release = "open_now" | "split" | { open_after: { rounds: number } };

export interface RunView {
  id: string;
  name: string;
  phase: Phase;
  parameters: number;
  model: string;
  data: string;
  recipe: string;
  round: number;
  rounds: number;
  tokens: number;
  tokens_target: number;
  elapsed_seconds: number;
  eta_seconds: number | null;
  tokens_per_second: number;
  training_loss: number | null;
  heldout_loss: number | null;
  bytes_per_token: number;
  payload_bytes_per_token: number;
  compression: number;
  time: TimeSplit;
  state_root: string | null;
  release?: Release;
  /** The licence of the data. */
  licence?: string | null;
  /** The run whose terms it took over and changed. */
  parent?: string | null;
  /** What another machine needs to take part, when the run lets others in. */
  ticket?: string | null;
  pipeline?: PipelineView | null;
}

/** Where a run of the data directory stands. */
export type RunState = "new" | "paused" | "running" | "halted" | "complete";

/** A run of the data directory in a line, as `GET /runs` lists it. */
export interface RunLine {
  id: string;
  name: string;
  parameters: number;
  state: RunState;
  round: number;
  rounds: number;
  heldout_loss: number | null;
  gap: number | null;
  data: string | null;
  licence: string | null;
  /** The run whose terms it took over and changed. */
  parent: string | null;
  /** Whether `cairn up` goes on with it. */
  newest: boolean;
}

/** A model in stages. */
export interface PipelineView {
  /** The first layer of each stage, and how many it has. */
  layers: [number, number][];
  codec: string;
  /** Between each stage and the next, in the open round. */
  boundaries: { precision: string; bytes_per_token: number }[];
  link: string | null;
}

export interface CurvePoint {
  tokens: number;
  training_loss: number | null;
  heldout_loss: number | null;
}

export interface Baseline {
  label: string;
  points: CurvePoint[];
}

export interface PeerView {
  id: string;
  name: string;
  activity: PeerActivity;
  validator: boolean;
  shares: number;
  share_of_supply: number;
  receipts: number;
  bytes_sent: number;
  bytes_received: number;
  tokens_per_second: number;
  stage?: number | null;
  memory_peak_bytes?: number | null;
  /** How often its process died and was started again. */
  restarts?: number;
  /** Why it is gone for good, when it failed. */
  lost?: string | null;
  /** Which way packets to it take, of a peer that this machine is connected to. */
  path?: { relayed: boolean; round_trip_ms: number } | null;
  faults: number;
}

export interface Sample {
  round: number;
  tokens: number;
  prompt: string;
  text: string;
}

export interface LedgerView {
  height: number;
  root: string;
  supply: number;
  receipts: number;
}

export interface FaultView {
  peer: string;
  round: number;
  what: string;
}

export interface NetState {
  version: string;
  run: RunView | null;
  curve: CurvePoint[];
  baseline: Baseline | null;
  peers: PeerView[];
  samples: Sample[];
  ledger: LedgerView | null;
  faults: FaultView[];
  /** What this machine gives, when it takes part in a run. */
  machine?: MachineView | null;
}

/** Why a machine pauses. */
export type Pause = { why: "person" } | { why: "hours"; until: string } | { why: "busy" };

/** What a machine has, may take, and takes: parts of its processor from 0 to 1, bytes, and bits per second. */
export interface MachineView {
  cores: number;
  isa: string;
  memory_bytes: number | null;
  memory_free_bytes: number | null;
  disk_free_bytes: number | null;
  paused: Pause | null;
  limits: {
    cpu: number | null;
    memory_bytes: number | null;
    up_bits_per_s: number | null;
    down_bits_per_s: number | null;
    /** `always`, `idle` or `22:00-07:00`. */
    when: string;
  };
  used: {
    cpu: number | null;
    others_cpu: number | null;
    memory_bytes: number | null;
    up_bits_per_s: number;
    down_bits_per_s: number;
  };
}
