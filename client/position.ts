/** What was delivered: a cursor, and the ids that came after it. The relay may repeat a change, the client does not. */

/** A position as it is stored. */
export interface SavedPosition {
  cursor: string
  ids: string[]
}

/**
 * Each id is kept with the connection on which it last came. A cursor covers what came on the present connection only:
 * an earlier one may have been to a relay that was ahead of this one, which then repeats those ids after its cursor.
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

  /** Remembers an id. @returns false if it came before. */
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

  /** The same position by another name: what came after it may come again. */
  rename(cursor: string): void {
    this.#cursor = cursor
  }

  /** Nothing that came before counts any more. */
  forget(): void {
    this.#cursor = undefined
    this.#ids.clear()
  }

  restore({ cursor, ids }: SavedPosition): void {
    this.#cursor = cursor
    // They came before the present connection, which may have begun already.
    this.#ids = new Map(ids.map((id) => [id, this.#connection - 1]))
  }

  /** What `restore` takes; undefined without a cursor. */
  save(): SavedPosition | undefined {
    return this.#cursor === undefined ? undefined : { cursor: this.#cursor, ids: [...this.#ids.keys()] }
  }
}
