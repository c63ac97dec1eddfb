/** Sorting the changes of one transaction to one table into a right order, see order-proof.ts. Pure. */

import type { RowChange } from "./change.ts"
import { IdleVersions, isIdle, keyOf, madeHere } from "./order-proof.ts"

/** A change, and which others it depends on. */
interface Step {
  /** Its place in the log. */
  readonly place: number
  readonly change: RowChange
  /** The key that it removes, and the one that it sets. */
  readonly previous: string | undefined
  readonly key: string | undefined
  /** The step that made the row which this one replaces. */
  maker: Step | undefined
  /** The step that replaces the row which this one made. */
  replacer: Step | undefined
  /** Steps that have to come first. */
  readonly first: Step[]
  state: "waiting" | "entered" | "done"
}

/**
 * @param changes in the order of the log.
 * @returns the same changes, without idle updates, in a right order, as near as possible to that of the log; undefined if there is none or if
 * what happened is not certain.
 */
export function sortChanges(changes: readonly RowChange[]): RowChange[] | undefined {
  const idle = new IdleVersions()
  for (const change of changes) if (isIdle(change) && !idle.add(change)) return undefined
  const steps = changes.filter((change) => !isIdle(change)).map(stepOf)
  if (!linkVersions(steps, idle) || !linkUnversioned(steps, idle)) return undefined
  const setters = lastSetters(steps)
  if (mayLeaveRows(steps, setters)) return undefined
  for (const step of steps) {
    if (step.maker !== undefined) step.first.push(step.maker)
    for (const key of keysOf(step)) {
      const setter = setters.get(key)
      if (setter !== undefined && setter !== step) setter.first.push(step)
    }
  }
  const sorted = inOrder(steps)
  return sorted !== undefined && endsWith(sorted, setters) ? sorted.map(({ change }) => change) : undefined
}

function stepOf(change: RowChange, place: number): Step {
  const { before, after, meta } = change
  return {
    place,
    change,
    previous: before && keyOf(before.text, meta),
    key: after && keyOf(after.text, meta),
    maker: undefined,
    replacer: undefined,
    first: [],
    state: "waiting",
  }
}

const keysOf = ({ previous, key }: Step): string[] =>
  [previous, previous === key ? undefined : key].filter((each) => each !== undefined)

/** Whether the row that it sets is there at the end. */
const lives = (step: Step): boolean => step.key !== undefined && step.replacer === undefined

/** @returns false if a version was made or replaced twice. */
function linkVersions(steps: readonly Step[], idle: IdleVersions): boolean {
  const makers = new Map<string, Step>()
  for (const step of steps) {
    const version = step.change.newVersion
    if (version === undefined) continue
    if (makers.has(version)) return false
    makers.set(version, step)
  }
  const replaced = new Set<string>()
  for (const step of steps) {
    if (step.previous === undefined) continue
    const { oldVersion } = step.change
    const version = oldVersion && idle.first(oldVersion)
    if (version === undefined || replaced.has(version)) return false
    replaced.add(version)
    const maker = makers.get(version)
    step.maker = maker
    if (maker !== undefined) maker.replacer = step
  }
  return true
}

/**
 * Finds which change replaced a row that was inserted without its version: one of the same key and content, after an insert
 * that was live when it was logged. A delete has the xmin beside. Of an update it is not always certain: a row that was
 * there before may have left its key in a statement during which the same row was inserted again.
 * @returns false if it is not certain.
 */
function linkUnversioned(steps: readonly Step[], idle: IdleVersions): boolean {
  const inserts = new Map<string, Step[]>()
  for (const step of steps)
    if (step.change.op === "insert" && step.change.newVersion === undefined && step.key !== undefined)
      push(inserts, step.key, step)
  if (inserts.size === 0) return true
  for (const step of steps) {
    if (step.maker !== undefined || step.previous === undefined) continue
    const inserted = inserts.get(step.previous) ?? []
    const candidates = inserted.filter((insert) => mayReplace(step, insert))
    const here = madeHere(step.change, step.change.oldVersion && idle.first(step.change.oldVersion))
    if (candidates.length === 0 || here === false) continue
    if (here === undefined && !isCertain(step.previous, step, inserted)) return false
    if (!candidates.every((each) => isSame(each, candidates[0]))) return false
    const insert = candidates.findLast(({ place }) => place < step.place) ?? candidates[0]
    step.maker = insert
    if (insert !== undefined) insert.replacer = step
  }
  return true
}

