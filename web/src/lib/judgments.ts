// What this person has said about each answer, and how far it has come: sending, saved, learned, live.
import { effect, signal, untracked } from "@preact/signals";
import type { ApiError } from "./api";
import { call } from "./api";
import type {
  Completion,
  Feedback,
  FeedbackBody,
  Judgment,
  QueueAnswer,
  Receipt,
  Status,
  Target,
} from "./contract";
import { IndexedDrawer } from "./drawer";
import { type Letter, Outbox } from "./outbox";
import { policy, stageOf } from "./policy";
import { socket } from "./socket";

export type Said = {
  key: string;
  id: string | null;
  seq: number | null; // its place in the log, once that is known
  body: FeedbackBody;
  status: Status;
  version?: string;
  why?: string; // of a refusal
};

export const PATH = "/v1/feedback";
const ORDER: Status[] = ["refused", "sending", "waiting", "saved", "settled", "learned", "live"];

const said = signal<ReadonlyMap<string, readonly Said[]>>(new Map());
// The newest judgment of this tab: what the strip shows.
export const newest = signal<{ address: string; key: string } | null>(null);
export const givenToday = signal(0);

export const addressOf = (target: Target): string => `${target.completion_id}/${target.choice ?? 0}`;
const addresses = (body: FeedbackBody): string[] =>
  (body.targets ?? (body.target ? [body.target] : [])).map(addressOf);

export const saidAbout = (target: Target): readonly Said[] => said.value.get(addressOf(target)) ?? [];

export function lastOf(target: Target, fits: (body: FeedbackBody) => boolean): Said | undefined {
  return saidAbout(target).findLast(
    (one) => fits(one.body) && one.status !== "retracted" && one.status !== "refused",
  );
}

export const outbox = new Outbox(
  new IndexedDrawer(),
  (letter) =>
    letter.method === "DELETE"
      ? call(letter.method, letter.path)
      : call(letter.method, letter.path, { body: letter.body, headers: { "idempotency-key": letter.key } }),
  (letter, reply) => delivered(letter, reply as Receipt | null),
  (letter, error) => change((one) => one.key === letter.key, { status: "refused", why: error.message }),
);

/** Says `judgment` about `target`; it is shown at once and sent until the gateway has it. */
export function say(
  target: Target | Target[],
  judgment: Judgment,
  more: Pick<FeedbackBody, "criterion" | "metadata"> = {},
): Promise<Receipt> {
  const about = Array.isArray(target) ? { targets: target } : { target };
  return deliver(PATH, { ...about, ...judgment, ...more });
}

/** Sends a judgment to `path`, the queue's or the usual one, through the outbox. */
export function deliver(
  path: string,
  body: FeedbackBody,
  key: string = crypto.randomUUID(),
): Promise<Receipt> {
  note({ key, id: null, seq: null, body, status: "sending" });
  givenToday.value += 1;
  return outbox.post({ key, method: "POST", path, body }) as Promise<Receipt>;
}

/** Answers an assignment of the queue; it names the answers, so that only the judgment itself is sent. */
export function answerAssignment(id: string, answer: QueueAnswer): Promise<Receipt> {
  givenToday.value += 1;
  const path = `/api/queue/${encodeURIComponent(id)}/answer`;
  return outbox.post({ key: crypto.randomUUID(), method: "POST", path, body: answer }) as Promise<Receipt>;
}

/** Decides where people disagreed about an item of the queue. */
export function decideDisagreement(id: string, answer: QueueAnswer): Promise<Receipt> {
  givenToday.value += 1;
  const path = `/api/queue/disagreements/${encodeURIComponent(id)}/verdict`;
  return outbox.post({ key: crypto.randomUUID(), method: "POST", path, body: answer }) as Promise<Receipt>;
}

/** Shows a judgment that went another way than by the outbox. */
export function note(one: Said): void {
  const map = new Map(said.value);
  for (const address of addresses(one.body)) map.set(address, [...(map.get(address) ?? []), one]);
  said.value = map;
  const address = addresses(one.body).at(-1);
  if (address) newest.value = { address, key: one.key };
}

