// Live votes: words appear at the pace of a reader, and a key that is held marks them as they do.
import { computed, effect, signal } from "@preact/signals";
import type { Target } from "./contract";
import { type Answer, isRunning } from "./generation";
import { change, deliver, note, PATH } from "./judgments";
import { complain } from "./notices";
import { socket } from "./socket";
import { stored } from "./stored";

export type Hold = 1 | -1 | 0;

export const wordsPerSecond = stored<number>("pace", 6);
export const watched = signal<Answer | null>(null);
export const shownCount = signal(0);
export const holding = signal<Hold>(0);
export const marks = signal<ReadonlyMap<number, number>>(new Map());
let shownAt = 0; // when the newest token was drawn, on the clock of performance.now()
let timer: ReturnType<typeof setTimeout> | undefined;

export const shownTokens = computed(() => watched.value?.tokens.value.slice(0, shownCount.value) ?? []);
export const flowing = computed(() => {
  const answer = watched.value;
  return !!answer && (isRunning(answer) || shownCount.value < answer.tokens.value.length);
});

/** Lets `answer` flow from its first token. */
export function watch(answer: Answer): void {
  watched.value = answer;
  shownCount.value = 0;
  marks.value = new Map();
  holding.value = 0;
  clearTimeout(timer);
  tick();
}

export function unwatch(): void {
  clearTimeout(timer);
  holding.value = 0;
}

function tick(): void {
  const answer = watched.value;
  if (!answer) return;
  if (shownCount.value < answer.tokens.value.length) {
    shownCount.value += 1;
    shownAt = performance.now();
    if (holding.value) mark(holding.value);
  }
  if (flowing.value) timer = setTimeout(tick, 1000 / wordsPerSecond.value);
  else holding.value = 0;
}

/** Begins to hold + or -: the newest word is marked at once, and those that follow while the key is down. */
export function hold(value: 1 | -1): void {
  if (holding.value === value || !watched.value || shownCount.value === 0) return;
  holding.value = value;
  mark(value);
}

export function release(): void {
  holding.value = 0;
}

function mark(value: 1 | -1): void {
  const answer = watched.value;
  const completion_id = answer?.completionId.value;
  const index = shownCount.value - 1;
  if (!answer || !completion_id || index < 0 || marks.value.get(index) === value) return;
  marks.value = new Map(marks.value).set(index, value);
  void sendMark(
    { completion_id, choice: answer.choice },
    index,
    value,
    Math.round(performance.now() - shownAt),
  );
}

/** A live vote goes by the socket, which is quickest; where the line is down it goes into the outbox like all else. */
async function sendMark(
  target: Target,
  token_index: number,
  value: 1 | -1,
  reaction_ms: number,
): Promise<void> {
  const key = crypto.randomUUID();
  const body = { target, kind: "live" as const, value, token_index, reaction_ms };
  try {
    const choice = target.choice ?? 0;
    const ack = await within(
      4_000,
      socket.send({
        type: "live",
        completion_id: target.completion_id,
        choice,
        token_index,
        value,
        reaction_ms,
        key,
      }),
    );
    if (!ack.ok) throw new Error(typeof ack.error === "string" ? ack.error : ack.error?.message);
    note({ key, id: null, seq: ack.seq ?? null, body, status: "saved" });
    change((one) => one.key === key, { status: "saved" });
  } catch {
    await deliver(PATH, body, key).catch(complain);
  }
}

function within<T>(ms: number, promise: Promise<T>): Promise<T> {
  return Promise.race([
    promise,
    new Promise<T>((_, reject) => setTimeout(() => reject(new Error("no answer in time")), ms)),
  ]);
}

// A word that is held down must not stay held when the window loses the keyboard.
effect(() => {
  if (holding.value) addEventListener("blur", release, { once: true });
});
