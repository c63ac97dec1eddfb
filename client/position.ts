/** Where the client stands: a cursor, and the ids that came after it. The wire repeats, this does not. */

export interface Place {
  cursor: string
  ids: string[]
}

export class Position {
  #cursor: string | undefined
  #ids = new Set<string>()

  get cursor(): string | undefined {
    return this.#cursor
  }

  /** Takes note of an id. @returns false if it came before. */
  take(id: string): boolean {
    const before = this.#ids.size
    return this.#ids.add(id).size > before
  }

  /** Everything up to this cursor has come, and will not come again. */
  move(cursor: string): void {
    this.#cursor = cursor
    this.#ids.clear()
  }

  /** The same place by another name: what came after it may come again. */
  rename(cursor: string): void {
    this.#cursor = cursor
  }

  /** What came before does not count any more. */
  forget(): void {
    this.#cursor = undefined
    this.#ids.clear()
  }

  restore({ cursor, ids }: Place): void {
    this.#cursor = cursor
    this.#ids = new Set(ids)
  }

  place(): Place | undefined {
    return this.#cursor === undefined ? undefined : { cursor: this.#cursor, ids: [...this.#ids] }
  }
}
