// The outbox's drawer in IndexedDB.
import type { Drawer, Letter } from "./outbox";

const STORE = "letters";

export class IndexedDrawer implements Drawer {
  #opened: Promise<IDBDatabase> | undefined;

  constructor(
    readonly factory: IDBFactory = indexedDB,
    readonly name = "rewardloop",
  ) {}

  all(): Promise<Letter[]> {
    return this.#ask("readonly", (store) => store.getAll() as IDBRequest<Letter[]>);
  }

  async put(letter: Letter): Promise<void> {
    await this.#ask("readwrite", (store) => store.put(letter));
  }

  async delete(key: string): Promise<void> {
    await this.#ask("readwrite", (store) => store.delete(key));
  }

  async #ask<T>(mode: IDBTransactionMode, question: (store: IDBObjectStore) => IDBRequest<T>): Promise<T> {
    const database = await this.#open();
    return new Promise((resolve, reject) => {
      const transaction = database.transaction(STORE, mode, { durability: "strict" });
      const request = question(transaction.objectStore(STORE));
      transaction.oncomplete = () => resolve(request.result);
      transaction.onabort = () => reject(transaction.error ?? new Error("the browser's store gave up"));
    });
  }

  #open(): Promise<IDBDatabase> {
    this.#opened ??= new Promise<IDBDatabase>((resolve, reject) => {
      const request = this.factory.open(this.name, 1);
      request.onupgradeneeded = () => request.result.createObjectStore(STORE, { keyPath: "key" });
      request.onsuccess = () => resolve(request.result);
      request.onerror = () => reject(request.error ?? new Error("the browser keeps no data"));
    });
    return this.#opened;
  }
}