function mayReplace(step: Step, insert: Step): boolean {
  if (insert.replacer !== undefined || (insert.change.live === true && insert.place > step.place))
    return false
  return mayBe(insert, step)
}

/** Whether it makes no difference which of two inserts made a row. */
const isSame = ({ change }: Step, other: Step | undefined): boolean =>
  change.oversize === other?.change.oversize && change.after?.text === other.change.after?.text

/** Whether the row that a step replaces is certain to be one of those that were inserted with its key. */
function isCertain(key: string, start: Step, inserted: readonly Step[]): boolean {
  if (start.key !== key) return false
  let step = start
  while (step.key === key && step.replacer !== undefined) step = step.replacer
  // To the end nothing else can have that key.
  if (step.key === key) return inserted.length === 1
  // Another row had to leave the key before the insert, so in a statement within the one of the first step.
  const { deferred } = start.change.meta
  return deferred !== true && step.place > start.place && inserted.every(({ place }) => place < start.place)
}

/** Whether the row that was inserted may be the one that the other step replaces. */
const mayBe = ({ change: insert }: Step, { change }: Step): boolean =>
  insert.oversize || change.oversize || insert.after?.text === change.before?.text

/** For each key that is there at the end the step that sets it. A key that is not unique has the last of its rows. */
function lastSetters(steps: readonly Step[]): Map<string, Step> {
  const setters = new Map<string, Step>()
  for (const step of steps) if (step.key !== undefined && lives(step)) setters.set(step.key, step)
  return setters
}

/**
 * Whether a row that was there before may be left with a key that others had meanwhile: with a deferrable key they could,
 * and the log has nothing of that row.
 */
function mayLeaveRows(steps: readonly Step[], setters: ReadonlyMap<string, Step>): boolean {
  if (!steps.some(({ change }) => change.meta.deferred === true)) return false
  const known = new Set(setters.keys())
  for (const { maker, previous } of steps)
    if (maker === undefined && previous !== undefined) known.add(previous)
  return steps.some((step) => keysOf(step).some((key) => !known.has(key)))
}

/** Each step after those that have to come first, otherwise as they are. @returns undefined if there is a cycle. */
function inOrder(steps: readonly Step[]): Step[] | undefined {
  const sorted: Step[] = []
  for (const step of steps) {
    const open = [step]
    for (let top = open.at(-1); top !== undefined; top = open.at(-1)) {
      if (top.state === "waiting") {
        top.state = "entered"
        const needed = top.first.filter(({ state }) => state !== "done")
        if (needed.some(({ state }) => state === "entered")) return undefined
        // The last one is entered first.
        open.push(...needed.reverse())
        continue
      }
      open.pop()
      if (top.state === "done") continue
      top.state = "done"
      sorted.push(top)
    }
  }
  return sorted
}

/** Whether a client that applies the steps ends with exactly the keys that are set at the end. */
function endsWith(sorted: readonly Step[], setters: ReadonlyMap<string, Step>): boolean {
  const held = new Map<string, Step>()
  for (const step of sorted) {
    if (step.previous !== undefined) held.delete(step.previous)
    if (step.key !== undefined) held.set(step.key, step)
  }
  if (held.size !== setters.size) return false
  for (const [key, step] of setters) if (held.get(key) !== step) return false
  return true
}

function push(lists: Map<string, Step[]>, key: string, step: Step): void {
  const list = lists.get(key)
  if (list === undefined) lists.set(key, [step])
  else list.push(step)
}
