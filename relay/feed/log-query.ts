/** A prepared query of a reading session, at the least cost: of a small read, describing its result took as long as reading it. */

import type pg from "pg"

/** One row, in the order of its columns; every value is PostgreSQL's text. */
export type Values = Array<string | null>

/** A query that its session has prepared under a name, or prepares with it. */
export interface Prepared {
  readonly name: string
  readonly text: string
  readonly values: readonly string[]
}

/**
 * What pg runs in place of a query of its own (its interface for cursors and streams). It asks for no description of the
 * rows, and hands on each as it comes.
 */
export class LogQuery implements pg.Submittable, Prepared {
  readonly name: string
  readonly text: string
  readonly values: string[]
  /** Resolves to the rows; rejects with the server's error, or when pg's query_timeout is over. */
  readonly rows: Promise<Values[]>
  /** pg puts one of its own around it, which also ends the timeout. */
  callback!: (error: Error | null, rows?: Values[]) => void
  readonly #rows: Values[] = []

  constructor({ name, text, values }: Prepared) {
    this.name = name
    this.text = text
    this.values = [...values]
    this.rows = new Promise((resolve, reject) => {
      this.callback = (error, rows) => (error === null ? resolve(rows ?? []) : reject(error))
    })
  }

  submit(connection: pg.Connection): void {
    const { name, text, values } = this
    const { stream, parsedStatements } = connection as pg.Connection & Statements
    stream.cork()
    try {
      if (parsedStatements[name] === undefined) connection.parse({ name, text, types: [] }, true)
      connection.bind({ statement: name, values }, true)
      connection.execute({}, true)
      connection.sync()
    } finally {
      stream.uncork()
    }
  }

  handleDataRow({ fields }: { fields: Values }): void {
    this.#rows.push(fields)
  }

  handleCommandComplete(): void {}

  handleError(error: Error): void {
    this.callback(error)
  }

  handleReadyForQuery(): void {
    this.callback(null, this.#rows)
  }
}

/** What pg has prepared on a connection, by name; it enters what a query of ours has, too. */
interface Statements {
  readonly parsedStatements: Readonly<Record<string, string | undefined>>
}
