// What the gateway says and hears: the shapes of its HTTP and WebSocket messages.

export type Role = "owner" | "manager" | "annotator" | "viewer";
export type Language = "en" | "zh";
export type Message = { role: "system" | "user" | "assistant"; content: string };

export type Model = {
  id: string;
  title: string;
  chat: boolean;
  builtin: boolean;
  weight_version: string;
  reward_version?: string | null;
  context: number;
  languages: Language[];
};

export type User = { id: string; name: string; role: Role; language: Language };

export type State = {
  setup_needed: boolean;
  user: User | null;
  version: string;
  model: Model | null;
  engine: "ready" | "starting" | "down" | "unknown";
  rewards: boolean;
  show_rewards?: boolean; // to this person
};

export type Token = {
  text: string;
  logprob: number | null;
  reward: number | null;
  version: string | null;
  start?: number;
  end?: number;
};

export type Target = { completion_id: string; choice?: number; tokens?: [number, number] };
export type Status =
  | "sending"
  | "waiting"
  | "saved"
  | "settled"
  | "learned"
  | "live"
  | "retracted"
  | "refused";
export type Choice = "first" | "second" | "tie" | "both_bad";
export type Scale = { low: number; high: number };

export type Judgment =
  | { kind: "rating"; value: number; scale: Scale }
  | { kind: "preference"; choice: Choice }
  | { kind: "ranking"; ranks: number[] }
  | { kind: "edit"; corrected: string }
  | { kind: "comment"; text: string }
  | { kind: "dialogue"; reply: string; evaluation?: -1 | 0 | 1; rewrite?: string }
  | { kind: "live"; value: -1 | 1; token_index: number; reaction_ms: number }
  | { kind: "span"; start: number; end: number; category: string; severity?: number }
  | { kind: "flag"; reason: string };

export type FeedbackBody = Judgment & {
  target?: Target;
  targets?: Target[];
  criterion?: string;
  metadata?: Record<string, string>;
};

export type Feedback = FeedbackBody & {
  id: string;
  seq: number;
  created_at: string;
  annotator?: { id: string; name: string };
  status: Status;
  version?: string;
};

export type Receipt = { id: string; seq: number; status: string };

export type Completion = {
  id: string;
  choice: number;
  text: string;
  tokens: Token[];
  finish_reason: string | null;
  weight_version: string | null;
  reward_version: string | null;
  created_at: string;
  feedback: Feedback[];
};

export type Turn = { id: string; role: Message["role"]; content: string; completion?: Completion };
export type Conversation = { id: string; title: string; turns: Turn[] };
export type ConversationHead = { id: string; title: string; updated_at: string };

export type WorldSection = { title: string; columns: string[]; rows: string[][] };
export type World = { title: string; sections: WorldSection[]; questions: string[] };

export type QueueKind = "compare" | "rate" | "edit";
export type Assignment = {
  assignment_id: string;
  task: QueueKind;
  criterion: string;
  guidelines: string;
  lease_expires_at: string;
  prompt: Message[] | string;
  candidates: { completion_id: string; choice: number; text: string }[];
  remaining: number;
};
/** What is answered to a comparison, a rating, or a correction. */
export type QueueAnswer = { choice: Choice } | { value: number } | { corrected: string };
/** What somebody said about an item of the queue; of a comparison, `first` is the first of its candidates. */
export type SaidOfItem = {
  annotator: { id: string; name: string };
  at: string;
  choice?: Choice;
  value?: number;
  corrected?: string;
  comment?: string;
};
export type Disagreement = Pick<Assignment, "task" | "criterion" | "prompt" | "candidates"> & {
  id: string;
  judgments: SaidOfItem[];
  verdict: SaidOfItem | null;
};
export type Disagreements = { items: Disagreement[]; open: number; decided: number };
export type QueueProgress = {
  mine: { done: number; today: number };
  all: { done: number; total: number; overlap: number };
  agreement: number | null;
};
export type QueueTask = {
  id: string;
  task: QueueKind;
  overlap: number;
  criterion: string;
  progress?: { ready: number; size: number; judged: number };
  created_at?: string;
};

export type Agreement = {
  criterion?: string;
  kind: string;
  alpha: number | null;
  low: number | null;
  high: number | null;
  items: number;
};
export type Annotator = {
  id: string;
  name: string;
  role: Role | string;
  judgments: number;
  by_kind: Record<string, number>;
  reliability: number | null;
  low: number | null;
  high: number | null;
  severity: number | null;
  discrimination: number | null;
  lapse: number | null;
  side_bias: number | null;
  consistency: number | null;
  gold_accuracy: number | null;
  straight_lining: null | { question: string; answer: string; length: number };
  drift: boolean;
  excluded: null | { reason: string; since: string; by: string };
  daily: number[];
};

