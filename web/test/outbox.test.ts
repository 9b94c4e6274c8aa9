import "fake-indexeddb/auto";
import { IDBFactory } from "fake-indexeddb";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { ApiError } from "../src/lib/api";
import { IndexedDrawer } from "../src/lib/drawer";
import { backOff, isPassing, type Letter, Outbox } from "../src/lib/outbox";

const letter = (key: string, body: unknown = { kind: "comment", text: key }) => ({
  key,
  method: "POST" as const,
  path: "/v1/feedback",
  body,
});
const down = () => new ApiError(0, { message: "not reached" });
const refusal = (status: number) => new ApiError(status, { message: `status ${status}` });

/** A gateway that keeps each idempotency key once, and fails as told. */
function gateway() {
  const kept = new Map<string, unknown>();
  const failures: (Error | null)[] = [];
  const arrivals: string[] = [];
  const send = async (sent: Letter) => {
    arrivals.push(sent.key);
    const failure = failures.shift();
    if (failure) throw failure;
    kept.set(sent.key, sent.body);
    return { id: sent.key, seq: kept.size, status: "accepted" };
  };
  return { kept, failures, arrivals, send };
}

let factory: IDBFactory;
const drawer = () => new IndexedDrawer(factory);
// fake-indexeddb answers on real timers; only the outbox's own are held.
beforeEach(() => {
  factory = new IDBFactory();
  vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] });
});
afterEach(() => vi.useRealTimers());
const settle = async () => {
  for (let turn = 0; turn < 40; turn++) await new Promise((resolve) => setImmediate(resolve));
};

describe("the outbox", () => {
  it("delivers, tells the reply, and keeps nothing", async () => {
    const server = gateway();
    const box = new Outbox(drawer(), server.send);
    await box.open("u1");
    expect(await box.post(letter("a"))).toEqual({ id: "a", seq: 1, status: "accepted" });
    await settle();
    expect(box.letters.value).toEqual([]);
    expect(await drawer().all()).toEqual([]);
  });

  it("sends nothing before it is written down", async () => {
    let written = () => {};
    const slow = {
      all: async () => [],
      put: () => new Promise<void>((resolve) => (written = resolve)),
      delete: async () => {},
    };
    const server = gateway();
    const box = new Outbox(slow, server.send);
    await box.open("u1");
    const reply = box.post(letter("a"));
    await settle();
    expect(server.arrivals).toEqual([]);
    written();
    await reply;
    expect(server.arrivals).toEqual(["a"]);
  });

  it("survives a closed tab: the next one delivers what the last could not", async () => {
    const server = gateway();
    server.failures.push(down());
    const first = new Outbox(drawer(), server.send);
    await first.open("u1");
    void first.post(letter("a"));
    await settle();
    expect(server.kept.size).toBe(0);
    first.close();

    const second = new Outbox(drawer(), server.send);
    await second.open("u1");
    await settle();
    expect([...server.kept.keys()]).toEqual(["a"]);
    expect(await drawer().all()).toEqual([]);
  });

  it("tries again until it works, in order, with one key", async () => {
    const server = gateway();
    server.failures.push(down(), refusal(503), refusal(507), refusal(429));
    const box = new Outbox(drawer(), server.send);
    await box.open("u1");
    const replies = Promise.all([box.post(letter("a")), box.post(letter("b"))]);
    for (let round = 0; round < 8; round++) {
      await settle();
      await vi.advanceTimersByTimeAsync(60_000);
    }
    await replies;
    expect(server.arrivals).toEqual(["a", "a", "a", "a", "a", "b"]);
    expect([...server.kept.keys()]).toEqual(["a", "b"]);
  });

  it("keeps a refused letter for the person to see, and goes on with the next", async () => {
    const server = gateway();
    server.failures.push(refusal(400));
    const refused: string[] = [];
    const box = new Outbox(drawer(), server.send, undefined, (one) => refused.push(one.key));
    await box.open("u1");
    const no = expect(box.post(letter("a"))).rejects.toThrow("status 400");
    await box.post(letter("b"));
    await no;
    await settle();
    expect(refused).toEqual(["a"]);
    expect(box.letters.value.map((one) => one.refused)).toEqual(["status 400"]);
    expect((await drawer().all()).map((one) => one.key)).toEqual(["a"]);
    expect(box.cancel("a")).toBe(true);
  });

  it("sends nobody else's letters", async () => {
    const server = gateway();
    server.failures.push(down());
    const box = new Outbox(drawer(), server.send);
    await box.open("u1");
    void box.post(letter("a"));
    await settle();
    box.close();
    await box.open("u2");
    await settle();
    expect(server.kept.size).toBe(0);
    expect(box.letters.value).toEqual([]);
    await box.open("u1");
    await settle();
    expect(server.kept.has("a")).toBe(true);
  });

  it("takes back what is not on its way", async () => {
    let let_go = (_: unknown) => {};
    const box = new Outbox(drawer(), (one) =>
      one.key === "a" ? new Promise((resolve) => (let_go = resolve)) : Promise.resolve({}),
    );
    await box.open("u1");
    const first = box.post(letter("a"));
    void box.post(letter("b")).catch(() => {});
    await settle();
    expect(box.cancel("a")).toBe(false);
    expect(box.cancel("b")).toBe(true);
    let_go({});
    await first;
    await settle();
    expect(await drawer().all()).toEqual([]);
  });

  it("works where the browser keeps nothing", async () => {
    const broken = {
      all: async () => [],
      put: () => Promise.reject(new Error("full")),
      delete: () => Promise.reject(new Error("full")),
    };
    const server = gateway();
    const box = new Outbox(broken, server.send);
    await box.open("u1");
    await box.post(letter("a"));
    expect(server.kept.has("a")).toBe(true);
  });
});

describe("what may pass", () => {
  it("is the network, a busy or broken server, and a lost session", () => {
    expect([0, 401, 408, 429, 500, 503, 507].map((status) => isPassing(refusal(status)))).not.toContain(
      false,
    );
    expect([400, 403, 404, 409, 413, 422].map((status) => isPassing(refusal(status)))).not.toContain(true);
    expect(isPassing(new ApiError(409, { message: "in flight" }, null, true))).toBe(true);
  });
  it("waits twice as long each time, to a minute, spread by a quarter", () => {
    expect([1, 2, 3, 7, 30].map((tries) => backOff(tries, () => 0.5))).toEqual([
      1000, 2000, 4000, 60_000, 60_000,
    ]);
    expect(backOff(1, () => 0)).toBe(750);
    expect(backOff(1, () => 1)).toBe(1250);
  });
});
