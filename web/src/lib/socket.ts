// One WebSocket a tab: tokens come down, live votes go up. A broken line is mended and what was missed replayed.
import { signal } from "@preact/signals";
import type { ClientMessage, ErrorBody, ServerMessage } from "./contract";

export type Line = "connecting" | "open" | "broken" | "closed";
type Ack = { ok: boolean; error?: ErrorBody | string; seq?: number };
type Listener = (message: ServerMessage) => void;

const PING_MS = 25_000;
// A gap that stays after so many replays is older than what the server keeps.
const MOST_REPLAYS = 3;
const LONGEST_WAIT_MS = 15_000;

export class Socket {
  readonly line = signal<Line>("closed");
  readonly #listeners = new Set<Listener>();
  readonly #acks = new Map<number, { resolve: (ack: Ack) => void; reject: (error: Error) => void }>();
  #socket: WebSocket | null = null;
  #n = 0;
  #last = 0; // the highest server number seen
  #replays = 0; // asked for since the last message that followed
  #asking = false;
  #fresh = false; // mended, and no message since
  #failures = 0;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #ping: ReturnType<typeof setInterval> | undefined;
  #wanted = false;
  readonly #tab = crypto.randomUUID();

  /** How often the line was opened. */
  epoch = 0;

  /** Called when the line could not be mended at the second try. */
  onBroken: () => void = () => {};
  /** Called after the line was mended, and with false when the server turns out to have forgotten what it sent. */
  onMended: (resumed: boolean) => void = () => {};

  listen(listener: Listener): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  open(): void {
    this.#wanted = true;
    if (!this.#socket) this.#connect();
  }

  close(): void {
    this.#wanted = false;
    clearTimeout(this.#timer);
    this.#socket?.close();
    this.#socket = null;
    this.#last = 0;
    this.line.value = "closed";
  }

  /** Resolves when the line is open; rejects where that takes longer than `ms`. */
  ready(ms: number): Promise<void> {
    if (this.line.value === "open") return Promise.resolve();
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => end(() => reject(new Error("the line is down"))), ms);
      const stop = this.line.subscribe((line) => line === "open" && queueMicrotask(() => end(resolve)));
      const end = (then: () => void) => {
        clearTimeout(timer);
        stop();
        then();
      };
    });
  }

  /** Sends and resolves with the acknowledgement; rejects where the line is down or breaks first. */
  send(message: ClientMessage): Promise<Ack> {
    if (this.#socket?.readyState !== WebSocket.OPEN) return Promise.reject(new Error("the line is down"));
    const n = ++this.#n;
    this.#socket.send(JSON.stringify({ ...message, n }));
    return new Promise((resolve, reject) => this.#acks.set(n, { resolve, reject }));
  }

  #connect(): void {
    this.line.value = this.#failures ? "broken" : "connecting";
    const address = new URL(`/api/socket?tab=${this.#tab}`, location.href);
    address.protocol = address.protocol.replace("http", "ws");
    const socket = new WebSocket(address);
    this.#socket = socket;
    socket.onopen = () => this.#opened();
    socket.onmessage = (event) => this.#hear(JSON.parse(event.data as string) as ServerMessage);
    socket.onclose = () => this.#broke(socket);
  }

  #opened(): void {
    this.line.value = "open";
    const mended = this.#failures > 0 && this.#last > 0;
    this.#failures = 0;
    this.#ping = setInterval(() => this.#quietly({ type: "ping" }), PING_MS);
    this.epoch += 1;
    this.#fresh = mended;
    this.#asking = false;
    if (!mended) return;
    this.#askAgain();
    this.onMended(true);
  }

  #broke(socket: WebSocket): void {
    clearInterval(this.#ping);
    for (const { reject } of this.#acks.values()) reject(new Error("the line broke"));
    this.#acks.clear();
    if (socket !== this.#socket) return;
    this.#socket = null;
    if (!this.#wanted) return;
    this.line.value = "broken";
    this.#failures += 1;
    if (this.#failures === 2) this.onBroken();
    const wait = Math.min(LONGEST_WAIT_MS, 400 * 2 ** (this.#failures - 1)) * (0.75 + Math.random() / 2);
    this.#timer = setTimeout(() => this.#connect(), wait);
  }

  #hear(message: ServerMessage): void {
    if (message.s !== undefined && !this.#follows(message.s)) return;
    if (message.type === "ack") {
      this.#acks.get(message.n)?.resolve(message);
      this.#acks.delete(message.n);
      return;
    }
    for (const listener of this.#listeners) listener(message);
  }

  /** Whether message `s` is the next one. After a gap the rest is asked for again, in order. */
  #follows(s: number): boolean {
    const first = this.#fresh;
    this.#fresh = false;
    if (s === 1 && first && this.#last > 0) {
      // The server began anew, and counts from one.
      this.onMended(false);
    } else if (s <= this.#last) {
      return false; // replayed, and seen before
    } else if (s > this.#last + 1 && this.#replays < MOST_REPLAYS) {
      if (!this.#asking) this.#askAgain();
      return false;
    }
    this.#last = s;
    this.#replays = 0;
    return true;
  }

  #askAgain(): void {
    this.#asking = true;
    this.#replays += 1;
    this.send({ type: "resume", last: this.#last }).then(
      (ack) => {
        this.#asking = false;
        if (!ack.ok) this.onMended(false);
      },
      () => {
        this.#asking = false;
      },
    );
  }

  #quietly(message: ClientMessage): void {
    // Pings are answered by `pong` alone; nobody waits for an acknowledgement.
    if (this.#socket?.readyState === WebSocket.OPEN)
      this.#socket.send(JSON.stringify({ ...message, n: ++this.#n }));
  }
}

export const socket = new Socket();
