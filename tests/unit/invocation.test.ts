/** The command line is named as it can be called from where it runs. */

import { join } from "node:path"
import t from "tap"
import { invocation, programOf } from "../../cli/invocation.ts"

t.test("in a checkout it is npm's script", async (t) => {
  t.equal(invocation("token --user 7"), "npm run -s commitcast -- token --user 7")
})

t.test("where the package is installed it is its bin", async (t) => {
  t.equal(programOf("/srv/app/node_modules/commitcast/dist/cli/invocation.js"), "npx commitcast")
  t.equal(programOf("C:\\app\\node_modules\\commitcast\\dist\\cli\\invocation.js"), "npx commitcast")
})

t.test("of a build elsewhere it is the program itself", async (t) => {
  t.equal(programOf(join(process.cwd(), "dist/cli/invocation.js")), `node ${join("dist/cli/main.js")}`)
})
