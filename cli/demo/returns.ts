/** The returns of an election: who has how many votes in which committee, entry by entry. */

/** A committee and its entries, in two columns so that a large file costs some 16 bytes an entry. */
export interface Committee {
  name: string
  /** Indexes of candidates. */
  candidates: number[]
  votes: number[]
}

export class Returns {
  readonly elections: string[] = []
  /** `election` is an index, too. */
  readonly candidates: Array<{ election: number; name: string }> = []
  readonly committees: Committee[] = []
  readonly #elections = new Map<string, number>()
  /** By election. */
  readonly #candidates: Array<Map<string, number>> = []
  readonly #committees = new Map<string, Committee>()
  #entries = 0

  get entries(): number {
    return this.#entries
  }

  add(election: string, candidate: string, committee: string, votes: number): void {
    const its = this.#committee(committee)
    its.candidates.push(this.#candidate(this.#election(election), candidate))
    its.votes.push(votes)
    this.#entries++
  }

  #election(name: string): number {
    const known = this.#elections.get(name)
    if (known !== undefined) return known
    const index = this.elections.push(name) - 1
    this.#elections.set(name, index)
    this.#candidates.push(new Map())
    return index
  }

  #candidate(election: number, name: string): number {
    const those = this.#candidates[election] as Map<string, number>
    const known = those.get(name)
    if (known !== undefined) return known
    const index = this.candidates.push({ election, name }) - 1
    those.set(name, index)
    return index
  }

  #committee(name: string): Committee {
    const known = this.#committees.get(name)
    if (known !== undefined) return known
    const made: Committee = { name, candidates: [], votes: [] }
    this.committees.push(made)
    this.#committees.set(name, made)
    return made
  }
}
