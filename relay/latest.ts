/** The latest figures: of each the last value only, so that whoever is slow is never owed what has been overtaken. */

interface Standing {
  readonly version: number
  readonly frame: Buffer
}

/** Those that a lane sees. */
export class Latest {
  readonly #standing = new Map<string, Standing>()
  #newest = 0

  /** Whoever has seen this version has seen all. 0: there is none. */
  get newest(): number {
    return this.#newest
  }

  /** @param version of all that were ever put anywhere, the highest. */
  put(name: string, version: number, frame: Buffer): void {
    // The order of the map is that of the versions.
    this.#standing.delete(name)
    this.#standing.set(name, { version, frame })
    this.#newest = version
  }

  delete(name: string): void {
    this.#standing.delete(name)
  }

  /** Those that are newer, in order. */
  *since(version: number): Generator<Standing> {
    for (const standing of this.#standing.values()) if (standing.version > version) yield standing
  }
}
