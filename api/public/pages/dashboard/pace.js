// @ts-check
/** How many changes came in each of the last 60 seconds. */

const SECONDS = 60
const RATE_SECONDS = 10

export function createPace() {
  /** The current second is the last. @type {number[]} */
  const counts = new Array(SECONDS).fill(0)
  let second = now()

  function now() {
    return Math.floor(performance.now() / 1_000)
  }

  function move() {
    const to = now()
    for (let passed = Math.min(to - second, SECONDS); passed > 0; passed--) {
      counts.shift()
      counts.push(0)
    }
    second = to
  }

  return {
    add() {
      move()
      counts[SECONDS - 1] = (counts[SECONDS - 1] ?? 0) + 1
    },
    /** Changes a second. */
    rate() {
      move()
      return counts.slice(-RATE_SECONDS).reduce((sum, count) => sum + count, 0) / RATE_SECONDS
    },
    /** The path of a bar a second, in a box of 60 by 20. */
    bars() {
      move()
      const most = Math.max(...counts, 1)
      return counts
        .map((count, index) => {
          const height = count === 0 ? 0.5 : 2 + (count / most) * 17
          return `M${index + 0.15} 20v${-height.toFixed(2)}h.7v${height.toFixed(2)}z`
        })
        .join("")
    },
  }
}
