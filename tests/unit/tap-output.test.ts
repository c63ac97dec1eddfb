/** What `npm test` reads from tap's output: each assertion is counted once, for the file that it is in. */

import t from "tap"
import { readOutput, sum } from "../helpers/tap-output.ts"

const OUTPUT = `TAP version 14
# Subtest: tests/a.test.ts
    # Subtest: on PostgreSQL 18
        # Subtest: the horizon
            ok 1 - is there
            not ok 2 - stays
            not ok 3 - comes back
            1..3
        not ok 1 - the horizon # time=2ms

        1..1
    not ok 1 - on PostgreSQL 18 # time=3ms

    # Subtest: on PostgreSQL 15
        1..0 # SKIP no PostgreSQL 15 on this machine
    ok 2 - on PostgreSQL 15 # SKIP no PostgreSQL 15 on this machine

    1..2
not ok 1 - tests/a.test.ts # time=4ms

# Subtest: tests/b.test.ts
    ok 1 - fine
    1..1
ok 2 - tests/b.test.ts # time=5ms

# Subtest: tests/c.test.ts
    ok 1 - fine
    1..1
not ok 3 - tests/c.test.ts # time=6ms
  ---
  exitCode: 3
  ...

1..3
`

t.test("assertions are counted by file, with the first that failed", async (t) => {
  t.strictSame(readOutput(OUTPUT), [
    {
      file: "tests/a.test.ts",
      ok: false,
      passed: 1,
      failed: 2,
      skipped: 1,
      error: "on PostgreSQL 18 > the horizon > stays",
    },
    { file: "tests/b.test.ts", ok: true, passed: 1, failed: 0, skipped: 0 },
    { file: "tests/c.test.ts", ok: false, passed: 1, failed: 1, skipped: 0, error: "it ended early" },
  ])
})

t.test("the sum is what tap itself counts", async (t) => {
  t.strictSame(sum(readOutput(OUTPUT)), { passed: 3, failed: 3, skipped: 1 })
  t.strictSame(sum([]), { passed: 0, failed: 0, skipped: 0 })
})

t.test("a file that was killed in the middle of a test has failed once", async (t) => {
  const output = `# Subtest: tests/d.test.ts
    ok 1 - fine
    # test count(1) != plan(null)
not ok 1 - tests/d.test.ts # time=7ms
  ---
  exitCode: null
  signal: SIGKILL
  ...
`
  t.strictSame(readOutput(output), [
    { file: "tests/d.test.ts", ok: false, passed: 1, failed: 1, skipped: 0, error: "it ended early" },
  ])
})

t.test("a run without output has no files", async (t) => {
  t.strictSame(readOutput(""), [])
})
