/** Filters: what a connection wants of all that it may see. They never widen what it may see. Pure. */

import { z } from "zod"
import { readDecimal } from "../change/decimal.ts"
import { identitiesOf, type Operand, orderOf, readOperand, type Value } from "../change/scalar.ts"
import type { ChangeMessage } from "./server-message.ts"

/** What has happened, as clients receive it. */
export type Action = ChangeMessage["action"]

/** The values of a column that pass. */
type Condition = { readonly column: string } & (
  | { readonly kind: "among" | "not_among"; readonly identities: ReadonlySet<string> }
  | { readonly kind: keyof typeof ORDERS; readonly operand: Operand }
)

export interface Filter {
  /** All of them must hold. */
  readonly where: readonly Condition[]
  /** Null: any. */
  readonly types: ReadonlySet<string> | null
  readonly actions: ReadonlySet<Action> | null
  /** Equal for equal filters. */
  readonly key: string
}

const ORDERS = {
  lt: (order: number) => order < 0,
  lte: (order: number) => order <= 0,
  gt: (order: number) => order > 0,
  gte: (order: number) => order >= 0,
}

// ------------------------------------------------------------------------------------------- what clients may send

const MAX_CONDITIONS = 16
const MAX_VALUES = 256
const MAX_CHARACTERS = 256
/** As long as a name in PostgreSQL can be. */
const MAX_NAME = 63
const MAX_TYPES = 32

/** JSON.parse has already rounded other numbers: what is compared must be what was meant. */
const isExact = (value: number): boolean =>
  Number.isSafeInteger(value) ||
  (Math.abs(value) < Number.MAX_SAFE_INTEGER && (readDecimal(String(value))?.digits.length ?? 0) <= 15)

const text = z.string().max(MAX_CHARACTERS)
const number = z.number().refine(isExact, "a number of more than 15 digits must be sent as a string")
const value = z.union([text, number, z.boolean()], "must be a string, a number, true or false")
const orderedValue = z.union([text, number], "must be a string or a number")

const isObject = (input: unknown): input is object =>
  typeof input === "object" && input !== null && !Array.isArray(input)
/** zod skips the name __proto__, and a condition would be lost. */
const plainObject = z.custom<object>(
  (input) => isObject(input) && !Object.hasOwn(input, "__proto__"),
  "must be an object, and no name in it __proto__",
)

const Operators = z.strictObject(
  {
    eq: value.nullable().optional(),
    neq: value.nullable().optional(),
    in: z.array(value).min(1).max(MAX_VALUES).optional(),
    lt: orderedValue.optional(),
    lte: orderedValue.optional(),
    gt: orderedValue.optional(),
    gte: orderedValue.optional(),
  },
  "the operators are eq, neq, in, lt, lte, gt, gte",
)
/** `where` as a client writes it, for the API reference. What is read is checked more closely. */
export const WhereText = z.record(z.string().max(MAX_NAME), z.union([value.nullable(), Operators]))

const Tests = z
  .preprocess(
    (input) => (typeof input === "object" && input !== null ? input : { eq: input }),
    plainObject.pipe(Operators),
  )
  .refine((tests) => Object.keys(tests).length > 0, "names no operator")
type Tests = z.infer<typeof Tests>

const Where = plainObject
  .pipe(z.record(z.string(), Tests))
  .refine(
    (where) => Object.keys(where).every((column) => column.length <= MAX_NAME),
    `a column's name has at most ${MAX_NAME} characters`,
  )
  .transform((where) => Object.entries(where).flatMap(([column, tests]) => conditionsOf(column, tests)))
  .refine(({ length }) => length <= MAX_CONDITIONS, `at most ${MAX_CONDITIONS} conditions`)

const Actions = z.enum([
  "create",
  "update",
  "delete",
  "leave",
  "truncate",
  "bulk_load",
] satisfies readonly Action[])

/** The fields of a filter. A field that is left out stays as it was; null removes it. */
export const FilterFields = z.object({
  where: Where.nullable().optional(),
  types: z
    .array(text.regex(/^[^,]+$/, "a type is a name without a comma"))
    .min(1)
    .max(MAX_TYPES)
    .nullable()
    .optional(),
  actions: z.array(Actions).min(1).max(MAX_TYPES).nullable().optional(),
})
export type FilterFields = z.infer<typeof FilterFields>

function conditionsOf(column: string, { eq, neq, in: among, ...orders }: Tests): Condition[] {
  const conditions: Condition[] = []
  if (eq !== undefined) conditions.push({ column, kind: "among", identities: new Set(identitiesOf(eq)) })
  if (among !== undefined)
    conditions.push({ column, kind: "among", identities: new Set(among.flatMap(identitiesOf)) })
  if (neq !== undefined)
    conditions.push({ column, kind: "not_among", identities: new Set(identitiesOf(neq)) })
  for (const kind of ["lt", "lte", "gt", "gte"] as const) {
    const scalar = orders[kind]
    if (scalar !== undefined) conditions.push({ column, kind, operand: readOperand(scalar) })
  }
  return conditions
}

/** The filter with these fields changed. @returns undefined if everything passes. */
export function amendFilter(filter: Filter | undefined, fields: FilterFields): Filter | undefined {
  const where = fields.where === undefined ? (filter?.where ?? []) : (fields.where ?? [])
  const types = fields.types === undefined ? (filter?.types ?? null) : setOf(fields.types)
  const actions = fields.actions === undefined ? (filter?.actions ?? null) : setOf(fields.actions)
  if (where.length === 0 && types === null && actions === null) return undefined
  const sorted = (values: ReadonlySet<string> | null) => values && [...values].sort()
  const key = JSON.stringify([where.map(conditionKey).sort(), sorted(types), sorted(actions)])
  return { where, types, actions, key }
}

const setOf = <Value>(values: readonly Value[] | null): ReadonlySet<Value> | null =>
  values === null ? null : new Set(values)

function conditionKey(condition: Condition): string {
  const { column, kind } = condition
  return JSON.stringify([
    column,
    kind,
    "identities" in condition ? [...condition.identities].sort() : condition.operand.scalar,
  ])
}

// ------------------------------------------------------------------------------------------- what passes

/** A column whose value nobody knows, because the row was too large: every condition on it holds. */
export const UNKNOWN = Symbol("unknown")

/** @param read a column's value, which is null if there is no such column. */
export function rowPasses({ where }: Filter, read: (column: string) => Value | typeof UNKNOWN): boolean {
  return where.every((condition) => {
    const value = read(condition.column)
    if (value === UNKNOWN) return true
    switch (condition.kind) {
      case "among":
        return condition.identities.has(value.identity)
      case "not_among":
        return !condition.identities.has(value.identity)
      default: {
        const order = orderOf(value, condition.operand)
        return order !== undefined && ORDERS[condition.kind](order)
      }
    }
  })
}

/** A column and the fewest values of which a row must have one to pass; undefined if no condition names values. */
export function fewestValues({
  where,
}: Filter): { column: string; identities: ReadonlySet<string> } | undefined {
  let fewest: { column: string; identities: ReadonlySet<string> } | undefined
  for (const condition of where) {
    if (condition.kind !== "among") continue
    if (fewest === undefined || condition.identities.size < fewest.identities.size) fewest = condition
  }
  return fewest
}
