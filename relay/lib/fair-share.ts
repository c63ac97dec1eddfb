/** Fair shares: whose turn it is, by what each has had so far. Pure. */

/**
 * Who asks for the first time, or after a while, begins where the others are: a share is not saved up, and who has had
 * more than the others waits until they have had as much. Where they are moves on with each turn, so that whoever waits
 * goes before those who come later, however many they are.
 */
export class FairShare {
  #now = 0
  readonly #due = new Map<string, number>()

  /** Where a user stands: the lowest is next. */
  due(user: string): number {
    return this.#due.get(user) ?? this.#now
  }

  /** A user begins to wait. */
  enter(user: string): void {
    this.#due.set(user, Math.max(this.#now, this.due(user)))
  }

  /**
   * A user's turn begins.
   * @param waits whether a user still does: the others are forgotten once they stand where whoever comes begins.
   */
  begin(user: string, waits: (user: string) => boolean): void {
    this.#now = Math.max(this.#now, this.due(user))
    for (const [each, due] of this.#due) if (due <= this.#now && !waits(each)) this.#due.delete(each)
  }

  /** A user has had so much more. */
  charge(user: string, cost: number): void {
    this.#due.set(user, this.due(user) + cost)
  }

  /** A turn that cost so much has ended. @param waiting how many users wait. */
  pass(cost: number, waiting: number): void {
    this.#now += cost / (waiting + 1)
  }
}
