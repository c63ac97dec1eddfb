/** Fair shares: whose turn it is, by what each has had so far. Pure. */

/**
 * Who asks for the first time, or after a while, begins where the others are: a share is not saved up, and who has had
 * more than the others waits until they have had as much.
 */
export class FairShare {
  #now = 0
  readonly #due = new Map<string, number>()

  /** Where a user stands: the lowest is next. */
  due(user: string): number {
    return Math.max(this.#now, this.#due.get(user) ?? 0)
  }

  /** A user's turn begins. */
  begin(user: string): void {
    this.#now = this.due(user)
    for (const [each, due] of this.#due) if (due <= this.#now) this.#due.delete(each)
  }

  /** A user has had so much more. */
  charge(user: string, cost: number): void {
    this.#due.set(user, this.due(user) + cost)
  }
}
