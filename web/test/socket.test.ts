import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { Socket } from "../src/lib/socket";

/** A line that says what it is told to, and remembers what was said to it. */
class FakeLine {
  static readonly OPEN = 1;
  static lines: FakeLine[] = [];
  readonly said: { type: string; n: number; last?: number }[] = [];
  readyState = 0;
  onopen = () => {};
  onclose = () => {};
  onmessage = (_event: { data: string }) => {};

  constructor() {
    FakeLine.lines.push(this);
  }
  send(text: string): void {
    this.said.push(JSON.parse(text));
  }
  close(): void {
    this.readyState = 3;
    this.onclose();
  }
  open(): void {
    this.readyState = FakeLine.OPEN;
    this.onopen();
  }
  hear(...messages: object[]): void {
    for (const message of messages) this.onmessage({ data: JSON.stringify(message) });
  }
  get resumes(): number[] {
    return this.said.filter(({ type }) => type === "resume").map(({ last }) => last!);
  }
}

const news = (s: number) => ({ type: "model", version: `v${s}`, s });

let socket: Socket;
let heard: number[];
let forgotten: number;

beforeEach(() => {
  vi.useFakeTimers();
  vi.stubGlobal("WebSocket", FakeLine);
  vi.stubGlobal("location", { href: "http://localhost/" });
  FakeLine.lines = [];
  heard = [];
  forgotten = 0;
  socket = new Socket();
  socket.onMended = (remembered) => {
    if (!remembered) forgotten += 1;
  };
  socket.listen((message) => heard.push(message.s!));
  socket.open();
});
afterEach(() => {
  socket.close();
  vi.useRealTimers();
  vi.unstubAllGlobals();
});

/** Breaks the line and waits for the next one. */
async function breakLine(): Promise<FakeLine> {
  FakeLine.lines.at(-1)!.close();
  await vi.advanceTimersByTimeAsync(20_000);
  const mended = FakeLine.lines.at(-1)!;
  mended.open();
  return mended;
}

describe("the line", () => {
  it("asks for what it missed when it is mended, and hears everything once and in order", async () => {
    FakeLine.lines[0]!.open();
    FakeLine.lines[0]!.hear(news(1), news(2));
    const mended = await breakLine();
    expect(mended.resumes).toEqual([2]);
    mended.hear(news(5), news(3), news(4), news(4), news(5));
    expect(heard).toEqual([1, 2, 3, 4, 5]);
  });

  it("asks again for what is missing in between", () => {
    const line = FakeLine.lines[0]!;
    line.open();
    line.hear(news(1), news(3));
    expect(line.resumes).toEqual([1]);
    line.hear(news(2), news(3));
    expect(heard).toEqual([1, 2, 3]);
  });

  it("goes on where the server began anew, and says that it forgot", async () => {
    FakeLine.lines[0]!.open();
    FakeLine.lines[0]!.hear(news(1), news(2), news(3));
    const mended = await breakLine();
    mended.hear(news(1), news(2));
    expect(heard).toEqual([1, 2, 3, 1, 2]);
    expect(forgotten).toBe(1);
  });

  it("does not wait for ever for what the server keeps no longer", async () => {
    const line = FakeLine.lines[0]!;
    line.open();
    line.hear(news(1));
    for (let round = 0; round < 5; round++) {
      line.hear(news(9));
      line.hear({ type: "ack", n: line.said.at(-1)!.n, ok: true });
      await vi.advanceTimersByTimeAsync(1);
    }
    expect(heard).toEqual([1, 9]);
  });

  it("tells who sent something that the line broke before it was heard", async () => {
    FakeLine.lines[0]!.open();
    const sent = expect(socket.send({ type: "cancel", request: "r" })).rejects.toThrow("broke");
    FakeLine.lines[0]!.close();
    await sent;
    await expect(socket.send({ type: "cancel", request: "r" })).rejects.toThrow("down");
  });
});
