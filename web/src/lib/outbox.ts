// What a person said must not be lost: it is written down in the browser before it is sent, sent until the
// gateway has it, and crossed out only then. A closed tab, a dead network and a restarted server change nothing.
import { type ReadonlySignal, signal } from "@preact/signals";
import { ApiError } from "./api";

export type Letter = {
  key: string; // the idempotency key: a second delivery does nothing
  user: string; // who wrote it; nobody else's session may send it
  method: "POST" | "DELETE";
  path: string;
  body: unknown;
  at: number; // ms since 1970
  tries: number;
  refused?: string; // the gateway's final no, kept for the person to see
};

/** Where letters lie until they are delivered. */
export interface Drawer {
  all(): Promise<Letter[]>;
  put(letter: Letter): Promise<void>;
  delete(key: string): Promise<void>;
}

export type Send = (letter: Letter) => Promise<unknown>;
export type Delivered = (letter: Letter, reply: unknown) => void;

const FIRST_WAIT_MS = 1_000;
const LONGEST_WAIT_MS = 60_000;

/** How long to wait after the `tries`-th failure, in ms; grows twofold and is spread so that tabs do not march in step. */
export function backOff(tries: number, random: () => number = Math.random): number {
  return Math.min(LONGEST_WAIT_MS, FIRST_WAIT_MS * 2 ** (tries - 1)) * (0.75 + random() / 2);
}

/** Whether trying again can help: the network, a busy or broken server, a lost session; not a wrong letter. */
export function isPassing(error: unknown): boolean {
  if (!(error instanceof ApiError)) return true;
  const { status } = error;
  return (
    status === 0 || status === 401 || status === 408 || status === 429 || status >= 500 || error.mayRetry
  );
}

export class Outbox {
  readonly #letters = signal<readonly Letter[]>([]);
  readonly #waiters = new Map<
    string,
    { resolve: (reply: unknown) => void; reject: (error: unknown) => void }
  >();
  #user: string | null = null;
  #busy: Promise<void> | null = null;
  #underway: string | null = null;
  #timer: ReturnType<typeof setTimeout> | undefined;

  constructor(
    readonly drawer: Drawer,
    readonly send: Send,
    readonly onDelivered: Delivered = () => {},
    readonly onRefused: (letter: Letter, error: ApiError) => void = () => {},
  ) {}

  /** Letters not delivered yet, oldest first. */
  get letters(): ReadonlySignal<readonly Letter[]> {
    return this.#letters;
  }

  /** Takes up what `user` left behind, here or in a closed tab, and sends it. */
  async open(user: string): Promise<void> {
    this.#user = user;
    const left = (await this.drawer.all()).filter((letter) => letter.user === user);
    this.#letters.value = left.sort((a, b) => a.at - b.at);
    void this.flush();
  }

  close(): void {
    this.#user = null;
    this.#letters.value = [];
    clearTimeout(this.#timer);
  }

  /** Writes a letter down and sends it; resolves with the gateway's reply, rejects with its final refusal. */
  async post(letter: Omit<Letter, "user" | "at" | "tries">): Promise<unknown> {
    if (this.#user === null) throw new Error("the outbox is closed: log in first");
    const whole: Letter = { ...letter, user: this.#user, at: Date.now(), tries: 0 };
    const reply = new Promise((resolve, reject) => this.#waiters.set(whole.key, { resolve, reject }));
    this.#letters.value = [...this.#letters.value, whole];
    await this.drawer.put(whole).catch(() => {}); // A private window may keep nothing; then it is sent at least.
    void this.flush();
    return reply;
  }

  /** Takes a letter back that is not on its way; false where it is, or is delivered. */
  cancel(key: string): boolean {
    if (this.#underway === key || !this.#letters.value.some((letter) => letter.key === key)) return false;
    this.#cross(key);
    this.#waiters.delete(key);
    return true;
  }

  /** Sends everything that waits, in order; one round at a time. */
  flush(): Promise<void> {
    clearTimeout(this.#timer);
    this.#busy ??= this.#round().finally(() => {
      this.#busy = null;
    });
    return this.#busy;
  }

  async #round(): Promise<void> {
    for (;;) {
      const letter = this.#letters.value.find((waiting) => !waiting.refused);
      if (!letter || letter.user !== this.#user) return;
      this.#underway = letter.key;
      const passed = await this.#deliver(letter);
      this.#underway = null;
      if (!passed) return;
    }
  }

  async #deliver(letter: Letter): Promise<boolean> {
    try {
      const reply = await this.send(letter);
      this.#cross(letter.key);
      this.onDelivered(letter, reply);
      this.#waiters.get(letter.key)?.resolve(reply);
      this.#waiters.delete(letter.key);
      return true;
    } catch (error) {
      return isPassing(error) ? this.#later(letter, error) : this.#refuse(letter, error as ApiError);
    }
  }

  #later(letter: Letter, error: unknown): false {
    const tried = { ...letter, tries: letter.tries + 1 };
    this.#replace(tried);
    const asked = error instanceof ApiError ? error.retryAfterS : null;
    this.#timer = setTimeout(() => void this.flush(), asked ? asked * 1000 : backOff(tried.tries));
    return false;
  }

  #refuse(letter: Letter, error: ApiError): true {
    this.#replace({ ...letter, refused: error.message });
    this.onRefused(letter, error);
    this.#waiters.get(letter.key)?.reject(error);
    this.#waiters.delete(letter.key);
    return true;
  }

  #replace(changed: Letter): void {
    this.#letters.value = this.#letters.value.map((letter) =>
      letter.key === changed.key ? changed : letter,
    );
    void this.drawer.put(changed).catch(() => {});
  }

  #cross(key: string): void {
    this.#letters.value = this.#letters.value.filter((letter) => letter.key !== key);
    void this.drawer.delete(key).catch(() => {});
  }
}
