/** Where the client stands: a cursor, and the ids that came after it. The wire repeats, this does not. */

export interface Place {
  cursor: string
  ids: string[]
}

/**
 * Ids are kept with the connection that they last came on. A cursor says what has come on the present one; what came on
 * an earlier one, from a relay that was further, this relay will send again although it has moved the cursor.
 */
export class Position {
  #cursor: string | undefined
  #ids = new Map<string, number>()
  #connection = 0

  get cursor(): string | undefined {
    return this.#cursor
  }

  /** Another connection begins. */
  reconnect(): void {
    this.#connection++
  }

  /** Takes note of an id. @returns false if it came before. */
  take(id: string): boolean {
    const isNew = !this.#ids.has(id)
    this.#ids.set(id, this.#connection)
    return isNew
  }

  /** Everything up to this cursor has come on this connection. */
  move(cursor: string): void {
    this.#cursor = cursor
    for (const [id, connection] of this.#ids) if (connection === this.#connection) this.#ids.delete(id)
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
    this.#ids = new Map(ids.map((id) => [id, this.#connection]))
  }

  place(): Place | undefined {
    return this.#cursor === undefined ? undefined : { cursor: this.#cursor, ids: [...this.#ids.keys()] }
  }
}