export type Numbers = (number | null)[];
export type Curves = { t: (number | string)[]; mean: Numbers; low: Numbers; high: Numbers };
/** What the learner is doing now. */
export type Progress = {
  phase: string;
  iteration?: number;
  of?: number;
  version?: number;
  judgments?: number;
  last_seq?: number;
  because?: string;
  at?: string;
};
export type Dashboard = {
  totals: { completions: number; feedback: number; people: number; conversations: number };
  pipeline: { saved: number; settled: number; learned: number; live: number; lag_s: number | null };
  series: {
    feedback_by_kind?: { t: (number | string)[]; kinds: Record<string, Numbers> };
    reward?: Curves;
    length?: { t: (number | string)[]; mean: Numbers };
    rating_mean?: Curves;
    latency?: { t: (number | string)[]; ttft_p50: Numbers; ttft_p95: Numbers };
  };
  // By the names of docs/metrics.md, one figure for each version.
  versions?: { version: number[]; metrics: Record<string, Numbers> };
  win_rate: null | { value: number; low: number; high: number; against?: string };
  learner?: Progress | null;
  paused?: { reason: string; since: string } | null;
  alarms: { id: string; severity: "info" | "warning" | "critical" | string; text: string; since: string }[];
};

export type ModelVersion = {
  version: string;
  title: string;
  parameters: number;
  digest?: string | null;
  created_at?: string | null;
  active: boolean;
  source: string;
  feedback?: number;
  passed?: boolean | null; // what the gate said
  reasons?: string[];
  kept?: boolean; // its weights are still there
  metrics: Record<string, number | string | null>;
};
export type Versions = {
  items: ModelVersion[];
  before?: string | null; // where a roll-back goes
  paused?: boolean;
  pause_reason?: string;
  trouble?: string | null;
  engine?: "ready" | "down";
  next?: number | null; // `older_than` of what follows
};
/** How far versions have learned, as places in the log: up to `learned` by the newest, up to `live` by the one in use. */
export type PolicyNews = { learned: number; live: number; active: number; paused: boolean };

export type DataRow = {
  seq: number;
  id: string;
  at: string;
  kind: string;
  annotator: { id: string; name: string } | string | null;
  summary: string;
  prompt: Message[] | string | null;
  completion: string | null;
  completions?: string[]; // all that it is about, in the order shown
  body: Record<string, unknown>;
  status: Status;
};

export type Criterion = { name: string; scale: Scale; description: string };
export type Settings = {
  guidelines: string;
  criteria: Criterion[];
  show_rewards_to_annotators: boolean;
  settling_s: number;
};

export type Invitation = { id: string; role: Role; link?: string; expires_at: string };
export type Member = { id: string; name: string; role: Role; disabled: boolean; last_seen_at?: string };
export type Scope = "infer" | "feedback" | "read" | "admin";
export type Key = {
  id: string;
  name: string;
  scopes: Scope[];
  created_at?: string;
  last_used_at?: string | null;
};

// ---------------------------------------------------------------- the socket

export type Generate = {
  type: "generate";
  request: string;
  conversation_id: string | null;
  messages?: Message[];
  prompt?: string;
  settings: { temperature: number; max_tokens: number; seed: number | null; choices: number };
  blind: boolean;
};
export type LiveVote = {
  type: "live";
  completion_id: string;
  choice: number;
  token_index: number;
  value: -1 | 1;
  reaction_ms: number;
  key: string;
};
export type ClientMessage =
  | Generate
  | { type: "cancel"; request: string }
  | LiveVote
  | { type: "resume"; last: number }
  | { type: "ping" };

export type ErrorBody = { message: string; type?: string; param?: string | null; code?: string | null };
export type ServerMessage = { s?: number } & (
  | { type: "ack"; n: number; ok: boolean; error?: ErrorBody | string; seq?: number }
  | {
      type: "started";
      request: string;
      completion_id: string;
      choices: number;
      weight_version: string | null;
      conversation_id: string | null;
    }
  | { type: "tokens"; request: string; choice: number; tokens: Token[] }
  | {
      type: "finished";
      request: string;
      choice: number;
      finish_reason: string;
      usage?: Record<string, number>;
      weight_version?: string;
    }
  | { type: "failed"; request: string; error: ErrorBody }
  | { type: "feedback"; id: string; status: Status; version?: string }
  | ({ type: "policy" } & PolicyNews)
  | ({ type: "learner" } & Progress)
  | ({ type: "state" } & Partial<State>)
  | { type: "pong" }
);