export function change(which: (one: Said) => boolean, to: Partial<Said>): void {
  const map = new Map(said.value);
  for (const [address, list] of map)
    if (list.some(which))
      map.set(
        address,
        list.map((one) => (which(one) ? { ...one, ...to } : one)),
      );
  said.value = map;
}

/** Takes a judgment back: out of the outbox, or by a retraction. */
export async function takeBack(one: Said): Promise<void> {
  if (outbox.cancel(one.key)) return change((other) => other.key === one.key, { status: "retracted" });
  const id = one.id ?? [...said.value.values()].flat().find((other) => other.key === one.key)?.id;
  if (!id) return;
  change((other) => other.key === one.key, { status: "retracted" });
  await outbox.post({ key: crypto.randomUUID(), method: "DELETE", path: `${PATH}/${id}`, body: null });
}

/** Shows what was said earlier about stored completions. */
export function recall(completions: Completion[]): void {
  const map = new Map(said.value);
  for (const completion of completions) {
    const address = addressOf({ completion_id: completion.id, choice: completion.choice });
    const known = new Set((map.get(address) ?? []).map((one) => one.id));
    const stored = completion.feedback.filter((one) => !known.has(one.id)).map(fromStored);
    if (stored.length) map.set(address, [...stored, ...(map.get(address) ?? [])]);
  }
  said.value = map;
}

/** Shows what waits in the outbox since an earlier tab. */
export function recallLetters(letters: readonly Letter[]): void {
  const known = new Set([...said.value.values()].flat().map((one) => one.key));
  for (const { key, path, body, method } of letters.filter((letter) => !known.has(letter.key)))
    if (method === "POST" && path === PATH)
      note({ key, id: null, seq: null, body: body as FeedbackBody, status: "sending" });
  newest.value = null;
}

function fromStored(stored: Feedback): Said {
  // What is usual is left out of a stored judgment.
  const body = stored.kind === "rating" ? { ...stored, scale: stored.scale ?? { low: 1, high: 5 } } : stored;
  return {
    key: stored.id,
    id: stored.id,
    seq: stored.seq,
    body,
    status: stored.status ?? "saved",
    ...(stored.version && { version: stored.version }),
  };
}

function delivered(letter: Letter, reply: Receipt | null): void {
  if (letter.method === "DELETE" || !reply) return;
  change((one) => one.key === letter.key && isForward(one.status, "saved"), {
    id: reply.id,
    seq: reply.seq,
    status: reply.status === "waiting" ? "waiting" : "saved",
  });
  moveOn();
}

/** Shows which judgments are in a version by now: learned, or live where it is the one in use. */
function moveOn(): void {
  const news = policy.value;
  if (!news) return;
  const version = `v${news.active}`;
  const moved = (one: Said): Said => {
    const status = stageOf(one.status, one.seq, news);
    if (status === "live")
      return one.status === status && one.version === version ? one : { ...one, status, version };
    // After a roll-back a judgment is learned, and no longer live.
    if (status !== one.status) return { ...one, status };
    return one;
  };
  const map = new Map([...said.value].map(([address, list]) => [address, list.map(moved)]));
  const same = [...map].every(([address, list]) =>
    list.every((one, at) => one === said.value.get(address)?.[at]),
  );
  if (!same) said.value = map;
}

effect(() => {
  if (policy.value) untracked(moveOn);
});

const isForward = (from: Status, to: Status) => ORDER.indexOf(to) > ORDER.indexOf(from) || from === "refused";

socket.listen((message) => {
  if (message.type !== "feedback") return;
  const { id, status, version } = message;
  change(
    (one) =>
      one.id === id &&
      one.status !== "retracted" &&
      (status === "retracted" || isForward(one.status, status)),
    {
      status,
      ...(version && { version }),
    },
  );
});

export type { ApiError };
